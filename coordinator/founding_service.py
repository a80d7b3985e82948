"""The public port before founding: nothing but joining and health. It ends by itself when the log has begun.

The service (`coordinator.service`) then goes on with the same listening socket: whoever connects in between waits.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Mapping
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from coordinator.config import CoordinatorConfig
from coordinator.joining_api import JoiningApi
from coordinator.reception import Reception
from coordinator.roll import RollFile
from coordinator.tls import TlsFiles
from ledger.log import Log
from ledger.signature import SigningKey

GRACE_SECONDS = 3  # for requests under way when the log has begun


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
    reception = Reception(config, keys, time.time)
    if not reception.resume():
        server = _Server(tls, reception)
        announce({"event": "founding", "url": config.url})
        server.run(sockets=[listener.dup()])  # uvicorn closes what it is given
        if server.told_to_end:
            if reception.log is not None:
                reception.log.close()
            return None
        announce({"event": "founded", "charter": RollFile(config.directory).read().founded})
    if reception.log is not None:
        return reception.log, True
    return Log.open(config.log, [keys[1]]), False


def application(reception: Reception, tls: TlsFiles, server: uvicorn.Server | None = None) -> Starlette:
    """Return the app of the public port before founding; `server` ends when the log has begun."""

    def after() -> None:
        if server is not None and reception.log is not None:
            server.should_exit = True

    return Starlette(
        routes=[
            Route("/health", _health, methods=["GET"]),
            Mount("/api", routes=list(JoiningApi(reception, tls.authority, after).routes)),
        ]
    )


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "founding"})


class _Server(uvicorn.Server):
    """A uvicorn that tells whether a signal ended it."""

    def __init__(self, tls: TlsFiles, reception: Reception) -> None:
        super().__init__(
            uvicorn.Config(
                application(reception, tls, self),
                log_level="warning",
                access_log=False,
                server_header=False,
                ws="none",
                ssl_certfile=tls.certificate,
                ssl_keyfile=tls.key,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self.told_to_end = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ignore)  # uvicorn raises the signal again when it has finished

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave at a signal."""
        self.told_to_end = True
        self.should_exit = True

    @staticmethod
    def _ignore(sig: int, frame: FrameType | None) -> None:
        return None
