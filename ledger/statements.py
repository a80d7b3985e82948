"""What a coordinator signs beside the log, so that it can be held to it: promises, objections, acknowledgements.

A statement is no record: it never enters a log, and its DSSE payload type is another one, so no signature on the one
is a signature on the other. One key signs: the coordinator's identity key, in the state of the log at the size or
time that the statement names. FORMAT.md, "Statements"; PROTOCOL.md, "A coordinator that will not append, and a log
that dies", says who checks which of them against what.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger import canonical
from ledger.encoding import decode_base64, encode_base64
from ledger.envelope import Signature, public_hex
from ledger.errors import MalformedError, VerificationError
from ledger.signature import SigningKey
from ledger.values import Count, Digest, MaybeDigest, Name, Origin, Part, Positive, RuleName, Seconds

PAYLOAD_TYPE = "application/vnd.wardround.statement.v1+json"
MAX_SIZE = 4 * 1024  # bytes of a signed statement
_HEAD = b"DSSEv1 %d %s " % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Base: every statement names the log that it is about."""

    TYPE: ClassVar[str] = ""

    origin: Origin

    def __post_init__(self) -> None:
        canonical.check(self)

    def to_bytes(self) -> bytes:
        """Return the only encoding that is signed."""
        return canonical.dumps({"type": self.TYPE, **canonical.plain(self)})

    def digest(self) -> str:
        """Return the lowercase hex SHA-256 of `to_bytes`: how an incident names this one."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise(Statement):
    """The record with this digest is among the log's first `size` entries, or will be when it has so many."""

    TYPE: ClassVar[str] = "promise"
    record: Digest
    size: Positive
    time: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection(Statement):
    """After the log's first `size` entries the record with this digest may not follow, by this rule."""

    TYPE: ClassVar[str] = "objection"
    record: Digest
    rule: RuleName
    size: Count
    time: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement(Statement):
    """A hospital's reply arrived whole and in time, with a receipt that may follow the log."""

    TYPE: ClassVar[str] = "acknowledgement"
    job: Digest
    round: Positive
    hospital: Name
    receipt: Digest  # the receipt's record digest
    update: MaybeDigest  # of the bytes that arrived; empty where none were due
    received_at: Seconds


STATEMENTS: tuple[type[Statement], ...] = (Promise, Objection, Acknowledgement)
_BY_TYPE = {cls.TYPE: cls for cls in STATEMENTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wire(Part):
    payload: str
    payloadType: str  # noqa: N815 - DSSE's own spelling
    signatures: tuple[Signature, ...]


def pae(payload: bytes) -> bytes:
    """Return what is signed. Source: DSSE v1.0, "Signature Definition"."""
    return b"%s%d %s" % (_HEAD, len(payload), payload)


def sign(statement: Statement, key: SigningKey) -> bytes:
    """Return a statement signed by the coordinator's identity key."""
    payload = statement.to_bytes()
    wire = {
        "payload": encode_base64(payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": public_hex(key), "sig": encode_base64(key.sign_bytes(pae(payload)))}],
    }
    return canonical.dumps(wire)


def parse(payload: bytes) -> Statement:
    """Parse a statement's bytes. Raises MalformedError, and nothing else, for any that `to_bytes` does not make."""
    value = canonical.loads(payload, MAX_SIZE)
    if not isinstance(value, dict) or not isinstance(kind := value.pop("type", None), str):
        raise MalformedError("a statement must be a JSON object with a type")
    if (cls := _BY_TYPE.get(kind)) is None:
        raise MalformedError(f"unknown statement type {kind[:40]!r}")
    statement = canonical.build(cls, value)
    if statement.to_bytes() != payload:
        raise MalformedError(f"the {kind} is not in canonical form")
    return statement


def open_signed(data: bytes, key: str) -> Statement:
    """Return a statement that this key, and nobody else, signed.

    Args:
        data: As `sign` returns it, from anywhere.
        key: The coordinator's identity key, as records spell it.

    Raises:
        MalformedError: not the one encoding of a signed statement.
        VerificationError: another key, or a wrong signature.
    """
    value = canonical.loads(data, MAX_SIZE)
    wire = canonical.build(_Wire, value)
    if wire.payloadType != PAYLOAD_TYPE:
        raise MalformedError(f"payloadType must be {PAYLOAD_TYPE}")
    payload = decode_base64(wire.payload, "payload")
    if canonical.dumps(value) != data or len(wire.signatures) != 1:
        raise MalformedError("the statement is not in canonical form, or has not one signature")
    signature = decode_base64(wire.signatures[0].sig, "signature", 64)
    statement = parse(payload)
    if wire.signatures[0].keyid != key:
        raise VerificationError(f"this {statement.TYPE} is not signed by the coordinator's key")
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, pae(payload))
    except (InvalidSignature, ValueError):
        raise VerificationError(f"the signature on this {statement.TYPE} is wrong") from None
    return statement
