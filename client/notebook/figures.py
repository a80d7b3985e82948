"""What a run has shown, as plain values: what tables, pictures and trackers are made from.

All of it is public within the consortium: computed from the records on the log and from the noised numbers that
they name, never from a patient's row. A run that is still going on has the same figures, only fewer.
"""

from __future__ import annotations

from dataclasses import dataclass

USED = "used"  # the fate of a reply that is in the round's model; other fates are the log's codes for leaving it out


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number from noised histograms, with its 95 % interval over the noise and the patients."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """A bar of the calibration curve."""

    predicted: float  # the middle of the scores in this bin, as a probability
    observed: float  # share of positives among the patients in it, in [0, 1] after noise
    patients: float  # about how many, after noise; never below 0
    low: float | None = None  # of the share's 95 % interval, over noise and patients; None: not known
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One published evaluation of one model; None: too little was left to measure."""

    round: int  # that begins with this model; rounds + 1 for the released one
    auroc: Estimate | None
    log_loss: Estimate | None
    brier: Estimate | None
    calibration: tuple[Bin, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What became of one hospital in one round."""

    round: int
    hospital: str
    fate: str  # `USED`, or the code of why its reply is not in the model


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a hospital's patients have spent on this job when a round had ended, composed over all its rounds."""

    round: int
    hospital: str
    side: str  # "training" or "heldout": who is trained on, and who is measured on
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a hospital has set aside."""

    hospital: str
    dataset: str
    patients: int  # the size class: about how many
    job_epsilon: float  # most that this job may spend there
    lifetime_epsilon: float  # most that all jobs together may ever spend there
    delta: float
    lifetime_spent: float | None = None  # by all jobs together so far; None: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """How one noised update pulled at the model."""

    round: int
    hospital: str
    norm: float  # l2 length
    cosine: float  # with the weighted mean of the round's updates, in [-1, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Everything that tables and pictures of one job need, each tuple sorted by round, then hospital."""

    name: str
    digest: str  # of the job's record
    rounds: int  # planned
    status: str  # as the log says: "running", "finished", ...
    hospitals: tuple[str, ...]
    measured: tuple[Measured, ...] = ()
    parts: tuple[Part, ...] = ()
    spent: tuple[Spent, ...] = ()
    budgets: tuple[Budget, ...] = ()
    pulls: tuple[Pull, ...] = ()
