"""How those who are invited speak to the coordinator; a code is sent in a header, never in an address.

Paths and bodies are in `coordinator.endpoints`, what a step means in `founding`, how it is kept in `joining_desk`.
Whoever tries wrong codes is made to wait. Everything that arrives is hostile until parsed.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from coordinator.errors import JoiningError, ProposalError, UninvitedError
from coordinator.joining_desk import JoiningDesk
from coordinator.routing import Call, Handler, refused
from ledger.joining import CODE_HEADER, CODE_SIZE

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
    """Answers whoever has an invitation; `handlers` by their names in the table of endpoints."""

    def __init__(self, desk: JoiningDesk, after: Callable[[], None] = lambda: None) -> None:
        """Answer for one desk; `after` is called, in the event loop, after each answered change."""
        self._desk = desk
        self._after = after
        self._guesses = Guesses()
        self.handlers: dict[str, Handler] = {
            "join": self._join,
            "joining": self._standing,
            "joining-signature": self._sign,
        }

    async def _join(self, call: Call) -> Response:
        return await self._ask(call, self._desk.join, call.body)

    async def _standing(self, call: Call) -> Response:
        return await self._ask(call, self._desk.standing)

    async def _sign(self, call: Call) -> Response:
        return await self._ask(call, self._desk.sign, call.body)

    async def _ask(self, call: Call, question: Callable[..., dict[str, Any]], *data: bytes) -> Response:
        request = call.request
        address = request.client.host if request.client is not None else ""
        if not self._guesses.allows(address):
            return refused(429, "too many wrong codes from this address: wait a minute")
        code = request.headers.get(CODE_HEADER, "")
        if not _CODE.fullmatch(code):
            return refused(403, f"the header {CODE_HEADER} must carry the invitation's code")
        try:
            found = await run_in_threadpool(question, code, *data)
        except UninvitedError as error:
            self._guesses.wrong(address)
            return refused(403, str(error))
        except (JoiningError, ProposalError) as error:
            return refused(409, str(error))
        if data:
            self._after()
        return JSONResponse(found, headers={"cache-control": "no-store"})
