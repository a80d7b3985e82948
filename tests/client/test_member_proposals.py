"""What a person reads of a proposal before signing it: nothing in it hides, whoever wrote it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client import member_cli, proposals
from client.errors import ProposalError
from ledger import example
from ledger.record import Record
from ledger.records import Amendment
from ledger.values import Member

QUIET = Amendment(
    origin=example.ORIGIN, replaces=1, add=(), remove=("echo",), rotate=(), revoke=(), max_dishonest=1, quorum=3,
    log="", rules=1,
)  # fmt: skip
HASH_AND_KEY = "+0123abcd+" + base64.b64encode(bytes(33)).decode()


class Door:
    """A coordinator that lists one proposal."""

    def __init__(self, record: Record, **changes: object) -> None:
        self.posted: list[str] = []
        self._shown = {
            "digest": record.digest(), "record": base64.b64encode(record.to_bytes()).decode(), "by": "bravo", "at": 0,
            "expires_at": 1, "signed": [], "may_sign": ["alpha"], "needed": 3, "declined": [], "ended": "", **changes,
        }  # fmt: skip

    def get(self, path: str, limit: int = 0, seconds: float = 0) -> dict[str, Any]:
        return {"proposals": [self._shown]}

    def post(self, path: str, content: bytes) -> dict[str, Any]:
        self.posted.append(path)
        return self._shown


def words(record: Record, **changes: object) -> list[str]:
    (found,) = proposals.listing(Door(record, **changes))  # type: ignore[arg-type]
    return list(proposals.words(found))


def test_attack_key_whose_name_moves_the_cursor() -> None:
    """A log's verifier key may have any name that has no space: the rules look at it later, a person now."""
    lines = words(replace(QUIET, log=f"x\x1b[1A\x1b[2K{HASH_AND_KEY}"))
    assert any("the log gets a new key" in line for line in lines)
    assert all(line.isprintable() for line in lines)


def test_attack_words_of_the_coordinator_that_move_the_cursor() -> None:
    lines = words(QUIET, by="\x1b[2Jalpha", signed=["\u202eahpla"], declined=["\r"], ended="\x9b1A")
    assert all(line.isprintable() for line in lines)


def test_attack_new_member_that_would_decide_is_not_shown_as_one_that_reads() -> None:
    key = example.WITNESSES["alpha"].verifier.to_text()
    added = Member(name="zulu", role="hospital", key="ab" * 32, witness=key)
    assert any("witness" in line and key in line for line in words(replace(QUIET, add=(added,))))


def test_attack_another_proposal_begins_with_the_digits_that_are_signed_without_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = Door(QUIET)

    @contextmanager
    def member(directory: Path) -> Iterator[tuple[Any, Any]]:
        yield None, door

    monkeypatch.setattr(member_cli, "_member", member)
    with pytest.raises(ProposalError, match="16 digits"):
        member_cli.sign(tmp_path, QUIET.digest()[:8], yes=True)
    assert not door.posted
