"""RFC 6962 trees: vectors, then every tree and every altered proof against a recursive definition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import InconsistentError, VerificationError
from ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    node_reader,
    root_from_inclusion,
    root_hash,
    roots_from_consistency,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from tests.ledger.vectors import Case, cases, entry, is_valid, proof_of, unbase64

MAX_LEAVES = 300  # beyond one full tile
LEAVES = [leaf_hash(entry(index)) for index in range(MAX_LEAVES)]
NODE = node_reader(LEAVES)
sizes = st.integers(1, MAX_LEAVES)
quick = settings(max_examples=100, deadline=None)


def recursive_root(leaves: Sequence[bytes]) -> bytes:
    """MTH as RFC 6962 section 2.1 writes it."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return node_hash(recursive_root(leaves[:half]), recursive_root(leaves[half:]))


def altered(proof: Sequence[bytes], bit: int) -> Iterator[list[bytes]]:
    """The proof with one bit flipped in each of its hashes in turn, with one hash less, and with one more."""
    for position, value in enumerate(proof):
        yield [*proof[:position], flipped(value, bit), *proof[position + 1 :]]
        yield [*proof[:position], *proof[position + 1 :]]
    yield [*proof, LEAVES[0]]
    yield [LEAVES[0], *proof]


def flipped(value: bytes, bit: int) -> bytes:
    return bytes(b ^ (1 << bit % 8 if i == bit // 8 else 0) for i, b in enumerate(value))


@pytest.mark.parametrize("case", cases("roots"))
def test_root_vectors(case: Case) -> None:
    leaves = [leaf_hash(entry(index)) for index in range(case["size"])]
    assert root_hash(leaves) == unbase64(case, "root")
    assert tree_root(case["size"], node_reader(leaves)) == unbase64(case, "root")


@pytest.mark.parametrize("case", cases("inclusion"))
def test_inclusion_vectors(case: Case) -> None:
    index, size, root = case.get("index", 0), case["size"], unbase64(case, "root")
    leaf = unbase64(case, "leaf_hash") if "leaf_hash" in case else leaf_hash(unbase64(case, "leaf"))
    if not is_valid(case):
        with pytest.raises(VerificationError):
            verify_inclusion(index, size, leaf, proof_of(case), root)
        return
    verify_inclusion(index, size, leaf, proof_of(case), root)
    node = node_reader([leaf_hash(entry(i)) for i in range(size)])
    assert list(inclusion_proof(index, size, node)) == proof_of(case)


@pytest.mark.parametrize("case", cases("consistency"))
def test_consistency_vectors(case: Case) -> None:
    old_size, size = case.get("old_size", 0), case["size"]
    old_root, root = unbase64(case, "old_root"), unbase64(case, "root")
    if not is_valid(case):
        with pytest.raises(VerificationError):
            verify_consistency(old_size, old_root, size, root, proof_of(case))
        return
    verify_consistency(old_size, old_root, size, root, proof_of(case))
    node = node_reader([leaf_hash(entry(i)) for i in range(size)])
    assert list(consistency_proof(old_size, size, node)) == proof_of(case)


def test_incremental_root_equals_recursive_root_at_every_size() -> None:
    frontier = Frontier()
    for size, leaf in enumerate(LEAVES):
        assert (frontier.size, frontier.root()) == (size, recursive_root(LEAVES[:size]))
        assert frontier.root() == tree_root(size, NODE)
        frontier = frontier.append(leaf)


@quick
@given(st.lists(st.integers(0, MAX_LEAVES), max_size=6).map(sorted))
def test_frontier_does_not_depend_on_the_cuts_between_batches(cuts: list[int]) -> None:
    frontier = Frontier()
    for start, end in zip([0, *cuts], [*cuts, MAX_LEAVES], strict=True):
        frontier = frontier.extend(iter(LEAVES[start:end]))
        assert frontier == Frontier(frontier.size, tuple(frontier.hashes))  # persisted and read back
    assert frontier == Frontier().extend(LEAVES)


@pytest.mark.parametrize(("size", "count"), [(-1, 0), (0, 1), (3, 1), (4, 2)])
def test_frontier_refuses_hashes_that_cannot_be_its_edge(size: int, count: int) -> None:
    with pytest.raises(VerificationError):
        Frontier(size, tuple(LEAVES[:count]))


def test_frontier_refuses_a_short_leaf() -> None:
    with pytest.raises(VerificationError):
        Frontier().extend([LEAVES[0], LEAVES[1][:31]])


@quick
@given(sizes, st.data(), st.integers(0, 255))
def test_every_leaf_proves_and_no_altered_proof_does(size: int, data: st.DataObject, bit: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    root, proof = tree_root(size, NODE), inclusion_proof(index, size, NODE)
    verify_inclusion(index, size, LEAVES[index], proof, root)
    for wrong in altered(proof, bit):
        with pytest.raises(VerificationError):
            verify_inclusion(index, size, LEAVES[index], wrong, root)
    with pytest.raises(VerificationError):
        verify_inclusion(index, size, flipped(LEAVES[index], bit), proof, root)
    with pytest.raises(VerificationError):
        verify_inclusion(index, size, LEAVES[index], proof, flipped(root, bit))
    for other in {-1, size, *(index ^ 1 << n for n in range(9))}:
        with pytest.raises(VerificationError):
            verify_inclusion(other, size, LEAVES[index], proof, root)


@quick
@given(sizes, st.data(), st.integers(0, 255))
def test_every_prefix_proves_and_no_altered_proof_does(size: int, data: st.DataObject, bit: int) -> None:
    old_size = data.draw(st.integers(0, size))
    old_root, root = tree_root(old_size, NODE), tree_root(size, NODE)
    proof = consistency_proof(old_size, size, NODE)
    verify_consistency(old_size, old_root, size, root, proof)
    for wrong in altered(proof, bit):
        with pytest.raises(VerificationError):
            verify_consistency(old_size, old_root, size, root, wrong)
    with pytest.raises(VerificationError):
        verify_consistency(old_size, flipped(old_root, bit), size, root, proof)
    if old_size:  # from 0 every root is consistent
        with pytest.raises(VerificationError):
            verify_consistency(old_size, old_root, size, flipped(root, bit), proof)
    with pytest.raises(VerificationError):
        verify_consistency(size + 1, old_root, size, root, proof)
    with pytest.raises(VerificationError):
        verify_consistency(-1, old_root, size, root, proof)


def test_every_proof_of_every_small_tree_verifies() -> None:
    for size in range(1, 40):
        root = recursive_root(LEAVES[:size])
        for index in range(size):
            path = inclusion_proof(index, size, NODE)
            assert root_from_inclusion(index, size, LEAVES[index], path) == root
            old_root = recursive_root(LEAVES[:index])
            verify_consistency(index, old_root, size, root, consistency_proof(index, size, NODE))


def test_equal_sizes_with_other_roots_are_a_split_view() -> None:
    with pytest.raises(InconsistentError):
        verify_consistency(5, LEAVES[0], 5, LEAVES[1], [])


def test_empty_tree_has_one_root() -> None:
    assert root_hash([]) == EMPTY_ROOT == Frontier().root()
    with pytest.raises(VerificationError):
        verify_consistency(0, LEAVES[0], 0, LEAVES[0], [])


@pytest.mark.parametrize("wrong", [(-1, 3), (3, 3), (0, 0)])
def test_no_inclusion_proof_outside_the_tree(wrong: tuple[int, int]) -> None:
    with pytest.raises(VerificationError):
        inclusion_proof(*wrong, NODE)


@pytest.mark.parametrize("wrong", [(-1, 3), (4, 3)])
def test_no_consistency_proof_from_a_larger_tree(wrong: tuple[int, int]) -> None:
    with pytest.raises(VerificationError):
        consistency_proof(*wrong, NODE)


@pytest.mark.parametrize("wrong", [(0, 3), (3, 3), (4, 3), (-1, 3)])
def test_no_roots_follow_from_a_proof_out_of_range(wrong: tuple[int, int]) -> None:
    with pytest.raises(VerificationError):
        roots_from_consistency(*wrong, LEAVES[0], LEAVES[:2])


@pytest.mark.parametrize("wrong", [(0, MAX_LEAVES), (8, 1), (-1, 0), (0, -1), (9, 0)])
def test_reader_refuses_incomplete_subtrees(wrong: tuple[int, int]) -> None:
    with pytest.raises(VerificationError):
        NODE(*wrong)
