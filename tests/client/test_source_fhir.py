"""A FHIR bulk export: whatever stands in a line changes its own patient's row only, in whatever order lines come."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.data import check_file, snapshot
from client.dictionary import Dictionary
from client.errors import DataError
from client.fhir_resources import completed_years, first_day, instant
from client.source import Place, read_mapping
from client.source_fhir import BulkExport
from tests.client import tables

ROWS: list[tables.Row] = [
    (40 + i, str(i % 2), 180.0 + i, "never", bool(i % 2), bool(i % 3), f"P{i}") for i in range(6)
]
CHOL = {
    "code": tables.concept("http://loinc.org", "2093-3"),
    "resourceType": "Observation",
    "status": "final",
}


def cells(place: Place, described: Dictionary = tables.DICTIONARY) -> dict[str, tuple[str, ...]]:
    """Each patient's cells in the dictionary's words, by id."""
    mapping = read_mapping(place, described)
    rows = BulkExport.open(place.file, described, mapping).lines()
    return {row.cells[-1]: tuple(mapping.apply(row.cells)) for row in rows if row is not None}


def observation(value: object, about: str = "Patient/P0", **further: Any) -> bytes:
    quantity = {"value": value, "code": "mg/dL", "system": "http://unitsofmeasure.org"}
    return json.dumps(
        {**CHOL, "subject": {"reference": about}, "valueQuantity": quantity, **further}
    ).encode()


def condition(code: str = "E11.9", **further: Any) -> bytes:
    concept = tables.concept("http://hl7.org/fhir/sid/icd-10", code)
    whole = {"resourceType": "Condition", "subject": {"reference": "Patient/P0"}, "code": concept, **further}
    return json.dumps(whole).encode()


def patient(**further: Any) -> bytes:
    return json.dumps({"resourceType": "Patient", "id": "P0", **further}).encode()


def chol_of(folder: Path, *lines: bytes) -> str:
    return cells(tables.write_fhir(folder, ROWS, *lines))["P0"][2]


NEVER = [  # lines that say nothing about P0's cholesterol
    b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"{}", b'{"resourceType": 1}', b"\x00",
    b'{"resourceType": "Observation", "status": "final", "subject": "P0", "code": 3}',
    b'{"resourceType":"Observation","status":"final","note":"' + b"x" * (1 << 20) + b'"}',
    observation(1e400, effectiveDateTime="2030"), observation("NaN"), observation(None), observation([1]),
    observation({}),
    observation(int("9" * 4000)), observation(True),
    observation(300, "Group/P0"), observation(300, "#P0"), observation(300, "Patient/"),
    observation(300, "Patient/P0/x"),
    observation(300, "Practitioner/P0"), observation(300, " Patient/P0"), observation(300, "Patient/\ud800"),
    observation(300, status="preliminary", effectiveDateTime="2030"), observation(300, status="entered-in-error"),
    observation(300, status=None), observation(300, code=tables.concept("http://loinc.org", "2085-9")),
    observation(300, code=tables.concept("http://example.org", "2093-3")), observation(300, code=[]),
    observation(300, valueQuantity={"value": 300, "comparator": "<", "code": "mg/dL"}, effectiveDateTime="2030"),
    observation(300, valueQuantity={"value": 300, "code": "furlong"}, effectiveDateTime="2030"),
    observation(300, valueQuantity={"value": 300}, effectiveDateTime="2030"),
    observation(300, contained=[{"resourceType": "Patient", "id": "P0"}], subject={"reference": "#P0"}),
    observation(300, effectiveDateTime="2023-12-31"), observation(300),
    observation(300, effectiveDateTime="yesterday"),
    patient(id="\ud800"), patient(id="../P0"), patient(id=5), condition("E10"), condition(verificationStatus=3),
]  # fmt: skip


@pytest.mark.parametrize("line", NEVER, ids=range(len(NEVER)))
def test_a_hostile_line_changes_no_value_of_any_patient(tmp_path: Path, line: bytes) -> None:
    place = tables.write_fhir(tmp_path, ROWS)
    before = cells(place)
    tables.write_fhir(tmp_path, ROWS, line)
    after = cells(place)
    assert {name: after[name] for name in before if name != "P0"} == {
        n: before[n] for n in before if n != "P0"
    }
    assert after["P0"][2] == before["P0"][2] == "180"
    assert check_file(place, tables.DICTIONARY, secret=tables.SECRET).kept == 6


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(max_size=80).filter(lambda b: b"\n" not in b), max_size=20))
def test_lines_of_any_bytes_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "export"
    before = cells(tables.write_fhir(folder, ROWS))
    assert cells(tables.write_fhir(folder, ROWS, *lines)) == before


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["final", "E11", "2093-3", "Patient/P0"]),
    lambda v: (
        st.lists(v, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["coding", "code", "system", "value", "reference", "text", "component", "valueQuantity"]
            ),
            v,
            max_size=3,
        )
    ),
    max_leaves=8,
)


FIELDS = (
    "id", "subject", "code", "status", "component", "valueQuantity", "valueCodeableConcept", "effectiveDateTime",
    "birthDate", "gender", "effectivePeriod", "meta", "clinicalStatus",
)  # fmt: skip
RESOURCES = st.builds(
    lambda kind, value: {**value, "resourceType": kind},
    st.sampled_from(["Patient", "Observation", "Condition"]),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(RESOURCES, max_size=20))
def test_resources_of_any_shape_raise_nothing(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, object]]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "export"
    found = cells(tables.write_fhir(folder, ROWS, *(json.dumps(value).encode() for value in values)))
    assert len(found) >= 6


def test_the_latest_observation_counts_whichever_comes_first(tmp_path: Path) -> None:
    newer = observation(300, id="a", effectiveDateTime="2024-03-02T00:30:00+01:00")  # still March 1st in UTC
    older = observation(250, id="b", effectiveDateTime="2024-02")
    newest = observation(320, id="c", effectivePeriod={"end": "2024-03-02"})
    assert (
        chol_of(tmp_path, newer)
        == chol_of(tmp_path, older, newer)
        == chol_of(tmp_path, newer, older)
        == "300"
    )
    assert chol_of(tmp_path, newest, newer) == "320"
    tie = [observation(v, id=i, effectiveDateTime="2025") for v, i in ((1, "a"), (3, "b"), (2, "b"))]
    assert chol_of(tmp_path, *tie) == chol_of(tmp_path, *tie[::-1]) == "3"


@pytest.mark.parametrize(
    "about",
    ["Patient/P0", "P0", "https://ehr.example/fhir/r4/Patient/P0", "Patient/P0/_history/2", "urn:uuid:P0"],
)
def test_every_spelling_of_a_reference_is_the_patient(tmp_path: Path, about: str) -> None:
    assert chol_of(tmp_path, observation(301.50, about, effectiveDateTime="2025")) == "301.5"


def test_units_are_converted_and_those_that_cannot_be_are_counted(tmp_path: Path) -> None:
    molar = {"value": 5.2, "code": "mmol/L", "system": "http://unitsofmeasure.org"}
    line = observation(0, valueQuantity=molar, effectiveDateTime="2025")
    place = tables.write_fhir(tmp_path, ROWS, line, line)
    assert cells(place)["P0"][2] == "180"
    report = check_file(place, tables.DICTIONARY, secret=tables.SECRET)
    assert any(
        note.startswith("chol: 2 values are in 'mmol/L', which cannot be converted") for note in report.notes
    )
    assert place.mapping is not None
    place.mapping.write_text(place.mapping.read_text() + '[columns.chol]\nsubstance = "cholesterol"\n')
    assert cells(place)["P0"][2] == "201.084"
    place.mapping.write_text(place.mapping.read_text() + 'unit = "mmol/L"\n')
    assert float(cells(place)["P0"][2]) == pytest.approx(201.084)
    assert float(cells(place)["P1"][2]) == pytest.approx(181)


def test_a_component_is_an_observation_of_its_own(tmp_path: Path) -> None:
    panel = observation(
        0, code=tables.concept("http://loinc.org", "24331-1"), effectiveDateTime="2025",
        component=["x", {"code": CHOL["code"], "valueQuantity": {"value": 222, "unit": "mg/dL"}}],
    )  # fmt: skip
    assert chol_of(tmp_path, panel) == "222"


@pytest.mark.parametrize(
    ("further", "present"),
    [
        ({}, "1"),
        (
            {
                "clinicalStatus": tables.concept("s", "active"),
                "verificationStatus": tables.concept("s", "confirmed"),
            },
            "1",
        ),
        ({"clinicalStatus": tables.concept("s", "resolved")}, "0"),
        ({"verificationStatus": tables.concept("s", "refuted")}, "0"),
        ({"verificationStatus": tables.concept("s", "entered-in-error")}, "0"),
        ({"subject": {"reference": "Patient/nobody"}}, "0"),
    ],
)
def test_a_condition_counts_where_it_is_confirmed_and_still_there(
    tmp_path: Path, further: dict[str, Any], present: str
) -> None:
    assert cells(tables.write_fhir(tmp_path, ROWS, condition(**further)))["P0"][4] == present


def test_several_resources_of_one_patient_are_one_row(tmp_path: Path) -> None:
    old = patient(gender="male", birthDate="1900", meta={"lastUpdated": "2020-01-01T00:00:00Z"})
    new = patient(gender="female", birthDate="1980-01-01", meta={"lastUpdated": "2024-01-01T00:00:00.5Z"})
    found = [
        cells(tables.write_fhir(tmp_path, ROWS, *lines))["P0"]
        for lines in ([old, new], [new, old], [old, new, old])
    ]
    assert [row[:2] for row in found] == [("44", "0")] * 3


def test_the_order_of_lines_and_files_leaves_no_trace(tmp_path: Path) -> None:
    place = tables.write_fhir(tmp_path, ROWS, *(n for n in NEVER if len(n) < 1000))
    before = cells(place)
    lines = [line for path in place.file.glob("*.ndjson") for line in path.read_bytes().splitlines()]
    random.Random(1).shuffle(lines)
    for path in place.file.glob("*.ndjson"):
        path.unlink()
    (place.file / "all.ndjson").write_bytes(b"\r\n\n".join(lines))
    assert cells(place) == before


@pytest.mark.parametrize(
    ("text", "years"),
    [("1980-06-15", "44"), ("1980-12-31", "44"), ("1981-01-01", "43"), ("1980", "44"), ("1980-02", "44"),
     ("2024-12-31", "0"),
     ("2025-01-01", ""), ("1980-02-30", ""), ("1980-6-15", ""), ("0000", ""), ("", ""), (None, ""), (1980, "")],
)  # fmt: skip
def test_ages_are_counted_at_a_day_that_the_hospital_names(text: object, years: str) -> None:
    at = first_day(tables.AT)
    assert at is not None
    assert completed_years(text, at) == years


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-03-01T12:00:00+02:00", "2024-03-01T10:00:00.000000+00:00"),
        ("2024-03-01T12:00:00Z", "2024-03-01T12:00:00.000000+00:00"),
        ("2024-03", "2024-03-01T00:00:00.000000+00:00"),
        ("0001-01-01T00:00:00+14:00", ""),
        ("9999-12-31T23:59:59-14:00", ""),
        ("noon", ""),
        ("2024-03-01T25:00:00Z", ""),
    ],
)
def test_moments_sort_by_time(text: str, utc: str) -> None:
    assert instant(text) == utc


def test_an_export_that_cannot_be_flattened_is_one_line(tmp_path: Path) -> None:
    place = tables.write_fhir(tmp_path / "export", ROWS)
    with pytest.raises(DataError, match=r'write reference_date = "2024-12-31"'):
        check_file(replace(place, mapping=None), tables.DICTIONARY, secret=tables.SECRET)
    with pytest.raises(DataError, match=r"cannot read .*absent"):
        check_file(replace(place, file=tmp_path / "absent"), tables.DICTIONARY, secret=tables.SECRET)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \*\.ndjson file is there"):
        check_file(replace(place, file=tmp_path / "empty"), tables.DICTIONARY, secret=tables.SECRET)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("Encounter.length", "has no place in FHIR resources"),
        ("Observation LOINC 2093-4", "check digit is wrong"),
        ("Condition ICD-10 E11", "must be binary, or the label"),
    ],
)
def test_a_column_without_a_place_is_named(tmp_path: Path, source: str, says: str) -> None:
    place = tables.write_fhir(tmp_path, ROWS)
    (tmp_path / "mapping.toml").write_text(
        f'reference_date = "{tables.AT}"\n[columns.chol]\nfrom = "{source}"\n'
    )
    with pytest.raises(DataError, match=says) as caught:
        check_file(place, tables.DICTIONARY, secret=tables.SECRET)
    assert "column 'chol'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_codes_of_one_condition(tmp_path: Path) -> None:
    place = tables.write_fhir(tmp_path, ROWS, condition("E10.1"))
    assert place.mapping is not None
    source = '[columns.diabetes]\nfrom = "Condition ICD-10 E10, ICD-10 E11"\nvalues = { false = "0", true = "1" }\n'
    place.mapping.write_text(place.mapping.read_text() + source)
    assert cells(place)["P0"][4] == "1"


def test_a_broken_line_is_counted(tmp_path: Path) -> None:
    place = tables.write_fhir(tmp_path, ROWS, b"{", b"[]")
    report = check_file(place, tables.DICTIONARY, secret=tables.SECRET)
    assert report.dropped == (("line", "not a FHIR resource in one line of JSON", 2),)
    assert len(snapshot(place, tables.DICTIONARY, secret=tables.SECRET).labels) == 6
