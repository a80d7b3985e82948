"""The log over HTTP: the static files of C2SP tlog-tiles, and a long poll on its two checkpoints.

`GET /log/checkpoint.pending?above=SIZE&wait=SECONDS` answers as soon as the pending checkpoint covers more than SIZE
entries, or after `wait` (at most 30 s) with what there is; the same for `/log/checkpoint`, the final one. While the
log waits for its witnesses' reports, the pending checkpoint is given at once, with the question that a report must
repeat in the header `wardround-report`. Only present members read. Nothing but checkpoints and tiles is ever read
from the directory.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from coordinator.api import guarded
from coordinator.callers import Callers
from coordinator.changes import LONGEST_WAIT, Changes
from coordinator.sequencer import Sequencer
from ledger.errors import MalformedError
from ledger.store import CHECKPOINT, CHECKPOINTS, PENDING
from ledger.tiles import Tile

REPORT = "wardround-report"  # header with the question of this opening
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_IMMUTABLE = {"cache-control": "public, max-age=31536000, immutable"}
_FRESH = {"cache-control": "no-store"}


class LogFiles:
    """Serves one log's directory. Mount `routes` under `/log`."""

    def __init__(self, sequencer: Sequencer, callers: Callers) -> None:
        """Serve the directory of a sequencer's log to those whom `callers` knows."""
        self._sequencer = sequencer
        self._callers = callers
        self._changes: Changes | None = None
        self.routes = (
            Route(f"/{PENDING}", guarded(self._pending), methods=["GET"]),
            Route(f"/{CHECKPOINT}", guarded(self._final), methods=["GET"]),
            Route(f"/{CHECKPOINTS}/{{size}}", guarded(self._kept), methods=["GET"]),
            Route("/{path:path}", guarded(self._tile), methods=["GET"]),
        )

    async def _pending(self, request: Request) -> Response:
        await self._callers.member(request)
        sequencer = self._sequencer
        answer = await self._poll(
            request,
            PENDING,
            lambda above: sequencer.standing.view.size > above or not sequencer.standing.writable,
        )
        if not sequencer.standing.writable:
            answer.headers[REPORT] = sequencer.question
        return answer

    async def _final(self, request: Request) -> Response:
        await self._callers.member(request)
        return await self._poll(
            request, CHECKPOINT, lambda above: self._sequencer.standing.final_size > above
        )

    async def _poll(self, request: Request, name: str, beyond: Callable[[int], bool]) -> Response:
        """Wait as the request asks, then serve a checkpoint."""
        above, wait = request.query_params.get("above"), request.query_params.get("wait", "0")
        if not _NUMBER.fullmatch(wait) or (above is not None and not _NUMBER.fullmatch(above)):
            return PlainTextResponse("above and wait are whole numbers", status_code=400)
        if above is not None:
            if self._changes is None:
                self._changes = Changes(self._sequencer)
            size = int(above)
            seconds = min(float(wait), LONGEST_WAIT)
            await self._changes.wait_for(lambda: self._sequencer.stopped or beyond(size), seconds)
        return await self._file(name, _FRESH)

    async def _kept(self, request: Request) -> Response:
        await self._callers.member(request)
        size = request.path_params["size"]
        if not _NUMBER.fullmatch(size):
            return _not_there()
        return await self._file(f"{CHECKPOINTS}/{size}", _FRESH)

    async def _tile(self, request: Request) -> Response:
        await self._callers.member(request)
        try:
            tile = Tile.from_path(request.path_params["path"])
        except MalformedError:
            return _not_there()
        return await self._file(tile.path, _IMMUTABLE, "application/octet-stream")

    async def _file(
        self, name: str, headers: dict[str, str], media_type: str = "text/plain; charset=utf-8"
    ) -> Response:
        try:
            data = await run_in_threadpool(self._sequencer.read, name)
        except FileNotFoundError:
            return _not_there()
        return Response(data, headers=headers, media_type=media_type)


def _not_there() -> Response:
    return PlainTextResponse("the log has no such file", status_code=404)
