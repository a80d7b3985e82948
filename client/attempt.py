"""One message to one answer: the gate, then charge, train, sign, store, and only then the reply.

The order is PROTOCOL.md's ("One attempt a round, charges, crashes"): the charge is on the disk before the worker
hears of the round, the reply before it is handed back. Asked again, the same bytes go out again. Charged without a
reply (a crash, of the agent or of its worker) is never tried again: the answer is a signed skip, the charge stands.
Nothing that fails here ends the agent but its own disk.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from client import gate, receipts, sitting_out
from client.accounting import event_of
from client.approval import spec_of
from client.charges import Charge
from client.charges import Reply as Stored
from client.errors import (
    AttemptError,
    BudgetError,
    BudgetExceededError,
    ClientError,
    GateError,
    LocalStateError,
    TrainingRefusedError,
    UnreachableError,
    WorkerError,
)
from client.exchange import Packed, Reply, Request
from client.follower import Sight
from client.gate import Order, Own, Question
from client.premises import Premises
from ledger import envelope
from ledger.errors import InconsistentError, LedgerError, RuleError, StorageError, UpgradeError
from ledger.witness import ClockError

_CODES: tuple[tuple[type[Exception], str], ...] = (  # the first that fits
    (BudgetExceededError, "budget"),
    (AttemptError, "attempt"),
    (BudgetError, "account"),
    (LocalStateError, "storage"),
    (StorageError, "storage"),
    (UnreachableError, "log"),
    (ClockError, "clock"),
    (InconsistentError, "conflict"),
    (UpgradeError, "upgrade"),
    (RuleError, "conflict"),
    (LedgerError, "unknown-checkpoint"),
    (ClientError, "person"),
)
FATAL = ("account", "storage")  # the disk failed: the agent stops after this answer
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one message, for the hospital's own screen."""

    job: str
    round: int
    kind: str  # receipt, skip or refusal
    code: str  # "" for a receipt
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What answering asks of the rest of the agent."""

    approvals: Callable[[str], str]  # job -> digest of the approval that this hospital gave, or ""
    report: Callable[[str, str, str], None]  # origin, code, evidence: posts an incident, sooner or later
    examine: Callable[[], None]  # whether the coordinator kept its word; stops what must stop
    sent: Callable[[bytes, int], None]  # a receipt is about to be sent; until when it may arrive
    restored: Callable[[Sight], bool]  # whether the account came from a backup; deals with it if so
    tell: Callable[[Outcome], None]
    fail: Callable[[Exception], None]  # ends the agent


class Attempts:
    """Answers messages, one after another: `handle` is the node's `Handle`."""

    def __init__(self, premises: Premises, hooks: Hooks) -> None:
        self._parts = premises
        self._hooks = hooks
        self._skipped: dict[str, tuple[int, str]] = {}  # job -> the round skipped last, and why

    def handle(self, request: Request) -> Reply:
        """Answer one message; never raises."""
        began = time.monotonic()
        code, question = "", None
        try:
            question = gate.read(request.config)
            reply = self._obey(question, request)
        except GateError as error:
            code, reply = error.code, _refusal(error.code)
        except (ClientError, LedgerError) as error:
            code = next(code for kind, code in _CODES if isinstance(error, kind))
            reply = _refusal(code)
            _log.warning("a message was refused (%s): %s", code, error)
            if code in FATAL:
                self._hooks.fail(error)
            elif isinstance(error, RuleError):
                self._hooks.examine()
        kind = str(reply.config["kind"])
        outcome = Outcome(
            job=question.job if question else "",
            round=question.round if question else 0,
            kind=kind,
            code=self._skipped[question.job][1] if question and kind == "skip" else code,
            seconds=time.monotonic() - began,
        )
        self._hooks.tell(outcome)
        return reply

    def _obey(self, question: Question, request: Request) -> Reply:
        sight, order = self._gate(question, _bytes(request.model))
        if code := self._sits_out(question):
            return self._skip(order, sight, code)
        charge = self._charge(order)
        if charge.repeated:
            return self._again(charge, order, sight)
        try:
            update, metrics, production = self._compute(order, sight, _bytes(request.model))
        except (WorkerError, TrainingRefusedError) as error:
            _log.warning("round %d of job %s is skipped: %s", question.round, question.job[:12], error)
            return self._skip(order, sight, "crashed")
        self._require_not_withdrawn(question)  # meanwhile: what was computed stays here, the charge stands
        receipt = receipts.build(
            order,
            charge,
            origin=sight.state.origin,
            hospital=self._parts.hospital.name,
            update=_bytes(update),
            metrics=_bytes(metrics),
            checkpoint=(sight.size, sight.root),
        )
        entry = envelope.sign(receipt, self._parts.identity)
        self._parts.account.store_reply(
            charge, update=_bytes(update), receipt=entry, metrics=_bytes(metrics), production=production
        )
        # Stored: from here on a crash loses nothing, the same bytes are sent when asked again.
        self._hooks.sent(entry, question.deadline)
        return Reply(config={"kind": "receipt", "receipt": entry}, update=update, metrics=metrics)

    def _gate(self, question: Question, model: bytes) -> tuple[Sight, Order]:
        """Pull, cosign and judge. What the long poll has brought already is not asked for a second time."""
        parts = self._parts
        checkpoint_size = parts.follower.find(question.checkpoint)
        try:
            sight, order = self._judge(question, model, checkpoint_size)
        except GateError as error:
            if error.code == "receipt-missing":
                self._report_missing(question)
            if error.code not in ("earlier-not-final", "last-not-final"):
                raise
            parts.follower.pull()  # a quorum may have come since: look once more
            sight, order = self._judge(question, model, checkpoint_size)
        parts.follower.cosign()  # handed over before any row is touched
        return sight, order

    def _judge(self, question: Question, model: bytes, checkpoint_size: int) -> tuple[Sight, Order]:
        parts = self._parts
        self._hooks.examine()
        sight = parts.follower.sight()
        if sight is None:
            raise gate.refuse("unknown-checkpoint")
        gate.require(not sight.conflict, "conflict")
        gate.require(not parts.standing.person and not self._hooks.restored(sight), "person")
        gate.require(not parts.standing.stopped(question.job), "stopped")
        self._require_not_withdrawn(question)
        order = gate.judge(
            sight.state,
            question,
            self._own(question, sight),
            hospital=parts.hospital.name,
            model=hashlib.sha256(model).hexdigest(),
            checkpoint_size=checkpoint_size,
            final_size=sight.final_size,
            now=int(parts.clock()),
        )
        return sight, order

    def _require_not_withdrawn(self, question: Question) -> None:
        """A person's withdrawal binds at once, logged or not. Raises GateError."""
        decision = self._parts.decisions.of(question.job)
        gate.require(decision is None or not decision.forbids, "withdrawn")

    def _own(self, question: Question, sight: Sight) -> Own:
        found = sight.state.jobs.get(question.job)
        sent = self._last_receipt(question.job, found.next_round - 1) if found else ""
        return Own(
            approval=self._hooks.approvals(question.job),
            last_receipt=sent,
            last_batch=self._parts.follower.batch(found) if found and found.status == "running" else [],
        )

    def _last_receipt(self, job: str, round_number: int) -> str:
        data = self._parts.account.receipt(job, round_number)
        return envelope.parse_entry(data).digest if data else ""

    def _report_missing(self, question: Question) -> None:
        """Keep the job from training here for good, then say why on the record; cosigning goes on."""
        parts, sight = self._parts, self._parts.follower.sight()
        parts.standing.stop(question.job, "receipt-missing")
        found = sight.state.jobs.get(question.job) if sight else None
        if sight is None or found is None:
            return
        digest = self._last_receipt(question.job, found.next_round - 1)
        evidence = (
            digest or hashlib.sha256(question.checkpoint).hexdigest()
        )  # none was sent, one is on the log
        self._hooks.report(sight.state.origin, "receipt-missing", evidence)

    def _charge(self, order: Order) -> Charge:
        return self._parts.account.charge(
            dataset=order.approval.dataset,
            job=order.question.job,
            round_number=order.question.round,
            model_digest=order.question.model,
            training=[event_of(order.training)] if order.training else [],
            heldout=[event_of(order.evaluation)] if order.evaluation else [],
            delta=float(order.job.delta),
            production=True,  # the worker's own word comes with what it computes, before anything is stored
        )

    def _compute(self, order: Order, sight: Sight, model: bytes) -> tuple[Packed | None, Packed | None, bool]:
        """Have the worker compute what is due; the only step that touches rows."""
        worker, left = self._parts.worker, order.question.deadline - self._parts.clock()
        dataset = sight.state.datasets[order.approval.dataset].record  # unchanged while a job runs on it
        spec = spec_of(order.job, order.approval, dataset.size_class)
        worker.open(spec, order.approval.cohort)
        update, metrics, production = None, None, True
        if order.training:
            update, production = worker.train(spec, model, left)
        if order.evaluation:
            noise = order.evaluation.noise_multiplier
            metrics, fit = worker.histogram(spec, model, order.question.edges, noise, left)
            production = production and fit
        return update, metrics, production

    def _again(self, charge: Charge, order: Order, sight: Sight) -> Reply:
        """Answer a question that was answered, or lost, before: never by touching a row."""
        if charge.reply is None:
            return self._skip(order, sight, "crashed")
        self._hooks.sent(charge.reply.receipt, order.question.deadline)
        return _stored(charge.reply, order)

    def _sits_out(self, question: Question) -> str:
        """Return the code of a skip that this hospital wants, or "": decided before anything is charged.

        A round that was charged goes its way, whatever the hour; one that was skipped stays skipped.
        """
        if self._parts.account.attempted(question.job, question.round):
            return ""
        number, code = self._skipped.get(question.job, (0, ""))
        if number == question.round:
            return code
        now, hours = self._parts.clock(), self._parts.hospital.policy.hours
        if code := sitting_out.code(now, self._parts.decisions.paused_until, hours):
            return code
        # The worker may be preparing another job: a charge that then finds no time to train would be wasted.
        return "" if self._parts.worker.is_free_within((question.deadline - now) / 2) else "busy"

    def _skip(self, order: Order, sight: Sight, code: str) -> Reply:
        parts, question = self._parts, order.question
        self._skipped[question.job] = (question.round, code)
        skip = receipts.skip(sight.state.origin, parts.hospital.name, question.job, question.round, code)
        paused, hours = parts.decisions.paused_until, parts.hospital.policy.hours
        hint = sitting_out.retry_after(code, parts.clock(), paused, hours)
        record = envelope.sign(skip, parts.identity)
        return Reply(config={"kind": "skip", "record": record, "retry_after": hint})


def _stored(reply: Stored, order: Order) -> Reply:
    update = metrics = None
    if reply.update:
        single = order.job.training.local_steps == 1
        update = np.frombuffer(reply.update, "<i8" if single else "<f4")
    if reply.metrics:
        metrics = np.frombuffer(reply.metrics, "<i8").reshape(2, -1)
    return Reply(config={"kind": "receipt", "receipt": reply.receipt}, update=update, metrics=metrics)


def _refusal(code: str) -> Reply:
    return Reply(config={"kind": "refusal", "code": code})


def _bytes(values: Packed | None) -> bytes:
    """Return an array's little-endian bytes: what is hashed, stored and sent."""
    if values is None:
        return b""
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
