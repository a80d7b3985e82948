"""What a job needs of the store to go on after a restore, computed again where that is possible.

The log names every model, update and histogram by its digest; a backup's store lacks those that came later. A model
follows from the one before and the updates, bit for bit, so it is computed again as soon as those are there:
hospitals keep what they sent until the job is over, and hand it in again. Nothing else stands in for a missing blob.
"""

from __future__ import annotations

from collections.abc import Iterator

from coordinator import terms
from coordinator.aggregation import aggregate
from coordinator.blobs import BlobStore
from coordinator.errors import IntegrityError, JobError
from coordinator.histories import Closed, History
from coordinator.standing import Standing
from ledger.records import Round


def wanted(history: History, model: str, blobs: BlobStore) -> tuple[str, ...]:
    """Return the digests of what a running job lacks and its hospitals have sent before, sorted.

    Args:
        history: The job's.
        model: Digest of the model that its next exchange starts from.
        blobs: The store.
    """
    needed = {r.metrics for closed in history.closed for r in closed.used if r.metrics}
    for closed, _ in _chain(history, model, blobs):
        needed |= {r.update for r in closed.used}
    return tuple(sorted(digest for digest in needed if digest and digest not in blobs))


def recover(standing: Standing, job: str, blobs: BlobStore) -> None:
    """Compute again whatever models a running job lacks in the store, so that it can go on.

    Raises:
        JobError: that is not possible, or not yet; the message says what is missing.
        IntegrityError: the updates do not give the model that the log names.
    """
    history, model = standing.jobs[job], standing.state.jobs[job].model
    if lacking := wanted(history, model, blobs):
        raise JobError(
            f"{len(lacking)} updates or histograms that the log names are not in the store: it came from a backup. "
            "Hospitals hand in again what they sent; the job goes on when all are here"
        )
    for closed, memory in _chain(history, model, blobs):
        record = closed.record
        assert isinstance(record, Round)
        inputs = terms.round_inputs(history, record.model_before, memory, closed.used)
        result = aggregate(inputs, blobs.open)
        made = (result.outcome.model_after, result.outcome.server_state_after)
        if made != (record.model_after, record.server_state_after):
            raise IntegrityError(
                f"the updates of round {record.round} do not give the model that the log names"
            )
        if result.server_state:
            blobs.put(result.server_state)
        blobs.put(result.model.tobytes())
    if model not in blobs:
        raise JobError(
            f"the model that comes next ({model[:16]}) is not in the store and cannot be computed again: put it "
            "there from a newer backup, or cancel the job"
        )


def _chain(history: History, model: str, blobs: BlobStore) -> Iterator[tuple[Closed, str]]:
    """Yield the rounds to compute again, oldest first, each with the digest of the strategy's memory before it."""
    chain: list[tuple[Closed, str]] = []
    if model not in blobs or (history.server_state and history.server_state not in blobs):
        rounds = [
            c for c in history.closed if isinstance(c.record, Round) and c.record.round <= history.job.rounds
        ]
        memories = ["", *(c.record.server_state_after for c in rounds if isinstance(c.record, Round))]
        for closed, memory in zip(reversed(rounds), reversed(memories[:-1]), strict=True):
            chain.insert(0, (closed, memory))
            if closed.record.model_before in blobs and (not memory or memory in blobs):
                break
    yield from chain
