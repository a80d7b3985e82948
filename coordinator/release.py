"""The release of a finished job: the model's file, its card, and the record that names both.

Pure: bytes in, bytes out. The runner stores them, appends the record, and writes the folder that people look at.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from coordinator import card, layouts, model_file
from coordinator.errors import IntegrityError
from coordinator.evaluations import Evaluations
from coordinator.histories import History
from ledger.records import Release
from ledger.state import State
from ledger.values import Metric, Spent

MODEL = "model.safetensors"
CARD = "card.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What a job leaves."""

    artifact: bytes  # `MODEL`
    card: bytes  # `CARD`
    record: Release


def build(
    state: State, history: History, parameters: bytes, dictionary: bytes, evaluations: Evaluations
) -> Released:
    """Return the release of a job whose exchanges are over.

    Args:
        state: The log's, while the job still runs.
        history: The job's.
        parameters: The packed float32 bytes of its last model.
        dictionary: The data dictionary's canonical bytes.
        evaluations: All of the job's.

    Raises:
        JobError, ModelFileError: the model cannot be written as the job names it.
        IntegrityError: these are not the last model's parameters.
    """
    found = state.jobs[history.digest]
    if sha256(parameters).hexdigest() != found.model:
        raise IntegrityError(f"these are not the parameters of model {found.model[:12]}")
    artifact = _artifact(history, parameters, dictionary, state.origin)
    text = card.card(history, found.model, evaluations, dictionary, state.origin)
    record = Release(
        origin=state.origin,
        job=history.digest,
        model=found.model,
        artifact=sha256(artifact).hexdigest(),
        card=sha256(text).hexdigest(),
        metrics=final_metrics(history, evaluations),
        epsilons=tuple(
            Spent(hospital=name, epsilon_job=party.epsilon_job, epsilon_dataset=party.epsilon_dataset)
            for name, party in sorted(found.parties.items())
            if party.receipts
        ),
    )
    return Released(artifact=artifact, card=text, record=record)


def _artifact(history: History, parameters: bytes, dictionary: bytes, origin: str) -> bytes:
    job = history.job
    return model_file.to_bytes(
        np.frombuffer(parameters, dtype="<f4"),
        layouts.layout(job),
        model=job.training.model,
        dictionary=dictionary,
        metadata={
            "claims": "see the model card; differential privacy as stated there, no fitness for care is claimed",
            "job": history.digest,
            "log": origin,
            "name": job.name,
            "parameters": sha256(parameters).hexdigest(),
        },
    )


def final_metrics(history: History, evaluations: Evaluations) -> tuple[Metric, ...]:
    """Return the released model's metrics: those of the exchange after the last round; none where it failed."""
    last = evaluations.done[-1] if evaluations.done else None
    if last is None or last.round <= history.job.rounds:
        return ()
    return last.evaluation.to_metrics()
