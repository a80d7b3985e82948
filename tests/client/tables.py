"""One made-up table written in each format that a hospital may have, and the dictionary that describes it."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet

from client import dictionary
from client.source import Place

SECRET = bytes(range(32))
GENDERS = {"0": "female", "1": "male"}
DICTIONARY = dictionary.parse(
    json.dumps(
        {
            "type": dictionary.TYPE,
            "name": "everywhere",
            "variables": [
                {"name": "age", "kind": "numeric", "unit": "a", "lower": "0", "upper": "120", "source": "made up",
                 "code": "LOINC 30525-0"},
                {"name": "sex", "kind": "binary", "levels": ["0", "1"], "code": "LOINC 46098-0"},
                {"name": "chol", "kind": "numeric", "unit": "mg/dL", "lower": "100", "upper": "600",
                 "source": "made up", "code": "LOINC 2093-3"},
                {"name": "smoker", "kind": "categorical", "levels": ["never", "former", "current"],
                 "code": "LOINC 72166-2"},
                {"name": "diabetes", "kind": "binary", "levels": ["0", "1"], "code": "ICD-10 E11"},
            ],
            "label": {"name": "num", "negative": ["0"], "positive": ["1"], "code": "SNOMED 53741008"},
            "patient": "id",
        }
    ).encode()
)  # fmt: skip
COLUMNS = DICTIONARY.columns
AT = "2024-12-31"
Row = tuple[int, str, float, str, bool, bool, str]  # in the order of COLUMNS


def as_text(row: Row) -> list[str]:
    age, sex, chol, smoker, diabetes, label, patient = row
    return [str(age), sex, repr(chol), smoker, str(int(diabetes)), str(int(label)), patient]


def write_csv(path: Path, rows: Sequence[Row]) -> Place:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *map(as_text, rows)])
    return Place.csv(path)


def write_parquet(path: Path, rows: Sequence[Row]) -> Place:
    types = [pyarrow.int32(), pyarrow.string(), pyarrow.float64(), pyarrow.string(), pyarrow.int8(), pyarrow.int64(),
             pyarrow.string()]  # fmt: skip
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    columns[4], columns[5] = (tuple(map(int, column)) for column in columns[4:6])
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    parquet.write_table(pyarrow.table(arrays, names=list(COLUMNS)), path, row_group_size=7)
    return Place(kind="parquet", file=path)


def write_sqlite(folder: Path, rows: Sequence[Row]) -> Place:
    database = sqlite3.connect(folder / "hospital.db")
    database.execute(
        "CREATE TABLE patients "
        "(age INTEGER, sex TEXT, chol REAL, smoker TEXT, diabetes INTEGER, num INTEGER, id TEXT)"
    )
    database.executemany("INSERT INTO patients VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    database.commit()
    database.close()
    return place_of_query(folder, f"SELECT {', '.join(COLUMNS)} FROM patients;\n")


def place_of_query(folder: Path, query: str, url: str = "") -> Place:
    (folder / "query.sql").write_text(query)
    (folder / "database.url").write_text(url or f"sqlite:///{folder / 'hospital.db'}\n")
    (folder / "database.url").chmod(0o600)
    return Place(kind="sql", file=folder / "query.sql", database=folder / "database.url")


def concept(uri: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": uri, "code": code}]}


def resources(row: Row) -> list[dict[str, Any]]:
    """A patient as the resources of a bulk export."""
    age, sex, chol, smoker, diabetes, label, patient = row
    about = {"subject": {"reference": f"Patient/{patient}"}}
    observed = {"resourceType": "Observation", "status": "final", "effectiveDateTime": "2024-03-01", **about}
    found: list[dict[str, Any]] = [
        {"resourceType": "Patient", "id": patient, "gender": GENDERS[sex], "birthDate": f"{2024 - age}-06-30"},
        {**observed, "id": f"c{patient}", "code": concept("http://loinc.org", "2093-3"),
         "valueQuantity": {"value": chol, "system": "http://unitsofmeasure.org", "code": "mg/dL"}},
        {**observed, "id": f"s{patient}", "code": concept("http://loinc.org", "72166-2"),
         "valueCodeableConcept": {"text": smoker}},
    ]  # fmt: skip
    if diabetes:
        found.append(
            {"resourceType": "Condition", "code": concept("http://hl7.org/fhir/sid/icd-10", "E11.9"), **about}
        )
    if label:
        found.append(
            {"resourceType": "Condition", "code": concept("http://snomed.info/sct", "53741008"), **about}
        )
    return found


def write_fhir(folder: Path, rows: Sequence[Row], *lines: bytes) -> Place:
    """Write an export, and further lines of any kind between the others."""
    folder.mkdir(exist_ok=True)
    files: dict[str, list[bytes]] = {"Patient": [], "Observation": [], "Condition": []}
    for resource in (r for row in rows for r in resources(row)):
        files[resource["resourceType"]].append(json.dumps(resource).encode())
    files["Observation"][len(rows) : len(rows)] = lines
    for name, found in files.items():
        (folder / f"{name}.ndjson").write_bytes(b"".join(line + b"\n" for line in found))
    mapping = folder / "mapping.toml"
    mapping.write_text(f'reference_date = "{AT}"\n[columns.sex]\nvalues = {{ female = "0", male = "1" }}\n')
    return Place(kind="fhir", file=folder, mapping=mapping)
