"""The Merkle tree of RFC 6962: hashes, roots, proofs and their verification, and the right edge of a tree.

Everything is pure. Proofs are built over a `NodeReader`, so the same code serves leaves in memory and tiles on
disk (`tiles`). A root is trusted only once a signed checkpoint says so (`checkpoint`, `policy`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from ledger.errors import InconsistentError, VerificationError

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()
NodeReader = Callable[[int, int], bytes]
"""`node(level, index)`: root of the complete subtree over entries [index << level, (index + 1) << level)."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry (RFC 6962 section 2.1)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an interior node (RFC 6962 section 2.1)."""
    return sha256(b"\x01" + left + right).digest()


def hash_pairs(row: Sequence[bytes]) -> list[bytes]:
    """Return the row above: the node over each pair; a last hash without a partner is left out."""
    pairs = iter(row)
    return [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)]


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: enough to append to it and to know its root, in O(log size) hashes.

    Attributes:
        size: Number of entries.
        hashes: Roots of the complete subtrees that make up the tree, largest (leftmost) first: one for each
            one-bit of `size`. Persist these two fields; nothing else is needed.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            raise VerificationError(f"{len(self.hashes)} hashes cannot be the edge of {self.size} entries")
        _check_hashes(self.hashes)

    def append(self, leaf: bytes) -> Frontier:
        """Return the frontier with one more leaf hash."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> Frontier:
        """Return the frontier with more leaf hashes, row by row: one hash call for each new node.

        Raises:
            VerificationError: a leaf hash is not HASH_SIZE bytes.
        """
        row = list(leaves)
        _check_hashes(row)
        size, edge, old_edge = self.size, list[bytes](), list(self.hashes)
        bits = size
        size += len(row)
        while row or bits:
            if bits & 1:
                row.insert(0, old_edge.pop())
            if len(row) & 1:
                edge.append(row.pop())
            row = hash_pairs(row)
            bits >>= 1
        return Frontier(size, tuple(reversed(edge)))

    def root(self) -> bytes:
        """Return the root hash of the tree."""
        return _fold(self.hashes) if self.size else EMPTY_ROOT


def root_hash(leaves: Iterable[bytes]) -> bytes:
    """Return MTH over leaf hashes (RFC 6962 section 2.1)."""
    return Frontier().extend(leaves).root()


def node_reader(leaves: Sequence[bytes]) -> NodeReader:
    """Return a reader over leaf hashes in memory; every row is hashed once, now.

    The reader raises VerificationError for a node that is not complete.
    """
    _check_hashes(leaves)
    rows = [list(leaves)]
    while len(rows[-1]) > 1:
        rows.append(hash_pairs(rows[-1]))

    def node(level: int, index: int) -> bytes:
        if not (0 <= level < len(rows) and 0 <= index < len(rows[level])):
            raise VerificationError(f"no complete subtree {index} at level {level} of {len(leaves)} entries")
        return rows[level][index]

    return node


def subtree_hash(start: int, end: int, node: NodeReader) -> bytes:
    """Return MTH(D[start:end]) of a subtree: `start` is a multiple of a power of two >= end - start >= 1."""
    parts = []
    while start < end:
        level = (end - start).bit_length() - 1
        parts.append(node(level, start >> level))
        start += 1 << level
    return _fold(parts)


def tree_root(size: int, node: NodeReader) -> bytes:
    """Return the root of the first `size` entries."""
    return subtree_hash(0, size, node) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, node: NodeReader) -> tuple[bytes, ...]:
    """Return the audit path of an entry, leaf to root.

    Raises:
        VerificationError: not 0 <= index < size.

    Source: RFC 6962 section 2.1.1.
    """
    if not 0 <= index < size:
        raise VerificationError(f"no entry {index} in a tree of {size}")
    start, end, path = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(subtree_hash(middle, end, node))
            end = middle
        else:
            path.append(subtree_hash(start, middle, node))
            start = middle
    return tuple(reversed(path))


def consistency_proof(old_size: int, size: int, node: NodeReader) -> tuple[bytes, ...]:
    """Return the proof that the first `old_size` entries are a prefix of the first `size`.

    It is empty when nothing needs proof: old_size is 0 or size.

    Raises:
        VerificationError: not 0 <= old_size <= size.

    Source: RFC 6962 section 2.1.2.
    """
    if not 0 <= old_size <= size:
        raise VerificationError(f"a tree of {old_size} is no prefix of a tree of {size}")
    if old_size == 0:
        return ()
    start, end, path = 0, size, []
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            path.append(subtree_hash(middle, end, node))
            end = middle
        else:
            path.append(subtree_hash(start, middle, node))
            start = middle
    if start:  # the verifier has no hash of this subtree; from 0 it would be the old root itself
        path.append(subtree_hash(start, end, node))
    return tuple(reversed(path))


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """Fold an audit path into the root it implies; the caller compares that with a signed root.

    Args:
        index: Position of the leaf, 0 <= index < size.
        size: Number of entries in the tree.
        leaf: `leaf_hash` of the entry.
        proof: Sibling hashes, leaf to root.

    Raises:
        VerificationError: index out of range, or a hash or the path has the wrong length.

    Source: RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < size:
        raise VerificationError(f"no entry {index} in a tree of {size}")
    _check_hashes((leaf, *proof))
    position, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise VerificationError(f"inclusion proof of entry {index} in {size} is too long")
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while position and not position & 1:  # levels where the right edge has no sibling
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise VerificationError(f"inclusion proof of entry {index} in {size} is too short")
    return node


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` is entry `index` of the tree of `size` with this root.

    Raises:
        VerificationError: it is not shown to be.
    """
    if root_from_inclusion(index, size, leaf, proof) != root:
        raise VerificationError(f"inclusion proof of entry {index} in {size} leads to another root")


def verify_consistency(
    old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the old tree is a prefix of the new one.

    Args:
        old_size: Entries of the old tree, 0 <= old_size <= size.
        old_root: Its root; EMPTY_ROOT at size 0.
        size: Entries of the new tree.
        root: Its root.
        proof: As `consistency_proof` returns it; empty when old_size is 0 or size.

    Raises:
        InconsistentError: equal sizes with different roots.
        VerificationError: the proof does not show it.

    Source: RFC 9162 section 2.1.4.2.
    """
    if not 0 <= old_size <= size:
        raise VerificationError(f"a tree of {old_size} is no prefix of a tree of {size}")
    _check_hashes((old_root, root, *proof))
    if any(count == 0 and top != EMPTY_ROOT for count, top in ((old_size, old_root), (size, root))):
        raise VerificationError("a tree of 0 entries has another root than the empty tree's")
    if old_size == size and old_root != root:
        raise InconsistentError(f"two trees of {size} entries have different roots")
    if old_size in (0, size):
        if proof:
            raise VerificationError(f"consistency proof from {old_size} to {size} must be empty")
        return
    if roots_from_consistency(old_size, size, old_root, proof) != (old_root, root):
        raise VerificationError(f"consistency proof from {old_size} to {size} leads to other roots")


def roots_from_consistency(
    old_size: int, size: int, old_root: bytes, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """Return the old and the new root that a consistency proof implies, 0 < old_size < size.

    Raises:
        VerificationError: sizes out of range, or a hash or the proof has the wrong length.

    Source: RFC 9162 section 2.1.4.2.
    """
    if not 0 < old_size < size:
        raise VerificationError(f"no consistency proof leads from {old_size} to {size}")
    path = list(proof)
    if old_size & (old_size - 1) == 0:  # a power of two: the old root itself is the first node
        path.insert(0, old_root)
    _check_hashes(path)
    if not path:
        raise VerificationError(f"consistency proof from {old_size} to {size} is empty")
    position, last = old_size - 1, size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_node = new_node = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise VerificationError(f"consistency proof from {old_size} to {size} is too long")
        if position & 1 or position == last:
            old_node, new_node = node_hash(sibling, old_node), node_hash(sibling, new_node)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            new_node = node_hash(new_node, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise VerificationError(f"consistency proof from {old_size} to {size} is too short")
    return old_node, new_node


def _split(size: int) -> int:
    """Return the entries of the left subtree: the largest power of two below `size` >= 2."""
    return 1 << ((size - 1).bit_length() - 1)


def _fold(hashes: Sequence[bytes]) -> bytes:
    """Join complete subtrees, largest first, into one root."""
    root = hashes[-1]
    for left in hashes[-2::-1]:
        root = node_hash(left, root)
    return root


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if not {*map(len, hashes)} <= {HASH_SIZE}:
        raise VerificationError(f"a hash is not {HASH_SIZE} bytes")
