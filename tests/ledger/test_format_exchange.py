"""FORMAT.md says what passes beside the log: invitations, deposits, statements, signed requests."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest

from ledger import envelope, example, joining, signed_request, statements
from ledger.joining import Deposit, Invitation, NodeChange
from ledger.signed_request import Target
from ledger.statements import STATEMENTS
from tests.ledger.test_format import FORMAT, hint_of, rows, section

OWN = ("Address", "OneTime", "MaybePem")  # types of the section "Joining"


def type_of(name: str) -> Any:
    return getattr(joining, name) if name in OWN else hint_of(name)


@pytest.mark.parametrize("cls", [Invitation, Deposit, NodeChange, *STATEMENTS], ids=lambda c: c.__name__)
def test_every_field_is_listed_with_its_type(cls: Any) -> None:
    is_statement = cls in STATEMENTS
    text = section(f"### `{cls.TYPE}`" if is_statement else f"### {cls.__name__}")
    listed = {name.strip("`"): type_of(kind) for name, kind, _ in rows(text)}
    hints = get_type_hints(cls, include_extras=True)
    wanted = {f.name: hints[f.name] for f in fields(cls) if not (is_statement and f.name == "origin")}
    assert list(listed) == list(wanted)
    assert listed == wanted


def test_every_type_of_joining_has_its_pattern() -> None:
    table = section("## Joining").partition("### ")[0]
    assert [name for name, _, _ in rows(table)] == list(OWN)
    for name, pattern, _ in rows(table):
        _, bound = get_args(type_of(name))
        assert pattern == f"`{bound.pattern}`".replace("\n", r"\n")


def test_the_example_of_an_invitation_and_of_a_deposit() -> None:
    said = dict(
        re.findall(r"^(\w+) +(\S.*)$", section("### How they are signed").partition("```text")[2], re.M)
    )
    invitation = Invitation.from_text(said["invitation"])
    assert invitation.to_text() == said["invitation"]
    assert (invitation.code, invitation.authority) == ("cd" * joining.CODE_SIZE, "ab" * 32)
    deposit = joining.open_deposit(said["deposit"].encode())
    key = example.KEYS["researcher"]
    assert deposit.invitation == joining.code_digest(invitation.code)
    assert joining.sign_deposit(deposit, key, None, b"").decode() == said["deposit"]


def test_the_example_of_a_signed_request() -> None:
    lines = re.findall(r"^(\w+) +(\S.*)$", section("## Signed requests").partition("```text")[2], re.M)
    said = dict(lines)
    path, _, query = said["target"].partition("?")
    target = Target(method=said["method"], path=path, query=query)
    signed = signed_request.verify(target, said["input"], said["signature"])
    assert signed.key == envelope.public_hex(example.KEYS["coordinator"])
    base = "\n".join(text for name, text in lines if name == "base")
    params = said["input"].removeprefix("wardround=")
    assert base.encode() == signed_request.signature_base(target.components, params)


def test_sizes_headers_and_payload_types() -> None:
    text = section("## Joining")
    for word in (joining.PREFIX, joining.CODE_HEADER, joining._TYPE.decode()):
        assert f"`{word}`" in text
    assert f"{joining.MAX_INVITATION:,} characters" in text
    assert f"{joining.MAX_DEPOSIT:,} bytes" in text
    assert f"`{statements.PAYLOAD_TYPE}`" in FORMAT
    assert f"{statements.MAX_SIZE:,} bytes" in FORMAT
