"""Makes a coordinator's folder, and the invitations that open it: `wardround coordinator init|invite`."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from immutables import Map

from coordinator import founding
from coordinator.config import FILE, CoordinatorConfig, load, read_key
from coordinator.errors import ConfigError, JoiningError, StorageError
from coordinator.roll import COORDINATOR, Roll, RollFile
from coordinator.tls import ensure_tls
from ledger.checkpoint import Checkpoint
from ledger.durable import write_private
from ledger.envelope import public_hex
from ledger.errors import MalformedError
from ledger.joining import CODE_SIZE, Invitation
from ledger.note import Note
from ledger.signature import SEED_SIZE, KeyType, SigningKey
from ledger.source import read_file
from ledger.store import CHECKPOINT

DAY = 86_400  # seconds
MAX_DAYS = 90  # how long an invitation may be open
MAX_KEY = 10_000  # bytes of a key's file
_HEX_KEY = 64

_SETTINGS = """\
# Settings of the coordinator of {name}. Start the service again after a change.
# Who belongs to the consortium is on its log, never here.

port = {port}  # the one public port, TLS; hospitals reach this and nothing else
host = "{host}"  # address that it listens on: "0.0.0.0" is every one of this machine, "127.0.0.1" this machine alone
public_name = "{public_name}"  # how hospitals call this machine; stands in the certificate
round_seconds = 600  # how long a round waits for hospitals' replies
approval_seconds = 604800  # how long a proposed job waits for hospitals that have not answered
patience_seconds = 60  # how long a round waits for hospitals whose agent is away, before it and in it
tick_seconds = 3600  # how old the log's time may become before the coordinator states it anew
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `init` is told."""

    name: str  # of the consortium
    origin: str  # of its log
    public_name: str
    port: int
    host: str
    max_dishonest: int
    invite: tuple[tuple[str, str], ...]  # (name, role)
    recovery: tuple[str, ...]  # hex keys, or files
    days: int


def init(directory: Path, plan: Plan, now: int) -> list[Invitation]:
    """Make a coordinator's folder, whole or not at all, and return the founders' invitations.

    Raises:
        ConfigError, JoiningError, TlsError, StorageError: one line; nothing is there then.
        MalformedError: a name, an origin or a role is none.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory} exists and is not empty: name a new folder")
    CoordinatorConfig(directory=directory, port=plan.port, host=plan.host, public_name=plan.public_name)
    codes = {name: secrets.token_hex(CODE_SIZE) for name, _ in plan.invite}
    if len(codes) != len(plan.invite):
        raise JoiningError("one name is invited twice: every founder needs a name of its own")
    roll = _first_roll(plan)
    for name, role in plan.invite:
        roll = founding.invite(roll, name, role, codes[name], now=now, seconds=_seconds(plan.days))
    if reason := founding.problem(roll):
        raise JoiningError(reason)
    built = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    try:
        _build(built, plan, roll)
        directory.parent.mkdir(parents=True, exist_ok=True)
        built.replace(directory)
    except OSError as error:
        raise StorageError(f"cannot write {directory}: {error.strerror}; see to the disk") from None
    finally:
        shutil.rmtree(built, ignore_errors=True)
    return [_invitation(directory, name, codes[name]) for name, _ in plan.invite]


def invite(directory: Path, name: str, role: str, days: int, now: int) -> Invitation:
    """Invite one more member, or the same one again, whose earlier invitation is void then.

    Raises:
        CoordinatorError, MalformedError: one line says what to do; nothing has changed.
    """
    code = secrets.token_hex(CODE_SIZE)
    RollFile(directory).change(
        lambda roll: founding.invite(roll, name, role, code, now=now, seconds=_seconds(days))
    )
    return _invitation(directory, name, code)


def _invitation(directory: Path, name: str, code: str) -> Invitation:
    settings, roll = load(directory), RollFile(directory).read()
    invited = roll.by_name(name)
    assert invited is not None
    host = f"[{settings.public_name}]" if ":" in settings.public_name else settings.public_name
    made = Invitation(
        address=f"{host}:{settings.port}",
        authority=fingerprint(directory),
        code=code,
        name=name,
        role=invited.role,
        origin=roll.origin,
        expires_at=invited.expires_at,
        charter=roll.founded,
        size=0,
        root="",
    )
    if not roll.founded:
        return made
    try:
        final = Checkpoint.from_text(
            Note.from_bytes(read_file(settings.log / CHECKPOINT, MAX_KEY * 100)).text
        )
    except FileNotFoundError:
        return made
    return replace(made, size=final.size, root=final.root.hex())


def fingerprint(directory: Path) -> str:
    """Return the SHA-256 of the certificate that hospitals check the coordinator's TLS against."""
    path = directory / "tls" / "ca.pem"
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise ConfigError(f"{path} is missing or no certificate: restore it from a backup") from None
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def recovery_key(given: str, number: int) -> str:
    """Return an offline key's public half: given in hex, in a key's file, or made into a file that is not there yet.

    Raises:
        ConfigError, StorageError: the file holds no such key, or cannot be written.
    """
    if len(given) == _HEX_KEY and set(given) <= set("0123456789abcdef"):
        return given
    path = Path(given)
    if path.exists():
        return public_hex(read_key(path))
    made = SigningKey(name=f"recovery-{number}", type=KeyType.ED25519, seed=secrets.token_bytes(SEED_SIZE))
    try:
        write_private(path, made.to_text().encode() + b"\n")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from None
    return public_hex(made)


def _first_roll(plan: Plan) -> Roll:
    keys = tuple(recovery_key(given, number) for number, given in enumerate(plan.recovery, 1))
    if len(set(keys)) != len(keys):
        raise MalformedError("one recovery key is given twice")
    return Roll(
        origin=plan.origin,
        name=plan.name,
        max_dishonest=plan.max_dishonest,
        recovery_keys=keys,
        recovery_quorum=len(keys) // 2 + 1 if keys else 0,
        invited=(),
        charter="",
        signatures=Map(),
        founded="",
    )


def _build(directory: Path, plan: Plan, roll: Roll) -> None:
    for folder in (directory, directory / "keys", directory / "nodes"):
        folder.mkdir(mode=0o700)
    for name, called in (("log", plan.origin), ("coordinator", COORDINATOR)):
        key = SigningKey(name=called, type=KeyType.ED25519, seed=secrets.token_bytes(SEED_SIZE))
        write_private(directory / "keys" / f"{name}.key", key.to_text().encode() + b"\n")
    ensure_tls(directory / "tls", [plan.public_name, plan.host], datetime.now(UTC))
    settings = _SETTINGS.format(name=plan.name, port=plan.port, host=plan.host, public_name=plan.public_name)
    (directory / FILE).write_text(settings)
    RollFile(directory).create(roll)
    for path in directory.rglob("*"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _seconds(days: int) -> int:
    if not 1 <= days <= MAX_DAYS:
        raise JoiningError(f"an invitation is open for 1 to {MAX_DAYS} days, not {days}")
    return days * DAY


def parse_invite(text: str) -> tuple[str, str]:
    """Return (name, role) of an option "role:name". Raises ConfigError."""
    role, colon, name = text.partition(":")
    if not colon or not name:
        raise ConfigError(f'--invite {text}: write it as "hospital:northgate"')
    return name, role
