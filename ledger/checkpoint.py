"""The checkpoint (a tree head as the text of a note) and the witness cosignatures over it.

Follows C2SP tlog-checkpoint and tlog-cosignature, v1 Ed25519 (0x04) and ML-DSA-44 subtree (0x06). Whose
cosignatures are needed is `policy`; whether to cosign is `tlog_witness` and `witness`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ledger.encoding import MAX_UINT63, decode_base64, encode_base64, parse_decimal
from ledger.errors import MalformedError, VerificationError
from ledger.merkle import EMPTY_ROOT, HASH_SIZE
from ledger.signature import KeyType, Signature, SigningKey, VerifierKey

MAX_TEXT_SIZE = 1_000_000  # characters
_TIME_SIZE = 8
_SUBTREE_LABEL = b"subtree/v1\n\0"
_LINE = re.compile("[^\x00-\x1f\ud800-\udfff]+")  # what one line of a note may hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A tree head.

    Attributes:
        origin: The log's identity.
        size: Number of entries, 0 <= size < 2**63.
        root: Root hash, HASH_SIZE bytes.
        extensions: Further lines, opaque. Not recommended; 0x06 does not sign them. Logs here write none.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_UINT63:
            raise MalformedError(f"tree size {self.size} is not from 0 to 2**63 - 1")
        if len(self.root) != HASH_SIZE:
            raise MalformedError(f"root hash has {len(self.root)} bytes, not {HASH_SIZE}")
        if not all(map(_LINE.fullmatch, (self.origin, *self.extensions))):
            raise MalformedError("checkpoint has an empty line or a control character in a line")

    def to_text(self) -> str:
        """Return the note text: origin, size, root and any extension lines."""
        lines = (self.origin, str(self.size), encode_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def from_text(cls, text: str) -> Checkpoint:
        """Parse a note text. The root of a tree of size 0 is not judged here.

        Raises:
            MalformedError: any text that `to_text` would not write.
        """
        return _parse(text)

    @classmethod
    def empty(cls, origin: str) -> Checkpoint:
        """Return the checkpoint of a log without entries."""
        return cls(origin=origin, size=0, root=EMPTY_ROOT)


def cosignature_message(text: str, time: int) -> bytes:
    """Return what a 0x04 cosignature signs: two header lines and the whole checkpoint text."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def subtree_message(*, cosigner: str, time: int, origin: str, start: int, end: int, root: bytes) -> bytes:
    """Return what a 0x06 cosignature signs; for a checkpoint start is 0 and end its size.

    Raises:
        MalformedError: a name that is not 1 to 255 bytes, or a time with start != 0.
    """
    if start and time:
        raise MalformedError("a cosignature of a subtree that does not start at 0 has no time")
    return b"".join(
        (
            _SUBTREE_LABEL,
            _short(cosigner, "cosigner name"),
            time.to_bytes(_TIME_SIZE, "big"),
            _short(origin, "origin"),
            start.to_bytes(8, "big"),
            end.to_bytes(8, "big"),
            root,
        )
    )


def cosign(text: str, signer: SigningKey, time: int) -> Signature:
    """Cosign a checkpoint: "as of `time`, the largest consistent tree I have seen of this log".

    The caller has verified that and stored it durably: a cosignature cannot be taken back.

    Args:
        text: The note text of the checkpoint.
        signer: A key of type 0x04 or 0x06.
        time: POSIX seconds, 1 <= time < 2**63 (0 would say nothing about the time).

    Raises:
        MalformedError: not a checkpoint, a key of another type, or a time out of range.
    """
    if not 1 <= time <= MAX_UINT63:
        raise MalformedError(f"cosignature time {time} is not from 1 to 2**63 - 1")
    key = signer.verifier
    value = signer.sign_bytes(_message(text, key, time))
    return Signature(name=key.name, key_id=key.key_id, value=time.to_bytes(_TIME_SIZE, "big") + value)


def verify_cosignature(text: str, key: VerifierKey, signature: Signature) -> int:
    """Check a cosignature of a checkpoint and return its time in POSIX seconds.

    A 0x06 cosignature may carry time 0: consistent, but with no statement of when it was the largest.

    Raises:
        MalformedError: the text is not a checkpoint, or the key is not of type 0x04 or 0x06.
        VerificationError: the line is not this key's valid cosignature.
    """
    time = int.from_bytes(signature.value[:_TIME_SIZE], "big")
    message = _message(text, key, time)
    named = (signature.name, signature.key_id) == (key.name, key.key_id)
    if not named or time > MAX_UINT63 or not key.accepts(message, signature.value[_TIME_SIZE:]):
        raise VerificationError(f"cosignature of {key.name} does not verify")
    return time


@lru_cache(maxsize=16)  # each cosignature of one checkpoint asks again
def _parse(text: str) -> Checkpoint:
    if len(text) > MAX_TEXT_SIZE:
        raise MalformedError(f"checkpoint is longer than {MAX_TEXT_SIZE} characters")
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop():
        raise MalformedError("checkpoint does not have three lines that each end in a newline")
    return Checkpoint(
        origin=lines[0],
        size=parse_decimal(lines[1], "tree size"),
        root=decode_base64(lines[2], "root hash", HASH_SIZE),
        extensions=tuple(lines[3:]),
    )


def _message(text: str, key: VerifierKey, time: int) -> bytes:
    checkpoint = Checkpoint.from_text(text)
    if key.type is KeyType.COSIGNATURE:
        return cosignature_message(text, time)
    if key.type is KeyType.MLDSA44:
        return subtree_message(
            cosigner=key.name, time=time, origin=checkpoint.origin, start=0, end=checkpoint.size,
            root=checkpoint.root,
        )  # fmt: skip
    raise MalformedError(f"key of {key.name} has type 0x01: it cannot cosign")


def _short(text: str, what: str) -> bytes:
    data = text.encode()
    if not 1 <= len(data) <= 255:
        raise MalformedError(f"{what} has {len(data)} bytes, not 1 to 255")
    return bytes([len(data)]) + data
