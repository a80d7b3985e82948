"""The public port: its socket, how it is served, and how it ends whoever is connected.

The loop is asyncio's own, not uvloop, which comes with Flower and which uvicorn would take: uvloop cannot close while
a stranger's TLS handshake is unfinished, so that anybody could keep the coordinator from stopping. That costs some
20 % more processor time a small request (`tests/benchmarks/event_loops.py`), and 256 KiB a connection to read TLS.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from coordinator.connections import Bounded
from coordinator.errors import ServiceError
from coordinator.tls import TlsFiles

GRACE_SECONDS = 3  # for requests under way when the service stops
BACKLOG = 128  # connections


def listen(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket, which no child inherits.

    Raises:
        ServiceError: the port is in use, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol's number asyncio leaves Nagle's algorithm on, and an answer's second part waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ServiceError(
            f"cannot listen on {host}:{port}: {error.strerror}; stop what uses it, or change the port"
        ) from None
    listener.set_inheritable(False)
    return listener


class PublicPort(uvicorn.Server):
    """A uvicorn with TLS and limits, which hangs up on whoever is left at its end.

    Args:
        tls: The certificate it shows.
        app: What answers.
    """

    def __init__(self, tls: TlsFiles, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,  # the journal is `coordinator.journal`'s
                log_level="warning",
                access_log=False,
                server_header=False,
                loop="asyncio",
                http=Bounded,
                ws="none",
                ssl_certfile=tls.certificate,
                ssl_keyfile=tls.key,
                timeout_graceful_shutdown=GRACE_SECONDS,
                timeout_keep_alive=60,
            )
        )

    def take_signals(self) -> None:
        """Let `handle_exit` be all that SIGINT and SIGTERM do: uvicorn raises them again when it has ended."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ignore)

    def context(self) -> ssl.SSLContext | None:
        """Return what new connections are served with, once there is one."""
        return self.config.ssl if self.config.loaded else None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop as uvicorn does, then hang up on whoever is still there."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # in which the transports close

    @staticmethod
    def _ignore(sig: int, frame: FrameType | None) -> None:
        return None
