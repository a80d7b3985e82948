"""Who sends a request: a present member, by its identity key's signature over it (`ledger.signed_request`).

401 for a request that is not signed, wrongly signed, too old, seen before, or signed with a key that is no present
member's; 403 for a member without the right. Every refusal is one line that says what to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import sha256

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from coordinator.seen import WINDOW, BusyError, ReplayError, Seen, StaleError
from coordinator.sequencer import Sequencer
from ledger import signed_request
from ledger.errors import LedgerError, MalformedError
from ledger.signed_request import DIGEST, INPUT, SIGNATURE, Target
from ledger.state import State
from ledger.values import Member

_log = logging.getLogger(__name__)


class RefusedError(Exception):
    """The request is answered with this status and one line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Callers:
    """Finds out who sends a request."""

    def __init__(self, sequencer: Sequencer, seen: Seen, clock: Callable[[], float]) -> None:
        """Judge by the log's newest state and this clock, Unix seconds."""
        self._sequencer = sequencer
        self._seen = seen
        self._clock = clock
        self._apart: set[str] = set()  # members whose clock was far from this one at their last request

    async def member(self, request: Request, roles: tuple[str, ...] = ()) -> Member:
        """Return the present member that signed a request.

        Args:
            request: Its body need not have been read; `check_body` compares that later.
            roles: Who may send it; every member where none is named.

        Raises:
            RefusedError: 401, 403 or 429.
            StorageError: the request could not be noted.
        """
        try:
            signed = signed_request.verify(_target(request), *(_one(request, n) for n in (INPUT, SIGNATURE)))
        except LedgerError as error:
            raise RefusedError(401, str(error)) from None
        member = member_of_key(self._sequencer.standing.state, signed.key)
        if member is None:
            raise RefusedError(401, "the request is signed with a key that is no present member's")
        now = int(self._clock())
        try:
            if signed.created > now:  # it is written down first
                await run_in_threadpool(self._seen.take, signed.key, signed.nonce, signed.created, now)
            else:
                self._seen.take(signed.key, signed.nonce, signed.created, now)
        except (StaleError, ReplayError) as error:
            self._compare_clocks(member.name, signed.created - now)
            raise RefusedError(401, str(error)) from None
        except BusyError as error:
            raise RefusedError(429, str(error)) from None
        if roles and member.role not in roles:
            raise RefusedError(403, f"only for {' and '.join(roles)}: {member.name} is {member.role}")
        self._apart.discard(member.name)
        return member

    def _compare_clocks(self, name: str, ahead: int) -> None:
        """Tell once that a member's clock is `ahead` seconds of this one, until a request of its is taken again."""
        if abs(ahead) > WINDOW and name not in self._apart:
            self._apart.add(name)
            way = "ahead of" if ahead > 0 else "behind"
            _log.warning(
                "the clock of %s is %d s %s this machine's, so its requests are refused: if several members' are, "
                "it is this machine's that is wrong",
                *(name, abs(ahead), way),
            )


def member_of_key(state: State, key: str) -> Member | None:
    """Return the present member whose identity key this is now, or None."""
    span = state.keys.get(key)
    member = state.member(span.member) if span is not None and not span.revoked else None
    return member if member is not None and member.key == key else None


def check_body(request: Request, body: bytes) -> None:
    """Compare a body with the digest that was signed. Raises RefusedError."""
    header = request.headers.get(DIGEST, "")
    if bool(header) != bool(body) or (body and signed_request.parse_digest(header) != sha256(body).digest()):
        raise RefusedError(401, "the body is not the one that was signed")


def _target(request: Request) -> Target:
    """Return what was asked, as it stood in the request line."""
    path: bytes = request.scope.get("raw_path") or b""
    query: bytes = request.scope["query_string"]
    return Target(
        method=request.method,
        path=path.decode("latin-1"),
        query=query.decode("latin-1"),
        content_digest=_one(request, DIGEST) if DIGEST in request.headers else "",
    )


def _one(request: Request, name: str) -> str:
    values = request.headers.getlist(name)
    if not values:
        raise MalformedError("sign this request with a member's identity key: it is for members only")
    if len(values) > 1:
        raise MalformedError(f"the header {name} is there twice")
    return values[0]
