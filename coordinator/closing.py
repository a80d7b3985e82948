"""How an exchange becomes the record that closes it: who is heard, who is left out and why, what is averaged.

Pure decisions: the view of the log, the hospitals' answers and spooled bytes in; a closing out. Every valid
receipt goes on the log, aggregated or not, because its charge is spent (PROTOCOL.md, "One attempt a round"). What
may follow what is for `ledger.rules` alone: a receipt is tried on the view, and one that breaks a rule is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from coordinator.admission import METRICS_NAME, UPDATE_NAME, Expected, Reply, judge
from coordinator.aggregation import Aggregate
from coordinator.exchange import Arrival, Packed
from coordinator.histories import History
from coordinator.metrics import BINS
from coordinator.terms import plan, strategy
from coordinator.updates import Readable
from coordinator.waiting import read_hint
from ledger import envelope
from ledger.envelope import Entry
from ledger.errors import LedgerError, RuleError
from ledger.records import Abort, Receipt, Round, Skip
from ledger.rules_rounds import ABSENT_CODES, known_reason
from ledger.state import JobState, State
from ledger.values import LeftOut
from ledger.view import View

_CODE = re.compile(r"[a-z0-9-]{1,40}", re.ASCII)
Spool = Callable[[bytes], str]  # stores bytes durably, returns their digest
OpenBlob = Callable[[str], Readable]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spooled:
    """An array that came, as declared; its bytes are in the store."""

    digest: str
    dtype: str
    shape: tuple[int, ...]
    size: int  # bytes
    counts: NDArray[Any] | None  # a small array as it came, which a histogram is


_NOTHING = Spooled(digest="", dtype="", shape=(), size=0, counts=None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What one hospital answered; nothing of it is believed yet.

    Attributes:
        absent: Why there is no receipt: one of `ABSENT_CODES`; "" where there is one.
        refused: The code of a refusal, for this coordinator's own log only.
        retry_after: When a hospital that skips would take part, as it says itself, in seconds from its reply.
    """

    hospital: str
    absent: str = ""
    refused: str = ""
    receipt: Entry | None = None
    skip: Entry | None = None
    retry_after: int | None = None
    update: Spooled | None = None
    metrics: Spooled | None = None

    @property
    def words(self) -> str:
        """Why there is no receipt, for this coordinator's own log."""
        code = self.refused if self.skip is None else getattr(self.skip.record, "code", "")
        return f"{'skipped' if self.skip is not None else self.absent}{f' ({code})' if code else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The answers whose receipts may follow the log as it is."""

    view: View  # with those receipts as its open batch
    answers: tuple[Answer, ...]  # sorted by hospital: the order of their receipts
    absent: Mapping[str, str]  # everybody else -> the code observed


def read_answer(hospital: str, arrival: Arrival, spool: Spool) -> Answer:
    """Return what a reply says, its arrays spooled. Whatever is malformed counts as no receipt."""
    if arrival.failure:
        code = arrival.failure if arrival.failure in ABSENT_CODES else "receipt"
        return Answer(hospital=hospital, absent=code)
    kind = arrival.config.get("kind")
    if kind == "refusal":
        return Answer(hospital=hospital, absent="refused", refused=_code(arrival.config.get("code")))
    entry = _entry(arrival.config.get("record" if kind == "skip" else "receipt"))
    if kind == "skip":
        skip = entry if entry is not None and isinstance(entry.record, Skip) else None
        hint = read_hint(arrival.config.get("retry_after"))
        return Answer(hospital=hospital, absent="receipt", skip=skip, retry_after=hint)
    if kind != "receipt" or entry is None or not isinstance(entry.record, Receipt):
        return Answer(hospital=hospital, absent="receipt")
    return Answer(
        hospital=hospital,
        receipt=entry,
        update=_spooled(arrival.update, spool),
        metrics=_spooled(arrival.metrics, spool),
    )


def hear(view: View, job: str, participants: Iterable[str], answers: Mapping[str, Answer]) -> Heard:
    """Try every receipt on the view, in the order of the hospitals' names; keep those that the rules allow.

    Args:
        view: The log as it stands.
        job: Digest of the running job.
        participants: All hospitals of its start.
        answers: By hospital; one that is missing was not heard of in time.
    """
    heard, absent = [], {}
    for hospital in sorted(participants):
        answer = answers.get(hospital, Answer(hospital=hospital, absent="late"))
        after = try_receipt(view, job, answer)
        if after is None:
            absent[hospital] = answer.absent or "receipt"
        else:
            view = after
            heard.append(answer)
    return Heard(view=view, answers=tuple(heard), absent=absent)


def verdicts(state: JobState, history: History, heard: Heard, open_blob: OpenBlob) -> dict[str, str]:
    """Return why logged receipts are not aggregated: hospital -> code, admitted ones absent.

    Raises:
        IntegrityError: our own store does not hold what was spooled.
    """
    found = {}
    for answer in heard.answers:
        if code := _verdict(state, history, answer, open_blob):
            found[answer.hospital] = code
    return found


