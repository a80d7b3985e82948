"""What a job on the record means in numbers: its strategy, each hospital's plan, and what one round averages.

Pure: the coordinator computes a round from this, and every auditor computes it again from the same. The
record's decimals become the nearest float64, alike on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from coordinator.aggregation import RoundInputs
from coordinator.errors import CoordinatorError, JobError
from coordinator.histories import History, Party
from coordinator.strategies import Strategy, parse_strategy
from coordinator.updates import Plan, Update
from ledger.job_records import Job, Receipt

GRID_BITS = 20  # of the gradient's grid where a job does not say: C / 2^20


def setting(job: Job, name: str, default: int) -> int:
    """Return a whole-number setting of the training.

    Raises:
        JobError: it is not a whole number.
    """
    for item in job.training.settings:
        if item.name == name:
            if not item.value.isdecimal():
                raise JobError(f"the job's setting {name} must be a whole number, not {item.value}")
            return int(item.value)
    return default


def strategy(job: Job) -> Strategy:
    """Return the job's strategy. Raises SettingError for one that is not offered."""
    return parse_strategy(job.aggregation.strategy, {s.name: s.value for s in job.aggregation.settings})


def plan(job: Job, party: Party) -> Plan:
    """Return how one hospital makes its updates in a job.

    Raises:
        SettingError: a number is out of range.
        JobError: a setting is malformed.
    """
    training, size_class = job.training, party.dataset.size_class
    clip = float(training.max_grad_norm)
    return Plan(
        parameters=training.parameters,
        local_steps=training.local_steps,
        learning_rate=float(training.learning_rate),
        max_grad_norm=clip,
        noise_multiplier=float(party.approval.training.noise_multiplier),
        size_class=size_class,
        divisor=size_class * float(training.sample_rate),
        grid=math.ldexp(clip, -setting(job, "grid-bits", GRID_BITS)),
    )


def round_inputs(
    history: History, model_before: str, server_state_before: str, used: Iterable[Receipt]
) -> RoundInputs:
    """Return everything that a training round's result depends on.

    Args:
        history: The job's.
        model_before: Digest of the model that the round began with.
        server_state_before: Digest of the strategy's memory, or "".
        used: Receipts of the admitted replies.

    Raises:
        AggregationError: too few updates for the strategy.
    """
    job = history.job
    updates = (
        Update(
            hospital=r.hospital,
            digest=r.update,
            metrics=r.metrics,
            weight=history.parties[r.hospital].weight,
            plan=plan(job, history.parties[r.hospital]),
        )
        for r in used
    )
    return RoundInputs(
        strategy=strategy(job),
        parameters=job.training.parameters,
        model_before=model_before,
        server_state_before=server_state_before,
        updates=tuple(updates),
    )


def problem(job: Job) -> str:
    """Return why a job cannot be run whatever the hospitals say, or "". Its files are for the runner to look for."""
    try:
        minimum = strategy(job).minimum_updates
        setting(job, "grid-bits", GRID_BITS)
    except CoordinatorError as error:
        return str(error)
    if minimum > len(job.datasets):
        return f"{job.aggregation.strategy} needs {minimum} hospitals, the job has {len(job.datasets)}"
    return ""
