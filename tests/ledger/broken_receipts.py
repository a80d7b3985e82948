"""Every rule broken alone: receipts and skips."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ledger import example
from tests.ledger.broken_steps import (
    Case,
    Step,
    breaks,
    case,
    changed,
    changed_at,
    in_batch,
    moved,
    offered,
    resigned,
    running,
)
from tests.ledger.consortium import DAY, digest


def receipt_with(**changes: Any) -> Case:
    c, job = in_batch()
    return changed(c, c.receipt("charlie", job), **changes)


@breaks("receipt.job-running")
def receipt_for_an_ended_job() -> Case:
    before, job = running()
    after = before.fork()
    after.append(after.ended(job, "cancelled"))
    return moved(before, after, before.receipt("alpha", job))


case(
    "receipt.participant", "receipt of a hospital that takes no part", lambda: receipt_with(hospital="delta")
)


@breaks("receipt.participant")
def receipt_after_withdrawal() -> Case:
    before, job = running()
    after = before.fork()
    after.append(after.withdrawal("alpha", job))
    return moved(before, after, before.receipt("alpha", job))


case("receipt.round", "receipt of another round", lambda: receipt_with(round=2))


@breaks("receipt.round")
def receipt_of_another_job_in_the_batch() -> Case:
    c = offered().fork()
    c.offer("delta", "echo")
    one, two = c.run("alpha", "bravo"), c.run("delta", "echo")
    other = c.fork()
    other.append(other.receipt("alpha", one))
    c.append(c.receipt("delta", two))
    return moved(c, other, c.receipt("echo", two))


@breaks("receipt.once")
def two_receipts_of_one_hospital() -> Case:
    before, job = running()
    one = before.receipt("charlie", job)
    return changed_at(before, in_batch()[0], one, replace(in_batch()[0].receipt("alpha", job), charge=9))


@breaks("receipt.once")
def receipt_after_a_skip() -> Case:
    before, job = running()
    after = before.fork()
    after.append(after.skip("alpha", job))
    return moved(before, after, before.receipt("alpha", job))


case("receipt.in-time", "receipt after the job expired", lambda: last_round_at(DAY))
case("receipt.in-time", "receipt after the agreement expired", lambda: last_round_at(DAY, agreement=True))


def last_round_at(seconds: int, agreement: bool = False) -> Case:
    """A round closes one second before an expiry, and on it."""
    c = offered().fork()
    ends = c.state.time + seconds
    if agreement:
        cited = (c.append(c.agreement("alpha", "bravo", expires_at=ends)).digest,)
        job = c.run("alpha", "bravo", agreements=cited)
    else:
        job = c.run("alpha", "bravo", expires_at=ends)
    c.receive(job)
    before, after = c.fork(), c.fork()
    before.append(before.round_(job, time=ends - 1))
    after.append(after.round_(job, time=ends))
    return (
        Step(before, before.entry(before.receipt("alpha", job))),
        Step(after, after.entry(after.receipt("alpha", job))),
    )


case("receipt.model", "receipt on a stale model", lambda: receipt_with(model_before=digest("another model")))
case(
    "receipt.mechanism",
    "less noise than approved",
    lambda: receipt_with(mechanisms=(replace(example.TRAINING, noise_multiplier="0.1"),)),
)
case(
    "receipt.mechanism",
    "evaluation that was not due",
    lambda: receipt_with(mechanisms=(example.TRAINING, example.EVALUATION)),
)
case("receipt.digests", "receipt without an update", lambda: receipt_with(update=""))
case("receipt.digests", "histogram that was not due", lambda: receipt_with(metrics=digest("a histogram")))
case("receipt.charge", "charge number again", lambda: receipt_with(charge=2))
case("receipt.epsilon-grows", "job epsilon forgotten", lambda: receipt_with(epsilon_job="1.49"))
case("receipt.epsilon-grows", "dataset epsilon forgotten", lambda: receipt_with(epsilon_dataset="1.99"))
case(
    "receipt.within-limit",
    "more than the hospital allowed this job",
    lambda: receipt_with(epsilon_job="3.01"),
)
case(
    "receipt.within-budget",
    "more than the dataset will ever spend",
    lambda: receipt_with(epsilon_dataset="8.01"),
)


@breaks("receipt.checkpoint")
def checkpoint_before_the_last_round() -> Case:
    c, job = running()
    size = c.job_state(job).last_index
    return changed(c, c.receipt("alpha", job), checkpoint_size=size, checkpoint_root=digest("a root"))


case(
    "receipt.checkpoint",
    "checkpoint of the batch itself",
    lambda: receipt_with(checkpoint_size=in_batch()[0].view.size),
)
case(
    "receipt.checkpoint",
    "checkpoint of a fork",
    lambda: receipt_with(checkpoint_root=digest("the root of another history")),
)
case(
    "record.signers",
    "receipt signed by another hospital",
    lambda: resigned(in_batch()[0], in_batch()[0].receipt("charlie", in_batch()[1]), "delta"),
)


def skip_with(**changes: Any) -> Case:
    c, job = running()
    return changed(c, c.skip("alpha", job), **changes)


case("skip.round", "skip of the round after", lambda: skip_with(round=4))
case("skip.round", "skip of an unknown job", lambda: skip_with(job=digest("no job")))


@breaks("skip.participant")
def skip_by_a_hospital_that_takes_no_part() -> Case:
    c, job = running()
    return Step(c, c.entry(c.skip("alpha", job))), Step(
        c, c.entry(replace(c.skip("alpha", job), hospital="delta"))
    )


@breaks("skip.participant")
def second_skip_of_a_round() -> Case:
    before, job = running()
    after = before.fork()
    after.append(after.skip("alpha", job, "hours"))
    return moved(before, after, before.skip("alpha", job))


case("skip.code", "skip for a reason that depends on rows", lambda: skip_with(code="too-few-patients"))
