"""A local certificate authority and the certificates that it issues for the coordinator's ports.

Two ports of a coordinator speak TLS: the public one and Flower's SuperLink on loopback. Consortia with an authority
of their own bring `TlsFiles` themselves; everybody else, the demo included, gets one authority a coordinator, made
here and handed to the hospitals once, with their invitation. Certificates follow RFC 5280 strictly
enough for Python's `VERIFY_X509_STRICT`, the default since 3.13.

The clock is an argument; serving TLS is left to `superlink` and to the service.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coordinator.errors import TlsError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
AUTHORITY_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = timedelta(days=397)  # what browsers still accept; renewed at every start that finds it near
RENEW_BEFORE = timedelta(days=30)
BACKDATE = timedelta(minutes=10)  # hospitals' clocks may lag: the ledger's own tolerance
PRIVATE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The three PEM files of one TLS port."""

    authority: Path  # certificate that the other side pins
    certificate: Path
    key: Path  # readable by its owner alone


def ensure_tls(directory: Path, hosts: Sequence[str], now: datetime) -> TlsFiles:
    """Return the directory's TLS files, made or renewed where needed, for loopback and the given hosts.

    The authority is made once and kept, because hospitals pin it; the server's certificate is issued again
    when it nears its end or lacks a host.

    Args:
        directory: Where the files live; made if absent.
        hosts: DNS names and IP addresses besides `LOOPBACK`.
        now: Current time, timezone-aware.

    Raises:
        TlsError: A host is malformed, or a file in the directory is unreadable or exposed.
    """
    names = tuple(_general_name(host) for host in dict.fromkeys((*LOOPBACK, *hosts)))
    files = TlsFiles(
        authority=directory / "ca.pem", certificate=directory / "server.pem", key=directory / "server-key.pem"
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        authority, authority_key = _authority(files.authority, directory / "ca-key.pem", now)
        if not _still_good(files, authority, names, now):
            _issue(files, authority, authority_key, names, now)
    except OSError as error:
        raise TlsError(
            f"{error.filename}: cannot be read or written ({error.strerror}); check the disk"
        ) from error
    return files


def write_private(path: Path, content: bytes) -> None:
    """Write a secret so that it is readable by its owner alone from its first byte, and whole or absent.

    It is on the disk when this returns, its name too.

    Raises:
        OSError: The disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, PRIVATE)
    try:
        os.fchmod(descriptor, PRIVATE)  # a file left by a crash keeps its old mode otherwise
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk. Raises OSError."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _authority(
    certificate_path: Path, key_path: Path, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    if key_path.exists():  # the key is written last: where it stands, the certificate does too
        return _load_certificate(certificate_path), _load_key(key_path)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Wardround local authority")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    write_private(key_path, _key_bytes(key))
    return certificate, key


def _issue(
    files: TlsFiles,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    names: Sequence[x509.GeneralName],
    now: datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + SERVER_LIFETIME, authority.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Wardround coordinator")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    write_private(files.key, _key_bytes(key))
    # A crash on this line leaves a key without its certificate; `_still_good` compares the two and issues again.
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _still_good(
    files: TlsFiles, authority: x509.Certificate, names: Sequence[x509.GeneralName], now: datetime
) -> bool:
    if not (files.certificate.exists() and files.key.exists()):
        return False
    certificate, key = _load_certificate(files.certificate), _load_key(files.key)
    if certificate.issuer != authority.subject or certificate.public_key() != key.public_key():
        return False
    covered = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    fresh = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE
    return fresh and set(names) <= set(covered)


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise TlsError(
            f"{path}: not a PEM certificate; restore it from a backup or remove the folder"
        ) from error


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if path.stat().st_mode & 0o077:
        raise TlsError(f"{path}: others may read this key; `chmod 600` it, and replace it if anybody has")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise TlsError(f"{path}: not an unencrypted PEM key; restore it from a backup") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TlsError(f"{path}: not an elliptic-curve key; restore it from a backup")
    return key


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key_usage(*, key_cert_sign: bool = False, digital_signature: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    labels = host.split(".")
    plain = all(label.replace("-", "").isalnum() and len(label) <= 63 for label in labels)
    if not (host.isascii() and len(host) <= 253 and plain):
        raise TlsError(f"host name {host!r}: give a plain DNS name or an IP address")
    return x509.DNSName(host)
