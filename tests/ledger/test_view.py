"""The view of a log: read in pieces or at once, snapshots, and which checkpoints it remembers for receipts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import canonical
from ledger.errors import MalformedError, RuleError
from ledger.merkle import leaf_hash, root_hash
from ledger.view import MIN_ROOTS, NOTHING, View
from tests.ledger.consortium import Consortium


def life() -> Consortium:
    c = Consortium.founded()
    c.offer("alpha", "bravo", "charlie")
    job = c.run("alpha", "bravo", "charlie")
    c.play(job)
    c.receive(job, ["alpha", "bravo"])  # and in the middle of a batch
    return c


LIFE = life()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, len(LIFE.entries)), max_size=4).map(sorted))
def test_read_in_pieces_or_at_once(cuts: list[int]) -> None:
    view = NOTHING
    for start, end in zip([0, *cuts], [*cuts, len(LIFE.entries)], strict=True):
        view = View.from_bytes(view.to_bytes()).extend(LIFE.entries[start:end])
    assert view == NOTHING.extend(LIFE.entries) == LIFE.view
    assert view.root == root_hash(leaf_hash(e.data) for e in LIFE.entries)


def test_leaf_hashes_may_be_given() -> None:
    leaves = [leaf_hash(e.data) for e in LIFE.entries]
    assert NOTHING.extend(LIFE.entries, leaves) == LIFE.view


def test_a_refused_entry_leaves_the_view_as_it_was() -> None:
    before = LIFE.view
    with pytest.raises(RuleError):
        before.extend([LIFE.entry(LIFE.round_(next(iter(LIFE.state.jobs)))), LIFE.entries[0]])
    assert before == NOTHING.extend(LIFE.entries)


def test_a_long_idle_job_may_still_name_the_checkpoint_that_it_obeyed() -> None:
    c = Consortium.founded()
    c.offer("alpha", "bravo")
    job = c.run("alpha", "bravo")
    obeyed = (c.view.size, c.view.root.hex())
    for _ in range(8 * MIN_ROOTS):
        c.append(c.tick())
    assert len(c.view.roots) > 8 * MIN_ROOTS
    c.append(c.receipt("alpha", job, checkpoint_size=obeyed[0], checkpoint_root=obeyed[1]))


def test_roots_that_no_receipt_can_name_are_forgotten() -> None:
    c = Consortium.founded()
    most = 0
    for _ in range(12 * MIN_ROOTS):
        c.append(c.tick())
        most = max(most, len(c.view.roots))
    assert most <= 5 * MIN_ROOTS
    assert set(map(str, range(c.view.size - MIN_ROOTS + 1, c.view.size + 1))) <= set(c.view.roots)


def snapshot_with(path: str, value: Any) -> bytes:
    """The snapshot with another value at a path of field names."""
    found = json.loads(LIFE.view.to_bytes())
    *parents, last = path.split(".")
    inner = found
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return canonical.dumps(found)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("state.size", "8"), ("state.size", True), ("state.size", -1), ("state.size", 2**20 - 1), ("state.origin", 5),
        ("state.time", [1]), ("state.members", []), ("state.members", {"alpha": {}}), ("state.batch", {}),
        ("state.seen", {"x": "y"}), ("state.witness_sets", {}), ("state.batch.receipts", {"alpha": {"update": 1}}),
        ("state.recovery_keys", [1]), ("hashes", ["00"]), ("hashes", []), ("hashes", "00"), ("roots", {"a": "b"}),
        ("roots", {"1": 2}), ("more", 1),
    ],
)  # fmt: skip
def test_an_altered_snapshot_is_malformed(path: str, value: Any) -> None:
    with pytest.raises(MalformedError):
        View.from_bytes(snapshot_with(path, value))


def test_a_snapshot_has_one_spelling() -> None:
    data = LIFE.view.to_bytes()
    for wrong in (
        data + b"\n",
        json.dumps(json.loads(data)).encode(),
        data.replace(b'"hashes"', b'"hash\\u0065s"'),
    ):
        with pytest.raises(MalformedError):
            View.from_bytes(wrong)
