"""The coordinator's service: one public TLS port in front of the log, the API and Flower, and all that runs behind.

    public port (uvicorn)  /log static files, /api, /v1/fleet forwarded to the SuperLink
    back office (a thread) SuperLink and its host, nodes' registration, the job runner
    bridge (threads)       the ServerApp's process asks for its rounds over a UNIX socket
The port answers at once; requests for Flower are held until the SuperLink is ready. Whatever ends one part ends
the service: the port first, then the runner and its children, the log last.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from coordinator.api import Api
from coordinator.back_office import BackOffice
from coordinator.blobs import BlobStore
from coordinator.callers import Callers
from coordinator.config import CoordinatorConfig, read_key
from coordinator.errors import ServiceError
from coordinator.gateway import FORWARDED, PREFIX, Gateway
from coordinator.log_files import LogFiles
from coordinator.seen import Seen
from coordinator.sequencer import Sequencer
from coordinator.tls import TlsFiles, ensure_tls
from ledger import envelope
from ledger.log import Log

HOLD_SECONDS = 30.0  # how long a request for Flower waits until the SuperLink is ready
HOLD_STEP = 0.05  # between looks
GRACE_SECONDS = 3  # for requests under way when the service stops

Announce = Callable[[Mapping[str, object]], None]


def run(config: CoordinatorConfig, announce: Announce) -> None:
    """Run the service until SIGTERM or SIGINT.

    Args:
        config: Its settings.
        announce: Told what people and programs wait for: serving, ready, a released job, stopped.

    Raises:
        CoordinatorError, LedgerError: it cannot start, or cannot go on; one line says why.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(_bind(config))
        key, log_key = (
            read_key(config.directory / "keys" / f"{name}.key") for name in ("coordinator", "log")
        )
        tls = ensure_tls(config.directory / "tls", [config.public_name, config.host], datetime.now(UTC))
        sequencer = stack.enter_context(Sequencer(Log.open(config.log, [log_key]), time.time))
        opened = time.time()  # the log's lock is held: every earlier process of this folder has ended
        if sequencer.standing.state.coordinator().key != envelope.public_hex(key):
            raise ServiceError("keys/coordinator.key is not the coordinator's key of this log's charter")
        callers = Callers(sequencer, Seen(config.seen, int(opened)), time.time)
        office = BackOffice(config, sequencer, BlobStore(config.blobs), key, tls, announce)
        server = _Server(config, tls, application(office, callers), office)
        office.start(on_end=server.leave)
        stack.callback(office.stop)
        announce({"event": "serving", "url": config.url})
        server.run(sockets=[listener])
    announce({"event": "stopped"})
    if office.failure:
        raise ServiceError(office.failure)


def application(office: BackOffice, callers: Callers) -> Starlette:
    """Return the app of the public port."""
    door = _Door(office)
    api = Api(office.sequencer, office.blobs, office.status, callers, office.voice, office.acknowledgements)
    routes: list[BaseRoute] = [
        Mount("/log", routes=list(LogFiles(office.sequencer, callers).routes)),
        Mount("/api", routes=list(api.routes)),
        *door.routes,
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await door.close()

    return Starlette(routes=routes, lifespan=lifespan)


class _Door:
    """The gateway to Flower, which is not there yet when the port opens."""

    def __init__(self, office: BackOffice) -> None:
        self._office = office
        self._gateways: dict[
            str, Gateway
        ] = {}  # by address: a SuperLink that was started again has another port
        self.routes = tuple(Route(PREFIX + name, self._forward, methods=["POST"]) for name in FORWARDED)

    async def close(self) -> None:
        """Close the connections to the SuperLink."""
        for gateway in self._gateways.values():
            await gateway.close()

    async def _forward(self, request: Request) -> Response:
        left = HOLD_SECONDS
        while (settings := self._office.gateway) is None and left > 0 and not self._office.sequencer.stopped:
            await asyncio.sleep(HOLD_STEP)
            left -= HOLD_STEP
        if settings is None:
            return PlainTextResponse("Flower's SuperLink is not ready; try again", status_code=503)
        if settings.address not in self._gateways:
            self._gateways[settings.address] = Gateway(settings)
        gateway = self._gateways[settings.address]
        route = next(route for route in gateway.routes if route.path == request.url.path)
        answer: Response = await route.endpoint(request)
        return answer


class _Server(uvicorn.Server):
    """A uvicorn that wakes the long polls when it is to stop, and returns instead of dying of the signal."""

    def __init__(self, config: CoordinatorConfig, tls: TlsFiles, app: Starlette, office: BackOffice) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                ws="none",
                ssl_certfile=tls.certificate,
                ssl_keyfile=tls.key,
                timeout_graceful_shutdown=GRACE_SECONDS,
                timeout_keep_alive=60,
            )
        )
        self._office = office
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ignore)  # uvicorn raises the signal again when it has finished

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave at a signal."""
        self.leave()

    def leave(self) -> None:
        """Stop serving; any thread may say so."""
        self.should_exit = True
        self._office.sequencer.stop()

    @staticmethod
    def _ignore(sig: int, frame: FrameType | None) -> None:
        return None


def _bind(config: CoordinatorConfig) -> socket.socket:
    """Return the listening socket of the public port.

    Raises:
        ServiceError: the port is in use, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ServiceError(
            f"cannot listen on {config.host}:{config.port}: {error.strerror}; stop what uses it, or change the port"
        ) from None
    listener.set_inheritable(False)
    return listener
