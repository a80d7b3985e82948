"""What the coordinator does next for a job: one table of decisions on the log's state, pure.

    proposed    -> start, expire, or wait for hospitals
    running     -> run its exchanges, release, or end it early
    released    -> finish
What may follow is for `ledger.rules_jobs.TRANSITIONS`; here is what should.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from coordinator.histories import History
from ledger.rules_jobs import eligible
from ledger.state import JobState, State
from ledger.values import Participant
from ledger.witness import CLOCK_TOLERANCE

RENEWAL_SECONDS = CLOCK_TOLERANCE // 2  # how old the log's time may become while a quorum is waited for


class Step(StrEnum):
    """What to do for a job."""

    WAIT = "wait"  # for hospitals, or because nothing is left to do
    START = "start"
    RUN = "run"  # the next exchange
    RELEASE = "release"
    FINISH = "finish"  # it is released and not marked as finished yet
    EXPIRE = "expire"
    BELOW_MINIMUM = "below-minimum"
    CANCEL = "cancel"  # no round gave a model: there is nothing to release


def next_step(state: State, history: History, now: int, *, asked_until: float) -> Step:
    """Return what to do for one job.

    Args:
        state: The log's.
        history: The job's.
        now: Unix seconds.
        asked_until: When waiting for hospitals that have not answered is over, Unix seconds.
    """
    found = state.jobs[history.digest]
    if found.status == "proposed":
        return _proposed(state, history, found, now, asked_until)
    if found.status == "released":
        return Step.FINISH
    if found.status != "running":
        return Step.WAIT
    if found.next_round > found.record.last_exchange:
        return Step.RELEASE if history.trained else Step.CANCEL
    if max(found.last_time, state.time) >= found.record.expires_at:
        return Step.EXPIRE
    if eligible(state, found) < found.record.min_participants:
        return Step.BELOW_MINIMUM
    return Step.RUN


def ready_hospitals(state: State, found: JobState, now: int) -> dict[str, str]:
    """Return who could take part if a proposed job started now: hospital -> digest of its approval, sorted."""
    terms = found.record
    ready = {}
    for hospital, digest in sorted(found.approved.items()):
        approval = state.approvals[digest]
        data = state.datasets[approval.dataset]
        agreed = any(
            hospital in a.parties
            and approval.dataset in a.datasets
            and terms.purpose in a.purposes
            and a.expires_at > max(now, state.time)
            for a in (state.agreements[d] for d in terms.agreements)
        )
        if (
            state.member(hospital) is not None
            and terms.purpose in data.record.purposes
            and not data.job
            and agreed
        ):
            ready[hospital] = digest
    return ready


def participants(state: State, found: JobState, now: int) -> tuple[Participant, ...]:
    """Return who takes part in a job that starts now, with the weights of its averages."""
    weighted = found.record.aggregation.weighting == "size-class"
    made = []
    for name, approval in ready_hospitals(state, found, now).items():
        data = state.datasets[state.approvals[approval].dataset].record
        made.append(Participant(hospital=name, approval=approval, weight=data.size_class if weighted else 1))
    return tuple(made)


def tick_is_due(state: State, now: int, *, final: bool, every: int) -> bool:
    """Whether the log's time should be stated anew.

    Witnesses refuse a batch that is older than CLOCK_TOLERANCE: so a log whose newest checkpoint is not final states
    its time more often, and a quorum that comes back after any time finds something that it may cosign.

    Args:
        state: The log's.
        now: Unix seconds.
        final: Whether the newest checkpoint is.
        every: Seconds between ticks of a log that is final.
    """
    return now - state.time >= (every if final else min(every, RENEWAL_SECONDS))


def in_turn(state: State, histories: Mapping[str, History]) -> list[str]:
    """Return the jobs that have not ended, those under way first, each group in the order of the log."""
    rank = {"released": 0, "running": 1, "proposed": 2}
    places = [(rank[j.status], j.last_index, digest) for digest, j in state.jobs.items() if j.status in rank]
    return [digest for _, _, digest in sorted(places) if digest in histories]


def _proposed(state: State, history: History, found: JobState, now: int, asked_until: float) -> Step:
    terms = found.record
    if max(now, state.time) >= terms.expires_at:
        return Step.EXPIRE
    wanted = {ref.split("/")[0] for ref in terms.datasets}
    enough = len(ready_hospitals(state, found, now)) >= terms.min_participants
    everybody = wanted <= history.answered
    return Step.START if enough and (everybody or now >= asked_until) else Step.WAIT
