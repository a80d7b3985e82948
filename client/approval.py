"""Does this hospital take part in a job, and with how much noise? Pure: records, policy and account in.

The noise is fixed here once, as PROTOCOL.md says: the larger of what the job's target and what is left of the
account require. Half of the held-out side's budget goes to the released model (`plan.evaluation_noise`). What the
policy forbids is refused by rule, whoever asks; what it allows is approved by rule or waits for a person
(`waits_for`). Taking the snapshot and trying the model is the worker's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from client import accounting, plan, software
from client.accounting import Event, Lifetime
from client.budget import Account
from client.config import Hospital
from client.errors import BudgetError, DeclinedError, TrainingRefusedError
from client.job_spec import BUILT_IN, JobSpec
from client.reviewed import CUSTOM, reviewed
from client.settings import Policy
from ledger.records import Approval, Dataset, Job
from ledger.state import State
from ledger.values import Mechanism, Software

REFUSALS: dict[str, str] = {
    "budget": "no useful noise meets the job's target within what is left of the lifetime budget",
    "cohort": "the dataset's size class is below the smallest that this hospital trains on",
    "data": "the data file cannot be used",
    "dataset": "the dataset's record differs from hospital.toml: register a new version first",
    "delta": "the job's delta is more than a tenth of one over the size class",
    "dictionary": "the job uses another data dictionary than this dataset",
    "model": "the model is not built in, and nobody here has put its model.py into models/",
    "model-crash": "the job's model.py fails, or gives no model",
    "model-file": "the job's model.py tried to read or write a file",
    "model-graph": "the job's model does what cannot be written as a graph of the operations that are offered",
    "model-memory": "the job's model.py takes more memory than limits.memory_mib allows",
    "model-network": "the job's model.py tried to reach the network",
    "model-process": "the job's model.py tried to start a process or a thread, or to signal one",
    "model-randomness": "the job's model draws random numbers: no dropout is offered",
    "model-state": "the job's model changes its own weights or buffers, or keeps a memory between examples",
    "model-system": "the job's model.py made a system call that no model needs",
    "model-time": "the job's model.py takes longer than limits.model_seconds allows",
    "participants": "the job may run with fewer hospitals than this hospital's policy requires",
    "person": "a person of this hospital has refused the job",
    "plan": "the job's model or settings are not offered",
    "policy": "this hospital's policy approves no job",
    "purpose": "the job's purpose is not permitted",
    "researcher": "this hospital's policy does not name the researcher",
    "sandbox": "this machine cannot confine a job's own code, so it runs none: `wardround hospital check` says why",
    "software": "the job names other software than what is installed here",
}

WAITS: dict[str, str] = {  # why a job that the policy allows is not approved by rule
    "ask": 'a person decides about every job (policy.approve is "ask")',
    "own-model": "the job brings a model.py of its own, which a person must read first",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a hospital brings to a decision."""

    dataset: Dataset  # as it stands on the log
    policy: Policy
    software: tuple[Software, ...]
    lifetime: Lifetime
    training: Sequence[Event]  # spent or promised before, by side
    heldout: Sequence[Event]
    reviewed: Collection[str] = ()  # digests of the model files that a person has read


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How the hospital would take part."""

    epsilon: str
    training: Mechanism
    evaluation: tuple[Mechanism, ...]
    spec: JobSpec


def decide(job: Job, offer: Offer) -> Terms:
    """Return how a hospital takes part in a job.

    Raises:
        DeclinedError: it does not.
    """
    _require_permitted(job, offer)
    epsilon = _limit(job, offer)
    target = float(min(Decimal(job.epsilon), epsilon))
    delta, rate = float(job.delta), float(job.training.sample_rate)
    try:
        noise = plan.choose_noise(
            target_epsilon=target,
            delta=delta,
            sample_rate=rate,
            steps=job.rounds * job.training.local_steps,
            lifetime=offer.lifetime,
            spent=offer.training,
        )
        evaluation = _evaluation(job, offer, float(min(Decimal(job.heldout_epsilon), epsilon)))
        spec = JobSpec.of(job.digest(), job.training, noise, offer.dataset.size_class)
        spec.plan(chunk_size=256)
    except BudgetError as error:
        raise DeclinedError("budget", str(error)) from None
    except TrainingRefusedError as error:
        raise DeclinedError("plan", str(error)) from None
    training = Mechanism(
        name="dp-sgd",
        noise_multiplier=noise,
        sample_rate=job.training.sample_rate,
        steps=job.training.local_steps,
        max_grad_norm=job.training.max_grad_norm,
    )
    return Terms(epsilon=accounting.spell(epsilon), training=training, evaluation=evaluation, spec=spec)


def waits_for(job: Job, policy: Policy) -> str:
    """Return why a job that `decide` accepts must wait for a person: one of WAITS, or "" for the rule's approval."""
    if policy.approve == "ask":
        return "ask"
    return "" if job.training.model in BUILT_IN else "own-model"


