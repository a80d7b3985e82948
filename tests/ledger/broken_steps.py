"""Every rule broken alone: how a case is written, and the situations that cases start from.

A case is two steps: a good entry that follows, and one in which a single thing differs, which breaks the rule. The
situations are shared; a step that needs another one works on a fork.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from ledger import records
from ledger.envelope import Entry
from ledger.record import Record
from ledger.records import Succession
from ledger.signature import SigningKey
from ledger.view import View
from tests.ledger.consortium import Consortium


@dataclass(frozen=True)
class Step:
    """An entry, and where it is to follow."""

    at: Consortium
    entry: Entry

    def take(self) -> View:
        if isinstance(self.entry.record, Succession) and self.at.view.size:
            return self.at.view.succeeded_by(self.entry)
        return self.at.view.extend([self.entry])


Case = tuple[Step, Step]  # the good one, the broken one

CASES: dict[str, dict[str, Callable[[], Case]]] = {}  # rule -> what somebody tries -> its two steps


def case(rule: str, attempt: str, steps: Callable[[], Case]) -> None:
    """Register a case under the rule that its second step breaks."""
    CASES.setdefault(rule, {})[attempt] = steps


def breaks(rule: str) -> Callable[[Callable[[], Case]], None]:
    """Register a function that needs more than one line; its name says what somebody tries."""
    return lambda steps: case(rule, steps.__name__.replace("_", " "), steps)


def changed(c: Consortium, record: Record, **changes: Any) -> Case:
    """The same record with one field changed, signed by the same."""
    signers = c.signers(record)
    bad = c.entry(replace(record, **changes), *signers)
    return Step(c, c.entry(record, *signers)), Step(c, bad)


def resigned(c: Consortium, record: Record, *signers: str | SigningKey) -> Case:
    """The same record, signed by others."""
    return Step(c, c.entry(record)), Step(c, c.entry(record, *signers))


def moved(before: Consortium, after: Consortium, record: Record) -> Case:
    """The same entry, where it may follow and where it may not any more."""
    entry = before.entry(record)
    return Step(before, entry), Step(after, entry)


@cache
def founded() -> Consortium:
    return Consortium.founded()


@cache
def offered() -> Consortium:
    """Three hospitals have datasets and an agreement."""
    c = founded().fork()
    c.offer("alpha", "bravo", "charlie")
    return c


Situation = tuple[Consortium, str]  # with the digest of its job


@cache
def proposed() -> Situation:
    """A job on the datasets of alpha, bravo and charlie, whom two suffice; two exchanges evaluate, one only that."""
    c = offered().fork()
    job = c.append(c.job("alpha", "bravo", "charlie", evaluate=(2, 4))).digest
    return c, job


@cache
def approved() -> Situation:
    c, job = proposed()[0].fork(), proposed()[1]
    for hospital in ("alpha", "bravo", "charlie"):
        c.append(c.approval(hospital, job))
    return c, job


@cache
def running() -> Situation:
    """Two rounds are over; the third is next."""
    c, job = approved()[0].fork(), approved()[1]
    c.append(c.start(job))
    c.play(job)
    c.receive(job, epsilon_job="1.5", epsilon_dataset="2")
    c.append(c.round_(job))
    return c, job


@cache
def in_batch() -> Situation:
    """Alpha's and bravo's receipts of the third round are on the log; charlie's or the round record is next."""
    c, job = running()[0].fork(), running()[1]
    c.receive(job, ["alpha", "bravo"])
    return c, job


@cache
def evaluated() -> Situation:
    """All exchanges are over; the release is next."""
    c, job = running()[0].fork(), running()[1]
    c.finish(job)
    return c, job


@cache
def ended() -> Situation:
    c, job = evaluated()[0].fork(), evaluated()[1]
    c.append(c.release(job))
    c.append(c.ended(job))
    return c, job


def changed_at(before: Consortium, after: Consortium, good: records.Record, bad: records.Record) -> Case:
    return Step(before, before.entry(good)), Step(after, after.entry(bad))
