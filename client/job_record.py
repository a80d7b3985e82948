"""From a job's folder to the one spelling of it on the record."""

from __future__ import annotations

from collections.abc import Sequence

from client import job_problems, software
from client.errors import JobFileError
from client.job_folder import JobContent
from client.job_initial import Initial
from ledger.errors import MalformedError
from ledger.job_records import Job
from ledger.values import Aggregation


def build(
    folder: JobContent,
    initial: Initial,
    *,
    origin: str,
    researcher: str,
    datasets: Sequence[str],
    agreements: Sequence[str],
    now: int,
) -> Job:
    """Return the record that a researcher signs.

    Args:
        folder: A job without problems of its own.
        initial: Its first parameters.
        origin: The log's.
        researcher: Who proposes it.
        datasets: References, each once.
        agreements: Digests, each once.
        now: Unix seconds; the job's time begins here.

    Raises:
        JobFileError: the record cannot hold it.
        ConfigError: a package that hospitals train with is not installed here.
    """
    draft = folder.draft
    try:
        return Job(
            origin=origin,
            researcher=researcher,
            name=draft.name,
            purpose=draft.purpose,
            agreements=tuple(sorted(agreements)),
            datasets=tuple(sorted(datasets)),
            dictionary=folder.dictionary.digest,
            model=initial.digest,
            training=job_problems.training_of(draft, model_code=initial.model_code, parameters=initial.count),
            aggregation=Aggregation(
                strategy=draft.strategy, weighting=draft.weighting, settings=draft.strategy_settings
            ),
            epsilon=draft.epsilon,
            heldout_epsilon=draft.heldout_epsilon,
            delta=draft.delta,
            rounds=draft.rounds,
            evaluate=draft.evaluate,
            min_participants=draft.min_participants,
            expires_at=now + draft.expires_seconds,
            software=software.installed(),
        )
    except MalformedError as error:
        raise JobFileError(str(error)) from None


def blobs(folder: JobContent, initial: Initial) -> list[tuple[str, bytes, str]]:
    """Return (digest, content, kind) of the files that a job's record names: what must be handed in beforehand."""
    found = [
        (initial.digest, initial.parameters, "model"),
        (folder.dictionary.digest, folder.dictionary.to_bytes(), "dictionary"),
    ]
    if folder.source is not None:
        found.append((initial.model_code, folder.source, "code"))
    return found
