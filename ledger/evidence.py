"""Proof that a log signed two histories: what a witness keeps, and anybody can check with the log's key alone.

Two checkpoints of one size with different roots speak for themselves. For different sizes the older root must
not be that of the newer tree's first entries: the hashes that lead from those entries to the newer root show it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from ledger import canonical
from ledger.checkpoint import Checkpoint
from ledger.encoding import decode_base64
from ledger.errors import MalformedError, VerificationError
from ledger.merkle import NodeReader, consistency_proof, roots_from_consistency, subtree_hash
from ledger.note import open_note
from ledger.signature import VerifierKey
from ledger.values import Digest, Part

MAX_CONFLICT_SIZE = 4_000_000  # bytes
_TYPE = "conflicting-checkpoints"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two checkpoints of one log that cannot both be true.

    Attributes:
        older: Signed note of the smaller size.
        newer: Signed note of the larger or equal size.
        hashes: The newer tree's path from its first entries to its root; empty for equal sizes.
    """

    older: bytes
    newer: bytes
    hashes: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Return the evidence file."""
        wire = {
            "type": _TYPE,
            "older": base64.b64encode(self.older).decode(),
            "newer": base64.b64encode(self.newer).decode(),
            "hashes": [h.hex() for h in self.hashes],
        }
        return canonical.dumps(wire)

    @classmethod
    def from_bytes(cls, data: bytes) -> Conflict:
        """Parse an evidence file. Raises MalformedError for any bytes that `to_bytes` does not write."""
        wire = canonical.build(_Wire, canonical.loads(data, MAX_CONFLICT_SIZE))
        conflict = cls(
            decode_base64(wire.older, "older checkpoint"),
            decode_base64(wire.newer, "newer checkpoint"),
            tuple(bytes.fromhex(h) for h in wire.hashes),
        )
        if wire.type != _TYPE or conflict.to_bytes() != data:
            raise MalformedError("not an evidence file in canonical form")
        return conflict

    def check(self, log_keys: Iterable[VerifierKey]) -> str:
        """Return in words what the evidence proves.

        Raises:
            MalformedError: a note is no checkpoint.
            VerificationError: it proves nothing against a log with these keys.
        """
        keys = list(log_keys)
        older, newer = (Checkpoint.from_text(open_note(n, keys).text) for n in (self.older, self.newer))
        if older.origin != newer.origin or older.size > newer.size:
            raise VerificationError("the two checkpoints are of different logs, or in the wrong order")
        if older.size == newer.size:
            if older.root == newer.root or self.hashes:
                raise VerificationError("the two checkpoints agree")
            return f"{older.origin} signed two different trees of {older.size} entries"
        if not self.hashes or older.size == 0:
            raise VerificationError("hashes are missing: sizes alone prove nothing")
        old_root, root = _roots(older.size, newer.size, self.hashes)
        if root != newer.root or old_root == older.root:
            raise VerificationError("the hashes do not show that the two checkpoints contradict each other")
        return (
            f"{older.origin} signed {older.size} entries, and then {newer.size} entries "
            f"whose first {older.size} are others"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wire(Part):
    type: str
    older: str
    newer: str
    hashes: tuple[Digest, ...]


def conflict_between(old_note: bytes, old_size: int, note: bytes, size: int, node: NodeReader) -> Conflict:
    """Return the evidence that a newer tree, read through `node` and checked to its root, is no extension.

    Args:
        old_note: The signed checkpoint that was seen first.
        old_size: Its size, 0 < old_size <= size.
        note: The signed checkpoint of the newer tree.
        size: Its size.
        node: Reads the newer tree.
    """
    if old_size == size:
        return Conflict(old_note, note, ())
    path = consistency_proof(old_size, size, node)
    if old_size & (old_size - 1) == 0:  # a proof leaves out the old root, which is what is at issue here
        path = (subtree_hash(0, old_size, node), *path)
    return Conflict(old_note, note, path)


def _roots(old_size: int, size: int, path: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    if old_size & (old_size - 1) == 0:
        return roots_from_consistency(old_size, size, path[0], path[1:])
    return roots_from_consistency(old_size, size, b"", path)
