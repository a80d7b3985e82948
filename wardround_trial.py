"""A whole job in a moment, to see what comes of it: the real training and the real averaging, without log and engine.

Nothing is noised but the training: what is measured is exact, on held-out rows of the planner's own. So a trial says
what a model is worth at these rows; it has no evidence and protects nobody, its noise being seeded.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from numpy.typing import NDArray

from client.data import Snapshot
from client.job_spec import JobSpec
from client.randomness import seeded_for_tests
from client.trainer import Trainer
from coordinator.aggregation import RoundInputs, aggregate
from coordinator.errors import AggregationError
from coordinator.strategies import strategy_of
from coordinator.updates import Plan, Update, plan_of
from ledger.job_records import Job
from ledger.values import Mechanism

_SURE = 1e-7  # no probability counts as nearer to 0 or 1, so that a loss is finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One hospital of a trial."""

    hospital: str
    rows: Snapshot = field(repr=False)
    training: Mechanism  # "0" noise is for the curve's end alone
    size_class: int
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a trial; NaN where too few rows were held out to measure it."""

    auroc: float
    loss: float


class Trial:
    """One job at some hospitals, with one seed.

    Attributes:
        model: Packed float32 parameters as they stand.
        seconds: Of each round so far: its slowest hospital and the averaging.
    """

    def __init__(
        self,
        job: Job,
        sites: Sequence[Site],
        initial: bytes,
        *,
        seed: int,
        graph: bytes = b"",
        gpu: bool = False,
    ) -> None:
        """Make every hospital's trainer.

        Args:
            job: The record that the job would be.
            sites: The hospitals that take part, at least one.
            initial: The job's first parameters, packed.
            seed: Of the noise.
            graph: What the builder made of the job's own model.py.
            gpu: Whether a graphics processor trains.

        Raises:
            TrainingRefusedError: the model or the plan is not offered.
            SettingError: the strategy is not.
        """
        self._job, self._sites = job, sorted(sites, key=lambda s: s.hospital)
        self.model, self._state, self.seconds = initial, b"", list[float]()
        self._strategy = strategy_of(job.aggregation)
        self._plans: Mapping[str, Plan] = {
            s.hospital: plan_of(job.training, s.training, s.size_class) for s in self._sites
        }
        self._trainers = [
            self._trainer(s, s.rows, seed + 7919 * i, graph, gpu) for i, s in enumerate(self._sites)
        ]
        self._judge = self._trainer(self._sites[0], _together([s.rows for s in self._sites]), 0, graph, gpu)
        self._labels = np.concatenate([s.rows.evaluation[1] for s in self._sites])

    def run(self, in_time: Callable[[], bool]) -> Outcome | None:
        """Train every round; None where time runs out before the last one."""
        for _ in range(self._job.rounds):
            if not in_time():
                return None
            self._round()
        scores = self._judge.scores(np.frombuffer(self.model, "<f4"))
        return Outcome(auroc=auroc(scores, self._labels), loss=log_loss(scores, self._labels))

    @property
    def seconds_per_round(self) -> float:
        """What a round takes where every hospital trains on a machine like this one at the same time."""
        return median(self.seconds) if self.seconds else float("nan")

    def _round(self) -> None:
        before, slowest = np.frombuffer(self.model, "<f4"), 0.0
        digest = _sha256(self.model)
        blobs, updates = {digest: self.model, _sha256(self._state): self._state}, []
        for site, trainer in zip(self._sites, self._trainers, strict=True):
            began = time.perf_counter()
            data = np.ascontiguousarray(trainer.train(before)[0]).tobytes()
            slowest = max(slowest, time.perf_counter() - began)
            blobs[_sha256(data)] = data
            plan = self._plans[site.hospital]
            updates.append(
                Update(hospital=site.hospital, digest=_sha256(data), weight=site.weight, plan=plan)
            )
        began = time.perf_counter()
        try:
            result = aggregate(
                RoundInputs(
                    strategy=self._strategy,
                    parameters=self._job.training.parameters,
                    model_before=digest,
                    server_state_before=_sha256(self._state) if self._state else "",
                    updates=tuple(updates),
                ),
                lambda name: io.BytesIO(blobs[name]),
            )
            self.model, self._state = result.model.tobytes(), result.server_state
        except AggregationError:
            pass  # as an aborted round: the model stays
        self.seconds.append(slowest + time.perf_counter() - began)

    def _trainer(self, site: Site, rows: Snapshot, seed: int, graph: bytes, gpu: bool) -> Trainer:
        noise = site.training.noise_multiplier
        spec = JobSpec.of(self._job.digest(), self._job.training, noise, site.size_class)
        return Trainer(spec, rows, check=False, graph=graph, gpu=gpu, randomness=seeded_for_tests(seed))


def auroc(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the chance that a positive patient scores above a negative one, a tie counting half; NaN without both.

    Source: Mann and Whitney 1947, by mean ranks.
    """
    positive = int(labels.sum())
    negative = len(labels) - positive
    if not positive or not negative:
        return float("nan")
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((ranks[labels == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))


def log_loss(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the mean of -log(probability of the true class), in nats; NaN without patients."""
    if not len(labels):
        return float("nan")
    chance = np.clip(np.where(labels == 1, scores, 1 - scores), _SURE, 1.0)
    return float(-np.log(chance).mean())


def _together(rows: Sequence[Snapshot]) -> Snapshot:
    return Snapshot(
        features=np.concatenate([r.features for r in rows]),
        labels=np.concatenate([r.labels for r in rows]),
        held_out=np.concatenate([r.held_out for r in rows]),
        patients=(),
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
