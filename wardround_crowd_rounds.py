"""The rounds of a crowd: admission, averaging and measuring as the coordinator does them, without log and store.

What decides is the coordinator's own: `admission.judge`, `aggregation.aggregate`, `metrics`. What is counted is what
a hospital would charge before it answers, composed over the rounds so far by `client.accounting`. Nothing is signed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client import accounting
from client.approval import Terms
from client.notebook import calibration, geometry
from client.notebook.figures import USED, Budget, Figures, Measured, Part, Pull, Spent
from coordinator import admission, metrics
from coordinator.admission import METRICS_NAME, UPDATE_NAME, Expected, Reply
from coordinator.aggregation import RoundInputs, aggregate
from coordinator.errors import AggregationError
from coordinator.strategies import strategy_of
from coordinator.updates import Update, plan_of
from ledger.consortium_records import Dataset
from ledger.job_records import Job
from wardround_crowd_players import Answers, Call
from wardround_figures import estimate

Play = Callable[[Call], Answers]
RUNNING, FINISHED = "running", "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enlisted:
    """A hospital that takes part."""

    dataset: Dataset
    terms: Terms
    weight: int

    @property
    def hospital(self) -> str:
        """Its name."""
        return self.dataset.hospital


class CrowdRounds:
    """One job from its first exchange to its last.

    Attributes:
        model: Packed float32 parameters, little-endian, as they stand.
        status: "running", then "finished".
    """

    def __init__(self, job: Job, hospitals: Sequence[Enlisted], model: bytes) -> None:
        """Begin with the job's first parameters; `hospitals` are sorted by name.

        Raises:
            SettingError: the job's strategy or settings are not offered.
        """
        self.model = model
        self.status = RUNNING
        self._job, self._digest = job, job.digest()
        self._hospitals = hospitals
        self._strategy = strategy_of(job.aggregation)
        self._plans = {
            h.hospital: plan_of(job.training, h.terms.training, h.dataset.size_class) for h in hospitals
        }
        self._state = b""
        self._edges = metrics.FIRST_EDGES
        self._measured: list[Measured] = []
        self._parts: list[Part] = []
        self._spent: list[Spent] = []
        self._pulls: list[Pull] = []

    def run(self, play: Play, told: Callable[[int, int], None]) -> None:
        """Ask for every exchange of the job, and close it; `told` hears how many are done, of how many.

        Raises:
            IntegrityError: an answer changed on its way.
        """
        for number in range(1, self._job.last_exchange + 1):
            evaluated = number in self._job.evaluate
            call = Call(
                round=number,
                model=self.model,
                trains=number <= self._job.rounds,
                place=self._job.evaluate.index(number) if evaluated else None,
                edges=self._edges if evaluated else (),
            )
            self._close(call, play(call))
            if number == self._job.last_exchange:
                self.status = FINISHED
            told(number, self._job.last_exchange)

    def figures(self) -> Figures:
        """Return what the rounds so far have shown."""
        return Figures(
            name=self._job.name,
            digest=self._digest,
            rounds=self._job.rounds,
            status=self.status,
            hospitals=tuple(h.hospital for h in self._hospitals),
            measured=tuple(self._measured),
            parts=tuple(self._parts),
            spent=tuple(self._spent),
            budgets=tuple(_budget(h) for h in self._hospitals),
            pulls=tuple(self._pulls),
        )

    def _close(self, call: Call, answers: Answers) -> None:
        """Judge each answer by itself, average what is admitted, and sum the histograms."""
        expected = self._expected(call)
        codes = [
            self._judge(expected, place, hospital.hospital, answers)
            for place, hospital in enumerate(self._hospitals)
        ]
        used = [place for place, code in enumerate(codes) if code == USED]
        if call.trains:
            self._parts += [
                Part(round=call.round, hospital=h.hospital, fate=code)
                for h, code in zip(self._hospitals, codes, strict=True)
            ]
        self._charge(call)
        wanted = self._strategy.minimum_updates if call.trains else 1
        if len(used) < max(self._job.min_participants, wanted):
            return  # as an aborted round: the model stays
        if call.trains and not self._average(call, used, answers.updates):
            return
        if call.place is not None:
            self._measure(call, used, answers.counts)

    def _expected(self, call: Call) -> Expected:
        noise = None
        if (place := call.place) is not None:
            noise = {h.hospital: float(h.terms.evaluation[place].noise_multiplier) for h in self._hospitals}
        return Expected(
            job=self._digest,
            round=call.round,
            model=_sha256(call.model),
            deadline=0,
            plans=self._plans,
            trains=call.trains,
            histogram_noise=noise,
        )

    def _judge(self, expected: Expected, place: int, hospital: str, answers: Answers) -> str:
        """Return `USED`, or the code by which the log would leave the answer out."""
        update = np.ascontiguousarray(answers.updates[place])
        data = update.tobytes() if expected.trains else b""
        counts = answers.counts[place] if expected.histogram_noise is not None else None
        digest = _sha256(data) if data else ""
        counted = _sha256(counts.tobytes()) if counts is not None else ""
        reply = Reply(
            hospital=hospital,
            arrived_at=0,
            job=expected.job,
            round=expected.round,
            model=expected.model,
            receipt_update=digest,
            receipt_metrics=counted,
            arrays=(METRICS_NAME,) * (counts is not None) + (UPDATE_NAME,) * expected.trains,
            digest=digest,
            dtype=update.dtype.name,
            shape=update.shape,
            size=len(data),
            histogram=counts,
            histogram_digest=counted,
        )
        reason = admission.judge(reply, expected, (), lambda: io.BytesIO(data))
        return reason.code if reason is not None else USED

    def _average(self, call: Call, used: Sequence[int], updates: NDArray[np.generic]) -> bool:
        """Make the next model; False where these updates make none."""
        blobs = {_sha256(call.model): call.model, _sha256(self._state): self._state}
        chosen = []
        for place in used:
            hospital, data = self._hospitals[place], updates[place].tobytes()
            digest = _sha256(data)
            blobs[digest] = data
            plan = self._plans[hospital.hospital]
            chosen.append(
                Update(hospital=hospital.hospital, digest=digest, weight=hospital.weight, plan=plan)
            )
        try:
            inputs = RoundInputs(
                strategy=self._strategy,
                parameters=self._job.training.parameters,
                model_before=_sha256(call.model),
                server_state_before=_sha256(self._state) if self._state else "",
                updates=tuple(chosen),
            )
            result = aggregate(inputs, lambda digest: io.BytesIO(blobs[digest]))
        except AggregationError:
            return False
        self.model, self._state = result.model.tobytes(), result.server_state
        self._pulls += geometry.pulls(
            call.round,
            [u.hospital for u in chosen],
            [u.weight for u in chosen],
            [u.plan.decode(updates[place]) for u, place in zip(chosen, used, strict=True)],
        )
        return True

    def _measure(self, call: Call, used: Sequence[int], counts: NDArray[np.int64]) -> None:
        assert call.place is not None
        total = counts[list(used)].sum(axis=0)
        variance = metrics.noise_variance(
            self._hospitals[place].terms.evaluation[call.place].noise_multiplier for place in used
        )
        found = metrics.evaluate(total, variance, call.edges)
        self._measured.append(
            Measured(
                round=call.round,
                auroc=estimate(found.auroc),
                log_loss=estimate(found.log_loss),
                brier=estimate(found.brier),
                calibration=calibration.bars(total.tolist(), call.edges, variance),
            )
        )
        self._edges = metrics.next_edges(total, variance, call.edges)

    def _charge(self, call: Call) -> None:
        """Note what every hospital has spent, admitted or not: it charges before it answers."""
        delta = float(self._job.delta)
        known: dict[tuple[accounting.Event, ...], float] = {}
        for hospital in self._hospitals:
            terms = hospital.terms
            sides = {
                "heldout": [
                    accounting.event_of(m)
                    for number, m in zip(self._job.evaluate, terms.evaluation, strict=True)
                    if number <= call.round
                ],
                "training": [
                    accounting.compose(accounting.event_of(terms.training), min(call.round, self._job.rounds))
                ],
            }
            for side, events in sides.items():
                if merged := accounting.merge(events):
                    if merged not in known:
                        known[merged] = float(accounting.round_up(accounting.job_epsilon(merged, delta)))
                    self._spent.append(
                        Spent(round=call.round, hospital=hospital.hospital, side=side, epsilon=known[merged])
                    )


def _budget(hospital: Enlisted) -> Budget:
    data = hospital.dataset
    return Budget(
        hospital=data.hospital,
        dataset=data.name,
        patients=data.size_class,
        job_epsilon=float(hospital.terms.epsilon),
        lifetime_epsilon=float(data.epsilon),
        delta=float(data.delta),
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
