"""The coordinator's service: one public TLS port in front of the log, the API and Flower, and all that runs behind.

    public port (uvicorn)  /log static files, /api, /v1/fleet forwarded to the SuperLink
    back office (a thread) SuperLink and its host, nodes' registration, the job runner
    bridge (threads)       the ServerApp's process asks for its rounds over a UNIX socket
The port answers at once; requests for Flower are held until the SuperLink is ready. Whatever ends one part ends
the service: the port first, then the runner and its children, the log last.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import ChainMap
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from coordinator import founding_service, openapi
from coordinator.api import Api
from coordinator.back_office import BackOffice
from coordinator.blobs import BlobStore
from coordinator.callers import Callers
from coordinator.config import CoordinatorConfig, read_key
from coordinator.connections import make_room
from coordinator.endpoints import ENDPOINTS
from coordinator.errors import CoordinatorError, ServiceError
from coordinator.figures import TOKEN, Figures, read_token
from coordinator.gateway import FORWARDED, Gateway
from coordinator.handouts import Handouts
from coordinator.log_files import LogFiles
from coordinator.looks import Looks
from coordinator.members_desk import MembersDesk
from coordinator.public_port import PublicPort, listen
from coordinator.reception import Reception
from coordinator.routing import Call, Doorkeeper, Handler, no_such_route
from coordinator.run_files import RunFiles
from coordinator.seen import Seen
from coordinator.sequencer import Sequencer
from coordinator.tls import TlsFiles, ensure_tls
from coordinator.uploads import Uploads
from coordinator.witness_clocks import since_boot
from ledger import envelope
from ledger.signature import SigningKey

HOLD_SECONDS = 30.0  # how long a request for Flower waits until the SuperLink is ready
HOLD_STEP = 0.05  # between looks
CLEANING_SECONDS = 3600.0  # between looks for deposits that no job named

_log = logging.getLogger(__name__)
Announce = Callable[[Mapping[str, object]], None]


def run(config: CoordinatorConfig, announce: Announce) -> None:
    """Run the service until SIGTERM or SIGINT.

    Args:
        config: Its settings.
        announce: Told what people and programs wait for: serving, ready, a released job, stopped.

    Raises:
        CoordinatorError, LedgerError: it cannot start, or cannot go on; one line says why.
    """
    make_room()
    with ExitStack() as stack:
        listener = stack.enter_context(listen(config.host, config.port))
        key, log_key = (
            read_key(config.directory / "keys" / f"{name}.key") for name in ("coordinator", "log")
        )
        tls = ensure_tls(config.directory / "tls", [config.public_name, config.host], datetime.now(UTC))
        if (found := founding_service.log_of(config, (key, log_key), tls, listener, announce)) is None:
            announce({"event": "stopped"})
            return
        log, begun = found
        sequencer = stack.enter_context(Sequencer(log, time.time, begun=begun, elapsed=since_boot))
        opened = time.time()  # the log's lock is held: every earlier process of this folder has ended
        if sequencer.standing.state.coordinator().key != envelope.public_hex(key):
            raise ServiceError("keys/coordinator.key is not the coordinator's key of this log's charter")
        office = BackOffice(config, sequencer, BlobStore(config.blobs), key, tls, announce)
        own = desks(office, config, key, tls, int(opened))
        server = _Server(tls, application(office, own), office)
        own.members.upkeep.renews(server.context)
        office.start(on_end=server.leave)
        stack.callback(own.members.upkeep.stop)
        stack.callback(office.stop)
        own.members.upkeep.start()
        announce({"event": "serving", "url": config.url})
        server.run(sockets=[listener])
    announce({"event": "stopped"})
    if office.failure:
        raise ServiceError(office.failure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desks:
    """Whoever answers at the public port, each with the `handlers` of its endpoints."""

    handlers: Mapping[str, Handler]
    doorkeeper: Doorkeeper
    uploads: Uploads
    members: MembersDesk


def desks(
    office: BackOffice, config: CoordinatorConfig, key: SigningKey, tls: TlsFiles, opened: int
) -> Desks:
    """Set up the public port's own part.

    Args:
        office: What runs behind it.
        config: The service's settings.
        key: The coordinator's; it signs the record of what is handed out.
        tls: Whose authority is shown to whoever was invited.
        opened: Unix seconds when the log was opened.

    Raises:
        CoordinatorError: a file in the folder cannot be used.
    """
    sequencer, blobs = office.sequencer, office.blobs
    figures = Figures(sequencer, config.directory, office.seconds, office.online)
    uploads = Uploads(config.uploads, sequencer, blobs, config.model_mib << 20)
    handouts = Handouts(sequencer, key)
    members = MembersDesk(config, sequencer, office.scan_nodes)
    answering = (
        Api(sequencer, blobs, office.status, handouts, office.voice, office.acknowledgements).handlers,
        RunFiles(config.runs, sequencer, handouts).handlers,
        LogFiles(sequencer).handlers,
        uploads.handlers,
        figures.handlers,
        Reception(sequencer, tls.authority, lambda: office.gateway is not None).handlers,
        openapi.handlers(),
        members.handlers,
    )
    callers = Callers(sequencer, Seen(config.seen, opened), time.time)
    doorkeeper = Doorkeeper(callers, read_token(config.directory / "keys" / TOKEN), figures.count)
    return Desks(
        handlers=dict(ChainMap(*map(dict, answering))),
        doorkeeper=doorkeeper,
        uploads=uploads,
        members=members,
    )


def application(office: BackOffice, own: Desks) -> Starlette:
    """Return the app of the public port: an answer for every endpoint of the table, and for nothing else."""
    door = _Door(office)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        cleaning = asyncio.create_task(_clean(own.uploads))
        yield
        cleaning.cancel()
        await door.close()

    app = Starlette(
        routes=own.doorkeeper.routes(ENDPOINTS, {**own.handlers, **door.handlers}),
        lifespan=lifespan,
        exception_handlers={HTTPException: no_such_route},
    )
    app.router.redirect_slashes = False
    return app


async def _clean(uploads: Uploads) -> None:
    """Remove what no job has named, now and every hour."""
    while True:
        try:
            for digest in await run_in_threadpool(uploads.expire):
                _log.info("a deposit that no job named was removed", extra={"fields": {"digest": digest}})
        except CoordinatorError as error:
            _log.warning("deposits were not looked through: %s", error)
        await asyncio.sleep(CLEANING_SECONDS)


class _Door:
    """The gateway to Flower, which is not there yet when the port opens."""

    def __init__(self, office: BackOffice) -> None:
        self._office = office
        self._gateways: dict[str, Gateway] = {}  # by address: a SuperLink started again has another port
        self.handlers: dict[str, Handler] = {f"fleet-{name}": self._forward for name in FORWARDED}

    async def close(self) -> None:
        """Close the connections to the SuperLink."""
        for gateway in self._gateways.values():
            await gateway.close()

    async def _forward(self, call: Call) -> Response:
        left = HOLD_SECONDS
        while (settings := self._office.gateway) is None and left > 0 and not self._office.sequencer.stopped:
            await asyncio.sleep(HOLD_STEP)
            left -= HOLD_STEP
        if settings is None:
            return PlainTextResponse("Flower's SuperLink is not ready; try again", status_code=503)
        if settings.address not in self._gateways:
            looks = Looks(self._office.sendings, self._office.sequencer)
            self._gateways[settings.address] = Gateway(settings, looks=looks)
        gateway = self._gateways[settings.address]
        route = next(route for route in gateway.routes if route.path == call.request.url.path)
        answer: Response = await route.endpoint(call.request)
        return answer


class _Server(PublicPort):
    """A port that wakes the long polls when it is to stop."""

    def __init__(self, tls: TlsFiles, app: Starlette, office: BackOffice) -> None:
        super().__init__(tls, app)
        self._office = office
        self.take_signals()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave at a signal."""
        self.leave()

    def leave(self) -> None:
        """Stop serving; any thread may say so."""
        self.should_exit = True
        self._office.sequencer.stop()
