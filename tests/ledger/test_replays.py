"""Replays: no record of any type is accepted twice, at once or later, nor on another log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from ledger.envelope import Entry
from ledger.errors import RuleError
from ledger.records import RECORDS
from tests.ledger.consortium import Consortium


@cache
def life() -> Consortium:
    """A life with a record of every type that a log can hold; entries[i] led to the log of size i + 1."""
    c = Consortium.founded()
    c.offer("alpha", "bravo", "charlie")
    c.append(c.amendment(add=(c.member("fox"),)))
    job = c.append(c.job("alpha", "bravo", "charlie")).digest
    c.append(c.refusal("alpha", job))
    for hospital in ("alpha", "bravo", "charlie"):
        c.append(c.approval(hospital, job))
    c.append(c.withdrawal("charlie", job))
    c.append(c.start(job))
    c.append(c.tick())
    c.play(job)
    c.append(c.skip("alpha", job))
    c.receive(job, ["bravo"])
    c.append(c.abort(job, {"alpha": "skipped"}))
    c.append(c.incident("bravo"))
    c.finish(job)
    c.append(c.release(job))
    c.append(c.access(job))
    c.append(c.ended(job))
    return c


def views_after(c: Consortium) -> list[tuple[Entry, Consortium]]:
    """Every entry with the consortium right after it."""
    replayed, steps = Consortium(), []
    for entry in c.entries:
        replayed.append(entry)
        steps.append((entry, replayed.fork()))
    return steps


TYPES = [cls.TYPE for cls in RECORDS if cls.TYPE != "succession"]
RULE_AT_ONCE = {
    "charter": "record.not-repeated", "tick": "tick.advances", "receipt": "receipt.once",
    "round": "round.consecutive", "abort": "round.consecutive", "skip": "skip.participant",
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
def test_at_once(kind: str) -> None:
    replayed = 0
    for entry, after in views_after(life()):
        if kind == entry.record.TYPE:
            with pytest.raises(RuleError) as caught:
                after.append(entry)
            assert caught.value.rule == RULE_AT_ONCE.get(kind, "record.not-repeated")
            replayed += 1
    assert replayed


@pytest.mark.parametrize("kind", TYPES)
def test_at_every_later_moment(kind: str) -> None:
    steps = views_after(life())
    first = next(i for i, (entry, _) in enumerate(steps) if kind == entry.record.TYPE)
    for _, after in steps[first:]:
        with pytest.raises(RuleError):
            after.append(steps[first][0])


@pytest.mark.parametrize("kind", TYPES)
def test_signed_for_another_log(kind: str) -> None:
    before, replayed = Consortium(), 0
    for entry in life().entries:
        if kind == entry.record.TYPE and kind != "charter":
            moved = replace(entry.record, origin="ledger.example/other")
            signers = [life().keys[key] for key in entry.signatures]
            with pytest.raises(RuleError) as caught:
                before.append(moved, *signers)
            assert caught.value.rule == "record.origin"
            replayed += 1
        before.append(entry)
    assert replayed or kind == "charter"


def test_a_charter_founds_its_own_log_only() -> None:
    entry = life().entries[0]
    with pytest.raises(RuleError) as caught:
        Consortium().append(replace(entry.record, origin="ledger.example/other"), *life().keys.values())
    assert caught.value.rule in {"record.signers", "charter.log-key"}


def test_a_succession_is_entry_0_of_one_log() -> None:
    dead = life().fork()
    after = dead.succeed(dead.succession())
    entry = after.entries[0]
    attempts: list[Callable[[], object]] = [
        lambda: after.fork().append(entry),
        lambda: dead.fork().append(entry),
        lambda: after.succeed(entry),
        lambda: Consortium().append(entry),
    ]
    for attempt in attempts:
        with pytest.raises(RuleError):
            attempt()


def test_what_the_dead_log_holds_is_not_accepted_by_its_successor() -> None:
    dead = life().fork()
    after = dead.succeed(dead.succession())
    for entry in dead.entries:
        with pytest.raises(RuleError) as caught:
            after.fork().append(entry)
        assert caught.value.rule == "record.origin"


def test_a_refusal_may_be_repeated_only_in_other_words() -> None:
    c = life().fork()
    job = c.append(c.job("alpha", "bravo", name="another")).digest
    c.append(c.refusal("alpha", job))
    c.append(replace(c.refusal("alpha", job), code="changed-our-mind"))


def test_a_withdrawn_approval_is_spent_and_the_next_takes_a_new_number() -> None:
    c = life().fork()
    job = c.append(c.job("alpha", "bravo", name="another")).digest
    first = c.append(c.approval("alpha", job))
    withdrawal = c.append(c.withdrawal("alpha", job))
    with pytest.raises(RuleError, match=r"record\.not-repeated"):
        c.append(first)
    second = c.append(c.approval("alpha", job))
    assert second.digest != first.digest
    with pytest.raises(RuleError, match=r"record\.not-repeated"):
        c.append(withdrawal)
    assert c.job_state(job).approved["alpha"] == second.digest
