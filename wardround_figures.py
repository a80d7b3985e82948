"""A job's figures from the records of a log and the bytes that they name: what anybody finds who has the evidence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import wardround_live
from client.notebook import calibration, figures, geometry
from client.notebook.figures import Figures, Measured, Pull
from coordinator import evaluations, metrics, terms
from coordinator.evaluations import Evaluations
from coordinator.histories import Closed, History
from ledger.records import Round

ReadBlob = Callable[[str], bytes]


class Figuring:
    """Follows one job: each exchange is read once. One thread at a time."""

    def __init__(self, read: ReadBlob) -> None:
        """Know nothing yet.

        Args:
            read: Returns the bytes of a digest. Raises IntegrityError or OSError: they are not there.
        """
        self._read = read
        self._closed = 0
        self._evaluations = Evaluations()
        self._measured: list[Measured] = []
        self._pulls: list[Pull] = []

    def of(self, history: History, status: str) -> Figures:
        """Return the figures of a job as it stands.

        Args:
            history: The job's; it may only grow from call to call.
            status: As the log says.

        Raises:
            CoordinatorError: the bytes of an update or a histogram are not what the record names.
        """
        for closed in history.closed[self._closed :]:
            self._measure(history, closed)
            self._pulls.extend(_pulls(history, closed, self._read))
            self._closed += 1
        return wardround_live.of_records(
            history, status, measured=tuple(self._measured), pulls=tuple(self._pulls)
        )

    def _measure(self, history: History, closed: Closed) -> None:
        edges = self._evaluations.edges
        found = self._evaluations.after(history, closed, self._read)
        if len(found.done) > len(self._evaluations.done):
            last, counts, noise = found.done[-1], np.zeros((2, metrics.BINS), dtype=np.int64), []
            place = history.job.evaluate.index(last.round)
            for receipt in closed.used:
                counts += evaluations.histogram(self._read(receipt.metrics))
                noise.append(history.parties[receipt.hospital].approval.evaluation[place].noise_multiplier)
            self._measured.append(
                Measured(
                    round=last.round,
                    auroc=estimate(last.evaluation.auroc),
                    log_loss=estimate(last.evaluation.log_loss),
                    brier=estimate(last.evaluation.brier),
                    calibration=calibration.bars(counts.tolist(), edges, metrics.noise_variance(noise)),
                )
            )
        self._evaluations = found


def _pulls(history: History, closed: Closed, read: ReadBlob) -> list[Pull]:
    used = [r for r in closed.used if r.update]
    if not isinstance(closed.record, Round) or not used:
        return []
    parties = [history.parties[r.hospital] for r in used]
    plans = [terms.plan(history.job, party) for party in parties]
    changes = [p.decode(np.frombuffer(read(r.update), p.dtype)) for r, p in zip(used, plans, strict=True)]
    weights = [party.weight for party in parties]
    return geometry.pulls(closed.record.round, [r.hospital for r in used], weights, changes)


def estimate(found: metrics.Estimate | None) -> figures.Estimate | None:
    """Return a metric's estimate as figures have it."""
    return None if found is None else figures.Estimate(value=found.value, low=found.low, high=found.high)
