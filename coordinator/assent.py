"""Whose signatures an amendment or agreement needs, and whether it can still succeed: pure, by the rules alone.

What the rules would say with every possible signature decides whether a proposal is worth keeping; what they say of
the signatures that are there, whether it goes on the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.errors import ProposalError
from ledger import rules
from ledger.envelope import Entry
from ledger.errors import RuleError
from ledger.record import Record
from ledger.records import Agreement, Amendment
from ledger.state import NEVER, State

KINDS = (Amendment, Agreement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assent:
    """How a proposal stands."""

    signers: Mapping[str, str]  # every key whose signature counts -> the member, or newcomer, whose it is
    signed: tuple[str, ...]  # who has signed, sorted
    needed: int  # signatures in all, at least
    ready: bool  # may go on the log now
    hopeless: str  # why it never can, in one line, or ""


def signers(state: State, record: Record) -> dict[str, str]:
    """Return whose signatures count: key -> name.

    Raises:
        ProposalError: this kind of record is not decided by several.
    """
    if isinstance(record, Agreement):
        parties = [m for name in record.parties if (m := state.member(name)) is not None]
        return {member.key: member.name for member in parties}
    if not isinstance(record, Amendment):
        raise ProposalError(f"a {record.TYPE} record is not proposed: send it as a record")
    voters = {
        m.member.key: m.member.name for m in state.members.values() if m.until == NEVER and m.member.witness
    }
    fresh = {m.key: m.name for m in record.add} | {c.key: c.member for c in record.rotate if c.key}
    return {key: name for key, name in voters.items() if key not in record.revoke} | fresh


def weigh(state: State, record: Record, given: Mapping[str, bytes]) -> Assent:
    """Return how a record stands with the signatures given, which were checked. Raises ProposalError."""
    able = signers(state, record)
    counted = {key: value for key, value in given.items() if key in able}
    everybody = dict.fromkeys(able, bytes(64))
    hopeless = _refusal(state, record, everybody) if everybody else "nobody who is a member could sign it"
    return Assent(
        signers=able,
        signed=tuple(sorted({able[key] for key in counted})),
        needed=_needed(state, record, able),
        ready=bool(counted) and not hopeless and not _refusal(state, record, counted),
        hopeless=hopeless,
    )


def _refusal(state: State, record: Record, signatures: Mapping[str, bytes]) -> str:
    try:
        rules.apply(state, Entry(record, record.to_bytes(), signatures, b""))
    except RuleError as error:
        return str(error)
    return ""


def _needed(state: State, record: Record, able: Mapping[str, str]) -> int:
    if isinstance(record, Agreement):
        return len(record.parties)
    assert isinstance(record, Amendment)
    fresh = len(record.add) + sum(bool(c.key) for c in record.rotate)
    return state.witness_sets[-1].quorum + fresh
