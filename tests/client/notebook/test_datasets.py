"""Data to try a job with: a sketch that warns of what it would publish, a table dealt to hospitals, the example."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas import DataFrame

from client import data
from client.dictionary import Dictionary
from client.errors import DataError, DictionaryError
from client.notebook import datasets
from client.notebook.datasets import SketchWarning, partition, rounded_out, sketch
from client.source import Place

FRAME = DataFrame(
    {
        "id": [f"p{i}" for i in range(40)],
        "age": [31 + i for i in range(40)],
        "sodium": [133.2 + i / 10 for i in range(40)],
        "smoker": ["no", "yes"] * 20,
        "ward": ["a", "b", "c", "d"] * 10,
        "died": [0, 0, 1, 0] * 10,
    }
)


def sketched(frame: DataFrame = FRAME, **changes: object) -> Dictionary:
    with pytest.warns(SketchWarning, match="a dictionary is published, and would tell on them"):
        return sketch(frame, **{"label": "died", "patient": "id", **changes})  # type: ignore[arg-type]


def refused(frame: DataFrame = FRAME, **changes: object) -> str:
    with pytest.raises(DataError) as caught:
        sketch(frame, **{"label": "died", "patient": "id", **changes})  # type: ignore[arg-type]
    return str(caught.value)


def test_a_sketch_describes_the_columns_and_marks_each(tmp_path: Path) -> None:
    found = sketched()
    kinds = {v.name: (v.kind, v.lower, v.upper, v.levels, v.unit) for v in found.variables}
    assert kinds == {
        "age": ("numeric", "30", "70", (), ""),
        "sodium": ("numeric", "133", "138", (), ""),
        "smoker": ("binary", "", "", ("no", "yes"), ""),
        "ward": ("categorical", "", "", ("a", "b", "c", "d"), ""),
    }
    assert (found.label.negative, found.label.positive) == (("0",), ("1",))
    assert found.unreviewed == found.inputs
    FRAME.to_csv(tmp_path / "patients.csv", index=False)
    data.check_file(Place.csv(tmp_path / "patients.csv"), found, secret=bytes(32))


def test_ranges_are_reviewed_one_by_one_or_all_together() -> None:
    found = datasets.with_range(sketched(), "age", 18, 110, source="plausible ages")
    assert found.unreviewed == ("sodium", "smoker", "ward")
    assert found.reviewed(source="the ward's handbook").unreviewed == ()
    assert found.reviewed(source="the ward's handbook").variables[0].source == "plausible ages"
    with pytest.raises(DictionaryError, match="say in source where the ranges come from"):
        found.reviewed(source=" ")
    with pytest.raises(DataError, match="has no numeric variable 'smoker'"):
        datasets.with_range(found, "smoker", 0, 1, source="x")


def test_labels_as_texts_are_understood() -> None:
    found = sketched(FRAME.assign(died=["alive", "dead"] * 20), positive="dead")
    assert (found.label.negative, found.label.positive) == (("alive",), ("dead",))


def test_newcomers_mistakes_are_one_sentence() -> None:
    assert "no column 'dyed': did you mean 'died'?" in refused(label="dyed")
    assert "has 5 rows" in refused(FRAME.head(5))
    assert "label 'age' has 40 different values: make a column of two" in refused(label="age")
    assert "positive must be one of 0, 1" in refused(positive="yes")
    assert "has the same value in each row" in refused(FRAME.assign(same=1))
    assert "more than 20 different texts" in refused(patient="")


@given(low=st.floats(-1e6, 1e6), width=st.floats(0, 1e6))
def test_a_rounded_range_holds_the_rows(low: float, width: float) -> None:
    found = rounded_out(low, low + width)
    assert found[0] <= low
    assert low + width <= found[1]
    assert found[0] < found[1]


@settings(max_examples=30)
@given(hospitals=st.integers(1, 12), seed=st.integers(0, 99), skew=st.floats(0.05, 9), how=st.booleans())
def test_each_row_goes_to_exactly_one_hospital(hospitals: int, seed: int, skew: float, how: bool) -> None:
    label = "died" if how else None
    dealt = partition(FRAME, hospitals=hospitals, label=label, skew=skew, seed=seed)
    assert len(dealt) == hospitals
    assert min(map(len, dealt.values())) >= 1
    assert sorted(pd.concat(dealt.values())["id"]) == sorted(FRAME["id"])
    again = partition(FRAME, hospitals=hospitals, label=label, skew=skew, seed=seed)
    assert all(dealt[name].equals(again[name]) for name in dealt)


def test_hospitals_of_a_column_and_of_patients() -> None:
    assert {name: len(rows) for name, rows in partition(FRAME, by="ward").items()} == dict.fromkeys(
        "abcd", 10
    )
    twice = pd.concat([FRAME, FRAME])
    dealt = partition(twice, hospitals=["x", "y"], patient="id")
    assert not set(dealt["x"]["id"]) & set(dealt["y"]["id"])
    with pytest.raises(DataError, match="40 rows for 41 hospitals"):
        partition(FRAME, hospitals=41)
    with pytest.raises(DataError, match="no column 'wards': did you mean 'ward'"):
        partition(FRAME, by="wards")
    with pytest.raises(DataError, match="two values that both become 'a'"):
        partition(FRAME.assign(ward=["a", "A"] * 20), by="ward")


def test_the_example_is_the_demonstrations_four_hospitals() -> None:
    found = datasets.example()
    assert {name: len(rows) for name, rows in found.items()} == {
        "hillcrest": 59, "lakeside": 150, "northgate": 240, "riverside": 120,
    }  # fmt: skip
    assert list(found["lakeside"].columns) == [
        "patient", *Dictionary.shipped("breast-cancer").inputs, "diagnosis",
    ]  # fmt: skip
    with pytest.raises(DataError, match="no example 'mnist'"):
        datasets.example("mnist")
