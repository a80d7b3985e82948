"""The same patients in any format are one snapshot, byte for byte.

With a patient column always, as long as each has one row; without one, where the cells are spelled the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import snapshot_file
from client.data import check_file, snapshot
from client.dictionary import Dictionary
from client.errors import DataError
from client.source import Place, needed
from tests.client import images, tables

ROWS = st.tuples(
    st.integers(0, 120),
    st.sampled_from(["0", "1"]),
    st.floats(50, 700),
    st.sampled_from(["never", "former", "current"]),
    st.booleans(),
    st.booleans(),
)


def taken(place: Place, salt: bytes = b"job", described: Dictionary = tables.DICTIONARY) -> bytes:
    return snapshot_file.to_bytes(
        snapshot(place, described, secret=tables.SECRET, salt=salt, one_row_per_patient=True)
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=20), st.randoms())
def test_the_same_patients_in_each_format_are_one_snapshot(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[tuple[int, str, float, str, bool, bool]],
    random: object,
) -> None:
    folder = tmp_path_factory.mktemp("formats")
    rows = [(*value, f"P{i}") for i, value in enumerate(values)]
    places = [
        tables.write_csv(folder / "a.csv", rows),
        tables.write_csv(folder / "b.csv", rows[::-1]),
        tables.write_parquet(folder / "a.parquet", rows),
        tables.write_sqlite(folder, rows),
        tables.write_fhir(folder / "export", rows),
    ]
    first, *others = [taken(place) for place in places]
    assert all(other == first for other in others)
    reports = [check_file(place, tables.DICTIONARY, secret=tables.SECRET) for place in places]
    assert {(r.rows, r.kept, r.patients, r.held_out, r.positive) for r in reports} == {
        (len(rows), len(rows), len(rows), reports[0].held_out, sum(row[5] for row in rows))
    }


@settings(max_examples=25, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=20))
def test_the_same_table_in_each_format_is_one_snapshot_without_patients_too(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[int, str, float, str, bool, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("formats")
    rows = [(*value, f"P{i // 2}") for i, value in enumerate(values)]
    places = [
        tables.write_csv(folder / "a.csv", rows),
        tables.write_parquet(folder / "a.parquet", rows),
        tables.write_sqlite(folder, rows),
    ]
    nobody = replace(tables.DICTIONARY, patient="")
    for described in (tables.DICTIONARY, nobody):  # with it, two rows a patient: the same one is picked
        assert len({taken(place, described=described) for place in places}) == 1


def test_a_patient_spelled_otherwise_is_the_same_patient(tmp_path: Path) -> None:
    header = ",".join(tables.COLUMNS)
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    one.write_text(f"{header},note\n60,1,200,never,0,1,A,x\n61,1,200,never,0,1,B,y\n")
    other.write_text(f"{header}\n61.0,01,2e2,never,0,1.0,B\n60.0,1,200.00,never,0,1,A\n")
    for salt in map(bytes, ([i] for i in range(8))):
        assert taken(Place.csv(one), salt) == taken(Place.csv(other), salt)


def test_a_place_survives_the_way_to_the_worker(tmp_path: Path) -> None:
    for place in (
        Place.csv(tmp_path / "a.csv"),
        Place(kind="sql", file=tmp_path / "q", mapping=tmp_path / "m", database=tmp_path / "u"),
    ):
        assert Place.from_json({"secret": "elsewhere", **place.to_json()}) == place


def test_what_a_confined_reader_needs_is_named(tmp_path: Path) -> None:
    place = tables.write_sqlite(tmp_path, [])
    mapping = tmp_path / "mapping.toml"
    mapping.write_text('[columns.sex]\nconcept_map = "sex.json"\n[columns.chol]\nunit = "mg/dL"\n')
    assert place.database is not None
    expected = {place.file, place.database, mapping, tmp_path / "sex.json", tmp_path / "hospital.db"}
    assert expected <= set(needed(replace(place, mapping=mapping)))
    for broken in ("[", "columns = 3", "[columns]\nsex = 1"):
        mapping.write_text(broken)
        assert mapping in needed(replace(place, mapping=mapping))
    for url in ("postgresql://u:p@h/db", "nonsense", "sqlite://"):
        place.database.write_text(url)
        assert needed(place) == (place.file, place.database)
    assert needed(Place.csv(tmp_path / "a.csv")) == (tmp_path / "a.csv",)


def test_images_and_tables_are_not_mistaken_for_each_other(tmp_path: Path) -> None:
    place = tables.write_csv(tmp_path / "a.csv", [])
    with pytest.raises(DataError, match="describes a table: set it to csv, parquet, sql or fhir"):
        check_file(replace(place, kind="npz"), tables.DICTIONARY, secret=tables.SECRET)
    with pytest.raises(DataError, match="describes images: set it to images or npz"):
        check_file(place, images.DICTIONARY, secret=tables.SECRET, one_row_per_patient=True)
