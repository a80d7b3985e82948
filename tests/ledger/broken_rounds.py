"""Every rule broken alone: rounds, aborts, and how a job is released and ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ledger.values import LeftOut, Spent
from tests.ledger.broken_steps import (
    Case,
    Step,
    breaks,
    case,
    changed,
    ended,
    evaluated,
    in_batch,
    moved,
    running,
)
from tests.ledger.consortium import DAY, digest


@breaks("record.time")
def round_in_the_past() -> Case:
    c, job = in_batch()
    return changed(c, c.round_(job), time=c.state.time - 1)


def round_with(**changes: Any) -> Case:
    c, job = in_batch()
    return changed(c, c.round_(job), **changes)


case(
    "batch.nothing-between",
    "tick among the receipts",
    lambda: moved(running()[0], in_batch()[0], running()[0].tick()),
)
case("round.job-running", "round of an unknown job", lambda: round_with(job=digest("no job")))


@breaks("round.job-running")
def abort_of_a_job_that_ended() -> Case:
    before, job = running()
    after = before.fork()
    after.append(after.ended(job, "cancelled"))
    return moved(before, after, before.abort(job))


case("round.consecutive", "round number left out", lambda: round_with(round=4))


@breaks("round.consecutive")
def exchange_after_the_last() -> Case:
    before, after, job = running()[0].fork(), evaluated()[0], running()[1]
    for _ in range(2):  # the fourth exchange only evaluates, so both end with one model
        before.receive(job)
        good, before_that = before.abort(job), before.fork()
        before.append(good)
    return Step(before_that, before_that.entry(good)), Step(after, after.entry(after.abort(job)))


case(
    "round.continues-lineage",
    "round from another model",
    lambda: round_with(model_before=digest("another model")),
)
case("round.receipts", "receipt not counted", lambda: round_with(receipts=1))
case("round.left-out", "absent without a word", lambda: round_with(left_out=()))


@breaks("round.left-out")
def stranger_left_out() -> Case:
    late = (LeftOut(hospital="charlie", code="late"), LeftOut(hospital="delta", code="late"))
    return round_with(left_out=late)


case(
    "round.reasons",
    "reason that is not on the list",
    lambda: round_with(left_out=(LeftOut(hospital="charlie", code="disliked"),)),
)


@breaks("round.reasons")
def late_although_it_skipped() -> Case:
    c, job = running()[0].fork(), running()[1]
    c.append(c.skip("charlie", job))
    c.receive(job, ["alpha", "bravo"])
    good = c.round_(job, {"charlie": "skipped"})
    return changed(c, good, left_out=(LeftOut(hospital="charlie", code="late"),))


case(
    "round.reasons",
    "skipped although it did not",
    lambda: round_with(left_out=(LeftOut(hospital="charlie", code="skipped"),)),
)


@breaks("round.reasons")
def receipt_on_the_log_called_late() -> Case:
    c, job = in_batch()[0].fork(), in_batch()[1]
    c.receive(job, ["charlie"])
    good = c.round_(job, {"charlie": "norm"})
    return changed(c, good, left_out=(LeftOut(hospital="charlie", code="late"),))


@breaks("round.minimum")
def round_of_one() -> Case:
    c, job = in_batch()
    return Step(c, c.entry(c.round_(job))), Step(c, c.entry(c.round_(job, {"alpha": "norm"})))


case("round.inputs", "inputs of another aggregation", lambda: round_with(inputs=digest("other inputs")))


def last_exchange(**changes: Any) -> Case:
    c, job = in_batch()[0].fork(), in_batch()[1]
    c.append(c.round_(job))
    c.receive(job)
    return changed(c, c.round_(job), **changes)


case(
    "round.evaluation",
    "model changed by an evaluation",
    lambda: last_exchange(model_after=digest("another model")),
)
case(
    "round.evaluation",
    "memory changed by an evaluation",
    lambda: last_exchange(server_state_after=digest("another memory")),
)


@breaks("abort.code")
def abort_for_no_reason_on_the_list() -> Case:
    c, job = in_batch()
    return changed(c, c.abort(job), code="unlucky")


@breaks("release.complete")
def release_before_the_last_exchange() -> Case:
    c, job = running()
    done = evaluated()[0]
    return Step(done, done.entry(done.release(job))), Step(c, c.entry(c.release(job)))


@breaks("release.complete")
def released_twice() -> Case:
    before, job = evaluated()
    after = before.fork()
    after.append(after.release(job))
    return moved(before, after, before.release(job, card=digest("another card")))


@breaks("release.model")
def release_of_another_model() -> Case:
    c, job = evaluated()
    return changed(c, c.release(job), model=digest("another model"))


@breaks("release.epsilons")
def release_that_names_a_smaller_epsilon() -> Case:
    c, job = evaluated()
    first, *others = c.release(job).epsilons
    return changed(c, c.release(job), epsilons=(replace(first, epsilon_job="1"), *others))


@breaks("release.epsilons")
def release_that_leaves_a_hospital_out() -> Case:
    c, job = evaluated()
    return changed(c, c.release(job), epsilons=c.release(job).epsilons[1:])


@breaks("release.epsilons")
def release_that_names_a_bystander() -> Case:
    c, job = evaluated()
    more = (*c.release(job).epsilons, Spent(hospital="delta", epsilon_job="1", epsilon_dataset="1"))
    return changed(c, c.release(job), epsilons=more)


@breaks("ended.job")
def ended_twice() -> Case:
    c, job = ended()
    before = c.fork()
    other = before.append(before.job("alpha", "bravo")).digest
    return changed(before, before.ended(other, "cancelled"), job=job)


@breaks("ended.reason")
def finished_without_a_release() -> Case:
    c, job = running()
    return changed(c, c.ended(job, "cancelled"), reason="finished")


@breaks("ended.reason")
def expired_before_its_time() -> Case:
    c, job = running()
    late = c.fork()
    late.append(late.tick(40 * DAY))
    return moved(late, c, c.ended(job, "expired"))


@breaks("ended.reason")
def below_minimum_with_enough() -> Case:
    enough, job = running()
    too_few = enough.fork()
    for hospital in ("alpha", "bravo"):
        too_few.append(too_few.withdrawal(hospital, job))
    return moved(too_few, enough, enough.ended(job, "below-minimum"))


@breaks("ended.reason")
def cancelled_after_its_release() -> Case:
    c, job = evaluated()[0].fork(), evaluated()[1]
    c.append(c.release(job))
    return changed(c, c.ended(job), reason="cancelled")
