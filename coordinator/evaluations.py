"""A job's evaluations, one after the other: each sums the hospitals' noised histograms under the edges of its turn.

The first edges are the public default; each later evaluation takes the edges that the published sum before it
asks for. So the whole chain is a function of the log and of the histograms that it names, which is how a
restarted coordinator and an auditor find the same edges again. What the sums say is `metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator import metrics
from coordinator.errors import IntegrityError
from coordinator.histories import Closed, History
from coordinator.metrics import BINS, Evaluation
from ledger.job_records import Round

HISTOGRAM_SIZE = 2 * BINS * 8  # bytes: int64, two classes
_EDGE_DIGITS = 6  # `metrics.EDGE_STEP`

ReadBlob = Callable[[str], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One published evaluation."""

    round: int  # whose received model it is of
    edges: tuple[float, ...]
    evaluation: Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluations:
    """All evaluations so far, and the edges of the next one."""

    done: tuple[Measured, ...] = ()
    edges: tuple[float, ...] = metrics.FIRST_EDGES

    def after(self, history: History, closed: Closed, read: ReadBlob) -> Evaluations:
        """Return the evaluations after one more closed exchange; the same where it evaluates nothing.

        Raises:
            IntegrityError: a histogram is not what the record names.
            MetricsError: it is no histogram.
        """
        terms, number = history.job, closed.record.round
        if number not in terms.evaluate or not isinstance(closed.record, Round):
            return self
        place = terms.evaluate.index(number)
        counts = np.zeros((2, BINS), dtype=np.int64)
        noise = []
        for receipt in closed.used:
            counts += histogram(read(receipt.metrics))
            noise.append(history.parties[receipt.hospital].approval.evaluation[place].noise_multiplier)
        variance = metrics.noise_variance(noise)
        measured = Measured(
            round=number, edges=self.edges, evaluation=metrics.evaluate(counts, variance, self.edges)
        )
        return Evaluations(
            done=(*self.done, measured), edges=metrics.next_edges(counts, variance, self.edges)
        )


def of_history(history: History, read: ReadBlob) -> Evaluations:
    """Return all evaluations of a job. Raises IntegrityError or MetricsError."""
    found = Evaluations()
    for closed in history.closed:
        found = found.after(history, closed, read)
    return found


def histogram(data: bytes) -> NDArray[np.int64]:
    """Return a histogram's counts, shape (2, BINS). Raises IntegrityError for another number of bytes."""
    if len(data) != HISTOGRAM_SIZE:
        raise IntegrityError(f"a histogram has {len(data)} bytes where {HISTOGRAM_SIZE} are expected")
    return np.frombuffer(data, dtype="<i8").reshape(2, BINS)


def spell(edges: Sequence[float]) -> list[str]:
    """Return edges as a message spells them: decimals that stand for exactly these numbers."""
    return [f"{edge:.{_EDGE_DIGITS}f}" for edge in edges]
