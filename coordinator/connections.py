"""Limits on what a connection may do before anything of it is believed: its number, its head's size and time.

uvicorn's parser bounds neither the head of a request nor the time that one may take, so a stranger could hold
memory and connections for nothing. Bodies are `coordinator.routing`'s.
"""

from __future__ import annotations

import asyncio
import resource
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_CONNECTIONS = 2048  # a hospital holds about four
MAX_FILES = 16_384
MAX_HEAD = 32 << 10  # bytes of request line and headers
PIECE = 16 << 10  # bytes that are counted at a time, one TLS record
HEAD_SECONDS = 20.0  # from the first byte, or the connection's start, to the end of the head


def make_room() -> None:
    """Let this process open as many files as its owner allows: strangers' connections must not starve the log's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Bounded(HttpToolsProtocol):
    """uvicorn's protocol, within those limits; whoever breaks one is hung up on."""

    _unread = 0  # bytes that are no body, since the last complete head or message
    _timer: asyncio.TimerHandle | None = None  # while a head is awaited

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and wait for its first head."""
        super().connection_made(cast(asyncio.Transport, transport))
        if len(self.connections) > MAX_CONNECTIONS:
            self.transport.abort()
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes in; too many that are no body end the connection: a head, or what follows a chunked body."""
        for start in range(0, len(data), PIECE):  # asyncio hands over up to 256 KiB in one
            piece = data[start : start + PIECE]
            self._unread += len(piece)
            super().data_received(piece)
            if self._unread > MAX_HEAD:
                self.transport.abort()
            if self.transport.is_closing():
                return

    def on_message_begin(self) -> None:
        """Await the head of a request."""
        self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin the request: its head came in time."""
        self._unread = 0
        self._head_came()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body in."""
        self._unread -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request's body."""
        self._unread = 0
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._head_came()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _head_came(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
