"""What displays show of a coordinator: jobs, participants, what was spent and measured, the log. JSON values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coordinator.evaluations import Evaluations
from coordinator.histories import History
from coordinator.standing import Standing
from coordinator.waiting import Wait
from ledger.records import Round

Json = dict[str, Any]


def status(
    standing: Standing,
    evaluations: Mapping[str, Evaluations],
    phases: Mapping[str, float],
    problems: Mapping[str, str],
    waits: Callable[[str], Wait | None] = lambda job: None,
) -> Json:
    """Return the status.

    Args:
        standing: The log's.
        evaluations: Each job's published evaluations, by its digest.
        phases: Seconds by phase.
        problems: Why a job does not go on, by its digest.
        waits: Returns what a job waits for, by its digest.
    """
    state = standing.state
    jobs = sorted(standing.jobs.values(), key=lambda history: history.index)
    shown = [
        {
            **_job(standing, history, evaluations.get(history.digest), problems.get(history.digest, "")),
            "waits": wait.to_json() if (wait := waits(history.digest)) is not None else None,
        }
        for history in jobs
    ]
    return {
        "origin": state.origin,
        "jobs": shown,
        "log": {
            "size": standing.view.size,
            "final_size": standing.final_size,
            "root": standing.view.root.hex(),
            "cosignatures": standing.cosignatures,
            "quorum": state.witness_sets[-1].quorum,
            "witnesses": len(state.witness_sets[-1].witnesses),
            "writable": standing.writable,
            "obstacle": standing.obstacle,
        },
        "phases": dict(phases),
    }


def _job(standing: Standing, history: History, measured: Evaluations | None, problem: str) -> Json:
    job, found = history.job, standing.state.jobs[history.digest]
    last = history.closed[-1].record if history.closed else None
    left_out = {item.hospital: item.code for item in last.left_out} if last is not None else {}
    return {
        "digest": history.digest,
        "name": job.name,
        "status": found.status,
        "round": found.next_round - 1,  # closed so far; the evaluation of the final model counts as one more
        "rounds": job.rounds,
        "exchanges": job.last_exchange,
        "aborted": isinstance(last, Round) is False and last is not None,
        "model": found.model,
        "wanted": [ref.split("/")[0] for ref in job.datasets],
        "answered": sorted(history.answered),
        "participants": sorted(history.parties),
        "left_out": left_out,
        "evaluate": list(job.evaluate),
        "evaluations": [_evaluation(measured, place) for place in range(len(measured.done))]
        if measured
        else [],
        "epsilons": _epsilons(history),
        "problem": problem,
        "released": history.release is not None,
    }


def _evaluation(measured: Evaluations, place: int) -> Json:
    one = measured.done[place]
    found: Json = {"round": one.round}
    for metric in one.evaluation.to_metrics():
        name = "loss" if metric.name == "log-loss" else metric.name
        found[name] = {"value": metric.value, "low": metric.low, "high": metric.high}
    return found


def _epsilons(history: History) -> dict[str, Json]:
    """Return what each hospital's receipts state, of its budget; the unit is add/remove one patient."""
    receipts = history.last_receipts
    found = {}
    for name, party in sorted(history.parties.items()):
        receipt = receipts.get(name)
        found[name] = {
            "job": receipt.epsilon_job if receipt is not None else "0",
            "job_delta": history.job.delta,
            "dataset": receipt.epsilon_dataset if receipt is not None else "0",
            "budget": party.dataset.epsilon,
            "delta": party.dataset.delta,
            "limit": party.approval.epsilon,
        }
    return found
