"""Records of a training job, from its proposal to its release, in the order of its life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ledger.record import Record
from ledger.values import (
    Aggregation,
    Code,
    Count,
    DatasetName,
    Decimal,
    Digest,
    LeftOut,
    MaybeDigest,
    Mechanism,
    Metric,
    Name,
    Participant,
    Positive,
    Seconds,
    Software,
    Spent,
    Training,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Record):
    """Everything that a training run depends on. Signed by the researcher."""

    TYPE: ClassVar[str] = "job"
    SORTED: ClassVar[tuple[str, ...]] = ("agreements", "datasets", "evaluate", "software")
    researcher: Name
    name: Name
    purpose: Code
    agreements: tuple[Digest, ...]
    datasets: tuple[DatasetName, ...]  # at most one of each hospital
    dictionary: Digest
    model: Digest  # of the initial parameters
    training: Training
    aggregation: Aggregation
    epsilon: Decimal  # the job's target on the training side at `delta`
    heldout_epsilon: Decimal  # its target on the held-out side; "0" when `evaluate` is empty
    delta: Decimal
    rounds: Positive
    evaluate: tuple[Positive, ...]  # rounds whose received model is evaluated; rounds + 1 is the final model
    min_participants: Positive
    expires_at: Seconds
    software: tuple[Software, ...]

    @property
    def last_exchange(self) -> int:
        """The number of the last exchange: one more than `rounds` where the final model is evaluated."""
        return self.rounds + 1 if self.rounds + 1 in self.evaluate else self.rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval(Record):
    """A hospital's yes to exactly one job, with the noise it will add. Signed by the hospital."""

    TYPE: ClassVar[str] = "approval"
    hospital: Name
    number: Positive  # 1, 2, 3 ... for each hospital
    job: Digest
    dataset: DatasetName
    cohort: Digest  # the job's one snapshot, under a fresh salt
    epsilon: Decimal  # the hospital's own limit for this job
    training: Mechanism
    evaluation: tuple[Mechanism, ...]  # one for each entry of the job's `evaluate`


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal(Record):
    """A hospital's no. Signed by the hospital."""

    TYPE: ClassVar[str] = "refusal"
    hospital: Name
    job: Digest
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal(Record):
    """An approval taken back; it is spent for ever. Signed by the hospital."""

    TYPE: ClassVar[str] = "withdrawal"
    hospital: Name
    approval: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Record):
    """Round 0 of a job. Signed by the coordinator."""

    TYPE: ClassVar[str] = "start"
    job: Digest
    time: Seconds
    participants: tuple[Participant, ...]  # sorted by hospital; each approval fixes that hospital's noise
    model: Digest
    software: tuple[Software, ...]
    SORTED: ClassVar[tuple[str, ...]] = ("participants", "software")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(Record):
    """What a hospital released in one round. Signed by the hospital."""

    TYPE: ClassVar[str] = "receipt"
    hospital: Name
    job: Digest
    round: Positive
    model_before: Digest
    update: MaybeDigest  # of the update's bytes; empty when the round only evaluates
    metrics: MaybeDigest  # of the noised histogram's bytes; empty when none was due
    mechanisms: tuple[Mechanism, ...]
    charge: Positive  # number of the charge in the dataset's account
    epsilon_job: Decimal
    epsilon_dataset: Decimal
    checkpoint_size: Count  # the checkpoint that was obeyed
    checkpoint_root: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip(Record):
    """A hospital's "not this round". Signed by the hospital."""

    TYPE: ClassVar[str] = "skip"
    hospital: Name
    job: Digest
    round: Positive
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Round(Record):
    """One closed round, right after its receipts. Signed by the coordinator."""

    TYPE: ClassVar[str] = "round"
    SORTED: ClassVar[tuple[str, ...]] = ("left_out",)
    job: Digest
    round: Positive
    time: Seconds
    model_before: Digest
    model_after: Digest
    receipts: Count  # how many entries before this one are this round's receipts
    left_out: tuple[LeftOut, ...]
    inputs: Digest  # `inputs_digest` of what was aggregated
    server_state_after: MaybeDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort(Record):
    """A round that produced no model; its number is used up. Signed by the coordinator."""

    TYPE: ClassVar[str] = "abort"
    SORTED: ClassVar[tuple[str, ...]] = ("left_out",)
    job: Digest
    round: Positive
    time: Seconds
    model_before: Digest
    receipts: Count
    left_out: tuple[LeftOut, ...]
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Record):
    """The finished model. Signed by the coordinator; the quorum on its checkpoint makes it final."""

    TYPE: ClassVar[str] = "release"
    SORTED: ClassVar[tuple[str, ...]] = ("metrics", "epsilons")
    job: Digest
    model: Digest  # of the parameters: the last `model_after`
    artifact: Digest  # of the released file
    card: Digest  # of the model card, which says what is and is not claimed
    metrics: tuple[Metric, ...]
    epsilons: tuple[Spent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Record):
    """The end of a job. Signed by the coordinator, or a cancellation by the job's researcher."""

    TYPE: ClassVar[str] = "ended"
    job: Digest
    reason: Code
