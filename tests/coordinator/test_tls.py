"""The local authority: what it issues is accepted by strict verification, its keys are private, it renews itself."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from coordinator.errors import TlsError
from coordinator.seen import Seen
from coordinator.tls import TlsFiles, ensure_tls
from ledger.durable import write_private

NOW = datetime.now(UTC).replace(microsecond=0)


def handshake(files: TlsFiles, name: str) -> None:
    """Make one TLS handshake over a socket pair, as strictly as OpenSSL can verify."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.create_default_context(cafile=files.authority)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    near, far = socket.socketpair()
    near.settimeout(10)
    far.settimeout(10)

    def serve() -> None:
        try:
            with server.wrap_socket(far, server_side=True) as wrapped:
                wrapped.recv(1)
        except OSError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(near, server_hostname=name) as wrapped:
            wrapped.sendall(b"x")
    finally:
        near.close()
        thread.join()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "coordinator.example.org", "10.1.2.3"])
def test_strict_verification_accepts_each_name(tmp_path: Path, name: str) -> None:
    handshake(ensure_tls(tmp_path, ["coordinator.example.org", "10.1.2.3"], NOW), name)


def test_a_name_that_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(ensure_tls(tmp_path, [], NOW), "coordinator.example.org")


def test_another_authority_is_refused(tmp_path: Path) -> None:
    ours, theirs = ensure_tls(tmp_path / "a", [], NOW), ensure_tls(tmp_path / "b", [], NOW)
    mixed = TlsFiles(authority=ours.authority, certificate=theirs.certificate, key=theirs.key)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(mixed, "localhost")


def test_keys_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    ensure_tls(tmp_path, [], NOW)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("*-key.pem")} == {
        "ca-key.pem": 0o600,
        "server-key.pem": 0o600,
    }


def test_an_exposed_key_is_refused(tmp_path: Path) -> None:
    ensure_tls(tmp_path, [], NOW)
    (tmp_path / "server-key.pem").chmod(0o640)
    with pytest.raises(TlsError, match="chmod 600"):
        ensure_tls(tmp_path, [], NOW)


def test_nothing_changes_while_all_is_well(tmp_path: Path) -> None:
    files = ensure_tls(tmp_path, ["a.example.org"], NOW)
    before = files.certificate.read_bytes()
    ensure_tls(tmp_path, ["a.example.org"], NOW + timedelta(days=300))
    assert files.certificate.read_bytes() == before


@pytest.mark.parametrize(
    ("hosts", "days"),
    [(["a.example.org", "b.example.org"], 1), (["a.example.org"], 390), (["a.example.org"], 500)],
    ids=["new host", "near its end", "past its end"],
)
def test_the_certificate_is_renewed_under_the_same_authority(
    tmp_path: Path, hosts: list[str], days: int
) -> None:
    files = ensure_tls(tmp_path, ["a.example.org"], NOW)
    authority, before = files.authority.read_bytes(), files.certificate.read_bytes()
    later = NOW + timedelta(days=days)
    ensure_tls(tmp_path, hosts, later)
    renewed = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    assert files.authority.read_bytes() == authority
    assert files.certificate.read_bytes() != before
    assert renewed.not_valid_after_utc > later + timedelta(days=300)
    names = renewed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(hosts) <= set(names.get_values_for_type(x509.DNSName))


def test_a_crash_between_key_and_certificate_is_repaired(tmp_path: Path) -> None:
    ensure_tls(tmp_path, [], NOW)
    old = (tmp_path / "server.pem").read_bytes()
    (tmp_path / "server.pem").unlink()
    files = ensure_tls(tmp_path, [], NOW)
    handshake(files, "localhost")
    files.certificate.write_bytes(old)  # of another key: the crash came later
    handshake(ensure_tls(tmp_path, [], NOW), "localhost")


@pytest.mark.parametrize("host", ["", "a b", "*.example.org", "a..b", "a" * 64, "exämple.org", "a/b"])
def test_a_malformed_host_leaves_nothing_behind(tmp_path: Path, host: str) -> None:
    with pytest.raises(TlsError, match="host name"):
        ensure_tls(tmp_path / "tls", [host], NOW)
    assert not (tmp_path / "tls").exists()


@pytest.mark.parametrize("name", ["ca.pem", "ca-key.pem", "server.pem", "server-key.pem"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    ensure_tls(tmp_path, [], NOW)
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(TlsError, match=name):
        ensure_tls(tmp_path, [], NOW)


def test_crash_after_a_private_file_was_written_does_not_lose_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proposals, nodes' keys and the roll are promised once this returns: the folder is synced after the renaming."""
    synced: list[list[str]] = []

    def fsync(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            synced.append(sorted(p.name for p in tmp_path.iterdir()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_private(tmp_path / "proposal.json", b"{}")
    assert synced == [["proposal.json"]]


def test_crash_after_a_request_was_noted_does_not_lose_the_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first request of a sender whose clock runs ahead makes the file: without its name, it could be replayed."""
    synced: list[list[str]] = []

    def fsync(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            synced.append(sorted(p.name for p in tmp_path.iterdir()))

    seen = Seen(tmp_path / "seen", 1000)
    monkeypatch.setattr(os, "fsync", fsync)
    seen.take("ab" * 32, "cd" * 16, 1020, 1010)
    assert synced == [["seen"]]
