"""The exchanges of one running job: ask, wait, judge, average, record. `Rounds` for real.

The decisions are pure and elsewhere: `closing`, `aggregation`, `evaluations`, `lifecycle`; `attendance` holds an
exchange back while too few hospitals can or will take part. Here they meet the log and the store. Nothing but those
two is kept from one exchange to the next, so it may be killed on any line: what was not recorded is asked for again,
and hospitals send the same bytes again (PROTOCOL.md, "One attempt a round").

Order of writes of an exchange: every update and histogram as it arrives, then its acknowledgement; the next model
and the strategy's memory; then receipts and round record in one batch. So the record never names bytes that are not
on the disk.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from coordinator import closing, evaluations, terms
from coordinator.acknowledgements import is_whole
from coordinator.aggregation import Aggregate, RoundInputs, aggregate
from coordinator.attendance import Attendance
from coordinator.closing import Answer, Heard
from coordinator.desk import Desk
from coordinator.errors import AggregationError
from coordinator.evaluations import Evaluations
from coordinator.exchange import Arrival, Exchange, Value
from coordinator.histories import History
from coordinator.lifecycle import Step, next_step
from coordinator.standing import Standing
from ledger import envelope
from ledger.errors import LedgerError
from ledger.records import Abort, Receipt, Round, inputs_digest
from ledger.state import JobState

TURN_SECONDS = 1.0  # between looks at the clock while the log is not final
ASKED_AGAIN = 3  # times in one exchange that a hospital which went away is asked again
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Open:
    """An exchange under way."""

    round: int
    hospitals: dict[int, str]  # by node id
    began: float
    deadline: float  # Unix seconds
    answers: dict[str, Answer] = field(default_factory=dict)
    again: Counter[str] = field(default_factory=Counter)  # how often each hospital was asked again


class JobRounds:
    """Decides about one job that runs. One thread at a time."""

    def __init__(self, desk: Desk, job: str) -> None:
        """Take the job up where the log says that it is.

        Args:
            desk: What all jobs share.
            job: Its digest.

        Raises:
            IntegrityError: the store lacks a histogram that an earlier round published.
        """
        self._desk = desk
        self._job = job
        self._open: _Open | None = None
        self._attendance = Attendance(desk, job, self._goes_on)
        history = desk.sequencer.standing.jobs[job]
        self._evaluations: Evaluations = evaluations.of_history(history, desk.blobs.read)
        self._measured = len(history.closed)

    def next_exchange(self) -> Exchange | None:
        """Close the exchange before, if any, and return the next one, or None when the job's exchanges are over.

        Raises:
            StoppedError: the coordinator is being stopped.
            LedgerError, CoordinatorError: the exchange cannot be recorded; ask again after a restart.
        """
        if self._open is not None:
            self._desk.phases.add("replies", self._desk.clock() - self._open.began)
            if (again := self._ask_again(self._open)) is not None:
                return again
            with self._desk.phases.during("closing"):
                self._close_exchange(self._open)
            self._open = None
        while (found := self._await_turn()) is not None:
            if not self._attendance.await_enough(self._held(found)):
                break
            standing = self._desk.sequencer.standing
            if self._goes_on(standing) and self._may_go_on(standing):  # the wait may have been long
                return self._dispatch(standing.state.jobs[self._job])
        return None

    def sent(self) -> None:
        """Let the hospitals' nodes look for their messages."""
        self._desk.sendings.add()

    def receive(self, arrival: Arrival) -> None:
        """Take one node's reply; a second one, or a stranger's, is ignored: the first stands."""
        exchange = self._open
        hospital = exchange.hospitals.get(arrival.node_id) if exchange is not None else None
        if exchange is None or hospital is None or hospital in exchange.answers:
            _log.warning("a reply that nobody asked for was ignored (node %d)", arrival.node_id)
            return
        answer = closing.read_answer(hospital, arrival, self._desk.blobs.put)
        if answer.absent:
            _log.warning("round %d: %s: %s", exchange.round, hospital, answer.words)
        exchange.answers[hospital] = answer
        self._acknowledge(answer)

    def close(self) -> None:
        """Forget an exchange under way: it will be asked for again."""
        self._open = None

    def _await_turn(self) -> JobState | None:
        """Wait until the log is final as far as the next exchange needs; None when there is none."""
        with self._desk.phases.during("finality"):
            while not self._desk.sequencer.wait(self._may_go_on, TURN_SECONDS):
                self._attendance.state_time()
        standing = self._desk.sequencer.standing
        return standing.state.jobs[self._job] if self._goes_on(standing) else None

    def _may_go_on(self, standing: Standing) -> bool:
        found = standing.state.jobs[self._job]
        return not self._goes_on(standing) or closing.must_be_final(found) < standing.final_size

    def _goes_on(self, standing: Standing) -> bool:
        now = int(self._desk.clock())
        return next_step(standing.state, standing.jobs[self._job], now, asked_until=now) is Step.RUN

    def _dispatch(self, found: JobState) -> Exchange:
        """Return one message for every participant that is connected and may still take part."""
        asked = closing.asked(found)
        held = self._held(found)
        away = self._attendance.away
        ids = {name: node for name, node in self._desk.nodes.ids().items() if name not in away}
        now = self._desk.clock()
        deadline = now + self._desk.round_seconds
        hospitals = {ids[name]: name for name in asked if name in ids and name not in held}
        self._open = _Open(
            round=found.next_round, hospitals=hospitals, began=now, deadline=deadline, answers=held
        )
        for name in asked:
            if name not in ids and name not in held:
                self._open.answers[name] = Answer(hospital=name, absent="unreachable")
        return self._exchange(found, hospitals, deadline)

    def _exchange(self, found: JobState, nodes: Iterable[int], deadline: float) -> Exchange:
        """Return the job's next question to some nodes."""
        return Exchange(
            round=found.next_round,
            model=np.frombuffer(self._desk.blobs.read(found.model), dtype="<f4"),
            configs=dict.fromkeys(nodes, self._config(found, int(deadline))),
            deadline=deadline,
        )

    def _ask_again(self, exchange: _Open) -> Exchange | None:
        """Return the same question for those who went away meanwhile and are back; None: nobody is asked again.

        Whoever had computed its reply sends that one; whoever had only been charged skips.
        """
        standing = self._desk.sequencer.standing
        found, ids = standing.state.jobs[self._job], self._desk.nodes.ids()
        if not self._goes_on(standing) or found.next_round != exchange.round:
            return None
        away = [
            name
            for name, answer in exchange.answers.items()
            if answer.absent == "unreachable" and name in ids and exchange.again[name] < ASKED_AGAIN
        ]
        replied = sum(answer.receipt is not None for answer in exchange.answers.values())
        needed = closing.minimum(standing.jobs[self._job], exchange.round) - replied
        back = self._attendance.await_back(away, needed, exchange.deadline) if away else []
        if not back:
            return None
        for name in back:
            del exchange.answers[name]
        exchange.again.update(back)
        asked = {ids[name]: name for name in back}
        exchange.hospitals |= asked
        exchange.began = self._desk.clock()
        return self._exchange(found, asked, exchange.deadline)

    def _acknowledge(self, answer: Answer) -> None:
        """Sign that a reply is here, once it would survive a crash: from then on it cannot be called late."""
        acknowledged, view = self._desk.acknowledgements, self._desk.sequencer.standing.view
        if acknowledged is None or answer.receipt is None or not is_whole(answer.receipt, answer):
            return
        if closing.try_receipt(view, self._job, answer) is not None:
            acknowledged.keep(answer)

    def _held(self, found: JobState) -> dict[str, Answer]:
        """Return what was acknowledged of this exchange before a crash: nobody is asked for it again."""
        if self._desk.acknowledgements is None:
            return {}
        held = self._desk.acknowledgements.answers(self._job, found.next_round, found.model)
        asked = closing.asked(found)
        return {name: answer for name, answer in held.items() if name in asked}

    def _config(self, found: JobState, deadline: int) -> dict[str, Value]:
        config: dict[str, Value] = {
            "job": self._job,
            "round": found.next_round,
            "model": found.model,
            "checkpoint": self._desk.sequencer.pending(),
            "deadline": deadline,
        }
        if found.next_round in found.record.evaluate:
            config["edges"] = json.dumps(evaluations.spell(self._evaluations.edges))
        return config

    def _close_exchange(self, exchange: _Open) -> None:
        """Judge what came, and record it; again where another record came in between."""
        sequencer = self._desk.sequencer
        self._record_skips(exchange)
        ready: tuple[str, Aggregate | None] | None = None
        while True:
            standing = sequencer.standing
            found = standing.state.jobs[self._job]
            if found.status != "running" or found.next_round != exchange.round:
                return  # it was ended meanwhile
            history = standing.jobs[self._job]
            heard = closing.hear(standing.view, self._job, found.parties, exchange.answers)
            record, ready = self._conclude(history, heard, ready)
            batch = [a.receipt.data for a in heard.answers if a.receipt is not None]
            batch.append(envelope.sign(record, self._desk.key))
            if sequencer.append(batch, after=standing.view.size):
                break
        self._attendance.closed(record, exchange.answers)
        self._measure(sequencer.standing.jobs[self._job])

    def _conclude(
        self, history: History, heard: Heard, ready: tuple[str, Aggregate | None] | None
    ) -> tuple[Round | Abort, tuple[str, Aggregate | None] | None]:
        """Return the closing record, and the aggregate with the digest of its inputs, not to compute it twice."""
        state, job = heard.view.state, self._job
        found = state.jobs[job]
        rejected = closing.verdicts(found, history, heard, self._desk.blobs.open)
        out = closing.left_out(state, job, heard.absent, rejected)
        used = [
            a.receipt.record
            for a in heard.answers
            if a.hospital not in rejected and a.receipt is not None and isinstance(a.receipt.record, Receipt)
        ]
        time_ = self._desk.sequencer.now()
        if len(used) < closing.minimum(history, found.next_round):
            return closing.abort_record(heard, job, out, time_, "below-minimum"), None
        if found.next_round > history.job.rounds:
            inputs = _inputs_digest(history, found, used)
            return closing.round_record(heard, job, out, time_, inputs, None), None
        try:
            averaged = terms.round_inputs(history, found.model, found.server_state, used)
            if ready is None or ready[0] != averaged.digest():
                ready = (averaged.digest(), self._aggregate(averaged))
        except AggregationError as error:
            _log.warning("round %d gives no model: %s", found.next_round, error)
            return closing.abort_record(heard, job, out, time_, "aggregation"), None
        return closing.round_record(heard, job, out, time_, ready[0], ready[1]), ready

    def _aggregate(self, inputs: RoundInputs) -> Aggregate:
        """Average, and store the result before any record can name it."""
        result = aggregate(inputs, self._desk.blobs.open)
        self._desk.blobs.put(result.model.tobytes())
        if result.server_state:
            self._desk.blobs.put(result.server_state)
        return result

    def _record_skips(self, exchange: _Open) -> None:
        for hospital, answer in sorted(exchange.answers.items()):
            if answer.skip is not None:
                try:
                    self._desk.sequencer.submit(answer.skip.data)
                except LedgerError as error:
                    _log.warning("the skip of %s was not recorded: %s", hospital, error)

    def _measure(self, history: History) -> None:
        for closed in history.closed[self._measured :]:
            self._evaluations = self._evaluations.after(history, closed, self._desk.blobs.read)
        self._measured = len(history.closed)


def _inputs_digest(history: History, found: JobState, used: list[Receipt]) -> str:
    named = ((r.hospital, r.update, r.metrics, history.parties[r.hospital].weight) for r in used)
    return inputs_digest(found.model, found.server_state, named)
