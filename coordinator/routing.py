"""From the table of endpoints to routes: who asks, what was sent, and every refusal as one line of JSON.

Errors are {"error": one line}, and "rule" where a rule of the ledger forbids it: 400 malformed, 401 not or wrongly
signed, 403 not yours or a wrong signature in a record, 404, 405, 408 too slow, 409 against a rule, 413 too large, 429
too often, 503 later. Everything that arrives is hostile until parsed: parameters are compared with the table's
patterns, a body is refused by its stated length before it is read. A change leaves one line in the service's journal,
a reading none.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coordinator.callers import Callers, RefusedError, check_body
from coordinator.endpoint import BODY_SECONDS, UPLOAD_SECONDS, Endpoint
from coordinator.errors import CoordinatorError
from ledger.errors import LedgerError, MalformedError, ReadOnlyError, RuleError, StorageError
from ledger.values import Member

Count = Callable[[str, int], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that may be answered."""

    request: Request
    member: Member | None  # who signed it, where the table says "member"
    values: Mapping[str, str]  # parameters, each spelled as it must be
    body: bytes  # b"" where the handler reads it

    @property
    def sender(self) -> Member:
        """The member that signed it."""
        assert self.member is not None
        return self.member


Handler = Callable[[Call], Awaitable[Response]]


class Doorkeeper:
    """Lets those in whom the table names."""

    def __init__(self, callers: Callers | None, token: bytes, count: Count) -> None:
        """Guard one port.

        Args:
            callers: Tells who signed a request; None before there are members, when nothing is theirs.
            token: That `who=TOKEN` asks for.
            count: Told of each answer: the endpoint's name and the status.
        """
        self._callers = callers
        self._token = token
        self._count = count

    def routes(self, endpoints: Iterable[Endpoint], handlers: Mapping[str, Handler]) -> list[Route]:
        """Return a route for each path, in the table's order; every entry has a handler."""
        by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            path = endpoint.path
            for parameter in endpoint.parameters:
                path = (
                    path.replace(f"{{{parameter.name}}}", f"{{{parameter.name}:path}}")
                    if parameter.slashes
                    else path
                )
            by_path.setdefault(path, {})[endpoint.method] = endpoint
        return [self._route(path, found, handlers) for path, found in by_path.items()]

    def _route(self, path: str, found: Mapping[str, Endpoint], handlers: Mapping[str, Handler]) -> Route:
        ready = {method: (endpoint, handlers[endpoint.name]) for method, endpoint in found.items()}

        async def answer(request: Request) -> Response:
            endpoint, handler = ready[request.method]
            began = time.monotonic()
            answer, who = await self._answer(endpoint, handler, request)
            self._count(endpoint.name, answer.status_code)
            polls = endpoint.method == "GET" or endpoint.who.kind == "node"
            if not polls and not (endpoint.frequent and answer.status_code == 200):
                words = {"endpoint": endpoint.name, "status": answer.status_code, "member": who}
                _log.info(
                    "change", extra={"fields": {**words, "seconds": round(time.monotonic() - began, 3)}}
                )
            return answer

        route = Route(path, answer, methods=list(ready))
        route.methods = set(ready)  # without the HEAD that comes with every GET
        return route

    async def _answer(self, endpoint: Endpoint, handler: Handler, request: Request) -> tuple[Response, str]:
        """Answer a request; say who signed it, or ""."""
        member = None
        try:
            member = await self._admitted(endpoint, request)
            values = _values(endpoint, request)
            body = await _body(endpoint, request)
            if member is not None and endpoint.body is not None and not endpoint.body.streamed:
                check_body(request, body)
            answer = await handler(Call(request=request, member=member, values=values, body=body))
        except RefusedError as error:
            answer = refused(error.status, str(error))
        except RuleError as error:
            answer = refused(409, error.reason, rule=error.rule)
        except MalformedError as error:
            answer = refused(400, str(error))
        except (ReadOnlyError, StorageError, CoordinatorError) as error:
            answer = refused(503, str(error))
        except LedgerError as error:
            answer = refused(403, str(error))
        except ClientDisconnect:
            answer = Response(status_code=400)  # nobody is there to read it
        return answer, member.name if member is not None else ""

    async def _admitted(self, endpoint: Endpoint, request: Request) -> Member | None:
        if endpoint.who.kind == "member":
            if self._callers is None:
                raise RefusedError(401, "the consortium is not founded: it has no members yet")
            return await self._callers.member(request, endpoint.who.roles)
        if endpoint.who.kind == "token":
            given = request.headers.get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                raise RefusedError(401, "send the token of keys/metrics.token: Authorization: Bearer TOKEN")
        return None


def refused(status: int, reason: str, **more: str) -> Response:
    """Return a refusal in one line."""
    headers = {"www-authenticate": "Signature"} if status == 401 else None
    return JSONResponse({"error": reason, **more}, status_code=status, headers=headers)


async def no_such_route(request: Request, error: Exception) -> Response:
    """Answer for a path or a method that the table does not have."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    said = "this path takes another method" if status == 405 else "there is nothing at this path"
    answer = refused(status, said)
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update(error.headers)
    return answer


async def chunks(request: Request, limit: int, seconds: float) -> AsyncIterator[bytes]:
    """Yield a body of at most `limit` bytes. Raises RefusedError before more is read, or after `seconds`."""
    if (stated := request.headers.get("content-length")) is not None:
        if not (stated.isascii() and stated.isdecimal()):
            raise RefusedError(400, "the content length is no number")
        if int(stated) > limit:
            raise RefusedError(413, f"at most {limit} bytes are taken here")
    read, stream, deadline = 0, request.stream(), asyncio.get_running_loop().time() + seconds
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise RefusedError(408, f"the body did not arrive within {seconds:.0f} s") from None
        if chunk is None:
            return
        read += len(chunk)
        if read > limit:
            raise RefusedError(413, f"at most {limit} bytes are taken here")
        yield chunk


async def _body(endpoint: Endpoint, request: Request) -> bytes:
    if endpoint.body is None or endpoint.body.streamed:
        return b""
    seconds = UPLOAD_SECONDS if endpoint.body.max_bytes > 1 << 20 else BODY_SECONDS
    return b"".join([chunk async for chunk in chunks(request, endpoint.body.max_bytes, seconds)])


def _values(endpoint: Endpoint, request: Request) -> dict[str, str]:
    """Return the parameters, each there as often as it may be and spelled as it must be."""
    found = {name: str(value) for name, value in request.path_params.items()}
    for name, value in request.query_params.multi_items() if endpoint.who.kind != "node" else ():
        if name in found:
            raise RefusedError(400, "a parameter is there twice")
        found[name] = value
    known = {parameter.name: parameter for parameter in endpoint.parameters}
    if not set(found) <= set(known):
        allowed = ", ".join(p.name for p in endpoint.parameters if p.query) or "none"
        raise RefusedError(400, f"unknown parameter; known here: {allowed}")
    for name, parameter in known.items():
        if name not in found and parameter.required:
            raise RefusedError(400, f"the parameter {name} is missing: {parameter.summary}")
        if name in found and not parameter.fits(found[name]):
            if parameter.query:
                raise RefusedError(400, f"{name} is not spelled as it must be: {parameter.summary}")
            raise RefusedError(404, "there is nothing at this path")
    return found
