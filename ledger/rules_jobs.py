"""Rules about a job as a whole: proposal, approvals, start, release, end."""

from __future__ import annotations

from dataclasses import replace

from immutables import Map

from ledger.envelope import Entry
from ledger.records import Approval, Ended, Job, Refusal, Release, Start, Withdrawal
from ledger.rule_names import refuse, require
from ledger.rules_consortium import signed_by, signed_by_coordinator
from ledger.state import JobState, Party, State
from ledger.values import Mechanism, Participant, decimal

# status -> the statuses that may follow; a job that is "cancelled", "expired", ... has ended for that reason
TRANSITIONS: dict[str, frozenset[str]] = {
    "proposed": frozenset({"running", "cancelled", "expired"}),
    "running": frozenset({"released", "cancelled", "expired", "below-minimum"}),
    "released": frozenset({"finished"}),
}


def job(state: State, entry: Entry, record: Job) -> State:
    """A researcher proposes."""
    signed_by(state, entry, record.researcher, role="researcher")
    for digest in record.agreements:
        found = state.agreements.get(digest)
        holds = found is not None and record.researcher in found.parties and found.expires_at > state.time
        require(
            holds, "job.agreements", f"agreement {digest[:16]} is unknown, expired, or not the researcher's"
        )
    hospitals = [ref.split("/")[0] for ref in record.datasets]
    for ref in record.datasets:
        require(ref in state.datasets, "job.datasets", f"{ref} is not on the log")
    require(len(set(hospitals)) == len(hospitals), "job.datasets", "two datasets of one hospital")
    wanted = len(hospitals)
    require(record.min_participants <= wanted, "job.minimum", f"{record.min_participants} of {wanted}")
    private = decimal(record.epsilon) > 0 and 0 < decimal(record.delta) < 1
    require(private, "job.privacy", f"epsilon {record.epsilon} at delta {record.delta}")
    training = record.training
    positive = decimal(training.learning_rate) > 0 and decimal(training.max_grad_norm) > 0
    rate = decimal(training.sample_rate)
    require(positive and 0 < rate <= 1, "job.training", "a number is out of range")
    within = all(r <= record.rounds + 1 for r in record.evaluate)
    paired = bool(record.evaluate) == (decimal(record.heldout_epsilon) > 0)
    require(within and paired, "job.evaluate", f"held-out epsilon {record.heldout_epsilon}")
    require(record.expires_at > state.time, "job.unexpired", f"it expired at {record.expires_at}")
    new = JobState(
        record=record,
        status="proposed",
        next_round=1,
        model=record.model,
        server_state="",
        last_index=state.size,
        last_time=state.time,
        previous_index=state.size,
        aborted=False,
        approved=Map(),
        participants=(),
        parties=Map(),
    )
    return replace(state, jobs=state.jobs.set(entry.digest, new))


def approval(state: State, entry: Entry, record: Approval) -> State:
    """A hospital agrees to one job and fixes its noise."""
    signed_by(state, entry, record.hospital, role="hospital")
    wanted = state.approval_numbers.get(record.hospital, 0) + 1
    require(record.number == wanted, "approval.number", f"number {record.number}, expected {wanted}")
    found = _proposed(state, record.job, "approval.job-open")
    require(record.hospital not in found.approved, "approval.once", f"{record.hospital} has approved it")
    own = record.dataset.split("/")[0] == record.hospital and record.dataset in found.record.datasets
    require(own, "approval.dataset", f"{record.dataset} is not the hospital's, or not in the job")
    data = state.datasets[record.dataset].record
    require(
        found.record.purpose in data.purposes, "approval.purpose", f"it permits not {found.record.purpose}"
    )
    limit = 0 < decimal(record.epsilon) <= decimal(data.epsilon)
    require(limit, "approval.limit", f"limit {record.epsilon}, budget {data.epsilon}")
    _check_mechanisms(found.record, record)
    approved = replace(found, approved=found.approved.set(record.hospital, entry.digest))
    return replace(
        state,
        jobs=state.jobs.set(record.job, approved),
        approvals=state.approvals.set(entry.digest, record),
        approval_numbers=state.approval_numbers.set(record.hospital, wanted),
    )


def refusal(state: State, entry: Entry, record: Refusal) -> State:
    """A hospital declines; it may still approve later."""
    signed_by(state, entry, record.hospital, role="hospital")
    found = _proposed(state, record.job, "approval.job-open")
    invited = record.hospital in {ref.split("/")[0] for ref in found.record.datasets}
    open_ = record.hospital not in found.approved
    require(invited and open_, "refusal.invited", f"{record.hospital} is not asked, or has approved")
    return state


def withdrawal(state: State, entry: Entry, record: Withdrawal) -> State:
    """An approval ends; in a running job the hospital is left out from the next round on."""
    signed_by(state, entry, record.hospital, role="hospital")
    old = state.approvals.get(record.approval)
    own = old is not None and old.hospital == record.hospital
    require(own, "withdrawal.approval", f"approval {record.approval[:16]} is not in force")
    assert old is not None
    found = state.jobs[old.job]
    party = found.parties.get(record.hospital)
    if party is not None:
        parties = found.parties.set(record.hospital, replace(party, withdrawn=True))
        found = replace(found, parties=parties)
    found = replace(found, approved=found.approved.delete(record.hospital))
    return replace(
        state, jobs=state.jobs.set(old.job, found), approvals=state.approvals.delete(record.approval)
    )


