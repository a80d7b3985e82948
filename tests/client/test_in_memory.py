"""Rows in memory go the way of a file's: the same patients, the same features, the same sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import dictionary as dictionaries
from client.cell_text import text_of
from client.data import Snapshot, snapshot, take
from client.dictionary import Dictionary
from client.errors import DataError
from client.mapping import Mapping
from client.notebook.in_memory import from_arrays, from_frame
from client.source import MappedTable
from client.source_csv import CsvFile
from client.synthetic import rows, write_synthetic
from client.table import Table

SECRET = bytes(range(32))


def a_dictionary(**changes: Any) -> Dictionary:
    value: dict[str, Any] = {
        "type": dictionaries.TYPE,
        "name": "test",
        "variables": [
            {"name": "age", "kind": "numeric", "lower": "0", "upper": "120", "source": "made up"},
            {"name": "sex", "kind": "binary", "levels": ["0", "1"]},
        ],
        "label": {"name": "ill", "negative": ["0"], "positive": ["1"]},
        **changes,
    }
    return dictionaries.parse(json.dumps(value).encode())


DICTIONARY = a_dictionary(patient="id")


def equal(one: Snapshot, other: Snapshot) -> bool:
    return one.patients == other.patients and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("features", "labels", "held_out")
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.none(), st.floats(allow_nan=True), st.integers(-(10**20), 10**20), st.text(max_size=3)
            ),
            st.sampled_from(["0", "1", "01", "maybe", None, 1.0, True]),
            st.sampled_from([0, 1, 1.0, None, "?"]),
            st.integers(1, 5),
        ),
        max_size=6,
    )
)
def test_a_frame_and_its_csv_file_give_the_same_patients(table: list[tuple[object, ...]]) -> None:
    frame = pd.DataFrame(table, columns=["age", "sex", "ill", "id"], dtype=object)
    texts = ["age,sex,ill,id"]
    for line in table:
        cells = ["" if v is None or v != v else text_of(v) for v in line]
        texts.append(",".join(f'"{c}"' if c.isprintable() and '"' not in c else "\x00" for c in cells))
    found, _ = take(from_frame(frame, DICTIONARY), DICTIONARY, SECRET)
    assert len(found.labels) <= len(table)
    assert np.isfinite(found.features).all()
    file = CsvFile(table=Table.parse("\n".join(texts).encode(), DICTIONARY.columns, "x"))
    source = MappedTable(table=file, mapping=Mapping.plain(DICTIONARY), inputs=2)
    expected, _ = take(source, DICTIONARY, SECRET)
    assert np.array_equal(found.features, expected.features)
    assert found.patients == expected.patients


def test_a_frame_without_ids_puts_patients_on_the_sides_that_its_csv_file_would(tmp_path: Path) -> None:
    dictionary = a_dictionary()
    write_synthetic(tmp_path / "rows.csv", dictionary, 60, 1)
    expected = snapshot(tmp_path / "rows.csv", dictionary, secret=SECRET, one_row_per_patient=True)
    frame = pd.read_csv(tmp_path / "rows.csv", dtype=str)
    assert equal(take(from_frame(frame, dictionary), dictionary, SECRET)[0], expected)
    assert 0 < expected.held_out.sum() < 60


def test_numbers_of_any_type_mean_what_their_text_means() -> None:
    cells = np.array([[50.0, 1.0], [130.0, 0.0], [np.nan, 1.0], [60.5, 2.0]])
    found, dropped = take(from_arrays(cells, np.array([1, 0, 1, 1]), DICTIONARY), DICTIONARY, SECRET)
    assert sorted(found.features.tolist()) == [[pytest.approx(-10 / 15), 1.0], [3.0, -1.0]]
    assert sorted(found.labels.tolist()) == [0, 1]
    assert dropped == {("age", "missing"): 1, ("sex", "not a value the dictionary allows"): 1}


def test_rows_of_arrays_are_different_patients_even_where_they_are_equal() -> None:
    cells, labels = np.full((40, 2), 1.0), np.zeros(40)
    found, _ = take(from_arrays(cells, labels, DICTIONARY), DICTIONARY, SECRET)
    assert len(set(found.patients)) == 40


def test_images_in_memory_give_the_snapshot_of_their_file(tmp_path: Path) -> None:
    image = {
        "name": "scan", "kind": "image", "lower": "0", "upper": "1", "shape": [1, 6, 6], "source": "made up",
    }  # fmt: skip
    dictionary = a_dictionary(variables=[image])
    place = write_synthetic(tmp_path / "scans.npz", dictionary, 12, 1)
    expected = snapshot(place, dictionary, secret=SECRET, one_row_per_patient=True)
    with np.load(tmp_path / "scans.npz") as file:
        source = from_arrays(file["scan"], file["ill"], dictionary)
    assert equal(take(source, dictionary, SECRET)[0], expected)


def test_what_does_not_fit_the_dictionary_is_a_sentence() -> None:
    frame = pd.DataFrame(rows(DICTIONARY, 3, 1), columns=list(DICTIONARY.columns))
    with pytest.raises(DataError, match="column 'sex' is missing: the data dictionary 'test' needs age, sex"):
        from_frame(frame.drop(columns="sex"), DICTIONARY)
    with pytest.raises(DataError, match="column 'sex' is there twice"):
        from_frame(pd.concat([frame, frame[["sex"]]], axis=1), DICTIONARY)
    with pytest.raises(DataError, match=r"arrays of shapes \(3, 3\) and \(3,\) do not fit.*\(patients, 2\)"):
        from_arrays(np.zeros((3, 3)), np.zeros(3), DICTIONARY)
    with pytest.raises(DataError, match="split of its own in column 'side': give a DataFrame"):
        from_arrays(np.zeros((3, 2)), np.zeros(3), a_dictionary(split="side"))


def test_no_cell_of_a_patient_is_printed() -> None:
    frame = pd.DataFrame([["77", "1", "1", "secret-name"]], columns=["age", "sex", "ill", "id"])
    assert "secret-name" not in repr(from_frame(frame, DICTIONARY))
    assert "77" not in repr(from_frame(frame, DICTIONARY))
    assert "77" not in repr(from_arrays(np.array([[77.0, 1.0]]), np.array([1]), DICTIONARY))
