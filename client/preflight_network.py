"""What `wardround hospital check` finds on the way to the coordinator: name, port, proxy, TLS, service, clock, log.

`look` takes one step after the other and ends at the first that fails, since what comes behind cannot be seen. Each
`judge_` is given what a step returned, or raised, and touches nothing.
"""

from __future__ import annotations

import errno
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from cryptography import x509

from client.preflight_codes import Finding
from client.preflight_wire import (
    Answer,
    Line,
    NotHttpError,
    Proxy,
    ask,
    connect,
    resolve,
    split_address,
    split_proxy,
)
from ledger.witness import CLOCK_TOLERANCE

OK = 200
STEP_SECONDS = 5.0
CLOCK_WARNING = 60  # seconds
_EXPIRED, _EARLY, _NAMES = 10, 9, (62, 64)  # OpenSSL's X509_V_ERR_...
_TOO_OLD = ("UNSUPPORTED_PROTOCOL", "PROTOCOL_VERSION", "WRONG_SSL_VERSION", "NO_PROTOCOLS_AVAILABLE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to look."""

    address: str  # host:port of the coordinator
    proxy: str  # URL, or ""
    authority: bytes  # PEM
    seconds: float = STEP_SECONDS  # for each step


def look(target: Target, clock: Callable[[], float]) -> Iterator[Finding]:
    """Go the whole way to the coordinator; the last finding tells how far it is."""
    host, port = split_address(target.address)
    proxy = split_proxy(target.proxy) if target.proxy else None
    next_host, next_port = (proxy.host, proxy.port) if proxy else (host, port)
    with ExitStack() as stack:
        try:
            addresses = resolve(next_host, next_port, target.seconds)
        except OSError as error:
            yield judge_name(error, next_host)
            return
        yield judge_name(addresses, next_host)
        try:
            lower = stack.enter_context(connect(addresses, next_port, target.seconds))
        except OSError as error:
            yield judge_port(error, f"{next_host}:{next_port}", proxy=proxy is not None)
            return
        yield judge_port(None, f"{next_host}:{next_port}", proxy=proxy is not None)
        line: socket.socket | Line = lower
        if proxy is not None:
            line = Line(lower, target.seconds)
            passed = judge_proxy(_pass(line, proxy, target.address), target)
            yield passed
            if passed.code != "proxy":
                return
        yield from _speak(target, line, host, clock)


def _speak(
    target: Target, lower: socket.socket | Line, host: str, clock: Callable[[], float]
) -> Iterator[Finding]:
    line = Line(lower, 2 * target.seconds)
    try:
        line.wrap(_context(target.authority), host)
    except OSError as error:
        yield judge_tls(error, target.authority, _shown(target, host), host)
        return
    yield judge_tls(None, target.authority, line.certificate(), host)
    try:
        answer = ask(
            line, f"GET /health HTTP/1.1\r\nHost: {target.address}\r\nConnection: close\r\n\r\n", body=True
        )
    except (OSError, NotHttpError) as error:
        yield judge_service(error, target.address)
        return
    yield judge_service(answer, target.address)
    yield judge_clock(answer.headers.get("date", ""), clock())


def _pass(line: Line, proxy: Proxy, address: str) -> Answer | Exception:
    try:
        if proxy.tls:
            line.wrap(ssl.create_default_context(), proxy.host)
        password = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
        return ask(line, f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n{password}\r\n", body=False)
    except (OSError, NotHttpError) as error:
        return error


def _context(authority: bytes) -> ssl.SSLContext:
    """Trust the one authority, as `client.consortium` does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.decode("ascii", "backslashreplace"))
    return context


def _shown(target: Target, host: str) -> bytes:
    """Return the certificate that is shown to somebody who would believe any, to say whose it is; b"" for none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is read, nothing is sent
    proxy = split_proxy(target.proxy) if target.proxy else None
    next_host, next_port = (proxy.host, proxy.port) if proxy else split_address(target.address)
    try:
        with connect(resolve(next_host, next_port, target.seconds), next_port, target.seconds) as lower:
            line: socket.socket | Line = lower
            if proxy is not None:
                line = Line(lower, target.seconds)
                _pass(line, proxy, target.address)
            inner = Line(line, target.seconds)
            inner.wrap(context, host)
            return inner.certificate()
    except OSError:
        return b""


def judge_name(found: tuple[str, ...] | OSError, host: str) -> Finding:
    """Decide on the addresses of a name."""
    if isinstance(found, TimeoutError) or (
        isinstance(found, socket.gaierror) and found.errno == socket.EAI_AGAIN
    ):
        return Finding(code="name.silent", sentence=f"no name server answered for {host}")
    if isinstance(found, OSError):
        return Finding(code="name.unknown", sentence=f"{host} has no address: {found.strerror or found}")
    return Finding(code="name", sentence=f"{host} is {', '.join(found)}")


def judge_port(error: OSError | None, where: str, *, proxy: bool) -> Finding:
    """Decide on a TCP connection: refused, dropped and no way there have different owners."""
    if error is None:
        return Finding(code="port", sentence=f"{where} takes connections")
    if isinstance(error, ConnectionRefusedError):
        code, why = "port.refused", "refuses the connection: nothing listens there, or a firewall rejects it"
    elif isinstance(error, TimeoutError):
        code, why = "port.silent", "does not answer: a firewall drops the connection, or the host is off"
    elif error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        code, why = "port.route", "cannot be reached: there is no route from this machine"
    else:
        code, why = "port.failed", f"cannot be connected to: {error.strerror or error}"
    return Finding(code="proxy.unreachable" if proxy else code, sentence=f"{where} {why}")


def judge_proxy(answer: Answer | Exception, target: Target) -> Finding:
    """Decide on the proxy's answer to CONNECT."""
    proxy = split_proxy(target.proxy)
    where = f"the proxy {proxy.host}:{proxy.port}"
    if isinstance(answer, Exception):
        why = "does not answer as an HTTP proxy" if isinstance(answer, NotHttpError) else f"fails: {answer}"
        return Finding(code="proxy.answer", sentence=f"{where} {why}")
    if answer.status == 407:
        which = "another" if proxy.authorization else "a"
        return Finding(code="proxy.password", sentence=f"{where} wants {which} user name and password")
    if not 200 <= answer.status < 300:
        sentence = f"{where} does not connect to {target.address}: HTTP status {answer.status}"
        return Finding(code="proxy.forbidden", sentence=sentence)
    return Finding(code="proxy", sentence=f"{where} connects to {target.address}")


def judge_tls(error: OSError | None, authority: bytes, shown: bytes, host: str) -> Finding:
    """Decide on a TLS handshake.

    Args:
        error: What it raised.
        authority: The certificate that is trusted, PEM.
        shown: The certificate that the other side shows, DER, or b"" where it shows none.
        host: Whom it should belong to.
    """
    if error is None:
        return Finding(code="tls", sentence=f"the certificate is by our authority, for {host}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return _judge_certificate(error.verify_code, authority, shown, host)
    if isinstance(error, TimeoutError):
        return Finding(code="tls.silent", sentence=f"{host} takes the connection, and then says nothing")
    if any(word in str(getattr(error, "reason", "")) for word in _TOO_OLD):
        return Finding(code="tls.version", sentence=f"{host}, or what answers for it, speaks only an old TLS")
    return Finding(code="tls.none", sentence=f"{host} does not speak TLS, or ends the handshake at once")


def _judge_certificate(code: int, authority: bytes, shown: bytes, host: str) -> Finding:
    mine = x509.load_pem_x509_certificate(authority).subject
    try:
        certificate = x509.load_der_x509_certificate(shown)
        issuer, name = certificate.issuer, certificate.issuer.rfc4514_string()
    except ValueError:
        return Finding(code="tls.none", sentence=f"{host} shows a certificate that cannot be read")
    if code == _EXPIRED:
        end = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        return Finding(code="tls.expired", sentence=f"the certificate of {host} ended on {end}")
    if code == _EARLY:
        begin = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        return Finding(code="tls.early", sentence=f"the certificate of {host} is valid only from {begin}")
    if code in _NAMES:
        return Finding(code="tls.name", sentence=f"the certificate is by our authority, but not for {host}")
    if issuer == mine:
        return Finding(
            code="tls.authority",
            sentence=f"{host} shows a certificate by {name}: the name of our authority, not its key",
        )
    return Finding(
        code="tls.intercepted",
        sentence=f"{host} shows a certificate by {name}, not by our authority: the connection is intercepted",
    )


def judge_service(answer: Answer | Exception, address: str) -> Finding:
    """Decide whether a Wardround coordinator answers."""
    if isinstance(answer, NotHttpError):
        return Finding(code="service.other", sentence=f"{address} does not speak HTTP")
    if isinstance(answer, Exception):
        return Finding(code="service.down", sentence=f"{address} does not answer a request: {answer}")
    if answer.status >= 500:
        return Finding(code="service.down", sentence=f"{address} answers with HTTP status {answer.status}")
    status = reason = ""
    try:
        said = json.loads(answer.body)
        status, reason = str(said["status"])[:40], str(said.get("reason", ""))[:200]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        pass
    if answer.status != OK or not status:
        sentence = f"{address} answers, but not as a coordinator does (HTTP status {answer.status})"
        return Finding(code="service.other", sentence=sentence)
    if status != "ok":
        return Finding(code="service.waits", sentence=f"{address} is a coordinator; {status}: {reason}")
    return Finding(code="service", sentence=f"{address} is a coordinator, and well")


def judge_clock(date: str, now: float) -> Finding:
    """Compare this machine's clock with an HTTP Date header, which has whole seconds."""
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return Finding(code="clock.unknown", sentence="the coordinator did not state its time")
    off = round(now - theirs)
    if abs(off) < CLOCK_WARNING:
        return Finding(code="clock", sentence=f"within {CLOCK_WARNING} s of the coordinator's")
    side = "ahead of" if off > 0 else "behind"
    code = "clock.wrong" if abs(off) >= CLOCK_TOLERANCE else "clock.off"
    return Finding(code=code, sentence=f"this machine's clock is {abs(off)} s {side} the coordinator's")
