"""Whether the coordinator kept its word to this hospital. Pure: what it signed and the log in, a finding out.

PROTOCOL.md, "A coordinator that will not append, and a log that dies". The files are `client.custody`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ledger import rules
from ledger.envelope import Entry
from ledger.errors import RuleError
from ledger.records import Abort, Receipt, Round
from ledger.rules_rounds import ABSENT_CODES
from ledger.state import State
from ledger.statements import Acknowledgement, Objection, Promise, Statement

SILENCE_SECONDS = 600.0  # of contact with a log that moves on without an answer

FINDINGS: dict[str, str] = {
    "promise-broken": "the log passed the size by which the coordinator had promised to have a record, without it",
    "objection-unfounded": "the coordinator refused a record by a rule that does not forbid it",
    "silent": "the log moved on for ten minutes without a record that this hospital handed in",
    "acknowledged-left-out": "a round leaves out a reply whose arrival the coordinator had acknowledged",
    "rule-broken": "the log's key signed a checkpoint over entries that the rules forbid",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Nothing is owed any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The coordinator did not keep its word: `code` is one of FINDINGS."""

    code: str


Verdict = Settled | Broken | None  # None: it is too early to say


def judge_record(
    entry: Entry, statement: Statement | None, state: State, waited: float, replay: Callable[[int], State]
) -> Verdict:
    """Decide about a record that was handed in.

    Args:
        entry: The record.
        statement: The coordinator's answer, its signature checked; None: there was none.
        state: Of the log as this hospital has accepted it.
        waited: Seconds of contact since the log grew beyond what it was when the record was handed in.
        replay: Returns the state after the log's first entries.
    """
    index = state.seen.get(entry.digest)
    if isinstance(statement, Promise) and state.size >= statement.size:
        kept = index is not None and index < statement.size
        return Settled() if kept else Broken(code="promise-broken")
    if index is not None:
        return Settled()
    if isinstance(statement, Objection) and state.size >= statement.size:
        founded = _forbids(replay(statement.size), entry, statement.rule)
        return Settled() if founded else Broken(code="objection-unfounded")
    return Broken(code="silent") if waited >= SILENCE_SECONDS else None


def judge_reply(
    acknowledgement: Acknowledgement, state: State, entries: Callable[[], Iterable[Entry]]
) -> Verdict:
    """Decide about a reply that was acknowledged.

    Args:
        acknowledgement: Its signature was checked.
        state: Of the log.
        entries: The log's entries since the reply was sent; asked for only once the round is closed.
    """
    found = state.jobs.get(acknowledgement.job)
    if found is None or found.next_round <= acknowledgement.round:
        return None if found is not None and found.status == "running" else Settled()
    for entry in entries():
        record = entry.record
        if isinstance(record, Receipt) and entry.digest == acknowledgement.receipt:
            return Settled()
        if isinstance(record, Round | Abort) and (record.job, record.round) == (
            acknowledgement.job,
            acknowledgement.round,
        ):
            codes = {item.hospital: item.code for item in record.left_out}
            contradicts = codes.get(acknowledgement.hospital) in ABSENT_CODES
            return Broken(code="acknowledged-left-out") if contradicts else Settled()
    return Settled()


def _forbids(state: State, entry: Entry, rule: str) -> bool:
    """Whether this rule forbids a record in this state. Inside a round's batch nobody is judged."""
    if not state.at_batch_end:
        return False
    try:
        rules.apply(state, entry)
    except RuleError as error:
        return error.rule == rule
    return False
