"""Variants of one job, priced for the same hospitals and tried on the same rows: what a plan is measured with.

The rows are those that a data scientist holds, or made up from the data dictionary. Each seed divides them into
training and held-out patients in another way (or makes up others) and draws other noise; one seed does so alike for
every variant, so that two variants are compared pair by pair.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from client import accounting, job_initial, job_record
from client.data import Snapshot, size_class
from client.errors import PlanError
from client.job_folder import JobFolder
from client.job_match import Price
from client.job_toml import JobDraft
from client.notebook.plan_costs import NOWHERE, Asked
from client.source import Place
from client.synthetic import write_synthetic
from ledger.job_records import Job
from ledger.values import Mechanism
from wardround_crowd import rows_of
from wardround_trial import Outcome, Site, Trial

MADE_UP = 2048  # patients of one made-up hospital at most: more would only take longer
_SEEDS = 16  # whose rows are kept in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """A variant as it would be proposed, and how each hospital would decide."""

    job: Job
    prices: tuple[Price, ...]


class Rehearsal:
    """Prices and tries variants of a job.

    Attributes:
        folder: The job.
        asked: The hospitals.
        synthetic: Whether the rows are made up.
        seconds_per_round: Of the last trial.
        tried: How many trials were finished.
    """

    def __init__(
        self, folder: JobFolder, asked: Sequence[Asked], data: Mapping[str, object] | None, *, gpu: bool
    ) -> None:
        """Compute the model that every variant begins with.

        Args:
            folder: A sound job.
            asked: The hospitals.
            data: Rows for each of them, as `wardround.simulate` takes them; None: made-up ones.
            gpu: Whether a graphics processor trains.

        Raises:
            PlanError: the data are of other hospitals.
            JobFileError: the model cannot be built or trained.
        """
        self.asked = tuple(asked)
        self.synthetic = data is None
        self.seconds_per_round = math.nan
        self.tried = 0
        self.folder, self._data, self._gpu = folder, data, gpu
        names = {a.dataset.hospital for a in asked}
        if data is not None and (wrong := names ^ set(data)):
            raise PlanError(
                f"data and sizes must name the same hospitals, and differ in {', '.join(sorted(wrong))}"
            )
        self._initial = job_initial.compute(folder.draft, folder.dictionary, folder.source)
        self._graph = self._initial.graph
        self._rows = lru_cache(maxsize=_SEEDS)(self._read)
        self._priced = lru_cache(maxsize=256)(self._price)

    def priced(self, draft: JobDraft) -> Priced:
        """Return a variant's record and prices.

        Raises:
            JobFileError: the record cannot hold it.
        """
        return self._priced(draft)

    def rows(self, seed: int) -> Mapping[str, Snapshot]:
        """Return every hospital's rows as one seed divides them. Raises DataError."""
        return self._rows(seed)

    def outcome(self, draft: JobDraft, seed: int, in_time: Callable[[], bool]) -> Outcome | None:
        """Try a variant; None where time runs out.

        Args:
            draft: The variant; an epsilon of 0 stands for training without noise.
            seed: Of rows and noise.
            in_time: Whether there is time for another round.

        Raises:
            PlanError: too few hospitals would take part.
            DataError: a hospital's rows cannot be used.
        """
        noiseless = float(draft.epsilon) == 0
        found = self.priced(replace(draft, epsilon=self.folder.draft.epsilon) if noiseless else draft)
        rows, sites = self.rows(seed), []
        for asked, price in zip(self.asked, found.prices, strict=True):
            if price.terms is None:
                continue
            training, hospital = price.terms.training, asked.dataset.hospital
            size = size_class(len(rows[hospital].labels))  # the rows', which may be fewer than the hospital's
            sites.append(
                Site(
                    hospital=hospital,
                    rows=rows[hospital],
                    training=_without_noise(training) if noiseless else training,
                    size_class=size,
                    weight=size if found.job.aggregation.weighting == "size-class" else 1,
                )
            )
        require_enough(found)
        trial = Trial(found.job, sites, self._initial.parameters, seed=seed, graph=self._graph, gpu=self._gpu)
        outcome = trial.run(in_time)
        if trial.seconds:
            self.seconds_per_round = trial.seconds_per_round
        self.tried += outcome is not None
        return outcome

    def smaller(self) -> Iterator[tuple[str, int, int]]:
        """Yield each hospital whose rows are of another size class than itself: its name, theirs and its own."""
        rows = self.rows(0)
        for asked in self.asked:
            name, size = asked.dataset.hospital, asked.dataset.size_class
            if (found := size_class(len(rows[name].labels))) != size:
                yield name, found, size

    def _price(self, draft: JobDraft) -> Priced:
        job = job_record.build(
            replace(self.folder, draft=draft),
            self._initial,
            origin=NOWHERE,
            researcher="researcher",
            datasets=[a.dataset.ref for a in self.asked],
            agreements=(),
            now=int(time.time()),
        )
        alike: dict[tuple[object, ...], Price] = {}  # hospitals of one size and budget decide alike
        for asked in self.asked:
            key = _key(asked)
            if key not in alike:
                alike[key] = asked.price(job)
        return Priced(job=job, prices=tuple(alike[_key(asked)] for asked in self.asked))

    def _read(self, seed: int) -> Mapping[str, Snapshot]:
        names = [a.dataset.hospital for a in self.asked]
        if self._data is not None:
            return {name: rows_of(name, self._data[name], self.folder, seed) for name in names}
        found = {}
        with tempfile.TemporaryDirectory(prefix="wardround-plan-") as place:
            for number, asked in enumerate(self.asked):
                count = min(asked.dataset.size_class, MADE_UP)
                made: Place = write_synthetic(
                    Path(place) / "patients.csv", self.folder.dictionary, count, 1000 * seed + number
                )
                found[asked.dataset.hospital] = rows_of(asked.dataset.hospital, made, self.folder, seed)
        return found


def require_enough(found: Priced) -> None:
    """Refuse a job in which too few would take part. Raises PlanError."""
    able = sum(price.terms is not None for price in found.prices)
    if able < found.job.min_participants:
        why = "; ".join(f"{p.dataset.split('/')[0]}: {p.refusal}" for p in found.prices if p.terms is None)
        raise PlanError(
            f"min_participants is {found.job.min_participants}, and {able} of {len(found.prices)} hospitals could "
            f"take part{': ' if why else ''}{why}"
        )


def at_epsilon(draft: JobDraft, epsilon: float) -> JobDraft:
    """Return a draft with another target; one that is infinite is spelled 0, for `Rehearsal.outcome` alone."""
    return replace(draft, epsilon="0" if math.isinf(epsilon) else accounting.spell(Decimal(repr(epsilon))))


def _key(asked: Asked) -> tuple[object, ...]:
    dataset = asked.dataset
    return dataset.size_class, dataset.epsilon, dataset.delta, dataset.purposes, asked.spent, asked.limit


def _without_noise(training: Mechanism) -> Mechanism:
    return replace(training, noise_multiplier="0")
