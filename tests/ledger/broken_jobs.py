"""Every rule broken alone: proposal, approval and start of a job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ledger import example
from tests.ledger.broken_steps import (
    Case,
    Step,
    approved,
    breaks,
    case,
    changed,
    moved,
    offered,
    proposed,
)
from tests.ledger.consortium import digest


def job_with(**changes: Any) -> Case:
    return changed(offered(), offered().job("alpha", "bravo", evaluate=(4,)), **changes)


case("job.agreements", "unknown agreement", lambda: job_with(agreements=(digest("no agreement"),)))


@breaks("job.agreements")
def agreement_without_the_researcher() -> Case:
    c = offered().fork()
    private = c.append(c.agreement("alpha", parties=("alpha",))).digest
    return changed(c, c.job("alpha", "bravo"), agreements=(private,))


@breaks("job.agreements")
def agreement_that_has_expired() -> Case:
    before = offered().fork()
    soon = before.append(before.agreement("alpha", expires_at=before.state.time + 10)).digest
    after = before.fork()
    after.append(after.tick(10))
    return moved(before, after, before.job("alpha", agreements=(soon,)))


case("job.datasets", "unknown dataset", lambda: job_with(datasets=("alpha/heart", "delta/heart")))


@breaks("job.datasets")
def two_datasets_of_one_hospital() -> Case:
    c = offered().fork()
    c.append(c.dataset("alpha", name="lungs"))
    return changed(c, c.job("alpha", "bravo"), datasets=("alpha/heart", "alpha/lungs"))


case("job.minimum", "more wanted than asked", lambda: job_with(min_participants=3))
case("job.privacy", "no epsilon", lambda: job_with(epsilon="0"))
case("job.privacy", "job with delta one", lambda: job_with(delta="1"))
case(
    "job.training",
    "sample rate above one",
    lambda: job_with(training=replace(example.job().training, sample_rate="1.5")),
)
case(
    "job.training",
    "no clipping",
    lambda: job_with(training=replace(example.job().training, max_grad_norm="0")),
)
case("job.evaluate", "evaluation after the last exchange", lambda: job_with(evaluate=(5,)))
case("job.evaluate", "evaluation without a budget", lambda: job_with(heldout_epsilon="0"))
case("job.evaluate", "heldout budget without evaluation", lambda: job_with(evaluate=()))
case("job.unexpired", "job that expires now", lambda: job_with(expires_at=offered().state.time))


def approval_with(**changes: Any) -> Case:
    c, job = proposed()
    return changed(c, c.approval("alpha", job), **changes)


case("approval.job-open", "approval of an unknown job", lambda: approval_with(job=digest("no job")))


@breaks("approval.job-open")
def refusal_of_a_cancelled_job() -> Case:
    c, job = proposed()
    after = c.fork()
    after.append(after.ended(job, "cancelled"))
    return moved(c, after, c.refusal("alpha", job))


case("approval.number", "approval number left out", lambda: approval_with(number=2))


@breaks("approval.once")
def second_approval() -> Case:
    c, job = proposed()
    after = c.fork()
    after.append(after.approval("alpha", job))
    second = after.approval("alpha", job)
    return Step(c, c.entry(c.approval("alpha", job))), Step(after, after.entry(second))


case("approval.dataset", "somebody elses dataset", lambda: approval_with(dataset="bravo/heart"))


@breaks("approval.purpose")
def purpose_that_the_dataset_does_not_permit() -> Case:
    c = offered().fork()
    c.append(c.dataset("alpha", purposes=("other-research",)))
    job = c.append(c.job("alpha", "bravo")).digest
    return Step(c, c.entry(c.approval("bravo", job))), Step(c, c.entry(c.approval("alpha", job)))


case("approval.limit", "limit beyond the dataset", lambda: approval_with(epsilon="8.01"))
case("approval.limit", "limit of nothing", lambda: approval_with(epsilon="0"))
case(
    "approval.mechanism",
    "approval without noise",
    lambda: approval_with(training=replace(example.TRAINING, noise_multiplier="0")),
)
case(
    "approval.mechanism",
    "more steps than the job asks",
    lambda: approval_with(training=replace(example.TRAINING, steps=2)),
)
case("approval.mechanism", "one evaluation too few", lambda: approval_with(evaluation=(example.EVALUATION,)))


@breaks("refusal.invited")
def refusal_by_a_hospital_not_asked() -> Case:
    c, job = proposed()
    return Step(c, c.entry(c.refusal("alpha", job))), Step(c, c.entry(c.refusal("delta", job)))


@breaks("refusal.invited")
def refusal_of_what_was_approved() -> Case:
    before, job = proposed()
    return moved(before, approved()[0], before.refusal("alpha", job))


@breaks("withdrawal.approval")
def withdrawal_of_somebody_elses_approval() -> Case:
    c, job = approved()
    return changed(c, c.withdrawal("alpha", job), approval=c.withdrawal("bravo", job).approval)


@breaks("start.job")
def start_of_a_job_that_runs() -> Case:
    c, job = approved()
    after = c.fork()
    after.append(after.start(job))
    second = replace(c.start(job), time=after.state.time + 1)
    return Step(c, c.entry(second)), Step(after, c.entry(second))


@breaks("start.job")
def start_after_expiry() -> Case:
    c, job = approved()
    return changed(c, c.start(job), time=c.job_state(job).record.expires_at)


@breaks("record.time")
def start_in_the_past() -> Case:
    c, job = approved()
    return changed(c, c.start(job), time=c.state.time - 1)


@breaks("start.model")
def start_with_another_model() -> Case:
    c, job = approved()
    return changed(c, c.start(job), model=digest("another model"))


@breaks("start.minimum")
def start_with_one() -> Case:
    c, job = approved()
    return changed(c, c.start(job), participants=c.start(job).participants[:1])


@breaks("start.approved")
def start_with_a_withdrawn_approval() -> Case:
    before, job = approved()
    after = before.fork()
    after.append(after.withdrawal("charlie", job))
    return moved(before, after, before.start(job))


@breaks("start.approved")
def start_with_a_hospital_that_left() -> Case:
    before, job = approved()
    after = before.fork()
    after.append(after.amendment(remove=("charlie",)))
    return moved(before, after, before.start(job))


@breaks("start.weights")
def start_with_a_chosen_weight() -> Case:
    c, job = approved()
    first, *others = c.start(job).participants
    return changed(c, c.start(job), participants=(replace(first, weight=first.weight * 2), *others))


@breaks("start.purpose")
def purpose_no_longer_permitted() -> Case:
    before, job = approved()
    after = before.fork()
    after.append(after.dataset("alpha", purposes=("other-research",)))
    return moved(before, after, before.start(job))


@breaks("start.agreement")
def hospital_that_agreed_to_nothing() -> Case:
    c = offered().fork()
    c.append(c.dataset("delta"))
    job = c.append(c.job("alpha", "bravo", "delta")).digest
    for hospital in ("alpha", "bravo", "delta"):
        c.append(c.approval(hospital, job))
    start = c.start(job)
    return changed(c, replace(start, participants=start.participants[:2]), participants=start.participants)


@breaks("start.agreement")
def agreement_that_expires_before_the_start() -> Case:
    c = offered().fork()
    soon = c.append(c.agreement("alpha", "bravo", expires_at=c.state.time + 10)).digest
    job = c.propose("alpha", "bravo", agreements=(soon,))
    return changed(c, c.start(job, time=c.state.time + 9), time=c.state.time + 10)


@breaks("start.agreement")
def agreement_for_another_purpose() -> Case:
    c = offered().fork()
    other = c.append(c.agreement("alpha", "bravo", purposes=("other-research",))).digest
    good, bad = c.propose("alpha", "bravo"), c.propose("alpha", "bravo", agreements=(other,))
    return Step(c, c.entry(c.start(good))), Step(c, c.entry(c.start(bad)))


@breaks("start.dataset-free")
def two_jobs_on_one_dataset() -> Case:
    before = offered().fork()
    one, two = before.propose("alpha", "bravo"), before.propose("bravo", "charlie")
    after = before.fork()
    after.append(after.start(one))
    return moved(before, after, replace(before.start(two), time=after.state.time))