def left_out(
    state: State, job: str, absent: Mapping[str, str], rejected: Mapping[str, str]
) -> tuple[LeftOut, ...]:
    """Return everybody who is left out with the code that the rules want, sorted by hospital."""
    found = state.jobs[job]
    codes = dict(rejected)
    for hospital, observed in absent.items():
        codes[hospital] = known_reason(state, found, hospital, found.parties[hospital]) or observed
    return tuple(LeftOut(hospital=hospital, code=codes[hospital]) for hospital in sorted(codes))


def minimum(history: History, number: int) -> int:
    """Return how many admitted replies an exchange needs."""
    job = history.job
    wanted = strategy(job).minimum_updates if number <= job.rounds else 1
    return max(job.min_participants, wanted)


def round_record(
    heard: Heard, job: str, out: tuple[LeftOut, ...], time: int, inputs: str, aggregate: Aggregate | None
) -> Round:
    """Return the record of an exchange that keeps its minimum; without an aggregate the model stays as it is."""
    found = heard.view.state.jobs[job]
    outcome = aggregate.outcome if aggregate is not None else None
    return Round(
        origin=heard.view.state.origin,
        job=job,
        round=found.next_round,
        time=time,
        model_before=found.model,
        model_after=outcome.model_after if outcome else found.model,
        receipts=len(heard.answers),
        left_out=out,
        inputs=inputs,
        server_state_after=outcome.server_state_after if outcome else found.server_state,
    )


def abort_record(heard: Heard, job: str, out: tuple[LeftOut, ...], time: int, code: str) -> Abort:
    """Return the record of an exchange that gives no model; its receipts are carried all the same."""
    found = heard.view.state.jobs[job]
    return Abort(
        origin=heard.view.state.origin,
        job=job,
        round=found.next_round,
        time=time,
        model_before=found.model,
        receipts=len(heard.answers),
        left_out=out,
        code=code,
    )


def asked(found: JobState) -> list[str]:
    """Return the participants that may still take part, sorted."""
    return [
        name
        for name, party in sorted(found.parties.items())
        if not party.withdrawn and party.agreements_until > found.last_time
    ]


def must_be_final(found: JobState) -> int:
    """Return the index of the entry that must be final before the next exchange may be dispatched.

    Dispatch may be one round ahead of finality; the start, an abort and the last training round are waited for.
    """
    first, evaluates_only = found.next_round == 1, found.next_round > found.record.rounds
    return found.last_index if first or found.aborted or evaluates_only else found.previous_index


def _code(value: object) -> str:
    """Return a refusal's code if it is one: it goes into our own log."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def _entry(data: object) -> Entry | None:
    if not isinstance(data, bytes):
        return None
    try:
        return envelope.open_entry(data)
    except LedgerError:
        return None


def _spooled(array: Packed | None, spool: Spool) -> Spooled | None:
    if array is None:
        return None
    data = array.tobytes()  # little-endian and contiguous, as it came
    return Spooled(
        digest=spool(data),
        dtype=array.dtype.name,
        shape=array.shape,
        size=len(data),
        counts=array if array.size == 2 * BINS else None,
    )


def try_receipt(view: View, job: str, answer: Answer) -> View | None:
    """Return the view with an answer's receipt on it, or None: there is none, or it may not follow."""
    if answer.receipt is None:
        return None
    record = answer.receipt.record
    if not isinstance(record, Receipt) or (record.hospital, record.job) != (answer.hospital, job):
        return None  # somebody else's receipt, or of another job
    try:
        return view.extend([answer.receipt])
    except RuleError:
        return None


def _verdict(state: JobState, history: History, answer: Answer, open_blob: OpenBlob) -> str:
    """Return the admission code of one logged receipt's reply, "" to admit it."""
    assert answer.receipt is not None
    receipt = answer.receipt.record
    assert isinstance(receipt, Receipt)
    update, metrics = answer.update or _NOTHING, answer.metrics or _NOTHING
    named = {METRICS_NAME: answer.metrics, UPDATE_NAME: answer.update}
    reply = Reply(
        hospital=answer.hospital,
        arrived_at=0,  # the ServerApp hands over nothing that comes after the deadline
        job=receipt.job,
        round=receipt.round,
        model=receipt.model_before,
        receipt_update=receipt.update,
        receipt_metrics=receipt.metrics,
        arrays=tuple(sorted(name for name, spooled in named.items() if spooled is not None)),
        digest=update.digest,
        dtype=update.dtype,
        shape=update.shape,
        size=update.size,
        histogram=metrics.counts,
        histogram_digest=metrics.digest,
    )
    reason = judge(reply, _expected(state, history), (), lambda: open_blob(update.digest))
    return reason.code if reason is not None else ""


def _expected(state: JobState, history: History) -> Expected:
    job, number = history.job, state.next_round
    noise = None
    if number in job.evaluate:
        place = job.evaluate.index(number)
        noise = {
            name: float(party.approval.evaluation[place].noise_multiplier)
            for name, party in history.parties.items()
        }
    return Expected(
        job=history.digest,
        round=number,
        model=state.model,
        deadline=0,
        plans={name: plan(job, party) for name, party in history.parties.items()},
        trains=number <= job.rounds,
        histogram_noise=noise,
    )
