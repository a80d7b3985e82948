"""Which replies of a round are averaged, and why another is left out.

Every decision here is a pure function of what arrived and of what `start` fixed; none depends on another
hospital's update. Signatures, and what a receipt claims about budget, are judged by the ledger's rules
(`ledger.rules_rounds`), which also fix the codes. Being admitted proves no more than that an honest hospital with
some data could have sent this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.metrics import BINS
from coordinator.updates import Floats, Plan, Readable, VerifiedReader

UPDATE_NAME = "update"
METRICS_NAME = "metrics"
_BLOCK = 2**13  # elements judged at a time


class Reason(StrEnum):
    """Why a reply is not in the round's model. `code` is how the record says it."""

    # judged here, on a reply whose receipt is logged
    DIGEST = "digest"  # the bytes are not the ones that the receipt names
    METRICS = "metrics"  # the histogram is not the one that the receipt names, or cannot be an honest one
    NAME = "name"  # arrays are missing, or there are others than were asked for
    DTYPE = "dtype"
    SHAPE = "shape"
    NON_FINITE = "non-finite"
    NORM = "norm"  # larger than any honest update under its plan
    # no receipt that the ledger's rules would accept
    JOB = "job"
    ROUND = "round"
    MODEL = "model"  # trained on another model
    RECEIPT = "receipt"  # missing, not signed by the hospital, or against another rule of the ledger
    LATE = "late"  # after the deadline, or never
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    # known from the log
    WITHDRAWN = "withdrawn"
    REVOKED = "revoked"
    REMOVED = "removed"
    EXPIRED = "expired"
    SKIPPED = "skipped"
    # never on the record: it names participants only, and each one's first reply stands
    STRANGER = "stranger"
    DUPLICATE = "duplicate"

    @property
    def code(self) -> str:
        """The record's word: what a receipt for another job, round or model is called there is `receipt`."""
        return "receipt" if self in (Reason.JOB, Reason.ROUND, Reason.MODEL) else self.value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reply:
    """One reply as it arrived. Only `hospital`, `arrived_at`, digests and `size` are our own observations."""

    hospital: str  # whose authenticated connection it came over
    arrived_at: int  # Unix seconds
    job: str  # this and the next four: what its receipt says
    round: int
    model: str
    receipt_update: str
    receipt_metrics: str
    arrays: tuple[str, ...]  # names of the arrays that came, sorted
    digest: str = ""  # of the update's bytes, as the store computed it; "" where none came
    dtype: str = ""  # of the update, as declared: "int64" or "float32"
    shape: tuple[int, ...] = ()  # as declared
    size: int = 0  # bytes of the update
    histogram: NDArray[Any] | None = None
    histogram_digest: str = ""  # of its bytes; "" where none came


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a reply of this round must be."""

    job: str
    round: int
    model: str
    deadline: int  # Unix seconds
    plans: Mapping[str, Plan]  # one for each participant
    trains: bool = True  # False in the last exchange, which only evaluates
    histogram_noise: Mapping[str, float] | None = None  # each hospital's noise multiplier; None: none is due

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that must come, sorted."""
        due = self.histogram_noise is not None
        return (METRICS_NAME,) * due + (UPDATE_NAME,) * self.trains


def judge(
    reply: Reply, expected: Expected, answered: Collection[str], open_update: Callable[[], Readable]
) -> Reason | None:
    """Return the first reason to leave a reply out, or None to admit it.

    Args:
        reply: What arrived.
        expected: What must have arrived.
        answered: Hospitals whose first reply this round was judged before, whatever came of it.
        open_update: Opens the spooled bytes; called only when everything declared is right.

    Raises:
        IntegrityError: see `judge_numbers`.
    """
    if (plan := expected.plans.get(reply.hospital)) is None:
        return Reason.STRANGER
    if reply.hospital in answered:
        return Reason.DUPLICATE
    if (reason := _judge_declared(reply, expected, plan)) is not None or not expected.trains:
        return reason
    with closing(open_update()) as stream:
        return judge_numbers(stream, reply.digest, plan)


def _judge_declared(reply: Reply, expected: Expected, plan: Plan) -> Reason | None:
    """Judge all but the update's numbers."""
    due = expected.histogram_noise
    checks: tuple[tuple[Callable[[], bool], Reason], ...] = (
        (lambda: reply.arrived_at <= expected.deadline, Reason.LATE),
        (lambda: reply.job == expected.job, Reason.JOB),
        (lambda: reply.round == expected.round, Reason.ROUND),
        (lambda: reply.model == expected.model, Reason.MODEL),
        (lambda: reply.arrays == expected.arrays, Reason.NAME),
        (lambda: reply.digest == reply.receipt_update, Reason.DIGEST),
        (lambda: reply.histogram_digest == reply.receipt_metrics, Reason.METRICS),
        (lambda: due is None or _is_honest(reply.histogram, plan, due[reply.hospital]), Reason.METRICS),
        (lambda: not expected.trains or reply.dtype == plan.dtype.name, Reason.DTYPE),
        (lambda: not expected.trains or reply.shape == (plan.parameters,), Reason.SHAPE),
        (lambda: not expected.trains or reply.size == plan.size, Reason.SHAPE),
    )
    return next((reason for holds, reason in checks if not holds()), None)


def judge_numbers(stream: Readable, digest: str, plan: Plan) -> Reason | None:
    """Return why an update's numbers are out of bounds, or None. One pass, one block in memory.

    Raises:
        IntegrityError: the stored bytes are not the ones that were received: our own disk's fault, not the
            hospital's, so no reason to leave it out.
    """
    reader = VerifiedReader(stream, digest, "a spooled update")
    reason: Reason | None = None
    squares = 0.0
    for changes, in_range in _blocks(reader, plan):
        if not np.isfinite(changes).all():
            reason = reason or Reason.NON_FINITE
        elif not in_range:
            reason = reason or Reason.NORM
        else:  # accumulate adds from left to right on every machine, where `sum` adds in pairs
            squares = float(np.add.accumulate(np.append(squares, changes * changes))[-1])
    reader.finish()
    if reason is None and math.sqrt(squares) > plan.norm_limit:
        reason = Reason.NORM
    return reason


def _blocks(reader: VerifiedReader, plan: Plan) -> Iterator[tuple[Floats, bool]]:
    """Yield an update's changes, and whether its integers are in range, block by block."""
    for start in range(0, plan.parameters, _BLOCK):
        numbers = reader.array(min(_BLOCK, plan.parameters - start), plan.dtype)
        in_range = True
        if plan.local_steps == 1:  # compared before any arithmetic: abs(-2**63) would overflow
            limit = plan.integer_limit
            in_range = bool((numbers <= limit).all() and (numbers >= -limit).all())
        yield plan.decode(numbers), in_range


def _is_honest(counts: NDArray[Any] | None, plan: Plan, noise_multiplier: float) -> bool:
    """Whether a histogram has the right layout and could come from so many patients.

    Twelve deviations: a discrete Gaussian goes further once in 10**31 cells. Bounded counts cannot overflow a sum.
    """
    if counts is None or counts.shape != (2, BINS) or counts.dtype != np.int64:
        return False
    limit = math.ceil(plan.most_patients + 12 * noise_multiplier + 1)
    return bool((counts <= limit).all() and (counts >= -limit).all())
