"""A record and its signatures as one log entry: a DSSE v1.0 envelope in canonical JSON.

A signature's `keyid` is the Ed25519 public key itself in hex, so that signatures can be checked without
knowing the consortium, in any order and on any core. Whether a key may sign is for `rules` to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger import canonical, records
from ledger.encoding import decode_base64, encode_base64
from ledger.errors import MalformedError, VerificationError
from ledger.records import MAX_RECEIPT_SIZE, MAX_RECORD_SIZE, Receipt, Record
from ledger.signature import SigningKey
from ledger.values import Key, Part, require_sorted

PAYLOAD_TYPE = "application/vnd.wardround.record.v1+json"
_HEAD = b"DSSEv1 %d %s " % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature(Part):
    """One signature of an envelope."""

    keyid: Key
    sig: str  # standard base64 of 64 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wire(Part):
    payload: str
    payloadType: str  # noqa: N815 - DSSE's own spelling
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A parsed entry: the record, who signed it, and the bytes that the log keeps.

    `check_signatures` has yet to be called on it; `open_entry` does both.
    """

    record: Record
    payload: bytes
    signatures: Mapping[str, bytes]  # public key in hex -> 64 bytes
    data: bytes

    @property
    def digest(self) -> str:
        """Lowercase hex SHA-256 of the payload: the record's digest."""
        return hashlib.sha256(self.payload).hexdigest()

    @property
    def signers(self) -> frozenset[str]:
        """The public keys, in hex, that signed."""
        return frozenset(self.signatures)


def pae(payload: bytes) -> bytes:
    """Return what is signed. Source: DSSE v1.0, "Signature Definition"."""
    return b"%s%d %s" % (_HEAD, len(payload), payload)


def sign(record: Record, *keys: SigningKey) -> bytes:
    """Return the entry of a record signed by all `keys`, which are of type 0x01."""
    return assemble(record, {public_hex(k): k.sign_bytes(pae(record.to_bytes())) for k in keys})


def assemble(record: Record, signatures: Mapping[str, bytes]) -> bytes:
    """Return the entry of a record whose signatures (public key in hex -> 64 bytes) were made elsewhere.

    Raises:
        MalformedError: the entry would be larger than the log takes.
    """
    wire = {
        "payload": encode_base64(record.to_bytes()),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": k, "sig": encode_base64(s)} for k, s in sorted(signatures.items())],
    }
    data = canonical.dumps(wire)
    _cap(record, data)
    return data


def parse_entry(data: bytes) -> Entry:
    """Parse an entry without checking its signatures.

    Raises:
        MalformedError: not the one encoding of a signed record, or too large.
    """
    value = canonical.loads(data, MAX_RECORD_SIZE)
    wire = canonical.build(_Wire, value)
    if wire.payloadType != PAYLOAD_TYPE:
        raise MalformedError(f"payloadType must be {PAYLOAD_TYPE}")
    if not wire.signatures:
        raise MalformedError("the record is not signed")
    require_sorted("signatures", [s.keyid for s in wire.signatures])
    payload = decode_base64(wire.payload, "payload")
    signatures = {s.keyid: decode_base64(s.sig, "signature", 64) for s in wire.signatures}
    if canonical.dumps(value) != data:  # `value` is what `wire` was built from, field by field
        raise MalformedError("the envelope is not in canonical form")
    record = records.parse(payload)
    _cap(record, data)
    return Entry(record, payload, signatures, data)


def check_signatures(entry: Entry) -> None:
    """Check every signature of an entry against the key that it names.

    Raises:
        VerificationError: a signature is wrong, or a key is no Ed25519 key.
    """
    signed = pae(entry.payload)
    for key, signature in entry.signatures.items():
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, signed)
        except (InvalidSignature, ValueError):
            raise VerificationError(
                f"the signature of key {key[:16]}... on this {entry.record.TYPE} record is wrong"
            ) from None


def open_entry(data: bytes) -> Entry:
    """Parse an entry and check its signatures. Raises MalformedError or VerificationError."""
    entry = parse_entry(data)
    check_signatures(entry)
    return entry


def public_hex(key: SigningKey) -> str:
    """Return the public half of a key as records spell it."""
    return key.verifier.public.hex()


def _cap(record: Record, data: bytes) -> None:
    limit = MAX_RECEIPT_SIZE if type(record) is Receipt else MAX_RECORD_SIZE
    if len(data) > limit:
        raise MalformedError(f"a {record.TYPE} entry has {len(data)} bytes where at most {limit} are allowed")
