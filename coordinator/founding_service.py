"""The public port before founding: nothing but joining and health. It ends by itself when the log has begun.

The service (`coordinator.service`) then goes on with the same listening socket: whoever connects in between waits.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from types import FrameType

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from coordinator.config import CoordinatorConfig
from coordinator.endpoints import ENDPOINTS
from coordinator.joining_api import JoiningApi
from coordinator.joining_desk import JoiningDesk
from coordinator.public_port import PublicPort
from coordinator.roll import RollFile
from coordinator.routing import Call, Doorkeeper, no_such_route
from coordinator.tls import TlsFiles
from ledger.log import Log
from ledger.signature import SigningKey


def log_of(
    config: CoordinatorConfig,
    keys: tuple[SigningKey, SigningKey],
    tls: TlsFiles,
    listener: socket.socket,
    announce: Callable[[Mapping[str, object]], None],
) -> tuple[Log, bool] | None:
    """Return the open log and whether it has begun just now; before founding, serve until it begins.

    Args:
        config: The coordinator's settings.
        keys: The coordinator's key and the log's.
        tls: The public port's files.
        listener: Its socket, which stays open.
        announce: Told that founding goes on, and that it is over.

    Returns:
        None where a signal ended the waiting.

    Raises:
        CoordinatorError, LedgerError: it cannot go on; one line says why.
    """
    if not RollFile(config.directory).exists:  # a folder that was not made by `init`
        return Log.open(config.log, [keys[1]]), False
    desk = JoiningDesk(config, time.time, keys=keys)
    if not desk.resume():
        server = _Server(tls, desk)
        announce({"event": "founding", "url": config.url})
        server.run(sockets=[listener.dup()])  # uvicorn closes what it is given
        if server.told_to_end:
            if desk.log is not None:
                desk.log.close()
            return None
        announce({"event": "founded", "charter": RollFile(config.directory).read().founded})
    if desk.log is not None:
        return desk.log, True
    return Log.open(config.log, [keys[1]]), False


def application(desk: JoiningDesk, tls: TlsFiles, server: PublicPort | None = None) -> Starlette:
    """Return the app of the public port before founding; `server` ends when the log has begun."""

    def after() -> None:
        if server is not None and desk.log is not None:
            server.should_exit = True

    async def authority(_: Call) -> Response:
        return Response(
            await run_in_threadpool(tls.authority.read_bytes), media_type="application/x-pem-file"
        )

    handlers = {"health": _health, "authority": authority, **JoiningApi(desk, after).handlers}
    open_now = [endpoint for endpoint in ENDPOINTS if endpoint.name in handlers]
    doorkeeper = Doorkeeper(None, b"", lambda name, status: None)
    app = Starlette(
        routes=doorkeeper.routes(open_now, handlers), exception_handlers={HTTPException: no_such_route}
    )
    app.router.redirect_slashes = False
    return app


async def _health(_: Call) -> Response:
    return JSONResponse({"status": "founding", "reason": "not everybody has joined and signed yet"})


class _Server(PublicPort):
    """A port that tells whether a signal ended it."""

    def __init__(self, tls: TlsFiles, desk: JoiningDesk) -> None:
        super().__init__(tls, application(desk, tls, self))
        self.told_to_end = False
        self.take_signals()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave at a signal."""
        self.told_to_end = True
        self.should_exit = True
