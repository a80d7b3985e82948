"""The bare network that `wardround hospital check` looks at, one layer after the other, each within a time limit.

httpx would do all of it at once and report one error; a person who has to talk to a firewall's owner needs to know
which layer fails. Nothing that is read here is trusted, and no key is used.
"""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import unquote, urlsplit

MAX_HEAD = 1 << 14  # bytes of an answer's head
MAX_BODY = 1 << 16
MAX_ADDRESSES = 3  # of one name that are tried
_PIECE = 1 << 14
_Result = TypeVar("_Result")


class NotHttpError(Exception):
    """What came back is no HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Where the proxy is, from its URL."""

    host: str
    port: int
    tls: bool
    authorization: str = field(repr=False)  # value of Proxy-Authorization, or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]  # lowercase names
    body: bytes


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port", as `client.config` accepts it."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def split_proxy(url: str) -> Proxy:
    """Return the parts of a proxy's URL, as `client.config` accepts it."""
    parts = urlsplit(url)
    name, password = unquote(parts.username or ""), unquote(parts.password or "")
    secret = base64.b64encode(f"{name}:{password}".encode()).decode()
    return Proxy(
        host=parts.hostname or "",
        port=parts.port or (443 if parts.scheme == "https" else 80),
        tls=parts.scheme == "https",
        authorization=f"Basic {secret}" if name or password else "",
    )


def within(seconds: float, task: Callable[[], _Result]) -> _Result:
    """Return what a task returns; the task returns its errors, and does not raise.

    Raises:
        TimeoutError: it takes longer; it goes on in a thread that nobody waits for.
    """
    results: list[_Result] = []
    thread = threading.Thread(target=lambda: results.append(task()), name="preflight", daemon=True)
    thread.start()
    thread.join(seconds)
    if not results:
        raise TimeoutError(f"no answer in {seconds:g} s")
    return results[0]


def resolve(host: str, port: int, seconds: float) -> tuple[str, ...]:
    """Return the addresses of a name. Raises OSError, TimeoutError included."""

    def ask_resolver() -> tuple[str, ...] | OSError:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError:
            return OSError("it is no host name")
        except OSError as error:
            return error
        return tuple(dict.fromkeys(str(info[4][0]) for info in found))

    addresses = within(seconds, ask_resolver)
    if isinstance(addresses, OSError):
        raise addresses
    return addresses


def connect(addresses: tuple[str, ...], port: int, seconds: float) -> socket.socket:
    """Return a connection to the first address that answers. Raises OSError: the first address's."""
    first: OSError | None = None
    for address in addresses[:MAX_ADDRESSES]:
        try:
            return socket.create_connection((address, port), timeout=seconds)
        except OSError as error:
            first = first or error
    raise first or OSError("no address")


class Line:
    """A connection, with or without TLS round it; TLS may run inside another TLS, to a coordinator behind a proxy."""

    def __init__(self, lower: socket.socket | Line, seconds: float) -> None:
        self._lower = lower
        self._until = time.monotonic() + seconds
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    def wrap(self, context: ssl.SSLContext, host: str) -> None:
        """Begin TLS. Raises OSError: ssl.SSLError, or the connection ends or takes too long."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        try:
            self._pump(tls.do_handshake)
        except ssl.SSLError:
            self._flush()  # the alert that says why
            raise
        self._tls = tls

    def certificate(self) -> bytes:
        """Return the certificate that the other side showed, DER; b"" without TLS."""
        return (self._tls.getpeercert(binary_form=True) or b"") if self._tls else b""

    def send(self, data: bytes) -> None:
        """Send everything. Raises OSError."""
        tls = self._tls
        if tls is None:
            self._lower_send(data)
        else:
            self._pump(lambda: tls.write(data))

    def receive(self) -> bytes:
        """Return what comes next, b"" at the end. Raises OSError."""
        tls = self._tls
        if tls is None:
            return self._lower_receive()
        try:
            return self._pump(lambda: tls.read(_PIECE))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):  # the second: many servers just hang up
            return b""

    def _pump(self, step: Callable[[], _Result]) -> _Result:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._lower_receive()
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
                continue
            self._flush()
            return result

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._lower_send(data)

    def _lower_send(self, data: bytes) -> None:
        if isinstance(self._lower, Line):
            self._lower.send(data)
        else:
            self._lower.settimeout(self._left())
            self._lower.sendall(data)

    def _lower_receive(self) -> bytes:
        if isinstance(self._lower, Line):
            return self._lower.receive()
        self._lower.settimeout(self._left())
        return self._lower.recv(_PIECE)

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        return left


def ask(line: Line, head: str, *, body: bool) -> Answer:
    """Send a request without a body; return the answer, without its body where the connection goes on after it.

    Raises:
        NotHttpError: what came back is no HTTP.
        OSError: the connection ended, or it took too long.
    """
    line.send(head.encode("latin-1"))
    data = b""
    while b"\r\n\r\n" not in data:
        piece = line.receive()
        data += piece
        if not piece or len(data) > MAX_HEAD or not data.startswith(b"HTTP/1."[: len(data)]):
            raise NotHttpError
    top, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[1].isascii() or not words[1].isdecimal():
        raise NotHttpError
    while body and len(rest) < MAX_BODY and (piece := line.receive()):
        rest += piece
    pairs = (found.partition(":")[::2] for found in lines)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    return Answer(status=int(words[1]), headers=headers, body=rest)
