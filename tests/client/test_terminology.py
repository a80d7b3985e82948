"""Codes of terminologies: published examples have the right check digit, and no misprint of one digit has."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import dictionary
from client.errors import DictionaryError
from client.terminology import Coding, luhn, verhoeff
from ledger.errors import MalformedError

PUBLISHED = [
    *("LOINC 8480-6", "LOINC 8462-4", "LOINC 2093-3", "LOINC 30525-0", "LOINC 85354-9", "LOINC 718-7"),
    *(
        "SNOMED 271649006",
        "SNOMED 22298006",
        "SNOMED 73211009",
        "SNOMED 263495000",
        "SNOMED 900000000000207008",
    ),
    *(
        "ICD-10 I10",
        "ICD-10 E11.9",
        "ICD-10-CM E11.9",
        "ICD-10-CM S72.001A",
        "ICD-10-CM C7A.00",
        "ICD-10-GM E11.90",
    ),
    *("ICD-9-CM 250.83", "ICD-9-CM V58.6", "ICD-9-CM E849.0"),
]


@pytest.mark.parametrize("text", PUBLISHED)
def test_published_codes_are_accepted(text: str) -> None:
    coding = Coding.parse(text)
    assert f"{coding.system} {coding.code}" == text
    assert coding.uri.startswith("http://")


def test_verhoeff_of_the_published_example() -> None:  # SNOMED CT and Wikipedia: 236 gives 3
    assert [d for d in range(10) if verhoeff(f"236{d}")] == [3]
    assert [d for d in range(10) if luhn(f"7992739871{d}")] == [3]  # ISO/IEC 7812-1's usual example


@given(st.sampled_from([c for c in PUBLISHED if c[0] in "LS"]), st.data())
def test_no_misprint_of_one_digit_is_accepted(text: str, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from([i for i, c in enumerate(text) if c.isdigit()]))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != text[place]]))
    with pytest.raises(MalformedError):
        Coding.parse(text[:place] + digit + text[place + 1 :])


@given(st.integers(10**5, 10**17), st.data())
def test_no_two_neighbours_change_places_unseen(number: int, data: st.DataObject) -> None:
    whole = next(f"{number}{d}" for d in range(10) if verhoeff(f"{number}{d}"))
    i = data.draw(st.integers(0, len(whole) - 2))
    turned = whole[:i] + whole[i + 1] + whole[i] + whole[i + 2 :]
    assert turned == whole or not verhoeff(turned)


@pytest.mark.parametrize(
    "text",
    ["", "8480-6", "loinc 8480-6", "LOINC  8480-6", "LOINC 8480-7", "LOINC 8480", "LOINC ٨480-6", "SNOMED 271649007",
     "SNOMED 0", "ICD-10 E1", "ICD-10 e11", "ICD-10 E11.901", "ICD-10-CM E11.", "ICD-9-CM 25", "LOCAL 1",
     "LOINC 8480-6 "],
)  # fmt: skip
def test_what_is_no_code_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(MalformedError) as caught:
        Coding.parse(text)
    assert "\n" not in str(caught.value)


def test_a_diagnosis_covers_what_is_below_it_and_a_measurement_only_itself() -> None:
    assert Coding.parse("ICD-10 E11").covers("E11.9")
    assert Coding.parse("ICD-10 E11.9").covers("E119")
    assert not Coding.parse("ICD-10 E11.9").covers("E11")
    assert not Coding.parse("SNOMED 73211009").covers("732110091")


def test_a_dictionary_names_the_variable_whose_code_is_wrong() -> None:
    value = {
        "type": dictionary.TYPE, "name": "x", "label": {"name": "y", "negative": ["0"], "positive": ["1"]},
        "variables": [{"name": "bp", "kind": "numeric", "lower": "0", "upper": "1", "source": "x",
                       "code": "LOINC 1-1"}],
    }  # fmt: skip
    with pytest.raises(
        DictionaryError, match=r"variable 'bp': '1-1' is no code of LOINC: its check digit is wrong"
    ):
        dictionary.parse(json.dumps(value).encode())
    value["variables"] = [{"name": "s", "kind": "binary", "levels": ["0", "1"]}]
    value["label"] = {"name": "y", "negative": ["0"], "positive": ["1"], "code": "ICD 10"}
    with pytest.raises(DictionaryError, match="label 'y': a code is written as"):
        dictionary.parse(json.dumps(value).encode())
