"""FORMAT.md says what the code does: every field, type, pattern and code list, and the worked example."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from types import GenericAlias
from typing import Any, get_args, get_origin, get_type_hints

import pytest

import ledger
from ledger import envelope, example, rules_consortium, rules_rounds, values
from ledger.canonical import Text
from ledger.records import MAX_RECEIPT_SIZE, MAX_RECORD_SIZE, RECORDS, Tick

FORMAT = (Path(ledger.__file__).parent / "FORMAT.md").read_text("utf-8")
PARTS = [cls for cls in values.Part.__subclasses__() if cls.__module__ == values.__name__]
CLASSES: list[Any] = [*RECORDS, *PARTS]


def section(heading: str) -> str:
    """The text under one heading, up to the next of the same or a higher level."""
    level = heading.split(" ")[0]
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^#{{2,{len(level)}}} |\Z)", FORMAT, re.M | re.S)
    assert found is not None, heading
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[c.strip().replace(r"\|", "|") for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def hint_of(name: str) -> Any:
    """The annotation that a type of FORMAT.md stands for."""
    if name.startswith("list of "):
        return GenericAlias(tuple, (hint_of(name.removeprefix("list of ")), ...))
    return getattr(values, name)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_field_is_listed_with_its_type(cls: Any) -> None:
    is_record = cls in RECORDS
    heading = f"### `{cls.TYPE}`" if is_record else f"### {cls.__name__}"
    listed = {name.strip("`"): hint_of(kind) for name, kind, _ in rows(section(heading))}
    hints = get_type_hints(cls, include_extras=True)
    wanted = {f.name: hints[f.name] for f in fields(cls)}
    if is_record:
        wanted.pop("origin")
    assert list(listed) == list(wanted)
    assert listed == wanted


@pytest.mark.parametrize("cls", RECORDS, ids=lambda c: c.TYPE)
def test_every_set_is_named(cls: Any) -> None:
    found = re.search(r"^Sorted, nothing twice: (.+)\.$", section(f"### `{cls.TYPE}`"), re.M)
    assert tuple(re.findall(r"`(\w+)`", found[1]) if found else ()) == cls.SORTED
    assert "Signed by: " in section(f"### `{cls.TYPE}`")


def test_every_scalar_has_its_pattern() -> None:
    for name, pattern, _ in rows(section("## Canonical JSON")):
        base, bound = get_args(hint_of(name))
        assert get_origin(hint_of(name)) is not None
        if isinstance(bound, Text):
            assert (base, pattern) == (str, f"`{bound.pattern}`")
        else:
            assert (base, pattern) == (int, f"{bound.low} to 2^53 - 1")


def test_code_lists() -> None:
    text = section("## Code lists")
    bullets = re.findall(r"^- \*\*(.+?)\*\*.*?:\s+(`.+?`)\.", text, re.M | re.S)
    listed = [re.findall(r"`([a-z-]+)`", codes) for _, codes in bullets][:5]
    assert listed == [
        sorted(rules_rounds.SKIP_CODES),
        sorted(rules_rounds.ADMISSION_CODES),
        list(rules_rounds.KNOWN_CODES),
        sorted(rules_rounds.ABSENT_CODES),
        sorted(rules_rounds.ABORT_CODES),
    ]
    rights = {r.strip("`"): tuple(re.findall(r"`(\w+)`", items)) for r, items, _ in rows(text)}
    assert rights == {right: items for right, (items, _) in rules_consortium.RIGHTS.items()}
    assert all(f"`{role}`" in section("### Member") for role in values.ROLES)


def test_the_worked_example() -> None:
    said = dict(re.findall(r"^(\w+(?: hash)?) +(\S.*)$", section("### Example"), re.M))
    record = Tick(origin=example.ORIGIN, time=json.loads(said["record"])["time"])
    data = example.signed(record)
    assert said["record"].encode() == record.to_bytes()
    assert said["digest"] == record.digest()
    assert said["seed"] == example.KEYS["coordinator"].seed.hex()
    assert said["key"] == envelope.public_hex(example.KEYS["coordinator"])
    assert said["signed"].encode() == envelope.pae(record.to_bytes())
    assert said["signature"] == json.loads(data)["signatures"][0]["sig"]
    assert said["entry"].encode() == data
    assert said["leaf hash"] == sha256(b"\x00" + data).hexdigest()


def test_sizes_and_the_payload_type() -> None:
    text = section("## Entries")
    assert f"DSSEv1 {len(envelope.PAYLOAD_TYPE)} {envelope.PAYLOAD_TYPE} " in text
    assert f"at most {MAX_RECEIPT_SIZE:,} bytes, any other at most {MAX_RECORD_SIZE:,}" in text
    assert f"1 to {values.MAX_MEMBERS} members" in section("### Terms")
