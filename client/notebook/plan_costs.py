"""What a job would cost each hospital, before anybody is asked: noise, epsilons, what is left, bytes.

By the rules of a hospital's own decision (`client.job_match`). Where no consortium is at hand, a hospital is its name
and about how many patients it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client import accounting, job_dry_run, job_match, made_up_dataset
from client.accounting import Event
from client.approval import Terms
from client.data import size_class
from client.errors import PlanError
from client.histograms import BINS
from client.job_folder import JobFolder
from client.job_match import Price
from client.notebook.consortium_tables import table
from ledger.consortium_records import Dataset
from ledger.errors import MalformedError
from ledger.job_records import Job
from ledger.state import State

if TYPE_CHECKING:
    import pandas as pd

NOWHERE = "not.proposed/yet"  # origin of records that are made for a plan alone
HISTOGRAM = 2 * BINS * 8  # bytes
UNKNOWN = float("nan")
COLUMNS = (
    "hospital", "patients", "noise_multiplier", "epsilon", "heldout_epsilon", "lifetime_epsilon", "left", "answer",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A hospital that a job is planned for."""

    dataset: Dataset
    known: bool  # whether the lifetime budget is one, and no guess
    spent: str = "0"  # of it so far
    limit: str = ""  # the most that the hospital lets one job spend; "": all of it

    def price(self, job: Job) -> Price:
        """Return how the hospital would take part."""
        return job_match.price(job, self.dataset, self.spent, self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a job would cost one hospital's patients; NaN where it would not take part, or is not known."""

    hospital: str
    patients: int  # the size class
    noise_multiplier: float
    epsilon: float  # of those trained on, composed over all rounds, at the job's delta
    heldout_epsilon: float  # of those measured on
    lifetime_epsilon: float
    left: float  # of it for later jobs, at least
    refusal: str


def of_sizes(
    folder: JobFolder,
    sizes: Mapping[str, int],
    budgets: Mapping[str, float] | float | None,
    limits: Mapping[str, float] | float | None,
    most: float,
) -> list[Asked]:
    """Return hospitals of which little is known.

    Args:
        folder: The job.
        sizes: Patients, by hospital.
        budgets: Lifetime epsilon of each dataset, or of all; None: not known.
        limits: The most that each hospital lets one job spend, or that all do.
        most: The largest epsilon that is looked at: a budget that is not known stands in nobody's way.

    Raises:
        PlanError: a number or a name that no hospital can have.
    """
    wide = 2 * max(most, float(folder.draft.heldout_epsilon), 1.0)
    return [
        Asked(
            dataset=_dataset(folder, name, patients, _of(budgets, name, "budget") or wide),
            known=_of(budgets, name, "budget") is not None,
            limit=accounting.round_up(_of(limits, name, "limit") or wide),
        )
        for name, patients in sorted(sizes.items())
    ]


def of_log(
    folder: JobFolder, state: State, researcher: str, now: int, limits: Mapping[str, float] | float | None
) -> list[Asked]:
    """Return the hospitals of a consortium that the job would ask.

    Args:
        folder: The job.
        state: The log's.
        researcher: Who would propose.
        now: Unix seconds.
        limits: As for `of_sizes`: a hospital's policy is not on the log.

    Raises:
        PlanError: none would be asked; says why.
    """
    found = job_match.match(folder.draft, folder.dictionary, state, researcher, now)
    if found.problems:
        raise PlanError("; ".join(found.problems))
    asked = []
    for dataset in found.datasets:
        limit = _of(limits, dataset.hospital, "limit")
        asked.append(
            Asked(
                dataset=dataset,
                known=True,
                spent=state.datasets[dataset.ref].epsilon or "0",
                limit=accounting.round_up(limit) if limit is not None else "",
            )
        )
    return asked


def cost(asked: Asked, price: Price, job: Job) -> Cost:
    """Return what a job would cost a hospital that decides so."""
    dataset, terms = asked.dataset, price.terms
    lifetime = float(dataset.epsilon) if asked.known else UNKNOWN
    if terms is None:
        return Cost(
            hospital=dataset.hospital,
            patients=dataset.size_class,
            noise_multiplier=UNKNOWN,
            epsilon=UNKNOWN,
            heldout_epsilon=UNKNOWN,
            lifetime_epsilon=lifetime,
            left=lifetime - float(asked.spent),
            refusal=price.refusal,
        )
    training, heldout = events(terms, job)
    both = [
        float(accounting.round_up(accounting.job_epsilon(e, float(job.delta)))) for e in (training, heldout)
    ]
    return Cost(
        hospital=dataset.hospital,
        patients=dataset.size_class,
        noise_multiplier=float(terms.training.noise_multiplier),
        epsilon=both[0],
        heldout_epsilon=both[1],
        lifetime_epsilon=lifetime,
        left=_left(lifetime, asked, training, heldout),
        refusal="",
    )


def events(terms: Terms, job: Job) -> tuple[list[Event], list[Event]]:
    """Return what a whole job releases of the patients trained on, and of those measured on."""
    training = accounting.compose(accounting.event_of(terms.training), job.rounds)
    return [training], [accounting.event_of(m) for m in terms.evaluation]


def costs_table(costs: Sequence[Cost]) -> pd.DataFrame:
    """Return the costs, a row for each hospital. Raises MissingExtraError: pandas is not installed."""
    rows = [
        (
            c.hospital, c.patients, c.noise_multiplier, c.epsilon, c.heldout_epsilon, c.lifetime_epsilon, c.left,
            f"would refuse: {c.refusal}" if c.refusal else "could take part",
        )
        for c in costs
    ]  # fmt: skip
    return table(COLUMNS, rows)


def traffic(job: Job) -> tuple[int, int, int]:
    """Return bytes to a hospital in a round, about those back, and those of the whole job at one hospital."""
    down = job_dry_run.bytes_down(job.training.parameters)
    up = job_dry_run.bytes_up(job.training.parameters, job.training.local_steps)
    return down, up, job.rounds * (down + up) + len(job.evaluate) * HISTOGRAM


def _left(lifetime: float, asked: Asked, training: Sequence[Event], heldout: Sequence[Event]) -> float:
    """Return what later jobs would find: as the account composes it, or less where only a sum is known."""
    delta = float(asked.dataset.delta)
    spent = max(accounting.filter_epsilon(side, delta) for side in (training, heldout))
    return max(lifetime - float(asked.spent) - float(accounting.round_up(spent)), 0.0)


def _of(given: Mapping[str, float] | float | None, hospital: str, what: str) -> float | None:
    value = given.get(hospital) if isinstance(given, Mapping) else given
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1000:
        raise PlanError(f"the {what} of {hospital} is {value!r}: give an epsilon above 0, such as 3")
    return float(value)


def _dataset(folder: JobFolder, name: str, patients: int, epsilon: float) -> Dataset:
    if isinstance(patients, bool) or not isinstance(patients, int) or patients < 1:
        raise PlanError(f"{name} has {patients!r} patients: give a whole number of at least 1")
    draft = folder.draft
    try:
        return made_up_dataset.record(
            draft,
            folder.dictionary,
            origin=NOWHERE,
            hospital=name,
            size_class=size_class(patients),
            epsilon=accounting.round_up(epsilon),
        )
    except MalformedError as error:
        raise PlanError(f"hospital {name!r}: {error}") from None
