"""The data dictionary: one spelling, strict parsing, public scaling."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import dictionary
from client.dictionary import Dictionary
from client.errors import DictionaryError
from client.features import CLIP, Fault, encoder, label_encoder, number, row_encoder

AGE = {"name": "age", "kind": "numeric", "lower": "0", "upper": "120", "source": "made up"}
SEX = {"name": "sex", "kind": "binary", "levels": ["0", "1"]}
PAIN = {"name": "cp", "kind": "categorical", "levels": ["1", "2", "3"]}
LABEL = {"name": "num", "negative": ["0"], "positive": ["1", "2"], "meaning": "disease"}


def text(**changes: Any) -> bytes:
    value = {
        "type": dictionary.TYPE,
        "name": "test",
        "variables": [AGE, SEX, PAIN],
        "label": LABEL,
        **changes,
    }
    return json.dumps({k: v for k, v in value.items() if v is not None}).encode()


def variable(**changes: Any) -> Dictionary:
    return dictionary.parse(text(variables=[{**AGE, **changes}]))


@pytest.mark.parametrize("name", dictionary.SHIPPED)
def test_shipped_dictionaries_have_one_canonical_form(name: str) -> None:
    shipped = dictionary.shipped(name)
    again = dictionary.from_bytes(shipped.to_bytes())
    assert again == shipped
    assert len(shipped.digest) == 64
    assert all(v.source for v in shipped.variables)


def test_shipped_dictionaries_have_the_published_features() -> None:
    assert len(dictionary.shipped("breast-cancer").feature_names) == 30
    heart = dictionary.shipped("heart-disease")
    assert len(heart.feature_names) == 13
    scales = {v.name: v.scale for v in heart.variables if v.kind == "numeric"}
    assert scales == {  # PRIVACY.md, "What decides utility"
        "age": (55, 10),
        "trestbps": (130, 20),
        "chol": (200, 50),
        "thalach": (140, 25),
        "oldpeak": (1, 1),
    }


def test_an_author_may_leave_out_defaults_and_the_digest_is_the_same() -> None:
    short = dictionary.parse(text())
    spelled = dictionary.parse(text(patient="", split="", source=""))
    assert short == spelled
    assert short.digest == spelled.digest
    with pytest.raises(DictionaryError, match="canonical"):
        dictionary.from_bytes(text())


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "type"),
        (b"[" * 100_000, "not JSON"),
        (text(type="other/1"), "type"),
        (text(name=None), "lacks the field 'name'"),
        (text(extra="1"), "unknown field 'extra'"),
        (text(variables=[]), "1 to 4096 variables"),
        (text(variables=[1]), "JSON object"),
        (text(variables="age"), "array"),
        (text(variables=[AGE, AGE]), "differ"),
        (text(variables=[{**AGE, "name": "num"}]), "differ"),
        (text(patient="age"), "differ"),
        (text(variables=[{**AGE, "name": " age"}]), "column's name"),
        (text(variables=[{**AGE, "kind": "date"}]), "kind must be"),
        (text(variables=[{**AGE, "upper": ""}]), "upper must be a decimal"),
        (text(variables=[{**AGE, "upper": "1e9"}]), "upper must be a decimal"),
        (text(variables=[{**AGE, "upper": 120}]), "upper"),
        (text(variables=[{**AGE, "upper": "120.0"}]), "upper must be a decimal"),
        (text(variables=[{**AGE, "upper": "0"}]), "lower must be below upper"),
        (text(variables=[{**AGE, "centre": "55"}]), "together"),
        (text(variables=[{**AGE, "centre": "55", "spread": "0"}]), "above 0"),
        (text(variables=[{**AGE, "centre": "55", "spread": "-1"}]), "above 0"),
        (text(variables=[{**AGE, "source": ""}]), "say in source"),
        (text(variables=[{**AGE, "levels": ["1", "2"]}]), "no levels"),
        (text(variables=[{**SEX, "levels": ["0", "1", "2"]}]), "exactly two"),
        (text(variables=[{**SEX, "levels": ["1", "1"]}]), "differ"),
        (text(variables=[{**SEX, "lower": "0"}]), "only a numeric variable"),
        (text(variables=[{**PAIN, "levels": ["1"]}]), "2 to 256 levels"),
        (text(label={**LABEL, "positive": []}), "at least one"),
        (text(label={**LABEL, "positive": ["0"]}), "differ"),
        (b" " * (dictionary.MAX_SIZE + 1), "are allowed"),
    ],
)
def test_a_broken_dictionary_is_refused_in_one_line(broken: bytes, says: str) -> None:
    with pytest.raises(DictionaryError, match=says) as caught:
        dictionary.parse(broken)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(DictionaryError):
        dictionary.parse(data)


def test_an_unknown_shipped_name_is_refused() -> None:
    with pytest.raises(DictionaryError, match="breast-cancer, heart-disease"):
        dictionary.shipped("../dictionary")


def test_without_a_spread_the_range_gives_centre_and_spread() -> None:
    assert variable().variables[0].scale == (60, 15)  # middle of 0..120, an eighth of it
    assert variable(centre="50", spread="10").variables[0].scale == (50, 10)


@pytest.mark.parametrize(
    ("cell", "feature"),
    [("60", 0.0), ("75", 1.0), (" 45 ", -1.0), ("6e1", 0.0), ("+60.", 0.0), ("1e30", 3.0), ("-1e30", -3.0)],
)
def test_numeric_cells_are_clipped_then_scaled(cell: str, feature: float) -> None:
    assert encoder(variable().variables[0])(cell) == (feature,)


def test_a_range_narrower_than_three_spreads_clips_first() -> None:
    step = encoder(variable(lower="40", upper="70", centre="50", spread="10").variables[0])
    assert step("100") == (2.0,)
    assert step("0") == (-1.0,)


@pytest.mark.parametrize("cell", ["", "?", "NA", "nan", " NaN ", "null"])
def test_missing_cells_are_missing(cell: str) -> None:
    assert encoder(variable().variables[0])(cell) is Fault.MISSING


@pytest.mark.parametrize(
    "cell", ["inf", "-Infinity", "1_000", "1,5", "0x10", "1e999", "twelve", "١٢", "1 2", "9" * 10_000, "--1"]
)
def test_what_is_no_plain_decimal_is_no_number(cell: str) -> None:
    assert encoder(variable().variables[0])(cell) is Fault.NOT_A_NUMBER


def test_levels_match_as_text_or_as_numbers() -> None:
    sex, pain = (encoder(v) for v in dictionary.parse(text(variables=[SEX, PAIN])).variables)
    assert sex("0") == sex("0.0") == sex(" 00 ") == (-1.0,)
    assert sex("1") == (1.0,)
    assert sex("2") is sex("x") is Fault.NOT_ALLOWED
    assert sex("?") is Fault.MISSING
    assert [pain(c) for c in "123"] == [(-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0)]


def test_a_level_may_be_a_word_that_otherwise_means_missing() -> None:
    step = encoder(dictionary.parse(text(variables=[{**SEX, "levels": ["none", "some"]}])).variables[0])
    assert step("none") == (-1.0,)
    assert step("") is Fault.MISSING


def test_labels_outside_the_rule_are_faults() -> None:
    classify = label_encoder(dictionary.parse(text()).label)
    assert [classify(c) for c in ("0", "1", "2.0")] == [0, 1, 1]
    assert classify("3") is classify("-1") is Fault.NOT_ALLOWED
    assert classify("?") is Fault.MISSING


@given(st.text(max_size=40))
def test_any_text_gives_bounded_features_or_a_fault(cell: str) -> None:
    encode = row_encoder(dictionary.parse(text()))
    row = encode([cell, "0", "1"])
    if isinstance(row, tuple):
        assert row[0] == "age"
    else:
        assert all(math.isfinite(x) and abs(x) <= CLIP for x in row)
        assert isinstance(number(cell), float)
