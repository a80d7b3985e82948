"""Statements: checked-in bytes, one spelling, every flipped bit refused, never confusable with a record."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import canonical, envelope, example, statements, values
from ledger.encoding import encode_base64
from ledger.errors import MalformedError, VerificationError
from ledger.records import Tick
from ledger.statements import Acknowledgement, Objection, Promise
from tests.ledger.test_format import rows, section

VECTORS: list[dict[str, str]] = json.loads(Path("tests/vectors/statements.json").read_text())
COORDINATOR = example.KEYS["coordinator"]
KEY = envelope.public_hex(COORDINATOR)
PROMISE = Promise(origin=example.ORIGIN, record="a" * 64, size=12, time=1790003600)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: json.loads(v["payload"])["type"])
def test_bytes_of_the_first_release(vector: dict[str, str]) -> None:
    statement = statements.open_signed(vector["signed"].encode(), KEY)
    assert statement.to_bytes() == vector["payload"].encode()
    assert statement.digest() == vector["digest"]
    assert statements.sign(statement, COORDINATOR) == vector["signed"].encode()


def test_a_vector_for_every_kind() -> None:
    found = {type(statements.parse(v["payload"].encode())) for v in VECTORS}
    assert found == set(statements.STATEMENTS)


@pytest.mark.parametrize("cls", statements.STATEMENTS, ids=lambda c: c.TYPE)
def test_every_field_is_in_the_written_format(cls: Any) -> None:
    listed = {name.strip("`"): getattr(values, kind) for name, kind, _ in rows(section(f"### `{cls.TYPE}`"))}
    hints = get_type_hints(cls, include_extras=True)
    assert listed == {f.name: hints[f.name] for f in fields(cls) if f.name != "origin"}


def test_statement_is_no_record_and_record_no_statement() -> None:
    tick = envelope.sign(Tick(origin=example.ORIGIN, time=example.FOUNDED), COORDINATOR)
    with pytest.raises(MalformedError):
        statements.open_signed(tick, KEY)
    with pytest.raises(MalformedError):
        envelope.open_entry(statements.sign(PROMISE, COORDINATOR))


def test_signature_moved_from_a_record_onto_a_statement() -> None:
    signed = json.loads(statements.sign(PROMISE, COORDINATOR))
    forged = COORDINATOR.sign_bytes(envelope.pae(PROMISE.to_bytes()))  # what a record's signature would be
    signed["signatures"][0]["sig"] = encode_base64(forged)
    with pytest.raises(VerificationError, match="signature"):
        statements.open_signed(canonical.dumps(signed), KEY)


def test_another_members_signature() -> None:
    with pytest.raises(VerificationError, match="not signed by the coordinator's key"):
        statements.open_signed(statements.sign(PROMISE, example.KEYS["alpha"]), KEY)


def test_two_signatures_are_one_too_many() -> None:
    signed = json.loads(statements.sign(PROMISE, COORDINATOR))
    other = json.loads(statements.sign(PROMISE, example.KEYS["alpha"]))
    signed["signatures"] = sorted(signed["signatures"] + other["signatures"], key=lambda s: s["keyid"])
    with pytest.raises(MalformedError):
        statements.open_signed(canonical.dumps(signed), KEY)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_flipped_bit_is_refused(data: st.DataObject) -> None:
    signed = bytearray(data.draw(st.sampled_from(VECTORS))["signed"].encode())
    signed[data.draw(st.integers(0, len(signed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((MalformedError, VerificationError)):
        statements.open_signed(bytes(signed), KEY)


@pytest.mark.parametrize(
    "change", [{"record": "A" * 64}, {"size": 0}, {"size": True}, {"time": -1}, {"origin": "x"}]
)
def test_wrong_values_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        replace(PROMISE, **change)


def test_other_spellings_are_refused() -> None:
    payload = PROMISE.to_bytes()
    for other in (
        payload.replace(b":", b": ", 1),
        payload.replace(b'"type":"promise"', b'"type":"vow"'),
        payload[:-1] + b',"more":1}',
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 5000,
    ):
        with pytest.raises(MalformedError):
            statements.parse(other)


def test_objections_name_rules_and_acknowledgements_may_lack_an_update() -> None:
    objection = Objection(origin=example.ORIGIN, record="a" * 64, rule="job.model", size=0, time=0)
    assert statements.parse(objection.to_bytes()) == objection
    with pytest.raises(MalformedError):
        replace(objection, rule="whatever it is")
    made = statements.parse(VECTORS[2]["payload"].encode())
    assert isinstance(made, Acknowledgement)
    assert statements.parse(replace(made, update="").to_bytes()) == replace(made, update="")
