"""A FHIR R4 bulk export as a source: a folder of NDJSON files, flattened to one row a patient by the dictionary.

Where a value stands follows from its variable's code: a LOINC code is an Observation or a component of one, an ICD
code a Condition, a SNOMED code a Condition where the variable is binary and an Observation elsewhere; a few codes are
the patient's own gender and age. The mapping says otherwise with `from`: "Patient.gender", "Patient.birthDate",
"Observation LOINC 2093-3", "Condition ICD-10 E10, ICD-10 E11". Of several observations the latest counts, at a tie
the one of the larger id, then of the larger text. No condition on record means no condition. Ages are counted at the
mapping's reference_date, never at today's.

Files are read once, in any order; of each patient only the dictionary's values are kept, some 300 bytes for each
variable. No FHIR library is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from client import fhir_resources as fhir
from client.dictionary import Dictionary, Label, Variable
from client.errors import DataError
from client.features import Fault, number
from client.mapping import Mapping, Rule, Tally
from client.source import Line
from client.terminology import Coding
from client.units import between
from ledger.errors import MalformedError

_AGE = ("21612-7", "30525-0", "63900-5")  # LOINC: age, as reported or calculated
_GENDER = ("21840-4", "46098-0", "76689-9")  # LOINC: sex
_OWN = ("age", "gender", "id")  # what a Patient resource says itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Where one column's values stand."""

    kind: str  # one of _OWN, "observation" or "condition"
    codes: tuple[Coding, ...] = ()
    numeric: bool = False
    unit: str = ""  # into which quantities are converted; the mapping goes on from there
    substance: str = ""
    absent: str = ""  # the cell where no condition is on record
    present: str = ""
    column: str = ""  # for the tally


