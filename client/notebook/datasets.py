"""Data for trying a job: a data dictionary sketched from a table, a table dealt to made-up hospitals, and an example.

A sketch reads patients' rows, and what it reads would be published with the dictionary: it says so, and marks each
variable until somebody has put publicly known ranges in their place (`Dictionary.reviewed`).
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from client import accounting
from client.demo_data import HEART_DISEASE_ADDRESS, write_breast_cancer, write_heart_disease
from client.dictionary import UNREVIEWED, Dictionary, Label, Variable
from client.errors import DataError
from ledger.errors import MalformedError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

MAX_LEVELS = 20  # more different texts than this are no categories
FEWEST = 20  # rows that a sketch, or a hospital, needs
_FEW = 2  # different whole numbers that are a yes or no
WARNING = (
    "the ranges and categories of this sketch are those of the rows at hand, rounded outwards: a dictionary is "
    "published, and would tell on them. Replace them by publicly known ones, then take "
    "dictionary.reviewed(source=...)"
)


class SketchWarning(UserWarning):
    """A dictionary was sketched from patients' rows: it is for trying, and not to be submitted as it is."""


def sketch(
    frame: DataFrame,
    *,
    label: str,
    patient: str = "",
    name: str = "my-study",
    positive: object = None,
    leave_out: Sequence[str] = (),
) -> Dictionary:
    """Return a first data dictionary of a table: variables, kinds and ranges; units are left empty.

    Args:
        frame: A row for each patient.
        label: The column to predict, of two values.
        patient: The column that tells patients apart; "" where each row is another patient.
        name: What the dictionary is called.
        positive: The label's value that is to be predicted; the greater of the two where none is given.
        leave_out: Columns that are no inputs.

    Raises:
        DataError: a column is missing, or cannot be described; says which, and what to do.
    """
    rest = [label, *([patient] if patient else []), *leave_out]
    require_columns(frame, rest)
    if len(frame) < FEWEST:
        raise DataError(f"the table has {len(frame)} rows: a sketch, and training, need at least {FEWEST}")
    inputs = [c for c in frame.columns if c not in rest]
    try:
        variables = tuple(_variable(str(c), frame[c]) for c in inputs)
        found = Dictionary(
            name=name,
            variables=variables,
            label=_label(frame[label], label, positive),
            patient=patient,
            split="",
            source="sketched from rows at hand",
        )
    except MalformedError as error:
        raise DataError(f"no dictionary can be sketched of this table: {error}") from None
    warnings.warn(WARNING, SketchWarning, stacklevel=2)
    return found


def partition(
    frame: DataFrame,
    *,
    hospitals: int | Sequence[str] = 4,
    by: str | None = None,
    label: str | None = None,
    skew: float = 0.5,
    patient: str = "",
    seed: int = 0,
) -> dict[str, DataFrame]:
    """Deal a table's rows to made-up hospitals; each row goes to exactly one.

    Args:
        frame: The rows.
        hospitals: How many, or their names; ignored with `by`.
        by: A column whose values are the hospitals, one table each.
        label: A column whose values the hospitals get in unlike shares; without it they are dealt alike.
        skew: With `label`: the concentration of the Dirichlet distribution; 0.1 is very unlike, 100 nearly alike.
        patient: A column that tells patients apart: all rows of a patient go to one hospital. Not with `label`.
        seed: Any number; the same one deals alike.

    Raises:
        DataError: a column is missing, or there are too few rows; says which, and what to do.
    """
    require_columns(frame, [c for c in (by, label, patient) if c])
    if by is not None:
        return _by(frame, by)
    names = [f"hospital-{i + 1}" for i in range(hospitals)] if isinstance(hospitals, int) else list(hospitals)
    if not names or len(set(names)) < len(names):
        raise DataError("hospitals must be a number of at least 1, or names that differ")
    if len(frame) < len(names):
        raise DataError(f"the table has {len(frame)} rows for {len(names)} hospitals: give fewer hospitals")
    if label and (patient or not skew > 0):
        raise DataError(
            "with label, skew must be above 0, and patient cannot be kept together: leave one out"
        )
    random = np.random.default_rng(seed)
    units = frame[patient].astype(str).to_numpy() if patient else np.arange(len(frame)).astype(str)
    place = _skewed(frame[label], len(names), skew, random) if label else _alike(units, len(names), random)
    return {hospital: frame[place == i].reset_index(drop=True) for i, hospital in enumerate(names)}


