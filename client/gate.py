"""May this message touch rows? Pure: the hospital's own view of the log and the message in, an order or a code out.

Follows PROTOCOL.md, "The gate at a hospital", steps 2 to 4. Step 1 (pull, apply, store, cosign) is `follower`'s,
step 5 (charge, train, sign, send) `attempt`'s. A refusal says a code of `REFUSALS` and nothing else, so that
none can depend on a row.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from client.errors import GateError
from client.exchange import Value
from client.histograms import BINS
from ledger.envelope import Entry
from ledger.records import Abort, Approval, Job, Receipt, Round
from ledger.state import JobState, Party, State
from ledger.values import Mechanism

REFUSALS: dict[str, str] = {
    "account": "the privacy account cannot be written or read",
    "approval": "the approval on the log is not one that this hospital gave",
    "attempt": "this round was attempted before, with another model",
    "budget": "the round would exceed the dataset's lifetime budget",
    "clock": "the log's newest batch is not of this clock's time",
    "conflict": "the log contradicted itself or broke a rule",
    "deadline": "the message's deadline has passed",
    "earlier-not-final": "the record before the job's last one has no quorum",
    "edges": "the histogram's edges are missing, or there although none is due, or not increasing numbers",
    "expired": "the job or the agreement had expired at the job's last record",
    "job-not-running": "the job is unknown here, has not started or has ended",
    "last-not-final": "the job's last record has no quorum, and the next message must wait for it",
    "log": "the log cannot be reached",
    "malformed": "the message lacks a value, or has one of a wrong kind",
    "model-digest": "the model's bytes do not have the digest that the message states",
    "not-a-participant": "this hospital does not take part in the job",
    "person": "a person of this hospital has to decide first",
    "receipt-missing": "this hospital's last receipt is neither on the log nor left out with a reason",
    "rolled-back": "the checkpoint named ends before the job's last record",
    "skipped": "this hospital has skipped the round",
    "stopped": "this hospital trains no more for this job",
    "storage": "this hospital's disk failed",
    "upgrade": "the log uses rules that are newer than this hospital's software",
    "unknown-checkpoint": "the checkpoint named is not one of the log as this hospital sees it",
    "withdrawn": "this hospital has withdrawn from the job",
    "wrong-model": "the model is not the one that the log says comes next",
    "wrong-round": "the round is not the one that the log says comes next",
}
_DIGEST = re.compile(r"[0-9a-f]{64}").fullmatch
_DECIMAL = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,18})?", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a message asks for, as it claims."""

    job: str
    round: int
    model: str  # digest that it states
    checkpoint: bytes  # signed note of the pending checkpoint that it refers to
    deadline: int  # Unix seconds
    edges: tuple[str, ...]  # inner edges of the histogram; empty where none is due


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What the hospital itself knows about the job.

    Attributes:
        approval: Digest of the approval that it gave, or "".
        last_receipt: Digest of the receipt that it sent for the job's last recorded round, or "".
        last_batch: The entries that closed that round: receipts, then the round or abort. Empty after the start.
    """

    approval: str
    last_receipt: str
    last_batch: Sequence[Entry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A message that may be obeyed."""

    question: Question
    job: Job
    approval: Approval
    training: Mechanism | None  # None when the round only evaluates
    evaluation: Mechanism | None  # None when no histogram is due

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """What the receipt will list."""
        return tuple(m for m in (self.training, self.evaluation) if m is not None)


def refuse(code: str) -> GateError:
    """Return the error of a refusal, to be raised. A code without a line above is a KeyError: our fault."""
    return GateError(code, REFUSALS[code])


def require(holds: bool, code: str) -> None:
    """Raise GateError of `code` unless it holds."""
    if not holds:
        raise refuse(code)


