"""A hospital's words for the dictionary's: units by exact numbers, codes where a line names them, nothing guessed."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import concept_map, dictionary, mapping_file, units
from client.data import check_file, snapshot
from client.errors import DataError
from client.mapping import UNMAPPED, Mapping
from client.source import Place
from tests.client.tables import SECRET

DICTIONARY = dictionary.parse(
    json.dumps(
        {
            "type": dictionary.TYPE,
            "name": "mapped",
            "variables": [
                {
                    "name": "chol",
                    "kind": "numeric",
                    "unit": "mg/dL",
                    "lower": "0",
                    "upper": "600",
                    "source": "made up",
                },
                {"name": "sex", "kind": "binary", "levels": ["0", "1"]},
                {"name": "diag", "kind": "categorical", "levels": ["other", "diabetes", "circulatory"]},
            ],
            "label": {"name": "num", "negative": ["0"], "positive": ["1"]},
            "patient": "id",
        }
    ).encode()
)
FIELDS = ["resourceType", "group", "element", "target", "code", "equivalence"]
FILE = """
[columns.chol]
from = "CHOL_SI"
unit = "mmol/L"
substance = "cholesterol"
missing = ["-9"]
[columns.sex]
from = "Geschlecht"
values = { w = "0", m = "1" }
default = "0"
[columns.diag]
values = { "250" = "diabetes", None = "other" }
prefixes = { E1 = "diabetes", E15 = "other" }
spans = [{ at_least = "390", below = "460", level = "circulatory" }]
"""


def read(folder: Path, text: str) -> Mapping:
    (folder / "mapping.toml").write_text(text)
    return mapping_file.read(folder / "mapping.toml", DICTIONARY)


def cell(mapping: Mapping, column: str, text: str) -> str:
    return mapping.rule(column).apply(text, mapping.tally)


@pytest.mark.parametrize(  # conversions of the literature, rounded as printed there
    ("unit", "other", "substance", "given", "expected"),
    [
        ("mg/dL", "mmol/L", "glucose", "126", "6.99"),
        ("mmol/L", "mg/dL", "cholesterol", "5.2", "201.1"),
        ("mg/dL", "umol/L", "creatinine", "1.2", "106.1"),
        ("mg/dL", "mmol/L", "triglycerides", "150", "1.694"),
        ("[degF]", "Cel", "", "98.6", "37.0"),
        ("K", "Cel", "", "310.15", "37.00"),
        ("Cel", "[degF]", "", "40", "104"),
        ("[lb_av]", "kg", "", "150", "68.039"),
        ("[in_i]", "cm", "", "70", "177.8"),
        ("kPa", "mm[Hg]", "", "16", "120.0"),
        ("g/dL", "g/L", "", "13.5", "135"),
        ("{beats}/min", "/min", "", "72", "72"),
        ("mo", "a", "", "30", "2.5"),
        ("10*3/uL", "10*9/L", "", "7.1", "7.1"),
    ],
)
def test_known_conversions(unit: str, other: str, substance: str, given: str, expected: str) -> None:
    linear = units.between(unit, other, substance)
    assert linear is not None
    wanted = Decimal(expected)
    assert Decimal(linear.apply(given)).quantize(wanted) == wanted


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=6))
def test_there_and_back_is_the_same_number(value: Decimal) -> None:
    for unit, other, substance in (("[degF]", "Cel", ""), ("mg/dL", "mmol/L", "glucose"), ("a", "wk", "")):
        there, back = units.between(unit, other, substance), units.between(other, unit, substance)
        assert there is not None
        assert back is not None
        assert there.factor * back.factor == 1
        again = Decimal(back.apply(there.apply(str(value))))
        assert abs(again - value) <= abs(value) * Decimal("1e-30") + Decimal("1e-30")


def test_a_conversion_is_exact_up_to_34_digits() -> None:
    linear = units.Linear(factor=Fraction(1, 3), offset=Fraction(1, 7))
    assert linear.apply("1") == "0.4761904761904761904761904761904762"
    assert linear.apply("1e308").startswith("3.333")
    assert units.Linear(factor=Fraction(1, 1), offset=Fraction(0)).apply("1.50") == "1.5"


@pytest.mark.parametrize(
    ("unit", "other", "substance"),
    [("mg/dL", "mmol/L", ""), ("kg", "m", ""), ("furlong", "m", ""), ("1", "a", "")],
)
def test_what_cannot_be_converted_is_not_guessed(unit: str, other: str, substance: str) -> None:
    assert units.between(unit, other, substance) is None


def test_cells_in_the_dictionarys_words(tmp_path: Path) -> None:
    mapping = read(tmp_path, FILE)
    assert mapping.columns == ("CHOL_SI", "Geschlecht", "diag", "num", "id")
    assert float(cell(mapping, "chol", "5.2")) == pytest.approx(201.084)
    assert [cell(mapping, "chol", t) for t in ("-9", "", "low")] == ["", "", "low"]
    assert [cell(mapping, "sex", t) for t in ("w", "m", "", "?", "W", "1")] == [
        "0",
        "1",
        "0",
        "0",
        UNMAPPED,
        UNMAPPED,
    ]
    found = [
        cell(mapping, "diag", t)
        for t in ("250", "250.0", "250.5", "E11.9", "E15", "390", "459.99", "460", "None", "NA")
    ]
    assert found == [
        *(
            "diabetes",
            "diabetes",
            UNMAPPED,
            "diabetes",
            "other",
            "circulatory",
            "circulatory",
            UNMAPPED,
            "other",
            "",
        ),
    ]


def test_the_check_names_what_no_line_lists_and_lines_that_nothing_used(tmp_path: Path) -> None:
    (tmp_path / "mapping.toml").write_text(FILE)
    data = tmp_path / "a.csv"
    data.write_text(
        "CHOL_SI;Geschlecht;diag;num;id\n5;w;250;0;A\n5;m;250;1;B\n5;x;250;1;C\n5;x;E11;1;D\n5;\x1b[2J;E11;1;E\n-9;m;E11;1;F\n"
    )
    place = Place(kind="csv", file=data, mapping=tmp_path / "mapping.toml")
    report = check_file(place, DICTIONARY, secret=SECRET)
    assert (report.rows, report.kept) == (6, 2)
    assert set(report.dropped) == {("sex", "not a value the dictionary allows", 3), ("chol", "missing", 1)}
    assert report.notes == (
        "sex: 2 cells hold 'x', which the mapping does not list",
        "sex: 1 cells hold '\\x1b[2J', which the mapping does not list",  # nothing that moves a terminal
        "diag: the mapping's line 'None' was never used",
        "diag: the mapping's line 'E15...' was never used",
        "diag: the mapping's line '390 to below 460' was never used",
    )
    assert set(report.notes) < set(report.lines())
    assert "hold" not in repr(report)  # only where a person asks for them
    assert len(snapshot(place, DICTIONARY, secret=SECRET).labels) == 2


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30))
def test_no_cell_raises(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    mapping = read(tmp_path_factory.getbasetemp(), FILE)
    assert all(isinstance(c, str) for c in mapping.apply([text.strip()] * 5))


def test_a_flood_of_different_values_is_tallied_in_bounds(tmp_path: Path) -> None:
    mapping = read(tmp_path, FILE)
    for i in range(10_500):
        cell(mapping, "sex", f"value {i}")
    assert len(mapping.tally.unmapped) == 10_001
    assert any("further values are not listed" in note for note in mapping.notes())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[columns", "not TOML text"),
        ("other = 1", "unknown field 'other'"),
        ("[columns.weight]", "no column 'weight'"),
        ("columns = 3", "columns must be a table"),
        ("[columns.sex]\nform = 'x'", "unknown field 'form'"),
        ("[columns.sex]\nvalues = { m = '2' }", "'2' is not a value of the dictionary: 0, 1"),
        ("[columns.sex]\nunit = 'kg'", "only a numeric variable"),
        ("[columns.chol]\nunit = 'mmol/L'", "name the substance"),
        ("[columns.chol]\nunit = 'mmol/L'\nsubstance = 'gold'", "substance must be one of"),
        ("[columns.chol]\nfactor = 0", "factor must not be 0"),
        ("[columns.chol]\nfactor = 'much'", "must be a number"),
        ("[columns.chol]\nfactor = '1e400'", "must be a number"),
        ("[columns.chol]\nfactor = '1e300'", "30 digits"),
        ("[columns.chol]\nfactor = 2\nvalues = { a = '1' }", "not both"),
        ("[columns.diag]\nspans = [{ at_least = 5, below = 5, level = 'other' }]", "less than"),
        ("[columns.diag]\nspans = [{ at_least = 5 }]", "a span has"),
        ("[columns.diag]\notherwise = 'other'", "needs values"),
        ("[columns.sex]\nconcept_map = 'absent.json'", "cannot read .*absent.json"),
        ("[columns.sex]\nmissing = 3", "must be a list"),
        ("[columns.sex]\nmissing = [true]", "must be text"),
    ],
)
def test_a_mapping_that_is_not_as_written_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def fhir_map(*entries: tuple[str, str, str], **further: Any) -> bytes:
    elements = [
        {"code": code, "target": [{"code": to, "equivalence": equivalence, **further}]}
        for code, to, equivalence in entries
    ]
    return json.dumps(
        {"resourceType": "ConceptMap", "group": [{"source": "s", "target": "t", "element": elements}]}
    ).encode()


def test_a_concept_map_counts_where_codes_are_equal_and_names_the_rest(tmp_path: Path) -> None:
    entries = (("f", "0", "equivalent"), ("m", "1", "equal"), ("x", "1", "wider"))
    (tmp_path / "sex.json").write_bytes(fhir_map(*entries))
    mapping = read(tmp_path, "[columns.sex]\nconcept_map = 'sex.json'\nvalues = { k = '1' }")
    assert [cell(mapping, "sex", t) for t in ("f", "m", "k", "x")] == ["0", "1", "1", UNMAPPED]
    assert any("'x' is not used: its target is 'wider'" in note for note in mapping.notes())


def test_a_target_that_depends_on_something_else_is_not_used() -> None:
    data = fhir_map(("a", "0", "equal"), ("b", "1", "equal"), dependsOn=[{"property": "age"}])
    with pytest.raises(DataError, match="maps nothing"):
        concept_map.read(data, "map.json")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a FHIR ConceptMap"),
        (b'{"resourceType": "Patient"}', "not a FHIR ConceptMap"),
        (b'{"resourceType": "ConceptMap", "group": [1, {"element": "x"}]}', "maps nothing"),
        (fhir_map(("a", "0", "equal"), ("a", "1", "equivalent")), "two targets"),
    ],
)
def test_a_concept_map_of_any_bytes_is_one_line(data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        concept_map.read(data, "map.json")
    assert "\n" not in str(caught.value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
)


@given(ANYTHING)
def test_a_concept_map_of_any_shape_is_refused(value: object) -> None:  # equal targets are never drawn
    with pytest.raises(DataError):
        concept_map.read(json.dumps({"resourceType": "ConceptMap", "group": value}).encode(), "map.json")
