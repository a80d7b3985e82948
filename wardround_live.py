"""A job's figures while it runs, from a member's verified copy of the log: what the records themselves say.

Updates and histograms are for auditors and the job's hospitals, so a researcher has neither: how good the model is
comes from the coordinator's status until the release, and is its word; how the updates pull, from the evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from client import accounting
from client.accounting import Event
from client.notebook.figures import USED, Budget, Estimate, Figures, Measured, Part, Pull, Spent
from coordinator.histories import History
from ledger.records import Abort, Release
from ledger.state import State

_NAMES = (("auroc", "auroc"), ("log_loss", "loss"), ("brier", "brier"))  # ours, and the status's


def figures(history: History, state: State, claimed: Mapping[str, Any]) -> Figures:
    """Return what is known of a job.

    Args:
        history: The job's.
        state: The log's.
        claimed: The coordinator's status, or nothing; whatever has another form than expected is left out.
    """
    status = state.jobs[history.digest].status
    return of_records(history, status, measured=tuple(_measured(history, claimed)))


def of_records(
    history: History, status: str, *, measured: tuple[Measured, ...], pulls: tuple[Pull, ...] = ()
) -> Figures:
    """Return a job's figures: what its records say, and what was found from the bytes that they name."""
    job = history.job
    return Figures(
        name=job.name,
        digest=history.digest,
        rounds=job.rounds,
        status=status,
        hospitals=tuple(sorted(history.parties)) or tuple(ref.split("/")[0] for ref in job.datasets),
        measured=measured,
        parts=tuple(_parts(history)),
        spent=tuple(_spent(history)),
        budgets=tuple(_budgets(history)),
        pulls=pulls,
    )


def _parts(history: History) -> Iterator[Part]:
    for closed in history.closed:
        record = closed.record
        fates = dict.fromkeys((r.hospital for r in closed.receipts), USED)
        if isinstance(record, Abort):
            fates = dict.fromkeys(fates, record.code)
        fates |= {item.hospital: item.code for item in record.left_out}
        yield from (Part(round=record.round, hospital=h, fate=fates[h]) for h in sorted(fates))


def _spent(history: History) -> Iterator[Spent]:
    """Yield both sides' epsilons, composed over what receipts say was released, rounded up as receipts round."""
    delta = float(history.job.delta)
    released: dict[tuple[str, str], tuple[Event, ...]] = {}
    stated: dict[str, float] = {}
    for closed in history.closed:
        for receipt in closed.receipts:
            stated[receipt.hospital] = float(receipt.epsilon_job)
            for mechanism in receipt.mechanisms:
                key = (receipt.hospital, "heldout" if mechanism.name == "histogram" else "training")
                event = accounting.event_of(mechanism)
                released[key] = accounting.merge([*released.get(key, ()), event])
        for (hospital, side), events in sorted(released.items()):
            # Where patients are sampled composing takes long: the receipt's number is never below it.
            sampled = any(e.sample_rate < 1 for e in events)
            epsilon = stated[hospital] if sampled else _composed(events, delta)
            yield Spent(round=closed.record.round, hospital=hospital, side=side, epsilon=epsilon)


@lru_cache(maxsize=1 << 16)
def _composed(events: tuple[Event, ...], delta: float) -> float:
    return float(accounting.round_up(accounting.job_epsilon(events, delta)))


def _budgets(history: History) -> Iterator[Budget]:
    newest = history.last_receipts
    for hospital, party in sorted(history.parties.items()):
        yield Budget(
            hospital=hospital,
            dataset=party.dataset.name,
            patients=party.dataset.size_class,
            job_epsilon=float(party.approval.epsilon),
            lifetime_epsilon=float(party.dataset.epsilon),
            delta=float(party.dataset.delta),
            lifetime_spent=float(newest[hospital].epsilon_dataset) if hospital in newest else None,
        )


def _measured(history: History, claimed: Mapping[str, Any]) -> Iterator[Measured]:
    final = history.job.rounds + 1
    jobs = claimed.get("jobs")
    jobs = jobs if isinstance(jobs, list) else []
    own = [j for j in jobs if isinstance(j, dict) and j.get("digest") == history.digest]
    done = own[0].get("evaluations") if own else None
    for one in done if isinstance(done, list) else []:
        number = one.get("round") if isinstance(one, dict) else None
        if type(number) is not int or not 1 <= number <= final or (number == final and history.release):
            continue
        yield _quality(number, {ours: _claimed(one.get(theirs)) for ours, theirs in _NAMES})
    if history.release is not None and (last := _released(history.release)):
        yield _quality(final, last)


def _quality(number: int, found: Mapping[str, Estimate | None]) -> Measured:
    return Measured(
        round=number,
        auroc=found.get("auroc"),
        log_loss=found.get("log_loss"),
        brier=found.get("brier"),
    )


def _released(release: Release) -> dict[str, Estimate | None]:
    named = {m.name.replace("-", "_"): m for m in release.metrics}
    if not named:
        return {}
    found = {ours: named.get(ours) for ours, _ in _NAMES}
    return {
        ours: Estimate(value=float(m.value), low=float(m.low), high=float(m.high)) if m is not None else None
        for ours, m in found.items()
    }


def _claimed(value: object) -> Estimate | None:
    if not isinstance(value, dict):
        return None
    try:
        return Estimate(value=float(value["value"]), low=float(value["low"]), high=float(value["high"]))
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
