"""The door from the public TLS port to Flower: a few Fleet requests, and nothing else of the SuperLink.

The SuperLink has three APIs on one port, and only the Fleet API, the nodes' own, authenticates its callers. So the
service mounts these routes on its public port, and the SuperLink itself stays on loopback. What is forwarded
is a fixed list of names: the path of the request upstream is taken from the list, never from the caller, so that no
spelling of a path reaches anything else. Large bodies are streamed, and there is a size limit.

Who calls is for the SuperLink to decide: its own headers, a timestamp signed by the node's key, pass unchanged.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from coordinator.looks import Looks
from coordinator.repeated_looks import NAME, RepeatedLooks

PREFIX = "/v1/fleet/"
# All that a node needs. Not `register-node` and `unregister-node`: only the coordinator decides who takes part.
FORWARDED = (
    "activate-node",
    "confirm-message-received",
    "deactivate-node",
    "get-fab",
    "get-run",
    "pull-messages",
    "pull-object",
    "push-messages",
    "push-object",
    "send-node-heartbeat",
)
KEEPALIVE_SECONDS = (
    4.0  # less than the 5 s after which the SuperLink's uvicorn hangs up: who reuses last loses
)
# So many small requests are with the SuperLink at once: more take it no further, they only wait for each other in its
# threads, and a heartbeat among them for too long.
AT_ONCE = 4
_UNQUEUED = (PREFIX + "activate-node", PREFIX + "deactivate-node", PREFIX + "send-node-heartbeat")
SMALL_BODY = 64 << 10  # bytes; what is no longer is passed on in one piece, which is quicker than a stream
_REQUEST_HEADERS = ("accept", "content-length", "content-type")
_RESPONSE_HEADERS = ("content-length", "content-type")
_LOOK = PREFIX + "pull-messages"
_KEY = "flwr-public-key"  # header
_FLOWER = "flwr-"  # prefix of the headers that carry a node's key, timestamp, signature and version
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Where the SuperLink is and how much is let through to it."""

    address: str  # host:port
    authority: Path  # certificate that its TLS is checked against
    max_body: int = 16 << 20  # bytes; Flower cuts arrays into objects of 5 MiB
    max_connections: int = 64
    max_idle: int = 8  # connections: httpx looks at each of them for each request
    timeout_seconds: float = 30.0
    transfer_seconds: float = 300.0  # for a request's body to arrive and be answered


class Gateway:
    """Forwards Fleet requests. Mount `routes`; call `close` when the service shuts down."""

    def __init__(
        self,
        settings: GatewaySettings,
        transport: httpx.AsyncBaseTransport | None = None,
        looks: Looks | None = None,
    ) -> None:
        """Open no connection yet.

        Args:
            settings: See there.
            transport: Replaces the network, for tests.
            looks: Holds looks for messages back; None: each is forwarded as it comes.
        """
        self._looks = looks
        self._repeated = RepeatedLooks()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._settings = settings
        self._answers = True  # whether the SuperLink answered last time
        limits = httpx.Limits(
            max_connections=settings.max_connections,
            max_keepalive_connections=settings.max_idle,
            keepalive_expiry=KEEPALIVE_SECONDS,
        )
        self._client = httpx.AsyncClient(
            base_url=f"https://{settings.address}",
            verify=ssl.create_default_context(cafile=settings.authority),
            timeout=settings.timeout_seconds,
            limits=limits,
            transport=transport,
            trust_env=False,  # a proxy set for the machine is not for its loopback
        )
        self.routes = tuple(
            Route(PREFIX + name, partial(self._answer, PREFIX + name), methods=["POST"]) for name in FORWARDED
        )

    async def close(self) -> None:
        """Close the connections to the SuperLink."""
        await self._client.aclose()

    async def _answer(self, path: str, request: Request) -> Response:
        length = request.headers.get("content-length", "")
        if not (length.isascii() and length.isdecimal()):
            return PlainTextResponse("state the content length", status_code=411)
        if int(length) > self._settings.max_body:
            return PlainTextResponse(f"at most {self._settings.max_body} bytes a request", status_code=413)
        try:
            if int(length) > SMALL_BODY:
                return await self._forward(path, request, request.stream())
            async with asyncio.timeout(self._settings.transfer_seconds):
                body = await request.body()  # before its turn, so that a slow sender holds up nobody
            if path == _LOOK and self._looks is not None:
                return await self._look(self._looks, request, body)
            if path in _UNQUEUED:
                answer = await self._forward(path, request, body)
            else:
                async with self._turns:
                    answer = await self._forward(path, request, body)
        except TimeoutError:
            return PlainTextResponse("the body did not arrive in time", status_code=408)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        if answer.status_code == httpx.codes.OK:
            self._repeated.heard(request.headers.get(_KEY, ""), request.headers.get(NAME, ""))
        return answer

    async def _look(self, looks: Looks, request: Request, body: bytes) -> Response:
        """Forward a look for messages once there may be one, if whoever asked is still there."""
        key, name = request.headers.get(_KEY, ""), request.headers.get(NAME, "")
        sendings = await looks.hold(key, at_once=self._repeated.lost(key, name))
        async with self._turns:
            if await request.is_disconnected():  # a message is given out once: not to nobody
                return Response(status_code=400)
            answer = await self._forward(_LOOK, request, body)
        if answer.status_code != httpx.codes.OK:
            return answer
        found = isinstance(answer, StreamingResponse) or bool(answer.body)
        looks.looked(key, sendings, found=found)
        if isinstance(answer, StreamingResponse):  # too long to keep
            return answer
        return self._repeated.settle(key, name, answer, gone=await request.is_disconnected())

    async def _forward(self, path: str, request: Request, content: bytes | AsyncIterator[bytes]) -> Response:
        """Return the SuperLink's answer. Raises TimeoutError or ClientDisconnect."""
        try:
            async with asyncio.timeout(self._settings.transfer_seconds):  # few connections lead upstream
                headers = _chosen(request.headers, _REQUEST_HEADERS)
                outgoing = self._client.build_request("POST", path, headers=headers, content=content)
                answer = await self._client.send(outgoing, stream=True)
                self._answers = True
            headers = _chosen(answer.headers, _RESPONSE_HEADERS)
            if int(answer.headers.get("content-length", SMALL_BODY + 1)) <= SMALL_BODY:
                return Response(await answer.aread(), answer.status_code, headers)
        except httpx.TransportError as error:
            if self._answers:  # once, however many ask meanwhile
                _log.warning("the SuperLink does not answer (%s)", type(error).__name__)
            self._answers = False
            return PlainTextResponse("Flower's SuperLink does not answer; try again", status_code=503)
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, headers, background=BackgroundTask(answer.aclose)
        )


def _chosen(headers: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name in names or name.startswith(_FLOWER)}