def read(config: Mapping[str, Value]) -> Question:
    """Return what a message asks for. Raises GateError for anything that is not laid out as agreed."""
    job, model = config.get("job"), config.get("model")
    number, deadline = config.get("round"), config.get("deadline")
    checkpoint, edges = config.get("checkpoint"), config.get("edges", "[]")
    if not (isinstance(job, str) and isinstance(model, str) and _DIGEST(job) and _DIGEST(model)):
        raise refuse("malformed")
    if not (isinstance(number, int) and isinstance(deadline, int) and isinstance(checkpoint, bytes)):
        raise refuse("malformed")
    return Question(
        job=job, round=number, model=model, checkpoint=checkpoint, deadline=deadline, edges=_edges(edges)
    )


def judge(
    state: State,
    question: Question,
    own: Own,
    *,
    hospital: str,
    model: str,
    checkpoint_size: int,
    final_size: int,
    now: int,
) -> Order:
    """Decide whether a message may touch rows.

    Args:
        state: Of the log as this hospital has accepted it.
        question: The message.
        own: What the hospital knows besides.
        hospital: Its name.
        model: Digest of the model's bytes as they arrived, computed here.
        checkpoint_size: Size of the message's checkpoint, which the caller has found to be part of this log.
        final_size: Size of the newest checkpoint that a quorum has cosigned.
        now: Unix seconds.

    Raises:
        GateError: it may not.
    """
    require(now < question.deadline, "deadline")
    found, party = _part_in(state, question.job, hospital)
    require(checkpoint_size > found.last_index, "rolled-back")
    require(question.round == found.next_round <= found.record.last_exchange, "wrong-round")
    require(question.model == model, "model-digest")
    require(model == found.model, "wrong-model")
    require(not party.withdrawn, "withdrawn")
    require(party.skipped != found.next_round, "skipped")
    require(is_shown(own.last_receipt, hospital, own.last_batch), "receipt-missing")
    _require_final(found, final_size)
    require(found.last_time < min(found.record.expires_at, party.agreements_until), "expired")
    require(own.approval == party.approval.digest(), "approval")
    return _order(question, found, party)


def is_shown(receipt: str, hospital: str, batch: Sequence[Entry]) -> bool:
    """Whether the log does justice to a hospital's receipt: holds exactly it, or says why it holds none.

    Args:
        receipt: Digest of what the hospital sent, or "" where it sent none.
        hospital: Its name.
        batch: The entries that closed the round; empty where there was none.
    """
    shown = [e.digest for e in batch if isinstance(e.record, Receipt) and e.record.hospital == hospital]
    if shown:
        return shown == [receipt]  # another one in its name is as bad as none
    left_out = [x.hospital for e in batch if isinstance(e.record, Round | Abort) for x in e.record.left_out]
    return not receipt or hospital in left_out


def _part_in(state: State, job: str, hospital: str) -> tuple[JobState, Party]:
    found = state.jobs.get(job)
    if found is None or found.status != "running":
        raise refuse("job-not-running")
    if (party := found.parties.get(hospital)) is None:
        raise refuse("not-a-participant")
    return found, party


def _require_final(found: JobState, final_size: int) -> None:
    """Dispatch may be one round ahead of finality; start, aborts and the last round are waited for."""
    evaluates_only = found.next_round > found.record.rounds
    if found.next_round == 1 or found.aborted or evaluates_only:
        require(found.last_index < final_size, "last-not-final")
    else:
        require(found.previous_index < final_size, "earlier-not-final")


def _order(question: Question, found: JobState, party: Party) -> Order:
    terms = found.record
    evaluation = None
    if question.round in terms.evaluate:
        evaluation = party.approval.evaluation[terms.evaluate.index(question.round)]
    require(len(question.edges) == (BINS - 1 if evaluation else 0), "edges")
    return Order(
        question=question,
        job=terms,
        approval=party.approval,
        training=party.approval.training if question.round <= terms.rounds else None,
        evaluation=evaluation,
    )


def _edges(text: Value) -> tuple[str, ...]:
    try:
        edges = json.loads(text) if isinstance(text, str) and len(text) < 4096 else None
    except (ValueError, RecursionError):
        edges = None
    if not isinstance(edges, list) or not all(isinstance(e, str) and _DECIMAL(e) for e in edges):
        raise refuse("edges")
    numbers = [-math.inf, *map(float, edges)]
    require(all(a < b for a, b in pairwise(numbers)), "edges")
    return tuple(edges)