def example(name: str = "breast-cancer", *, source: str | Path | None = None) -> dict[str, DataFrame]:
    """Return the tables of four hospitals: real records that are public.

    Args:
        name: "breast-cancer", which comes with scikit-learn, or "heart-disease".
        source: For heart-disease: the folder with UCI's four `processed.*.data` files, as they were published.

    Raises:
        DataError: no such example, or its records are not there; says where they come from.
    """
    import pandas

    if name not in ("breast-cancer", "heart-disease"):
        raise DataError(
            f"no example {name!r} comes with Wardround: there are breast-cancer and heart-disease"
        )
    with tempfile.TemporaryDirectory(prefix="wardround-example-") as folder:
        if name == "breast-cancer":
            files = write_breast_cancer(Path(folder))
        elif source is None:
            raise DataError(
                f"heart-disease needs source, a folder with the four files of {HEART_DISEASE_ADDRESS}"
            )
        else:
            files = write_heart_disease(Path(source), Path(folder))
        return {hospital: pandas.read_csv(file) for hospital, file in sorted(files.items())}


def require_columns(frame: DataFrame, wanted: Sequence[str]) -> None:
    """Refuse a table that lacks a column. Raises DataError, with the nearest that is there."""
    import difflib

    for column in wanted:
        if column not in frame.columns:
            near = difflib.get_close_matches(column, map(str, frame.columns), 1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"there are {', '.join(map(str, frame.columns[:8]))}"
            )
            raise DataError(f"the table has no column {column!r}: {hint}")


def rounded_out(lower: float, upper: float) -> tuple[float, float]:
    """Return a range of round numbers that holds another: to a tenth of its width's power of ten."""
    width = upper - lower or abs(upper) or 1.0
    step = 10.0 ** math.floor(math.log10(max(width, 1e-12)))
    step = step if width / step >= _FEW else step / 2
    low, high = math.floor(lower / step) * step, math.ceil(upper / step) * step
    low, high = low - step * (low > lower), high + step * (high < upper)  # a product may be rounded inwards
    return (low, high) if low < high else (low, low + step)


def _variable(name: str, column: Series[Any]) -> Variable:
    given: dict[str, Any] = dict.fromkeys(
        ("unit", "lower", "upper", "centre", "spread", "source", "code"), ""
    )
    made = {**given, "name": name, "levels": (), "shape": (), "source": UNREVIEWED}
    cells = column.dropna()
    levels = sorted({_text(value) for value in cells.unique()[: MAX_LEVELS + 2]})
    if len(levels) < _FEW:
        raise DataError(f"column {name!r} has the same value in each row: name it in leave_out")
    is_number = column.dtype.kind in "iuf" and column.dtype.kind != "b"
    if len(levels) == _FEW and (not is_number or set(levels) == {"0", "1"}):
        return Variable(**made | {"kind": "binary", "levels": tuple(levels)})
    if is_number:
        if not np.isfinite(cells.to_numpy(dtype=float)).all():
            raise DataError(f"column {name!r} holds an infinite number: correct the table")
        low, high = rounded_out(float(cells.min()), float(cells.max()))
        return Variable(**made | {"kind": "numeric", "lower": _decimal(low), "upper": _decimal(high)})
    if len(levels) > MAX_LEVELS:
        raise DataError(
            f"column {name!r} has more than {MAX_LEVELS} different texts: turn it into numbers, or name it in "
            "leave_out"
        )
    return Variable(**made | {"kind": "categorical", "levels": tuple(levels)})


