"""What a hospital's check may meet on the network: coordinators, impostors, proxies, walls. All of it on loopback."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coordinator.tls import TlsFiles, ensure_tls

PATIENCE = 10.0  # seconds; a limit against hanging
NOW = datetime.now(UTC).replace(microsecond=0)
Talk = Callable[[socket.socket], None]


@contextmanager
def serving(talk: Talk, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[int]:
    """Answer every connection with `talk`, inside TLS if there is a context; yields the port."""
    listener = socket.create_server((host, 0))

    def answer(raw: socket.socket) -> None:
        raw.settimeout(PATIENCE)
        with raw, suppress(OSError), context.wrap_socket(raw, server_side=True) if context else raw as line:
            talk(line)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def server_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


def old_context(files: TlsFiles) -> ssl.SSLContext:
    """Of a box that was last updated in 2008."""
    context = server_context(files)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def inspection_files(folder: Path) -> TlsFiles:
    """An authority as a company's TLS inspection has it, with a certificate for loopback."""
    files = ensure_tls(folder, [], NOW)
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Example Hospital TLS Inspection")]),
    )
    theirs = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    alternative = theirs.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    made = (
        x509.CertificateBuilder()
        .subject_name(theirs.subject)
        .issuer_name(name)
        .public_key(theirs.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(days=30))
        .add_extension(alternative.value, critical=False)
        .sign(key, hashes.SHA256())
    )
    files.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return files


def read_head(line: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and (piece := line.recv(4096)):
        data += piece
    return data


def http(status: int = 200, body: str = '{"status": "ok"}', date: float | None = None) -> Talk:
    """A web server that always says the same."""

    def talk(line: socket.socket) -> None:
        read_head(line)
        stated = f"Date: {formatdate(date, usegmt=True)}\r\n" if date is not None else ""
        line.sendall(f"HTTP/1.1 {status} Whatever\r\n{stated}Connection: close\r\n\r\n{body}".encode())
        line.close()

    return talk


def proxying(status: int = 200, *, seen: list[bytes] | None = None) -> Talk:
    """A proxy that answers CONNECT with a status, and connects where that is 200."""

    def talk(line: socket.socket) -> None:
        head = read_head(line)
        if seen is not None:
            seen.append(head)
        line.sendall(f"HTTP/1.1 {status} Whatever\r\n\r\n".encode())
        if status == 200:
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            with socket.create_connection((host, int(port)), PATIENCE) as far:
                relay(line, far)

    return talk


def intercepting(port: int) -> Talk:
    """The inside of a TLS inspection: reads everything, and passes it on to the real server."""

    def talk(line: socket.socket) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port), PATIENCE)) as far:
            relay(line, far)

    return talk


def relay(near: socket.socket, far: socket.socket) -> None:
    """Pass on what both sides say until one ends; in one thread, for two may not use one TLS connection at a time."""
    other = {near: far, far: near}
    while ready := _readable(near, far):
        for source in ready:
            source.settimeout(0)
            try:
                data = source.recv(4096)
            except ssl.SSLWantReadError:  # a session ticket, or half a record: nothing to pass on yet
                continue
            finally:
                source.settimeout(PATIENCE)
            if not data:
                return
            other[source].sendall(data)


def _readable(*sides: socket.socket) -> list[socket.socket]:
    """Those with something to read, once there are any; what TLS has read ahead no longer shows on the socket."""
    ahead: list[socket.socket] = [
        side for side in sides if isinstance(side, ssl.SSLSocket) and side.pending()
    ]
    return ahead or select.select(sides, (), (), PATIENCE)[0]


def silent(line: socket.socket) -> None:
    """Take what comes, say nothing."""
    while line.recv(4096):
        pass


def closing(line: socket.socket) -> None:
    """Hang up once something was said."""
    line.recv(4096)
    line.close()


@contextmanager
def full_backlog() -> Iterator[int]:
    """A port whose further connections are dropped without an answer, as a firewall does; yields it."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


def closed_port() -> int:
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
