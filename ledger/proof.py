"""The evidence file of one entry: inclusion proof and signed checkpoint in one text, checked offline.

Follows C2SP tlog-proof (files end in `.tlog-proof`). The entry itself and the policy travel beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.checkpoint import Checkpoint
from ledger.encoding import MAX_UINT63, decode_base64, encode_base64, parse_decimal
from ledger.errors import MalformedError
from ledger.merkle import HASH_SIZE, verify_inclusion
from ledger.note import MAX_NOTE_SIZE, Note
from ledger.policy import Policy, verify_checkpoint

MAX_PROOF_SIZE = 2 * MAX_NOTE_SIZE  # bytes
MAX_HASHES = 63  # the path in a tree of 2**63 - 1 entries
_HEADER = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlogProof:
    """A proof that some entry is in a log.

    Attributes:
        index: Position of the entry, from 0.
        hashes: Inclusion proof, leaf to root.
        note: The signed checkpoint.
        extra: Bytes for the application; nobody has signed them. Empty: no such line.
    """

    index: int
    hashes: tuple[bytes, ...]
    note: Note
    extra: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.index <= MAX_UINT63:
            raise MalformedError(f"index {self.index} is not from 0 to 2**63 - 1")
        check_hashes(self.hashes)
        Checkpoint.from_text(self.note.text)

    def to_bytes(self) -> bytes:
        """Return the file."""
        extra = f"extra {encode_base64(self.extra)}\n" if self.extra else ""
        hashes = "".join(f"{encode_base64(value)}\n" for value in self.hashes)
        return f"{_HEADER}\n{extra}index {self.index}\n{hashes}\n".encode() + self.note.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> TlogProof:
        """Parse a file; `to_bytes` gives the same bytes back.

        Raises:
            MalformedError: any bytes that are not such a file.
        """
        if len(data) > MAX_PROOF_SIZE:
            raise MalformedError(f"proof is longer than {MAX_PROOF_SIZE} bytes")
        lines, note = split_head(data)
        if lines.pop(0) != _HEADER:
            raise MalformedError(f"proof does not start with {_HEADER}")
        extra = b""
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "), "extra data")
            if not extra:
                raise MalformedError("proof has an extra line without data")
        if not lines or not lines[0].startswith("index "):
            raise MalformedError("proof has no index line where one must be")
        index = parse_decimal(lines.pop(0).removeprefix("index "), "index")
        return cls(index=index, hashes=parse_hashes(lines), note=note, extra=extra)


def verify_proof(proof: TlogProof, leaf: bytes, policy: Policy) -> tuple[Checkpoint, dict[str, int]]:
    """Check that the entry with this leaf hash is in a log that the policy trusts.

    Args:
        proof: The parsed file.
        leaf: `merkle.leaf_hash` of the entry, which the verifier has from elsewhere.
        policy: The trust file.

    Returns:
        The checkpoint, and the newest time of each witness (policy name) that cosigned it.

    Raises:
        VerificationError: a signature, the quorum or the inclusion proof is missing or wrong.
    """
    checkpoint, times = verify_checkpoint(policy, proof.note)
    verify_inclusion(proof.index, checkpoint.size, leaf, proof.hashes, checkpoint.root)
    return checkpoint, times


def split_head(data: bytes) -> tuple[list[str], Note]:
    """Split lines, an empty line and a note: the shape of a proof and of a witness request.

    Raises:
        MalformedError: no empty line, lines that are not ASCII, or no note after it.
    """
    head, separator, note = data.partition(b"\n\n")  # the first empty line; the note has its own
    if not separator:
        raise MalformedError("there is no empty line before the checkpoint")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise MalformedError("a line before the checkpoint is not ASCII") from None
    return lines, Note.from_bytes(note)


def parse_hashes(lines: Sequence[str]) -> tuple[bytes, ...]:
    """Parse the hash lines of a proof.

    Raises:
        MalformedError: more than MAX_HASHES, or one that is not a hash.
    """
    if len(lines) > MAX_HASHES:
        raise MalformedError(f"more than {MAX_HASHES} proof hashes")
    return tuple(decode_base64(line, "proof hash", HASH_SIZE) for line in lines)


def check_hashes(hashes: Sequence[bytes]) -> None:
    """Refuse hashes that no proof can carry.

    Raises:
        MalformedError: more than MAX_HASHES, or one of another size.
    """
    if len(hashes) > MAX_HASHES or any(len(value) != HASH_SIZE for value in hashes):
        raise MalformedError(f"not at most {MAX_HASHES} proof hashes of {HASH_SIZE} bytes")