def start(state: State, entry: Entry, record: Start) -> State:
    """The coordinator starts a job with those who approved it."""
    signed_by_coordinator(state, entry)
    found = _proposed(state, record.job, "start.job")
    terms = found.record
    require(record.time < terms.expires_at, "start.job", f"it expired at {terms.expires_at}")
    require(record.time >= state.time, "record.time", f"{record.time} after {state.time}")
    require(record.model == terms.model, "start.model", "another model is named")
    count = len(record.participants)
    require(count >= terms.min_participants, "start.minimum", f"{count} of {terms.min_participants}")
    parties: dict[str, Party] = {}
    datasets = state.datasets.mutate()
    for participant in record.participants:
        party = _party(state, found, participant, record)
        parties[participant.hospital] = party
        ref = party.approval.dataset
        busy = datasets[ref].job
        require(not busy, "start.dataset-free", f"job {busy[:16]} runs on {ref}")
        datasets[ref] = replace(datasets[ref], job=record.job)
    running = replace(
        found,
        status="running",
        last_index=state.size,
        last_time=record.time,
        participants=tuple(parties),
        parties=Map(parties),
    )
    return replace(
        state, time=record.time, jobs=state.jobs.set(record.job, running), datasets=datasets.finish()
    )


def release(state: State, entry: Entry, record: Release) -> State:
    """The coordinator hands out the finished model."""
    signed_by_coordinator(state, entry)
    found = state.jobs.get(record.job)
    complete = (
        found is not None
        and "released" in TRANSITIONS.get(found.status, ())
        and found.next_round > found.record.last_exchange
    )
    require(complete, "release.complete", "the job is unknown, not running, or has rounds left")
    assert found is not None
    require(record.model == found.model, "release.model", "another model is named")
    spent = {name: (p.epsilon_job, p.epsilon_dataset) for name, p in found.parties.items() if p.receipts}
    named = {s.hospital: (s.epsilon_job, s.epsilon_dataset) for s in record.epsilons}
    require(named == spent, "release.epsilons", "an epsilon is missing, unknown or not the last one")
    return _leave(state, record.job, replace(found, status="released"))


def ended(state: State, entry: Entry, record: Ended) -> State:
    """A job is over."""
    found = state.jobs.get(record.job)
    may = TRANSITIONS.get(found.status) if found is not None else None
    require(may is not None, "ended.job", "the job is unknown or has ended")
    assert found is not None
    assert may is not None
    researcher = state.member(found.record.researcher)
    if record.reason == "cancelled" and researcher is not None and entry.signers == {researcher.key}:
        pass  # its own job
    else:
        signed_by_coordinator(state, entry)
    true = record.reason in may - {"running", "released"}
    if record.reason == "expired":
        true = true and state.time >= found.record.expires_at
    if record.reason == "below-minimum":
        true = true and eligible(state, found) < found.record.min_participants
    require(true, "ended.reason", f"{record.reason!r} of a job that is {found.status}")
    return _leave(state, record.job, replace(found, status=record.reason))


def eligible(state: State, found: JobState) -> int:
    """How many participants could still give a receipt in the next round."""
    return sum(
        1
        for name, p in found.parties.items()
        if not p.withdrawn and state.member(name) is not None and p.agreements_until > state.time
    )


def _leave(state: State, digest: str, found: JobState) -> State:
    """Free the datasets of a job that runs no longer, and drop what only a running job needs."""
    datasets, approvals = state.datasets.mutate(), state.approvals.mutate()
    for name, party in found.parties.items():
        ref = party.approval.dataset
        datasets[ref] = replace(datasets[ref], job="")
        approvals.pop(found.approved.get(name, ""), None)
    for approved in found.approved.values():
        approvals.pop(approved, None)
    over = replace(found, approved=Map(), parties=Map())
    return replace(
        state, jobs=state.jobs.set(digest, over), datasets=datasets.finish(), approvals=approvals.finish()
    )


def _proposed(state: State, digest: str, rule: str) -> JobState:
    found = state.jobs.get(digest)
    if found is None or found.status != "proposed":
        raise refuse(rule, f"job {digest[:16]} is not proposed")
    return found


def _check_mechanisms(terms: Job, record: Approval) -> None:
    want = terms.training
    steps, clip = want.local_steps, want.max_grad_norm
    training = _like(record.training, "dp-sgd", want.sample_rate, steps, clip)
    evaluation = len(record.evaluation) == len(terms.evaluate) and all(
        _like(m, "histogram", "1", 1, "1") for m in record.evaluation
    )
    require(
        training and evaluation, "approval.mechanism", "a mechanism differs from the job's or has no noise"
    )


def _like(m: Mechanism, name: str, sample_rate: str, steps: int, max_grad_norm: str) -> bool:
    fixed = (m.name, m.sample_rate, m.steps, m.max_grad_norm) == (name, sample_rate, steps, max_grad_norm)
    return fixed and decimal(m.noise_multiplier) > 0


def _party(state: State, found: JobState, participant: Participant, record: Start) -> Party:
    name, terms = participant.hospital, found.record
    held = found.approved.get(name) == participant.approval and state.member(name) is not None
    require(held, "start.approved", f"{name} has not approved, or is no member")
    approved = state.approvals[participant.approval]
    data = state.datasets[approved.dataset].record
    weight = data.size_class if terms.aggregation.weighting == "size-class" else 1
    require(participant.weight == weight, "start.weights", f"{name} weighs {weight}")
    require(terms.purpose in data.purposes, "start.purpose", f"{approved.dataset} permits it no longer")
    until = max(
        (
            a.expires_at
            for a in (state.agreements[d] for d in terms.agreements)
            if name in a.parties and approved.dataset in a.datasets and terms.purpose in a.purposes
        ),
        default=0,
    )
    require(until > record.time, "start.agreement", f"no cited agreement lets {name} take part")
    return Party(
        approval=approved,
        weight=weight,
        agreements_until=until,
        withdrawn=False,
        skipped=0,
        epsilon_job="0",
        epsilon_dataset="0",
        receipts=0,
    )