def record(terms: Terms, *, origin: str, hospital: str, number: int, ref: str, cohort: str) -> Approval:
    """Return the approval to sign.

    Args:
        terms: What was decided.
        origin: The log's.
        hospital: This hospital's name.
        number: Of its approvals, the next.
        ref: The dataset's name in records.
        cohort: Commitment to the job's one snapshot.
    """
    return Approval(
        origin=origin,
        hospital=hospital,
        number=number,
        job=terms.spec.job,
        dataset=ref,
        cohort=cohort,
        epsilon=terms.epsilon,
        training=terms.training,
        evaluation=terms.evaluation,
    )


def spec_of(job: Job, approval: Approval, size_class: int) -> JobSpec:
    """Return what the worker is told about a job that was approved. Raises TrainingRefusedError."""
    return JobSpec.of(approval.job, job.training, approval.training.noise_multiplier, size_class)


def offer_of(state: State, hospital: Hospital, account: Account, *, reading: Collection[str] = ()) -> Offer:
    """Return what a hospital brings to a decision now.

    Args:
        state: Of the log; the dataset is on it.
        hospital: The settings.
        account: May be open for reading only.
        reading: Digests of model files to count as read by a person, besides those in `models/`.

    Raises:
        ClientError: the account or `models/` cannot be read, or a package is not installed.
    """
    dataset = state.datasets[hospital.ref].record
    training, heldout = promised(state, hospital.name, dataset.ref)
    return Offer(
        dataset=dataset,
        policy=hospital.policy,
        software=software.installed(),
        lifetime=account.lifetime(dataset.ref),
        training=(*account.events(dataset.ref, "training"), *training),
        heldout=(*account.events(dataset.ref, "heldout"), *heldout),
        reviewed={*reviewed(hospital.models), *reading},
    )


def promised(state: State, hospital: str, ref: str) -> tuple[tuple[Event, ...], tuple[Event, ...]]:
    """Return what jobs that this hospital approved, and that have not ended, may still release, by side."""
    training: list[Event] = []
    heldout: list[Event] = []
    for approval in state.approvals.values():
        if (approval.hospital, approval.dataset) == (hospital, ref):
            found = state.jobs[approval.job]
            events = remaining(found.record, approval, found.next_round)
            training += events[0]
            heldout += events[1]
    return tuple(training), tuple(heldout)


def remaining(
    job: Job, approval: Approval, first: int, last: int | None = None
) -> tuple[list[Event], list[Event]]:
    """Return what a job's rounds from `first` to `last` release, by side; by default to the last one."""
    last = job.last_exchange if last is None else min(last, job.last_exchange)
    rounds = min(last, job.rounds) - first + 1
    training = [accounting.compose(accounting.event_of(approval.training), rounds)] if rounds > 0 else []
    due: Iterable[tuple[int, Mechanism]] = zip(job.evaluate, approval.evaluation, strict=True)
    return training, [accounting.event_of(m) for number, m in due if first <= number <= last]


def _require_permitted(job: Job, offer: Offer) -> None:
    installed = {s.name: s for s in offer.software}
    private = Decimal(job.delta) * 10 * offer.dataset.size_class <= 1
    policy, named = offer.policy, offer.policy.researchers
    checks = (
        (policy.approve != "never", "policy"),
        (not named or job.researcher in named, "researcher"),
        (job.purpose in offer.dataset.purposes and job.purpose in policy.purposes, "purpose"),
        (job.min_participants >= policy.min_participants, "participants"),
        (offer.dataset.size_class >= policy.smallest_cohort, "cohort"),
        (job.dictionary == offer.dataset.schema, "dictionary"),
        (private, "delta"),
        (_is_known(job, offer), "model"),
        (all(installed.get(s.name) == s for s in job.software), "software"),
    )
    for holds, code in checks:
        if not holds:
            raise DeclinedError(code, REFUSALS[code])


def _is_known(job: Job, offer: Offer) -> bool:
    """Whether the model is built in, or a person has read its code."""
    own = job.training.model == CUSTOM and job.training.model_code in offer.reviewed
    return own or job.training.model in BUILT_IN


def _limit(job: Job, offer: Offer) -> Decimal:
    """Return the hospital's own limit for the job: a multiple of 0.01, as receipts round up to."""
    wanted = max(float(job.epsilon), float(job.heldout_epsilon))
    return min(
        Decimal(accounting.round_up(wanted)),
        Decimal(offer.policy.max_epsilon_per_job),
        Decimal(offer.dataset.epsilon),
    )


def _evaluation(job: Job, offer: Offer, target: float) -> tuple[Mechanism, ...]:
    if not job.evaluate:
        return ()
    delta = float(job.delta)
    live_count = sum(number <= job.rounds for number in job.evaluate)
    if live_count == len(job.evaluate):  # the released model is not evaluated: the others share everything
        live = plan.choose_noise(
            target_epsilon=target,
            delta=delta,
            sample_rate=1,
            steps=live_count,
            lifetime=offer.lifetime,
            spent=offer.heldout,
        )
        final = live
    else:
        live, final = plan.evaluation_noise(
            target_epsilon=target, delta=delta, lifetime=offer.lifetime, spent=offer.heldout, live=live_count
        )
    return tuple(
        Mechanism(
            name="histogram",
            noise_multiplier=live if number <= job.rounds else final,
            sample_rate="1",
            steps=1,
            max_grad_norm="1",
        )
        for number in job.evaluate
    )
