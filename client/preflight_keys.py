"""What `wardround hospital check` finds of the hospital's keys and of the authority; no key is ever shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from client import config
from client.data import SECRET_SIZE
from client.errors import ClientError
from client.preflight_codes import Finding
from ledger.signature import KeyType

KEYS = ("identity.key", "witness.key", "node.pem", "dataset.secret")
DATABASE = "database.url"
RENEW_DAYS = 30  # before the authority's end a warning is due


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """One file of `keys/`; nothing of its content."""

    path: Path
    trouble: str  # why it cannot be read, or ""
    mode: int  # permission bits
    owner: int  # user id
    wrong: str  # why its content is not what it must be, or ""


def observe_keys(directory: Path, *, database: bool = False) -> tuple[KeyFile, ...]:
    """Look at every key file, present or not; with a `database`, at the file that has its password too."""
    names = (*KEYS, DATABASE) if database else KEYS
    return tuple(_key_file(directory / "keys" / name) for name in names)


def _key_file(path: Path) -> KeyFile:
    try:
        found = path.stat()
        data = config.read_file(path)
    except OSError as error:
        return KeyFile(path=path, trouble=error.strerror or "", mode=0, owner=0, wrong="")
    except ClientError as error:
        return KeyFile(path=path, trouble=str(error), mode=0, owner=0, wrong="")
    return KeyFile(
        path=path, trouble="", mode=found.st_mode & 0o777, owner=found.st_uid, wrong=_wrong(path, data)
    )


def _wrong(path: Path, data: bytes) -> str:
    """Say why a key's content is not what it must be, without showing any of it."""
    if path.name == "dataset.secret":
        return "" if len(data) == SECRET_SIZE else f"it must hold {SECRET_SIZE} bytes, not {len(data)}"
    if path.name == DATABASE:
        return "" if data.strip() else "it is empty"
    if path.name == "node.pem":
        whole = data.startswith(b"-----BEGIN ") and b"PRIVATE KEY-----" in data and _loads(data)
        return "" if whole else "it is not an unencrypted elliptic-curve key in PEM"
    kind = KeyType.COSIGNATURE if path.name == "witness.key" else KeyType.ED25519
    try:
        config.read_key(path, kind)
    except ClientError as error:
        return str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ").partition(": restore")[0]
    return ""


def _loads(pem: bytes) -> bool:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        return False
    return isinstance(key, ec.EllipticCurvePrivateKey)


def judge_keys(files: tuple[KeyFile, ...], owner: int) -> Iterator[Finding]:
    """Decide on the key files, given the folder's owner."""
    sound = True
    for file in files:
        faults = []
        if file.trouble:
            faults.append(("keys.missing", f"{file.path} cannot be read ({file.trouble})"))
        else:
            if file.mode & 0o077:
                faults.append(("keys.open", f"others may use {file.path} (mode {file.mode:04o})"))
            if file.owner != owner:
                faults.append(("keys.owner", f"{file.path} belongs to user {file.owner}, not {owner}"))
            if file.wrong:
                faults.append(("keys.kind", f"{file.path}: {file.wrong}"))
        for code, sentence in faults:
            sound = False
            yield Finding(code=code, sentence=sentence)
    if sound:
        yield Finding(code="keys", sentence=f"{len(files)} key files, each readable by its owner alone")


def judge_authority(pem: bytes | str, path: Path, now: datetime) -> Finding:
    """Decide on the authority's certificate.

    Args:
        pem: Its content, or why it cannot be read.
        path: The file.
        now: Timezone-aware.
    """
    if isinstance(pem, str):
        return Finding(code="authority.wrong", sentence=pem)
    try:
        end = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    except ValueError:
        return Finding(code="authority.wrong", sentence=f"{path} holds no certificate")
    if end <= now:
        return Finding(code="authority.expired", sentence=f"{path} ended on {end:%Y-%m-%d}")
    code = "authority.expires"
    if end > now + timedelta(days=RENEW_DAYS):
        code = "authority"
    return Finding(code=code, sentence=f"{path} is valid until {end:%Y-%m-%d}")
