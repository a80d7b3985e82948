"""What anybody may ask: whether the service works, and the certificate to check it by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from coordinator.routing import Call, Handler
from coordinator.sequencer import Sequencer


class Reception:
    """Answers strangers, without a word about members; `handlers` by their names in the table of endpoints."""

    def __init__(self, sequencer: Sequencer, authority: Path, ready: Callable[[], bool]) -> None:
        """Speak for one service.

        Args:
            sequencer: Owner of the log.
            authority: Certificate that the port's TLS is checked against, PEM.
            ready: Whether hospitals can be served.
        """
        self._sequencer = sequencer
        self._authority = authority
        self._ready = ready
        self.handlers: dict[str, Handler] = {"health": self._health, "authority": self._show_authority}

    async def _health(self, call: Call) -> Response:
        status, reason = "ok", ""
        if self._sequencer.failure or self._sequencer.stopped:
            status, reason = "read-only", "a write failed, or the service is being stopped"
        elif not self._sequencer.standing.writable:
            status, reason = "read-only", "the log waits for a quorum of its witnesses after a stop"
        elif not self._ready():
            status, reason = "starting", "Flower's SuperLink is not ready yet"
        return JSONResponse({"status": status, "reason": reason}, headers={"cache-control": "no-store"})

    async def _show_authority(self, call: Call) -> Response:
        data = await run_in_threadpool(self._authority.read_bytes)
        return Response(data, media_type="application/x-pem-file")
