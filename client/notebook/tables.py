"""A run's figures as pandas DataFrames: a row for each observation, a column for each quantity.

Columns and types are the same whether or not there is anything yet. Numbers are float64, where NaN is what could not
be measured; rounds and counts are int64; names and codes are pandas' string type (`object` before pandas 3). Rows are
sorted by round, then hospital. A table is made anew at each call: changing it changes nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from client.notebook import fates
from client.notebook.extras import needed
from client.notebook.figures import USED, Estimate, Figures

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, str]  # name -> dtype, in order

METRICS: Columns = {
    "round": "int64",
    "trained": "int64",
    **{
        name + suffix: "float64"
        for name in ("auroc", "log_loss", "brier")
        for suffix in ("", "_low", "_high")
    },
    "patients": "float64",
}
PRIVACY: Columns = {
    "round": "int64",
    "hospital": "str",
    "side": "str",
    "epsilon": "float64",
    "job_epsilon": "float64",
    "share": "float64",
}
PARTICIPATION: Columns = {
    "round": "int64",
    "hospital": "str",
    "used": "bool",
    "fate": "str",
    "kind": "str",
    "reason": "str",
}
GEOMETRY: Columns = {"round": "int64", "hospital": "str", "norm": "float64", "cosine": "float64"}
BUDGETS: Columns = {
    "hospital": "str",
    "dataset": "str",
    "patients": "int64",
    "job_epsilon": "float64",
    "job_spent": "float64",
    "lifetime_epsilon": "float64",
    "lifetime_spent": "float64",
    "delta": "float64",
}


def metrics(figures: Figures) -> pd.DataFrame:
    """Return the published evaluations, one row for each model measured.

    Columns: `round` that begins with the model; `trained`, the rounds of training behind it (one less); `auroc`,
    `log_loss` (nats a patient) and `brier`, each with `_low` and `_high`, its 95 % interval over noise and patients;
    `patients`, about how many were measured on (NaN without a calibration curve).

    Raises:
        MissingExtraError: pandas is not installed.
    """
    return _table(
        METRICS,
        (
            (
                measured.round,
                measured.round - 1,
                *_three(measured.auroc),
                *_three(measured.log_loss),
                *_three(measured.brier),
                sum(bar.patients for bar in measured.calibration) if measured.calibration else math.nan,
            )
            for measured in figures.measured
        ),
    )


def privacy(figures: Figures) -> pd.DataFrame:
    """Return what this job has cost each hospital's patients, one row for each round, hospital and side.

    Columns: `round` after which it stood so; `hospital`; `side`, "training" or "heldout": disjoint patients, so the
    two are never added; `epsilon`, composed over all the job's rounds so far, for adding or removing one patient;
    `job_epsilon`, the most that this job may spend there; `share`, epsilon over job_epsilon.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    limits = {budget.hospital: budget.job_epsilon for budget in figures.budgets}
    return _table(
        PRIVACY,
        (
            (
                spent.round,
                spent.hospital,
                spent.side,
                spent.epsilon,
                limit := limits.get(spent.hospital, math.nan),
                spent.epsilon / limit if limit else math.nan,
            )
            for spent in figures.spent
        ),
    )


def participation(figures: Figures) -> pd.DataFrame:
    """Return what became of each hospital in each round.

    Columns: `round`; `hospital`; `used`, whether its update is in the round's model; `fate`, "used" or the log's
    code; `kind`, one of `fates.KINDS`; `reason`, in words.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    return _table(
        PARTICIPATION,
        (
            (
                part.round,
                part.hospital,
                part.fate == USED,
                part.fate,
                fates.kind(part.fate),
                fates.reason(part.fate),
            )
            for part in figures.parts
        ),
    )


def geometry(figures: Figures) -> pd.DataFrame:
    """Return how each noised update pulled at the model.

    Columns: `round`; `hospital`; `norm`, its l2 length in units of the parameters; `cosine` with the weighted mean of
    the round's updates, in [-1, 1].

    Raises:
        MissingExtraError: pandas is not installed.
    """
    return _table(GEOMETRY, ((p.round, p.hospital, p.norm, p.cosine) for p in figures.pulls))


def budgets(figures: Figures) -> pd.DataFrame:
    """Return what each hospital has set aside, and what is gone of it.

    Columns: `hospital`; `dataset`; `patients`, the size class; `job_epsilon`, the most that this job may spend;
    `job_spent`, what it has spent on the side that spent more; `lifetime_epsilon`, the most that all jobs may
    ever spend together; `lifetime_spent`, what they have so far (NaN: not known); `delta` of the budget.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    now = latest_epsilon(figures)
    return _table(
        BUDGETS,
        (
            (
                b.hospital,
                b.dataset,
                b.patients,
                b.job_epsilon,
                max(now.get((b.hospital, side), 0.0) for side in ("training", "heldout")),
                b.lifetime_epsilon,
                math.nan if b.lifetime_spent is None else b.lifetime_spent,
                b.delta,
            )
            for b in figures.budgets
        ),
    )


def latest_epsilon(figures: Figures) -> dict[tuple[str, str], float]:
    """Return each hospital's newest epsilon of this job, by (hospital, side)."""
    return {(spent.hospital, spent.side): spent.epsilon for spent in figures.spent}


def _three(estimate: Estimate | None) -> tuple[float, float, float]:
    if estimate is None:
        return math.nan, math.nan, math.nan
    return estimate.value, estimate.low, estimate.high


def _table(columns: Columns, rows: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    pandas = needed("pandas", "notebook", "tables are made")
    return pandas.DataFrame(list(rows), columns=list(columns)).astype(columns)