@dataclass(slots=True)
class _Patient:
    """What is known of one patient."""

    own: fhir.Resource | None = field(default=None, repr=False)
    rank: tuple[str, str] = ("", "")
    cells: dict[int, tuple[tuple[str, str, str], str]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkExport:
    """One row of each patient of an export."""

    folder: Path
    places: tuple[Binding, ...]
    at: date | None  # when ages are counted
    tally: Tally = field(repr=False)
    torn: str = "not a FHIR resource in one line of JSON"

    @classmethod
    def open(cls, folder: Path, dictionary: Dictionary, mapping: Mapping) -> BulkExport:
        """Find where each column stands.

        Raises:
            DataError: no NDJSON file is there, or a column has no place in a Patient, Observation or Condition.
        """
        if not _files(folder):
            raise DataError(f"{folder}: no *.ndjson file is there: name the folder of the bulk export")
        places = tuple(_place(dictionary, rule) for rule in mapping.rules)
        at = fhir.first_day(mapping.reference_date)
        if at is None and any(place.kind == "age" for place in places):
            raise DataError(
                f"{folder}: ages need a day to be counted at: "
                'write reference_date = "2024-12-31" (the day of your export) into the mapping file'
            )
        return cls(folder=folder, places=places, at=at, tally=mapping.tally)

    def lines(self) -> Iterator[Line | None]:
        """Yield each patient's row, known by the patient's id, and None for each line that is no resource."""
        patients: dict[str, _Patient] = {}
        for path in _files(self.folder):
            for line in _lines(path):
                resource = fhir.parse(line)
                if resource is None:
                    yield None
                else:
                    self._take(resource, line, patients)
        for name, patient in patients.items():
            if patient.own is not None:
                cells = [self._cell(i, place, name, patient) for i, place in enumerate(self.places)]
                yield Line(cells, name.encode())

    def _take(self, resource: fhir.Resource, line: bytes, patients: dict[str, _Patient]) -> None:
        """Note what a resource says; the order of resources does not matter."""
        kind = resource["resourceType"]
        if kind == "Patient" and (name := fhir.own_id(resource)) is not None:
            known = patients.setdefault(name, _Patient())
            rank = fhir.updated(resource, line)
            if known.own is None or rank > known.rank:
                known.own = {"gender": resource.get("gender"), "birthDate": resource.get("birthDate")}
                known.rank = rank
        if kind not in ("Observation", "Condition") or not fhir.counts(resource):
            return
        if (about := fhir.patient_of(resource)) is not None:
            for i, text in self._values(resource):
                known = patients.setdefault(about, _Patient())
                order = (fhir.effective(resource), fhir.own_id(resource) or "", text)
                if i not in known.cells or order > known.cells[i][0]:
                    known.cells[i] = order, text

    def _values(self, resource: fhir.Resource) -> Iterator[tuple[int, str]]:
        """Yield (column, cell) for each column that a resource has a value of."""
        observed = resource["resourceType"] == "Observation"
        for i, place in enumerate(self.places):
            if observed and place.kind == "observation":
                for holder in fhir.holders(resource, place.codes):
                    if (
                        text := self._quantity(place, holder) if place.numeric else fhir.word(holder)
                    ) is not None:
                        yield i, text
            elif (
                not observed
                and place.kind == "condition"
                and fhir.has_code(resource.get("code"), place.codes)
            ):
                yield i, place.present

    def _quantity(self, place: Binding, holder: fhir.Resource) -> str | None:
        """Return an observation's number in the column's unit, or None where it has none that can be used."""
        found = fhir.quantity(holder)
        if found is None or isinstance(number(found[0]), Fault):
            return None
        if (linear := between(found[1], place.unit, place.substance)) is None:
            self.tally.count(self.tally.units, place.column, found[1])
            return None
        return linear.apply(found[0])

    def _cell(self, i: int, place: Binding, name: str, patient: _Patient) -> str:
        own = patient.own or {}
        if place.kind == "id":
            return name
        if place.kind == "gender":
            return own["gender"] if isinstance(own["gender"], str) else ""
        if place.kind == "age":
            age = fhir.completed_years(own["birthDate"], self.at) if self.at is not None else ""
            linear = between("a", place.unit)
            return linear.apply(age) if age and linear is not None else ""
        return patient.cells[i][1] if i in patient.cells else place.absent


def _place(dictionary: Dictionary, rule: Rule) -> Binding:
    """Return where a column of the dictionary stands. Raises DataError: nowhere."""
    column = rule.column
    if column == dictionary.patient:
        return Binding(kind="id")
    variable: Variable | Label | None = next((v for v in dictionary.variables if v.name == column), None)
    if variable is None and column == dictionary.label.name:
        variable = dictionary.label
    kind, codes = _binding(rule, variable)
    numeric = isinstance(variable, Variable) and variable.kind == "numeric"
    absent, present = _pair(variable, rule)
    if kind == "condition" and not present:
        raise DataError(
            f"column {column!r}: a Condition is there or not: its variable must be binary, or the label"
        )
    wanted = variable.unit if isinstance(variable, Variable) else ""
    if kind == "age" and (not numeric or between("a", rule.unit or wanted) is None):
        raise DataError(f"column {column!r}: an age is a number in a unit of time, such as a")
    return Binding(
        kind=kind,
        codes=codes,
        numeric=numeric,
        unit=rule.unit or wanted,
        substance=rule.substance,
        absent=absent if kind == "condition" else "",
        present=present,
        column=column,
    )


def _binding(rule: Rule, variable: Variable | Label | None) -> tuple[str, tuple[Coding, ...]]:
    """Return kind and codes of a column: what the mapping says, else what the dictionary's code implies."""
    text = rule.source or (variable.code if variable is not None else "")
    kind, _, rest = text.partition(" ")
    if text in ("Patient.gender", "Patient.birthDate"):
        return ("gender" if text == "Patient.gender" else "age"), ()
    try:
        if kind in ("Observation", "Condition"):
            return kind.lower(), tuple(Coding.parse(part.strip()) for part in rest.split(","))
        code = Coding.parse(text)
    except MalformedError as error:
        raise DataError(
            f"column {rule.column!r} has no place in FHIR resources: give it a code in the dictionary, or say from "
            '= "Patient.gender", "Patient.birthDate", "Observation CODE" or "Condition CODE" in the mapping '
            f"({error})"
        ) from None
    if code.system == "LOINC" and code.code in _AGE + _GENDER and not rule.source:
        return ("age" if code.code in _AGE else "gender"), ()
    binary = isinstance(variable, Label) or (variable is not None and variable.kind == "binary")
    is_condition = code.is_diagnosis or (code.system == "SNOMED" and binary)
    return ("condition" if is_condition else "observation"), (code,)


def _pair(variable: Variable | Label | None, rule: Rule) -> tuple[str, str]:
    """Return the cells that say that a condition is not, or is, on record."""
    if rule.coded:
        return "false", "true"
    if isinstance(variable, Label):
        return variable.negative[0], variable.positive[0]
    if variable is not None and variable.kind == "binary":
        return variable.levels[0], variable.levels[1]
    return "", ""


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.name.endswith(".ndjson") and p.is_file())
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}") from None


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines that are not blank; of one that is too long only its beginning, which parses as nothing."""
    try:
        with path.open("rb") as file:
            while line := file.readline(fhir.MAX_LINE + 1):
                rest = line
                while len(rest) > fhir.MAX_LINE and not rest.endswith(b"\n"):
                    rest = file.readline(fhir.MAX_LINE + 1)
                if line.strip():
                    yield line
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
