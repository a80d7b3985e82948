"""Records: one encoding each, and no bytes that are almost one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import canonical, example, records
from ledger.errors import MalformedError
from ledger.record import Record
from ledger.records import RECORDS, inputs_digest, parse
from ledger.values import MAX_MEMBERS, LeftOut, Member, Setting, Software
from tests.ledger.arbitrary import any_record, instances
from tests.ledger.consortium import Consortium, digest

quick = settings(max_examples=40, deadline=None)


def one_of_each() -> list[Record]:
    """A valid record of every type."""
    c = Consortium.founded()
    c.offer("alpha", "bravo", "charlie")
    job = c.propose("alpha", "bravo", "charlie")
    made: list[Record] = [c.withdrawal("alpha", job), c.refusal("delta", job)]
    c.append(c.start(job))
    made += [
        c.skip("charlie", job),
        c.amendment(add=(c.member("fox"),)),
        c.succession(),
        c.tick(),
        c.access(job),
    ]
    made += [c.incident("alpha"), c.abort(job), c.ended(job)]
    c.finish(job)
    made += [c.release(job), *(e.record for e in c.entries)]
    return list({type(r): r for r in made}.values())


EACH = one_of_each()


def test_there_is_one_of_each_type() -> None:
    assert {type(r) for r in EACH} == set(RECORDS)
    assert len({cls.TYPE for cls in RECORDS}) == len(RECORDS)


@pytest.mark.parametrize("record", EACH, ids=lambda r: r.TYPE)
def test_round_trip(record: Record) -> None:
    data = record.to_bytes()
    assert parse(data) == record
    assert parse(data).to_bytes() == data
    assert record.digest() == hashlib.sha256(data).hexdigest()
    assert json.loads(data)["type"] == record.TYPE


@quick
@given(any_record())
def test_every_well_formed_record_comes_back(record: Record) -> None:
    assert parse(record.to_bytes()) == record


@quick
@given(st.binary() | st.binary().map(lambda b: b'{"type":"tick",' + b))
def test_any_bytes_are_a_record_or_malformed(data: bytes) -> None:
    try:
        record = parse(data)
    except MalformedError:
        return
    assert record.to_bytes() == data


@quick
@given(st.sampled_from(EACH), st.data())
def test_altered_bytes_are_another_record_or_malformed(record: Record, data: st.DataObject) -> None:
    good = record.to_bytes()
    at = data.draw(st.integers(0, len(good)))
    altered = good[:at] + data.draw(st.binary(max_size=3)) + good[at + data.draw(st.integers(0, 3)) :]
    try:
        other = parse(altered)
    except MalformedError:
        return
    assert other.to_bytes() == altered


def spellings(record: Record) -> list[bytes]:
    """Other JSON texts of the same value."""
    value = json.loads(record.to_bytes())
    reordered = dict(sorted(value.items(), reverse=True))
    compact = {"ensure_ascii": False, "separators": (",", ":")}
    text = record.to_bytes()
    return [
        json.dumps(value, sort_keys=True).encode(),
        json.dumps(reordered, **compact).encode(),  # type: ignore[arg-type]
        text + b"\n",
        b" " + text,
        b"\xef\xbb\xbf" + text,
        text.replace(b'"type"', b'"\\u0074ype"'),
        text[:-1] + b',"type":"' + record.TYPE.encode() + b'"}',
    ]


@pytest.mark.parametrize("record", EACH, ids=lambda r: r.TYPE)
def test_there_is_no_second_spelling(record: Record) -> None:
    for data in spellings(record):
        with pytest.raises(MalformedError):
            parse(data)


@pytest.mark.parametrize("record", EACH, ids=lambda r: r.TYPE)
def test_no_field_is_optional_and_none_is_added(record: Record) -> None:
    value = json.loads(record.to_bytes())
    for name in value:
        with pytest.raises(MalformedError):
            parse(canonical.dumps({k: v for k, v in value.items() if k != name}))
    with pytest.raises(MalformedError, match="unknown field 'zeal'"):
        parse(canonical.dumps({**value, "zeal": 1}))


@pytest.mark.parametrize("record", EACH, ids=lambda r: r.TYPE)
def test_no_field_takes_another_type(record: Record) -> None:
    value = json.loads(record.to_bytes())
    for name, given_ in value.items():
        wrongs: list[Any] = [None, True, 1.5, {}, "\n", [[]], str(given_) + "\n", [given_], -1, 2**53]
        for wrong in wrongs:
            data = json.dumps({**value, name: wrong}, sort_keys=True, separators=(",", ":")).encode()
            with pytest.raises(MalformedError):
                parse(data)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"1", b'"tick"', b"{}", b'{"type":1}', b'{"type":"tock"}', b'{"type":[]}']
)
def test_not_a_record(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(data)


def test_an_unknown_type_is_named_briefly() -> None:
    with pytest.raises(MalformedError, match="unknown record type 'tock'"):
        parse(b'{"type":"tock"}')
    with pytest.raises(MalformedError) as caught:
        parse(canonical.dumps({"type": "x" * 60_000}))
    assert len(str(caught.value)) < 100


def test_a_huge_file_is_refused_by_its_size() -> None:
    with pytest.raises(MalformedError, match="65536 bytes where at most 65535"):
        parse(bytes(65_536))


def sets() -> list[tuple[Record, str]]:
    return [(r, name) for r in EACH for name in r.SORTED if len(getattr(r, name)) > 1]


@pytest.mark.parametrize(("record", "name"), sets(), ids=lambda x: x if isinstance(x, str) else x.TYPE)
def test_a_set_has_one_spelling(record: Record, name: str) -> None:
    several: tuple[Any, ...] = getattr(record, name)
    wrong: Any
    for wrong in (tuple(reversed(several)), (several[0], *several)):
        with pytest.raises(MalformedError, match="must be sorted, each once"):
            replace(record, **{name: wrong})


def test_sets_inside_parts_have_one_spelling() -> None:
    terms, job = example.charter().terms, example.job()
    twice = (Setting(name="a", value="1"), Setting(name="a", value="2"))
    with pytest.raises(MalformedError, match="sorted"):
        replace(job.training, settings=twice)
    with pytest.raises(MalformedError, match="sorted"):
        replace(job.aggregation, settings=twice)
    for wrong in (tuple(reversed(terms.members)), terms.members[:1] * 2, ()):
        with pytest.raises(MalformedError, match="1 to 64 members"):
            replace(terms, members=wrong)


def test_numbers_are_sorted_as_numbers() -> None:
    assert replace(example.job(), rounds=20, evaluate=(2, 10)).evaluate == (2, 10)
    with pytest.raises(MalformedError):
        replace(example.job(), rounds=20, evaluate=(10, 2))


def test_a_charter_lists_at_most_64_members() -> None:
    members = tuple(replace(example.members()[0], name=f"m{i:02}") for i in range(MAX_MEMBERS + 1))
    replace(example.charter().terms, members=members[:-1])
    with pytest.raises(MalformedError):
        replace(example.charter().terms, members=members)


@pytest.mark.parametrize("text", ["0", "1", "10", "0.5", "123456789012345.123456789012345678", "0.01"])
def test_decimals(text: str) -> None:
    assert replace(example.TRAINING, noise_multiplier=text).noise_multiplier == text
    assert Setting(name="a", value=text).value == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        "01",
        "1.",
        ".5",
        "1.0",
        "0.10",
        "1e3",
        "+1",
        "-1",
        " 1",
        "1_0",
        "NaN",
        "inf",
        "١",
        "1\n",
        "-0",
    ],
)
def test_a_decimal_has_one_spelling(text: str) -> None:
    with pytest.raises(MalformedError):
        replace(example.TRAINING, noise_multiplier=text)
    if text != "-1":
        with pytest.raises(MalformedError):
            Setting(name="a", value=text)


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a" * 65, "a/b", "a b", "é", "a\n", "."])
def test_a_name_is_a_short_lowercase_word(name: str) -> None:
    with pytest.raises(MalformedError):
        LeftOut(hospital=name, code="late")
    with pytest.raises(MalformedError):
        Software(name=name, version="1", digest="")


def test_a_role_is_on_the_list() -> None:
    with pytest.raises(MalformedError, match="role must be one of auditor, coordinator"):
        replace(example.members()[0], role="surgeon")


@quick
@given(instances(Member))
def test_parts_check_themselves(member: Any) -> None:
    for wrong in ({"name": 5}, {"key": member.key[:-1]}, {"key": member.key[:-1] + "G"}, {"witness": "x"}):
        with pytest.raises(MalformedError):
            replace(member, **wrong)


def test_inputs_digest_is_of_the_written_object() -> None:
    before, update, histogram = digest("before"), digest("update"), digest("histogram")
    used = [("bravo", update, "", 128), ("alpha", update, histogram, 256)]
    written = (
        f'{{"model_before":"{before}","server_state_before":"","updates":['
        f'{{"hospital":"alpha","metrics":"{histogram}","update":"{update}","weight":256}},'
        f'{{"hospital":"bravo","metrics":"","update":"{update}","weight":128}}]}}'
    )
    assert inputs_digest(before, "", used) == hashlib.sha256(written.encode()).hexdigest()
    assert inputs_digest(before, "", reversed(used)) == inputs_digest(before, "", used)
    assert inputs_digest(before, update, used) != inputs_digest(before, "", used)


def test_records_compare_by_value_and_cannot_be_changed() -> None:
    record = records.Tick(origin=example.ORIGIN, time=1)
    assert record == records.Tick(origin=example.ORIGIN, time=1)
    with pytest.raises(AttributeError):
        record.time = 2  # type: ignore[misc]
