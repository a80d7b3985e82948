"""What the records so far amount to: the value that `rules.apply` folds over a log.

Persistent maps (HAMT) keep one step O(log n) and every older state valid, so a witness can try a batch and drop
it. Everything here is derived from the log; `to_bytes` is a snapshot for a quick restart, never evidence. These
classes do not check themselves: only `rules` makes them, from records that did.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

from immutables import Map

from ledger import canonical
from ledger.errors import MalformedError
from ledger.records import Agreement, Approval, Dataset, Job
from ledger.values import Member

NEVER = canonical.MAX_INTEGER  # an index that no entry reaches
MAX_SNAPSHOT_SIZE = 1 << 30
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A member with the span of entries in which it belonged: `since` <= index < `until`."""

    member: Member
    since: int
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpan:
    """When an identity key was valid: after the entry at `since`, up to the entry at `until`."""

    member: str
    since: int
    until: int
    revoked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessSet:
    """Whose signatures make a checkpoint final, from the entry at `since` on."""

    since: int
    log: str  # the log's verifier key
    witnesses: tuple[str, ...]  # verifier keys, sorted
    max_dishonest: int
    quorum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetState:
    """A dataset record in force, and the newest charge to it that a receipt showed."""

    record: Dataset
    charge: int
    epsilon: str
    job: str  # digest of the running job that uses it, or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A participant of a running job."""

    approval: Approval
    weight: int
    agreements_until: int  # latest expiry among the agreements that let it take part, Unix seconds
    withdrawn: bool
    skipped: int  # the round that it skipped last, or 0
    epsilon_job: str  # of its newest receipt, or "0"
    epsilon_dataset: str
    receipts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A job's place in its life: `status` moves along `rules_jobs.TRANSITIONS`."""

    record: Job
    status: str
    next_round: int
    model: str  # hex digest of the current parameters
    server_state: str
    last_index: int  # entry of the start, round or abort that came last: receipts are judged as of then
    last_time: int
    previous_index: int  # entry of the one before it: that must be final before the next round trains
    aborted: bool  # whether the last one was an abort
    approved: Map[str, str]  # hospital -> digest of its approval
    participants: tuple[str, ...]  # hospitals of the start, sorted
    parties: Map[str, Party]  # the same with their standing; empty before and after the run


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedReceipt:
    """What the closing record of a batch needs of a receipt."""

    update: str
    metrics: str
    charge: int
    epsilon_job: str
    epsilon_dataset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Receipts that await their round or abort record; `job` is "" when there are none."""

    job: str
    round: int
    start: int  # index of the first receipt
    receipts: Map[str, LoggedReceipt]


NO_BATCH = Batch(job="", round=0, start=0, receipts=Map())


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that decides what may come next."""

    size: int  # records applied: the next record's index
    origin: str
    dead_logs: tuple[str, ...]  # verifier keys of the logs that this one follows; their names are the origins
    name: str
    version: int  # of the charter: 1, then one more with each amendment
    rules: int
    time: int  # largest time in the coordinator's records
    recovery_keys: tuple[str, ...]
    recovery_quorum: int
    members: Map[str, Membership]
    keys: Map[str, KeySpan]  # every identity key ever, never to be used again by another
    witness_sets: tuple[WitnessSet, ...]  # oldest first; the last is in force
    agreements: Map[str, Agreement]
    datasets: Map[str, DatasetState]
    jobs: Map[str, JobState]
    approvals: Map[str, Approval]  # by digest; of jobs that have not ended, without the withdrawn ones
    approval_numbers: Map[str, int]
    deliveries: int  # access records so far
    seen: Map[str, int]  # payload digests that nothing else keeps from coming twice
    batch: Batch

    @property
    def at_batch_end(self) -> bool:
        """Whether a checkpoint may stand here: no receipt awaits its round."""
        return not self.batch.job

    def member(self, name: str) -> Member | None:
        """Return a member of now, or None."""
        found = self.members.get(name)
        return found.member if found is not None and found.until == NEVER else None

    def coordinator(self) -> Member:
        """Return the one coordinator that every charter has."""
        return next(
            m.member for m in self.members.values() if m.member.role == "coordinator" and m.until == NEVER
        )

    def sets_over(self, old_size: int, size: int) -> tuple[WitnessSet, ...]:
        """Return every witness set that must agree to a checkpoint of `size` when `old_size` was final before.

        An amendment in between needs the set before it and the set after it (PROTOCOL.md, "Members").
        """
        ends = [s.since for s in self.witness_sets[1:]] + [NEVER]
        return tuple(
            s for s, end in zip(self.witness_sets, ends, strict=True) if s.since < size and end >= old_size
        )

    def to_bytes(self) -> bytes:
        """Return a snapshot."""
        return canonical.dumps(canonical.plain(self))


EMPTY = State(
    size=0, origin="", dead_logs=(), name="", version=0, rules=0, time=0, recovery_keys=(), recovery_quorum=0,
    members=Map(), keys=Map(), witness_sets=(), agreements=Map(), datasets=Map(), jobs=Map(), approvals=Map(),
    approval_numbers=Map(), deliveries=0, seen=Map(), batch=NO_BATCH,
)  # fmt: skip


def evolve(value: _Value, **changes: object) -> _Value:
    """Do as `dataclasses.replace`, in two thirds of its time: what every receipt costs."""
    kind: Any = type(value)
    names, read = _reader(kind)
    made: _Value = kind(**{**dict(zip(names, read(value), strict=True)), **changes})
    return made


@cache
def _reader(kind: Any) -> tuple[tuple[str, ...], attrgetter[tuple[Any, ...]]]:
    names = tuple(f.name for f in fields(kind))
    return names, attrgetter(*names)


def from_bytes(data: bytes) -> State:
    """Read a snapshot that `State.to_bytes` wrote. Raises MalformedError for other bytes."""
    state = canonical.build(State, canonical.loads(data, MAX_SNAPSHOT_SIZE))
    if state.to_bytes() != data:
        raise MalformedError("the state snapshot is not in canonical form")
    return state