def _label(column: Series[Any], name: str, positive: object) -> Label:
    values = sorted({_text(value) for value in column.dropna().unique()})
    if len(values) != _FEW:
        raise DataError(
            f"label {name!r} has {len(values)} different values: make a column of two, such as 0 and 1 or no and yes"
        )
    chosen = values[1] if positive is None else _text(positive)
    if chosen not in values:
        raise DataError(
            f"label {name!r} has no value {chosen!r}: positive must be one of {', '.join(values)}"
        )
    other = next(v for v in values if v != chosen)
    return Label(name=name, negative=(other,), positive=(chosen,), meaning=f"{name} is {chosen}", code="")


def _text(value: object) -> str:
    """Return a cell as a file would hold it: 1.0 of a column with gaps is 1."""
    if isinstance(value, bool | np.bool_):
        return str(value)
    if isinstance(value, int | float | np.number) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _decimal(value: float) -> str:
    return ("-" if value < 0 else "") + accounting.spell(abs(Decimal(f"{value:.12g}")))


def _by(frame: DataFrame, column: str) -> dict[str, DataFrame]:
    if frame[column].isna().any():
        raise DataError(f"column {column!r} is empty in some rows: drop them, or say whose they are")
    found: dict[str, DataFrame] = {}
    for value, rows in frame.groupby(column, sort=True):
        if (name := _hospital(value)) in found:
            raise DataError(f"column {column!r} has two values that both become {name!r}: rename one")
        found[name] = rows.reset_index(drop=True)
    return found


def _hospital(value: object) -> str:
    """Return a value as a hospital's name: lowercase letters, digits and hyphens."""
    text = "".join(c if c.isascii() and c.isalnum() else "-" for c in str(value).lower()).strip("-")
    return text or "hospital"


def _alike(units: Any, count: int, random: np.random.Generator) -> Any:
    """Return each row's hospital: as many patients each, as far as they can be divided."""
    patients, of_row = np.unique(units, return_inverse=True)
    dealt = np.empty(len(patients), dtype=np.int64)
    dealt[random.permutation(len(patients))] = np.arange(len(patients)) % count
    return dealt[of_row]


def _skewed(label: Series[Any], count: int, skew: float, random: np.random.Generator) -> Any:
    """Return each row's hospital: every class is divided by shares of its own; nobody stays without a row.

    Source: Hsu, Qi and Brown 2019, "Measuring the effects of non-identical data distribution".
    """
    place = np.zeros(len(label), dtype=np.int64)
    for value in label.unique():
        rows = random.permutation(np.flatnonzero((label == value).to_numpy()))
        shares = random.dirichlet([skew] * count)
        cuts = np.round(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
        for i, part in enumerate(np.split(rows, cuts)):
            place[part] = i
    for i in range(count):  # a hospital without a row takes one of the largest
        if not (place == i).any():
            largest = int(np.argmax(np.bincount(place, minlength=count)))
            place[np.flatnonzero(place == largest)[0]] = i
    return place


def with_range(dictionary: Dictionary, name: str, lower: float, upper: float, *, source: str) -> Dictionary:
    """Return a dictionary with a publicly known range for one variable.

    Args:
        dictionary: A sketch, or any other.
        name: The variable.
        lower: Values below count as this.
        upper: Values above count as this.
        source: Where the range is published.

    Raises:
        DataError: no such numeric variable, or no such range.
    """
    if name not in {v.name for v in dictionary.variables if v.kind == "numeric"}:
        raise DataError(f"dictionary {dictionary.name} has no numeric variable {name!r}")
    try:
        changed: dict[str, Any] = {"lower": _decimal(lower), "upper": _decimal(upper), "source": source}
        found = tuple(replace(v, **changed) if v.name == name else v for v in dictionary.variables)
        return replace(dictionary, variables=found)
    except MalformedError as error:
        raise DataError(str(error)) from None
