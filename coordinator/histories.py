"""What the log tells of each job, from its proposal to its end: all that resuming and recomputing it needs.

`ledger.state` keeps what decides about the next record and forgets the rest; here is the rest, gathered from the
entries in their order. Nothing is judged: the entries were accepted by `ledger.rules` before they come here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from immutables import Map

from ledger.envelope import Entry
from ledger.records import (
    Abort,
    Access,
    Approval,
    Dataset,
    Ended,
    Job,
    Receipt,
    Refusal,
    Release,
    Round,
    Start,
    Withdrawal,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A hospital in a job, as `start` fixed it."""

    hospital: str
    weight: int
    approval: Approval
    dataset: Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A closed exchange: its round or abort record, and the receipts right before it."""

    index: int  # of the record
    record: Round | Abort
    receipts: tuple[Receipt, ...]

    @property
    def used(self) -> tuple[Receipt, ...]:
        """The receipts whose replies were aggregated, in the order of the log; none of an abort."""
        if isinstance(self.record, Abort):
            return ()
        left_out = {item.hospital for item in self.record.left_out}
        return tuple(r for r in self.receipts if r.hospital not in left_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One job's life so far."""

    digest: str
    job: Job
    index: int  # of the job record
    answered: frozenset[str] = frozenset()  # hospitals whose newest word is an approval or a refusal
    parties: Map[str, Party] = Map()  # noqa: RUF009 - immutable; empty before the start
    closed: tuple[Closed, ...] = ()
    release: Release | None = None
    ended: str = ""
    end_index: int = 0  # of the record that released or ended it last

    @property
    def server_state(self) -> str:
        """Digest of the strategy's memory now, or ""."""
        rounds = (c.record.server_state_after for c in reversed(self.closed) if isinstance(c.record, Round))
        return next(rounds, "")

    @property
    def trained(self) -> bool:
        """Whether any round produced a model."""
        return any(isinstance(c.record, Round) and c.record.round <= self.job.rounds for c in self.closed)

    @property
    def last_receipts(self) -> dict[str, Receipt]:
        """The newest logged receipt of each hospital."""
        return {r.hospital: r for c in self.closed for r in c.receipts}


@dataclass(frozen=True, slots=True, kw_only=True)
class Histories:
    """All jobs of a log up to one size. A value: following more entries gives another one."""

    size: int = 0
    jobs: Map[str, History] = Map()  # noqa: RUF009 - immutable; by the job's digest
    datasets: Map[str, Dataset] = Map()  # noqa: RUF009 - immutable; newest version, by reference
    approvals: Map[str, Approval] = Map()  # noqa: RUF009 - immutable; by digest, of every job
    receipts: tuple[Receipt, ...] = ()  # of an open batch
    handouts: Map[tuple[str, ...], int] = Map()  # noqa: RUF009 - immutable; (job, member, item, content, right) -> index

    def follow(self, entries: Iterable[Entry]) -> Histories:
        """Return the histories after more entries, in order."""
        found = self
        for entry in entries:
            found = found._next(entry)
        return found

    def _next(self, entry: Entry) -> Histories:
        """Read one entry; kinds that concern no job only count."""
        record, size = entry.record, self.size + 1
        match record:
            case Job():
                history = History(digest=entry.digest, job=record, index=self.size)
                return replace(self, size=size, jobs=self.jobs.set(entry.digest, history))
            case Dataset():
                return replace(self, size=size, datasets=self.datasets.set(record.ref, record))
            case Receipt():
                return replace(self, size=size, receipts=(*self.receipts, record))
            case Approval():
                known = replace(self, approvals=self.approvals.set(entry.digest, record))
                return known._answered(record.job, record.hospital, add=True)
            case Refusal():
                return self._answered(record.job, record.hospital, add=True)
            case Withdrawal():
                return self._answered(self.approvals[record.approval].job, record.hospital, add=False)
            case Access():
                what = (record.job, record.member, record.item, record.content, record.right)
                return replace(self, size=size, handouts=self.handouts.set(what, self.size))
            case Start() | Round() | Abort() | Release() | Ended():
                history = self._of_coordinator(self.jobs[record.job], record)
                return replace(self, size=size, jobs=self.jobs.set(record.job, history), receipts=())
        return replace(self, size=size)

    def _answered(self, job: str, hospital: str, *, add: bool) -> Histories:
        history = self.jobs[job]
        answered = history.answered | {hospital} if add else history.answered - {hospital}
        changed = replace(history, answered=answered)
        return replace(self, size=self.size + 1, jobs=self.jobs.set(job, changed))

    def _of_coordinator(self, history: History, record: Start | Round | Abort | Release | Ended) -> History:
        match record:
            case Start():
                return replace(history, parties=Map(_parties(record, self.approvals, self.datasets)))
            case Round() | Abort():
                closed = Closed(index=self.size, record=record, receipts=self.receipts)
                return replace(history, closed=(*history.closed, closed))
            case Release():
                return replace(history, release=record, end_index=self.size)
        return replace(history, ended=record.reason, end_index=self.size)


def _parties(
    start: Start, approvals: Mapping[str, Approval], datasets: Mapping[str, Dataset]
) -> dict[str, Party]:
    parties = {}
    for participant in start.participants:
        approval = approvals[participant.approval]
        parties[participant.hospital] = Party(
            hospital=participant.hospital,
            weight=participant.weight,
            approval=approval,
            dataset=datasets[approval.dataset],
        )
    return parties
