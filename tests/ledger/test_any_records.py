"""Well-formed records in any order, with any content: `apply` takes them or names a rule, and never stumbles."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import envelope, rules
from ledger.envelope import Entry
from ledger.errors import MalformedError, RuleError
from ledger.record import Record
from ledger.state import EMPTY
from ledger.view import NOTHING, View
from tests.ledger.arbitrary import Pool, any_record
from tests.ledger.consortium import Consortium


def busy() -> Consortium:
    """A consortium in the middle of things: one job proposed, one running, one released."""
    c = Consortium.founded()
    c.offer("alpha", "bravo", "charlie", "delta")
    done = c.run("alpha", "bravo")
    c.finish(done)
    c.append(c.release(done))
    c.append(c.amendment(add=(c.member("fox"),), remove=("echo",)))
    c.propose("alpha", "bravo")
    job = c.run("charlie", "delta")
    c.play(job)
    c.append(c.skip("charlie", job))
    return c


BUSY = busy()
POOL = Pool.of(e.record for e in BUSY.entries)
KEYS = sorted(BUSY.keys)


def unsigned(record: Record, keys: list[str]) -> Entry:
    """An entry whose signatures nobody has checked: `apply` looks only at the keys."""
    payload = record.to_bytes()
    return Entry(record, payload, dict.fromkeys(keys, bytes(64)), payload)


signer_sets = st.lists(st.sampled_from(KEYS), max_size=9, unique=True)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.lists(st.tuples(any_record(POOL), signer_sets), max_size=4))
def test_apply_raises_nothing_but_rule_errors_on_well_formed_records(
    attempts: list[tuple[Record, list[str]]],
) -> None:
    for state in (EMPTY, BUSY.state):
        after = state
        for record, keys in attempts:
            moved = replace(record, origin=state.origin) if state.size else record
            for wanted in (keys, [envelope.public_hex(k) for k in honest_signers(moved)]):
                with suppress(RuleError):
                    after = rules.apply(after, unsigned(moved, wanted))
            with suppress(RuleError):
                rules.succeed(state, unsigned(record, KEYS))
        assert after.size >= state.size


def honest_signers(record: Record) -> list[Any]:
    """Whoever must sign, where that is known."""
    try:
        return BUSY.signers(record)
    except KeyError:
        return []


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(BUSY.entries), st.data())
def test_one_field_changed_in_a_record_that_was_accepted(entry: Entry, data: st.DataObject) -> None:
    """Valid but for one field, and met at any moment: accepted or refused by name, never a stumble."""
    name = data.draw(st.sampled_from([f.name for f in fields(entry.record)]))
    other = data.draw(st.sampled_from([e for e in BUSY.entries if type(e.record) is type(entry.record)]))
    record = replace(entry.record, **{name: getattr(other.record, name)})
    at = data.draw(st.integers(0, len(BUSY.entries)))
    view = VIEWS[at]
    try:
        after = view.extend([unsigned(record, sorted(entry.signatures))])
    except RuleError:
        return
    assert after.size == view.size + 1
    assert View.from_bytes(after.to_bytes()) == after


VIEWS = [NOTHING]
for _entry in BUSY.entries:
    VIEWS.append(VIEWS[-1].extend([_entry]))


@settings(max_examples=60, deadline=None)
@given(st.permutations(BUSY.entries))
def test_any_order_of_accepted_records(order: list[Entry]) -> None:
    """Whatever is left out because it may not stand there, what was taken replays to the same view."""
    view, taken = NOTHING, []
    for entry in [BUSY.entries[0], *order]:
        try:
            view = view.extend([entry])
        except RuleError:
            continue
        taken.append(entry)
    assert view == NOTHING.extend(taken)
    assert view.size == len(taken) >= 1


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff"])
def test_a_snapshot_that_is_none_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        View.from_bytes(data)
