"""A hospital's rows: read once a job into a snapshot, and checked beforehand on the hospital's own screen.

Each row is kept or dropped by a rule that looks at that row alone, and once the header is read nothing in the
file can raise. The unit is the patient: of a patient's kept rows a keyed hash picks one. Another keyed hash, of
the patient id under the dataset's secret, puts each patient in training or held out, for ever, so that no patient
is ever on both sides (PRIVACY.md, "Score histograms"; `choosing`). Where rows come from is `source`, what a
hospital's columns and codes stand for is `mapping`, what a cell becomes is `features`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.choosing import HELD_OUT, SECRET_SIZE, Row, choose
from client.dictionary import Dictionary
from client.errors import DataError
from client.features import MAX_CELL, MISSING, Fault, inputs_encoder, label_encoder, number
from client.source import Place, Record, Source, open_source, read_mapping

__all__ = ("HELD_OUT", "SECRET_SIZE", "SIDES", "Report", "Snapshot", "check_file", "size_class", "snapshot")

SIDES = {"train": False, "test": True}  # what a published split's column holds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """One row of each usable patient, scaled; fixed for a whole job. Never printed, logged or sent.

    Patients are ordered by their keyed hash, so the order of the file leaves no trace.
    """

    features: NDArray[np.float32] = field(repr=False)  # (patients, *dictionary.input_shape), in [-3, 3]
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
    notes: tuple[str, ...] = field(
        default=(), repr=False
    )  # what the mapping met; names the hospital's own values

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
            *self.notes,
            *(f"refused: {line}" for line in self.refusals),
        )


@dataclass(frozen=True, slots=True)
class _Dropped:
    column: str
    reason: str


def size_class(patients: int) -> int:
    """Return the power of two nearest to a patient count: the larger one at a tie, never below 1."""
    lower = 1 << max(patients.bit_length() - 1, 0)
    return 2 * lower if patients - lower >= 2 * lower - patients else lower


def snapshot(
    where: Path | Place,
    dictionary: Dictionary,
    *,
    secret: bytes,
    salt: bytes = b"",
    one_row_per_patient: bool = False,
) -> Snapshot:
    """Read a dataset into the one snapshot that a job works on.

    Args:
        where: The dataset's place; a path alone is a CSV file whose columns are the dictionary's.
        dictionary: The job's data dictionary.
        secret: The dataset's secret, SECRET_SIZE bytes, the same for ever: it decides who is held out.
        salt: Names the job: a patient with several rows may show another one to another job.
        one_row_per_patient: The hospital's word, needed when there is no patient column, that every row is
            another patient. A row is then known by all its cells, those included that the dictionary does not
            name: edited later, or with a further column, it is a new patient. Under another dictionary or
            mapping it is the same patient on the same side.

    Raises:
        DataError: the file cannot be read or lacks a column. Rows never raise.
    """
    place = _place(where, dictionary, one_row_per_patient)
    return take(open_source(place, dictionary, read_mapping(place, dictionary)), dictionary, secret, salt)[0]


def take(
    source: Source, dictionary: Dictionary, secret: bytes, salt: bytes = b""
) -> tuple[Snapshot, Counter[tuple[str, str]]]:
    """Read an open source into a snapshot, and count (column, reason) of the rows that were dropped.

    Raises:
        DataError: the source turns out damaged while it is read. Rows never raise.
    """
    dropped: Counter[tuple[str, str]] = Counter()

    def accepted() -> Iterator[Row]:
        for row in _rows(source, dictionary):
            if isinstance(row, Row):
                yield row
            else:
                dropped[row.column, row.reason] += 1

    chosen, _ = choose(accepted(), secret, salt)
    ordered = sorted(chosen.items())
    features = np.empty((len(ordered), *dictionary.input_shape), dtype=np.float32)
    for i, (_, row) in enumerate(ordered):
        features[i] = np.frombuffer(row.features, "<f4").reshape(dictionary.input_shape)
    made = Snapshot(
        features=features,
        labels=np.array([row.label for _, row in ordered], dtype=np.int64),
        held_out=np.array([row.held_out for _, row in ordered], dtype=np.bool_),
        patients=tuple(key for key, _ in ordered),
    )
    return made, dropped


def check_file(
    where: Path | Place, dictionary: Dictionary, *, secret: bytes, one_row_per_patient: bool = False
) -> Report:
    """Examine a dataset before any job uses it; the arguments are those of `snapshot`.

    Raises:
        DataError: the file cannot be read or lacks a column. What is wrong with rows is in the report.
    """
    place = _place(where, dictionary, one_row_per_patient)
    mapping = read_mapping(place, dictionary)
    source = open_source(place, dictionary, mapping)
    dropped: Counter[tuple[str, str]] = Counter()
    clipped: Counter[str] = Counter()
    kept = 0

    def accepted() -> Iterator[Row]:
        nonlocal kept
        for row in _rows(source, dictionary, clipped):
            if isinstance(row, Row):
                kept += 1
                yield row
            else:
                dropped[row.column, row.reason] += 1

    chosen, torn = choose(accepted(), secret, b"")
    bad_labels = dropped[dictionary.label.name, Fault.NOT_ALLOWED.value]
    return Report(
        rows=kept + dropped.total(),
        kept=kept,
        patients=len(chosen),
        held_out=sum(bool(row.held_out) for row in chosen.values()),
        positive=sum(row.label for row in chosen.values()),
        size_class=size_class(len(chosen)),
        dropped=tuple((column, why, n) for (column, why), n in dropped.most_common() if n),
        clipped=tuple(clipped.most_common()),
        notes=mapping.notes(),
        refusals=tuple(_refusals(place.file, dictionary, bad_labels, torn, len(chosen))),
    )


def _place(where: Path | Place, dictionary: Dictionary, one_row_per_patient: bool) -> Place:
    if not dictionary.patient and not one_row_per_patient:
        raise DataError(
            f"data dictionary {dictionary.name!r} names no patient column: name one, or set "
            "one_row_per_patient = true in hospital.toml if every row is another patient"
        )
    return where if isinstance(where, Place) else Place.csv(where)


def _rows(
    source: Source, dictionary: Dictionary, clipped: Counter[str] | None = None
) -> Iterator[Row | _Dropped]:
    """Keep or drop each record, looking at nothing but that record; count by the way what was clipped, if asked."""
    encode, classify = inputs_encoder(dictionary), label_encoder(dictionary.label)
    ranges = [
        (i, v.name, float(v.lower), float(v.upper))
        for i, v in enumerate(dictionary.variables)
        if v.kind == "numeric" and clipped is not None
    ]
    for record in source.records():
        if record is None:
            yield _Dropped("line", source.torn)
            continue
        for i, name, lower, upper in ranges:
            value = number(record.inputs[i]) if record.inputs is not None else Fault.MISSING
            if clipped is not None and isinstance(value, float) and not lower <= value <= upper:
                clipped[name] += 1
        yield _row(dictionary, record, encode(record.inputs), classify(record.rest[0]))


def _row(
    dictionary: Dictionary, record: Record, features: bytes | tuple[str, Fault], label: int | Fault
) -> Row | _Dropped:
    rest = list(record.rest[1:])
    patient = rest.pop(0) if dictionary.patient else ""
    side = SIDES.get(rest.pop(0)) if dictionary.split else None
    if isinstance(label, Fault):
        return _Dropped(dictionary.label.name, label.value)
    if isinstance(features, tuple):
        return _Dropped(features[0], features[1].value)
    if dictionary.patient and (patient.lower() in MISSING or len(patient) > MAX_CELL):
        return _Dropped(dictionary.patient, Fault.MISSING.value)
    if dictionary.split and side is None:
        return _Dropped(dictionary.split, "neither train nor test")
    return Row(features=features, label=label, patient=patient, held_out=side, identity=record.identity)


def _refusals(path: Path, dictionary: Dictionary, bad_labels: int, torn: int, patients: int) -> Iterator[str]:
    if bad_labels:
        yield (
            f"{path}: {bad_labels} rows hold a value of the label column {dictionary.label.name!r} that the data "
            "dictionary lists neither as negative nor as positive: correct those rows or the dictionary"
        )
    if torn:
        yield f"{path}: {torn} patients have rows of both train and test in the column {dictionary.split!r}"
    if not patients:
        yield f"{path}: no patient has a usable row: see what `wardround hospital check` says about the columns"
