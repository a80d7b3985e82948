"""The consortium's contract: one pure, total function decides whether a record may follow those before it.

    apply(state, entry) -> state          # or RuleError, naming the rule

The coordinator runs it before it appends, every witness before it cosigns, an auditor offline. Rules change by
amendment at an index: a new version is a new table here, and this one stays for the entries that it judged.
Signatures are checked apart from the fold (`envelope.check_signatures`), so that they run in parallel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ledger import rules_charter, rules_consortium, rules_jobs, rules_rounds
from ledger.envelope import Entry
from ledger.record import Record
from ledger.records import (
    Abort,
    Access,
    Agreement,
    Amendment,
    Approval,
    Charter,
    Dataset,
    Ended,
    Incident,
    Job,
    Receipt,
    Refusal,
    Release,
    Round,
    Skip,
    Start,
    Succession,
    Tick,
    Withdrawal,
)
from ledger.rule_names import refuse, require
from ledger.state import EMPTY, State, evolve

_Rule = Callable[[State, Entry, Any], State]

VERSION_1: dict[type[Record], _Rule] = {
    Amendment: rules_charter.amendment,
    Agreement: rules_consortium.agreement,
    Dataset: rules_consortium.dataset,
    Job: rules_jobs.job,
    Approval: rules_jobs.approval,
    Refusal: rules_jobs.refusal,
    Withdrawal: rules_jobs.withdrawal,
    Start: rules_jobs.start,
    Receipt: rules_rounds.receipt,
    Skip: rules_rounds.skip,
    Round: rules_rounds.round_,
    Abort: rules_rounds.abort,
    Release: rules_jobs.release,
    Ended: rules_jobs.ended,
    Tick: rules_consortium.tick,
    Access: rules_consortium.access,
    Incident: rules_consortium.incident,
}
_CLOSING = (Receipt, Round, Abort)
# Numbered by their round or their time, so a second one breaks that rule and the digest need not be kept. They
# are nearly all of a log: their rules count the entry themselves, so that it costs one new state, not two.
_NUMBERED = (Receipt, Skip, Round, Abort, Tick)


def apply(state: State, entry: Entry) -> State:
    """Return the state after one more entry, whose signatures the caller has checked or will check.

    Args:
        state: Of the log so far; `EMPTY` before a charter.
        entry: The parsed entry.

    Raises:
        RuleError: the record may not follow; `rule` names why. Nothing else, whatever the record.
        UpgradeError: a RuleError: the record needs rules newer than this software.
    """
    record, kind = entry.record, type(entry.record)
    if not state.size:
        require(kind is Charter, "log.begins", f"it begins with a {record.TYPE} record")
        return _founded(rules_charter.charter(entry, cast(Charter, record)), entry)
    require(record.origin == state.origin, "record.origin", f"it names {record.origin}")
    digest = "" if kind in _NUMBERED else entry.digest
    require(digest not in state.seen, "record.not-repeated", f"{record.TYPE} {digest[:16]} is on the log")
    if state.batch.job:
        require(kind in _CLOSING, "batch.nothing-between", f"a {record.TYPE} record in a round's batch")
    if (rule := VERSION_1.get(kind)) is None:
        raise refuse("log.one-charter", f"a {record.TYPE} record as entry {state.size}")
    after = rule(state, entry, record)
    if digest:
        after = evolve(after, size=state.size + 1, seen=state.seen.set(digest, state.size))
    return after


def succeed(dead: State, entry: Entry) -> State:
    """Return the state after entry 0 of a log that follows a dead one.

    Args:
        dead: State of the dead log at the size that the succession names; all after it is void. The caller
            compares the root that the succession names with the dead log's own.
        entry: The parsed entry, which must hold a succession.

    Raises:
        RuleError: the succession was not decided by those who could, or the entry holds another record.
    """
    record = entry.record
    require(
        bool(dead.size) and dead.at_batch_end, "succession.previous", "that is no size of a final checkpoint"
    )
    if not isinstance(record, Succession):
        raise refuse("log.begins", f"it begins with a {record.TYPE} record")
    return _founded(rules_charter.succession(dead, entry, record), entry)


def _founded(state: State, entry: Entry) -> State:
    return evolve(state, size=1, seen=EMPTY.seen.set(entry.digest, 0))
