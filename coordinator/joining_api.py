"""How those who are invited speak to the coordinator; a code is sent in a header, never in an address.

    GET  /api/authority           certificate that this port's TLS is checked against, PEM
    POST /api/join                a signed deposit            -> how far this joining is
    GET  /api/founding                                        -> how far this joining is, and what is to be signed
    POST /api/founding/signatures the record with a signature -> how far this joining is
Errors are {"error": one line}: 400 malformed, 403 no such invitation or a wrong signature, 409 against the order of
things, 429 too many wrong codes from one address. Everything that arrives is hostile until parsed.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coordinator.api import _body, _guarded, _refused
from coordinator.errors import JoiningError, UninvitedError
from coordinator.reception import Reception
from ledger.joining import CODE_HEADER, CODE_SIZE, MAX_DEPOSIT
from ledger.records import MAX_RECORD_SIZE

MAX_GUESSES = 10  # wrong codes from one address within GUESS_SECONDS
GUESS_SECONDS = 60.0
MAX_ADDRESSES = 4_096  # remembered; whoever has more of them shares what is left
_CODE = re.compile(rf"[0-9a-f]{{{2 * CODE_SIZE}}}", re.ASCII)


class Guesses:
    """Counts wrong codes by address, so that nobody tries many. One thread: the event loop's."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Count nothing yet; `clock` gives monotonic seconds."""
        self._clock = clock
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def allows(self, address: str) -> bool:
        """Whether this address may try a code."""
        since = self._clock() - GUESS_SECONDS
        return sum(at > since for at in self._wrong.get(address, ())) < MAX_GUESSES

    def wrong(self, address: str) -> None:
        """Note a wrong code."""
        times = self._wrong.pop(address, [])
        self._wrong[address] = [*times[1 - MAX_GUESSES :], self._clock()]
        while len(self._wrong) > MAX_ADDRESSES:
            self._wrong.popitem(last=False)


class JoiningApi:
    """Answers requests. Mount `routes` under `/api`."""

    def __init__(
        self, reception: Reception, authority: Path, after: Callable[[], None] = lambda: None
    ) -> None:
        """Answer for one reception.

        Args:
            reception: Decides.
            authority: The certificate's file.
            after: Called, in the event loop, after each answered change.
        """
        self._reception = reception
        self._authority = authority
        self._after = after
        self._guesses = Guesses()
        self.routes = (
            Route("/authority", _guarded(self._show_authority), methods=["GET"]),
            Route("/join", _guarded(self._join), methods=["POST"]),
            Route("/founding", _guarded(self._standing), methods=["GET"]),
            Route("/founding/signatures", _guarded(self._sign), methods=["POST"]),
        )

    async def _show_authority(self, _: Request) -> Response:
        data = await run_in_threadpool(self._authority.read_bytes)
        return Response(data, media_type="application/x-pem-file")

    async def _join(self, request: Request) -> Response:
        return await self._ask(request, self._reception.join, await _body(request, MAX_DEPOSIT))

    async def _standing(self, request: Request) -> Response:
        return await self._ask(request, self._reception.standing)

    async def _sign(self, request: Request) -> Response:
        return await self._ask(request, self._reception.sign, await _body(request, MAX_RECORD_SIZE))

    async def _ask(self, request: Request, question: Callable[..., dict[str, Any]], *data: bytes) -> Response:
        address = request.client.host if request.client is not None else ""
        if not self._guesses.allows(address):
            return _refused(429, "too many wrong codes from this address: wait a minute")
        code = request.headers.get(CODE_HEADER, "")
        if not _CODE.fullmatch(code):
            return _refused(403, f"the header {CODE_HEADER} must carry the invitation's code")
        try:
            found = await run_in_threadpool(question, code, *data)
        except UninvitedError as error:
            self._guesses.wrong(address)
            return _refused(403, str(error))
        except JoiningError as error:
            return _refused(409, str(error))
        if data:
            self._after()
        return JSONResponse(found, headers={"cache-control": "no-store"})
