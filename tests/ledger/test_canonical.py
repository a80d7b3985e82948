"""Canonical JSON: the independent encoder's bytes, exact types, and one spelling for each value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from ledger import canonical
from ledger.canonical import MAX_INTEGER, Text, Within
from ledger.errors import MalformedError

quick = settings(max_examples=100, deadline=None)
integers = st.integers(-MAX_INTEGER, MAX_INTEGER)
texts = st.text(st.characters(exclude_categories=["Cs"]))
plain_values = st.recursive(
    integers | texts,
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abcdefgh_", min_size=1), inner),
    max_leaves=8,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    word: Annotated[str, Text("[a-z]+", "a word")]

    def __post_init__(self) -> None:
        canonical.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    text: str
    number: int
    flag: bool
    small: Annotated[int, Within(1, 3)]
    inner: Inner
    words: tuple[Inner, ...]
    table: Map[str, Inner]


PLAIN: dict[str, Any] = {
    "text": "é", "number": -5, "flag": True, "small": 3, "inner": {"word": "a"},
    "words": [{"word": "b"}, {"word": "a"}], "table": {"x": {"word": "c"}},
}  # fmt: skip


@quick
@given(plain_values)
def test_the_independent_encoder_writes_the_same_bytes(value: Any) -> None:
    assert canonical.dumps(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [  # RFC 8785, sections 3.2.2.2 and 3.2.3, and the ends of the integer range of RFC 7493
        ({"b": 1, "a": 2, "B": 3, "_": 4}, b'{"B":3,"_":4,"a":2,"b":1}'),
        ('\u20ac$\u000f\nA\'B"\\\\"/', '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'.encode()),
        ("\b\f\t\r\u007f\u2028", '"\\b\\f\\t\\r\x7f\u2028"'.encode()),
        ([MAX_INTEGER, -MAX_INTEGER, 0], b"[9007199254740991,-9007199254740991,0]"),
        ({}, b"{}"),
    ],
)
def test_vectors(value: Any, expected: bytes) -> None:
    assert canonical.dumps(value) == expected == rfc8785.dumps(value)
    assert canonical.loads(expected, 100) == value


def test_build_and_plain_are_inverse() -> None:
    made = canonical.build(Outer, PLAIN)
    assert made.words == (Inner(word="b"), Inner(word="a"))
    assert made.table["x"] == Inner(word="c")
    assert canonical.plain(made) == PLAIN
    assert canonical.build(Outer, canonical.plain(made)) == made


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", 5), ("text", None), ("text", ["a"]), ("text", b"a"),
        ("number", True), ("number", 1.0), ("number", "1"), ("number", MAX_INTEGER + 1), ("number", -MAX_INTEGER - 1),
        ("flag", 1), ("flag", 0), ("flag", "true"),
        ("small", 0), ("small", 4), ("small", True), ("small", 10**400),
        ("inner", "a"), ("inner", {"word": "A"}), ("inner", {"word": "a\n"}), ("inner", {"word": ""}), ("inner", []),
        ("words", {"word": "a"}), ("words", [["word"]]), ("words", "ab"), ("words", [1]),
        ("table", []), ("table", {"x": 1}), ("table", {"x": {"word": "a", "more": 1}}),
    ],
)  # fmt: skip
def test_another_type_or_a_value_out_of_bounds_is_refused(field: str, value: Any) -> None:
    with pytest.raises(MalformedError) as caught:
        canonical.build(Outer, {**PLAIN, field: value})
    assert "\n" not in str(caught.value)


def test_missing_and_unknown_fields_are_named() -> None:
    with pytest.raises(MalformedError, match="outer lacks the field 'flag'"):
        canonical.build(Outer, {k: v for k, v in PLAIN.items() if k != "flag"})
    with pytest.raises(MalformedError, match="outer has an unknown field 'more'"):
        canonical.build(Outer, {**PLAIN, "more": 1})
    with pytest.raises(MalformedError, match="unknown field") as caught:
        canonical.build(Outer, {**PLAIN, "x" * 10_000: 1})
    assert len(str(caught.value)) < 100


def test_an_instance_is_checked_exactly() -> None:
    with pytest.raises(MalformedError, match=r"inner\.word must be a word"):
        Inner(word=5)  # type: ignore[arg-type]
    wrongs: list[dict[str, Any]] = [
        {"number": True},
        {"flag": 1},
        {"words": [Inner(word="a")]},
        {"table": {}},
        {"inner": Other()},
    ]
    for wrong in wrongs:
        with pytest.raises(MalformedError):
            canonical.check(Outer(**{**_fields(), **wrong}))
    canonical.check(Outer(**_fields()))


class Other(Inner):
    """Not exactly an Inner."""

    def __init__(self) -> None:
        object.__setattr__(self, "word", "a")


def _fields() -> dict[str, Any]:
    made = canonical.build(Outer, PLAIN)
    return {name: getattr(made, name) for name in PLAIN}


NOT_JSON = [
    b"1.0", b"1e2", b"-0.0", b"NaN", b"Infinity", b"-Infinity", b'{"a":1.5}', b"", b" ", b"{", b"nul", b"'a'",
    b"[1,]", b"\xff", b'"\xed\xa0\x80"', b"\xef\xbb\xbf1", b"1 2", b'"\n"', b"[" * 100_000, b'{"a":' * 100_000,
    b"9" * 5_000,
]  # fmt: skip


@pytest.mark.parametrize("data", NOT_JSON, ids=range(len(NOT_JSON)))
def test_not_our_json(data: bytes) -> None:
    with pytest.raises(MalformedError):
        canonical.loads(data, 1 << 20)


@pytest.mark.parametrize(
    "data", [b'{"a":1,"a":1}', b"-0", b" 1", b'"\\u0041"', b'{"b":1,"a":1}', b'"\\/"', b"[1, 2]"]
)
def test_a_second_spelling_does_not_encode_to_itself(data: bytes) -> None:
    assert canonical.dumps(canonical.loads(data, 100)) != data


def test_lone_surrogates_have_no_encoding() -> None:
    with pytest.raises(MalformedError):
        canonical.dumps(canonical.loads(b'"\\ud800"', 100))


def test_size_is_looked_at_first() -> None:
    assert canonical.loads(b"1234", 4) == 1234
    with pytest.raises(MalformedError, match="5 bytes where at most 4"):
        canonical.loads(b"12345", 4)


@quick
@given(st.binary() | plain_values.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_are_json_or_malformed(data: bytes) -> None:
    try:
        value = canonical.loads(data, 10_000)
        canonical.build(Outer, value)
    except MalformedError:
        return
    raise AssertionError("an Outer was made of arbitrary bytes")


@quick
@given(st.data())
def test_any_json_in_any_field_is_built_or_malformed(data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(PLAIN)))
    try:
        made = canonical.build(Outer, {**PLAIN, field: data.draw(plain_values | st.booleans() | st.none())})
    except MalformedError:
        return
    assert canonical.build(Outer, canonical.plain(made)) == made
