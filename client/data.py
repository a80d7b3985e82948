"""A hospital's table: read once a job into a snapshot, and checked beforehand on the hospital's own screen.

Each row is kept or dropped by a rule that looks at that row alone, and once the header is read nothing in the
file can raise. The unit is the patient: of a patient's kept rows a keyed hash picks one. Another keyed hash, of
the patient id under the dataset's secret, puts each patient in training or held out, for ever, so that no patient
is ever on both sides (PRIVACY.md, "Score histograms"). Lines and cells are `table` and `features`.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.dictionary import Dictionary
from client.errors import DataError
from client.features import MAX_CELL, MISSING, Fault, label_encoder, number, row_encoder
from client.table import Table

HELD_OUT = (1, 3)  # share of the patients who are never trained on, as a fraction
SECRET_SIZE = 32  # bytes of a dataset's secret
SIDES = {"train": False, "test": True}  # what a published split's column holds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """One row of each usable patient, scaled; fixed for a whole job. Never printed, logged or sent.

    Patients are ordered by their keyed hash, so the order of the file leaves no trace.
    """

    features: NDArray[np.float32] = field(repr=False)  # (patients, features), in [-3, 3]
    labels: NDArray[np.int64] = field(repr=False)  # (patients,), 0 or 1
    held_out: NDArray[np.bool_] = field(repr=False)  # (patients,), True: never trained on
    patients: tuple[bytes, ...] = field(repr=False)  # keyed hashes of the patient ids, 32 bytes each

    @property
    def training(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features and labels of the patients who may be trained on."""
        return self.features[~self.held_out], self.labels[~self.held_out]

    @property
    def evaluation(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features and labels of the held-out patients."""
        return self.features[self.held_out], self.labels[self.held_out]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a file holds, for the hospital's own screen only: every number in it is exact."""

    rows: int  # lines of data
    kept: int  # rows that every rule accepts
    patients: int  # with at least one kept row
    held_out: int  # patients never trained on
    positive: int  # patients of the positive class
    size_class: int  # what the hospital would publish
    dropped: tuple[tuple[str, str, int], ...]  # (column, reason, rows), most frequent first
    clipped: tuple[tuple[str, int], ...]  # (column, rows outside its plausible range)
    refusals: tuple[str, ...]  # why the file may not be used yet; empty when it may

    def require_usable(self) -> None:
        """Refuse a file that must be corrected first.

        Raises:
            DataError: the first refusal.
        """
        if self.refusals:
            raise DataError(self.refusals[0])

    def lines(self) -> tuple[str, ...]:
        """The report in words, one line each."""
        return (
            f"{self.rows} rows, {self.kept} usable; {self.patients} patients, {self.positive} positive; "
            f"{self.patients - self.held_out} for training, {self.held_out} held out",
            f"size class to publish: {self.size_class}",
            *(f"{column}: {n} rows dropped, {reason}" for column, reason, n in self.dropped),
            *(f"{column}: {n} rows clipped to the plausible range" for column, n in self.clipped),
            *(f"refused: {line}" for line in self.refusals),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A kept row."""

    features: list[float]
    label: int
    patient: str  # empty: the row itself is the patient
    held_out: bool | None  # None: no published split
    content: bytes  # of all its cells


@dataclass(frozen=True, slots=True)
class _Dropped:
    column: str
    reason: str


def size_class(patients: int) -> int:
    """Return the power of two nearest to a patient count: the larger one at a tie, never below 1."""
    lower = 1 << max(patients.bit_length() - 1, 0)
    return 2 * lower if patients - lower >= 2 * lower - patients else lower


def snapshot(
    path: Path, dictionary: Dictionary, *, secret: bytes, salt: bytes = b"", one_row_per_patient: bool = False
) -> Snapshot:
    """Read a table into the one snapshot that a job works on.

    Args:
        path: A UTF-8 file of comma-, semicolon- or tab-separated lines, the first naming the columns.
        dictionary: The job's data dictionary.
        secret: The dataset's secret, SECRET_SIZE bytes, the same for ever: it decides who is held out.
        salt: Names the job: a patient with several rows may show another one to another job.
        one_row_per_patient: The hospital's word, needed when there is no patient column, that every row is
            another patient. A row is then known by its content: edited later, it is a new patient.

    Raises:
        DataError: the file cannot be read or lacks a column. Rows never raise.
    """
    table = _open(path, dictionary, one_row_per_patient)
    rows = (row for row in _rows(table, dictionary) if isinstance(row, _Row))
    chosen, _ = _choose(rows, secret, salt)
    ordered = sorted(chosen.items())
    return Snapshot(
        features=np.array([row.features for _, row in ordered], dtype=np.float32).reshape(
            -1, len(dictionary.feature_names)
        ),
        labels=np.array([row.label for _, row in ordered], dtype=np.int64),
        held_out=np.array([row.held_out for _, row in ordered], dtype=np.bool_),
        patients=tuple(key for key, _ in ordered),
    )


def check_file(
    path: Path, dictionary: Dictionary, *, secret: bytes, one_row_per_patient: bool = False
) -> Report:
    """Examine a table before any job uses it; the arguments are those of `snapshot`.

    Raises:
        DataError: the file cannot be read or lacks a column. What is wrong with rows is in the report.
    """
    table = _open(path, dictionary, one_row_per_patient)
    rows = list(_rows(table, dictionary))
    kept = [row for row in rows if isinstance(row, _Row)]
    dropped = Counter((row.column, row.reason) for row in rows if isinstance(row, _Dropped))
    chosen, torn = _choose(kept, secret, b"")
    return Report(
        rows=len(rows),
        kept=len(kept),
        patients=len(chosen),
        held_out=sum(bool(row.held_out) for row in chosen.values()),
        positive=sum(row.label for row in chosen.values()),
        size_class=size_class(len(chosen)),
        dropped=tuple((column, why, n) for (column, why), n in dropped.most_common()),
        clipped=_clipped(table, dictionary),
        refusals=tuple(
            _refusals(path, dictionary, dropped[dictionary.label.name, Fault.NOT_ALLOWED.value], torn, chosen)
        ),
    )


def _open(path: Path, dictionary: Dictionary, one_row_per_patient: bool) -> Table:
    if not dictionary.patient and not one_row_per_patient:
        raise DataError(
            f"data dictionary {dictionary.name!r} names no patient column: name one, or set "
            "one_row_per_patient = true in hospital.toml if every row is another patient"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    return Table.parse(data, dictionary.columns, str(path))


def _rows(table: Table, dictionary: Dictionary) -> Iterator[_Row | _Dropped]:
    """Keep or drop each line, looking at nothing but that line."""
    encode, classify = row_encoder(dictionary), label_encoder(dictionary.label)
    inputs = len(dictionary.inputs)
    for cells in table.rows():
        if cells is None:
            yield _Dropped("line", "not a row with the header's number of cells")
            continue
        picked = table.pick(cells)
        features, label = encode(picked[:inputs]), classify(picked[inputs])
        rest = picked[inputs + 1 :]
        patient = rest.pop(0) if dictionary.patient else ""
        side = SIDES.get(rest.pop(0)) if dictionary.split else None
        if isinstance(label, Fault):
            yield _Dropped(dictionary.label.name, label.value)
        elif isinstance(features, tuple):
            yield _Dropped(features[0], features[1].value)
        elif dictionary.patient and (patient.lower() in MISSING or len(patient) > MAX_CELL):
            yield _Dropped(dictionary.patient, Fault.MISSING.value)
        elif dictionary.split and side is None:
            yield _Dropped(dictionary.split, "neither train nor test")
        else:
            content = "\x1f".join(cells).encode()
            yield _Row(features=features, label=label, patient=patient, held_out=side, content=content)


def _choose(rows: Iterable[_Row], secret: bytes, salt: bytes) -> tuple[dict[bytes, _Row], int]:
    """Pick one row of each patient and decide the patient's side.

    Returns:
        The chosen rows by the patient's keyed hash, and how many patients a published split puts on both
        sides: those are left out, since held out must mean never trained on.
    """
    if len(secret) != SECRET_SIZE:
        raise DataError(f"a dataset's secret must have {SECRET_SIZE} bytes, not {len(secret)}")
    groups: dict[bytes, list[_Row]] = {}
    twins: Counter[bytes] = Counter()
    for row in rows:
        if row.patient:
            name = b"id\0" + row.patient.encode()
        else:  # two equal rows are two patients, and it does not matter which is which
            twins[row.content] += 1
            name = b"row\0%d\0" % twins[row.content] + row.content
        groups.setdefault(_keyed(secret, b"patient\0" + name), []).append(row)
    torn = [key for key, group in groups.items() if len({row.held_out for row in group}) > 1]
    for key in torn:
        del groups[key]
    return {key: _pick(group, secret, salt) for key, group in groups.items()}, len(torn)


def _pick(group: list[_Row], secret: bytes, salt: bytes) -> _Row:
    row = min(group, key=lambda r: _keyed(secret, b"pick\0%d\0" % len(salt) + salt + r.content))
    if row.held_out is not None:
        return row
    name = b"id\0" + row.patient.encode() if row.patient else b"row\0" + row.content
    share, whole = HELD_OUT
    drawn = int.from_bytes(_keyed(secret, b"side\0" + name)[:8])
    return _Row(
        features=row.features,
        label=row.label,
        patient=row.patient,
        held_out=drawn * whole < share << 64,
        content=row.content,
    )


def _keyed(secret: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, message, "sha256")


def _clipped(table: Table, dictionary: Dictionary) -> tuple[tuple[str, int], ...]:
    """Count cells outside their column's plausible range, kept rows or not."""
    counts: Counter[str] = Counter()
    ranges = [
        (i, v.name, float(v.lower), float(v.upper)) for i, v in enumerate(dictionary.variables) if v.lower
    ]
    for cells in table.rows():
        picked = table.pick(cells) if cells is not None else []
        for i, name, lower, upper in ranges if picked else ():
            value = number(picked[i])
            counts[name] += isinstance(value, float) and not lower <= value <= upper
    return tuple((name, n) for name, n in counts.most_common() if n)


def _refusals(
    path: Path, dictionary: Dictionary, bad_labels: int, torn: int, chosen: dict[bytes, _Row]
) -> Iterator[str]:
    if bad_labels:
        yield (
            f"{path}: {bad_labels} rows hold a value of the label column {dictionary.label.name!r} that the data "
            "dictionary lists neither as negative nor as positive: correct those rows or the dictionary"
        )
    if torn:
        yield f"{path}: {torn} patients have rows of both train and test in the column {dictionary.split!r}"
    if not chosen:
        yield f"{path}: no patient has a usable row: see what `wardround hospital check` says about the columns"
