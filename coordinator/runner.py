"""The job runner: takes each job on the log through its life, one after the other, and leaves its evidence.

What to do next is `lifecycle`; a ServerApp's exchanges are `rounds`, which that process reaches over
`remote_rounds`. A ServerApp that died is started again, at the round that the log says comes next. All of it may
be killed on any line: the next start reads the log and goes on, files that people look at included.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from functools import partial

from coordinator import evaluations, evidence, layouts, recovery, release
from coordinator.bundle import bundle
from coordinator.config import CoordinatorConfig
from coordinator.desk import Desk
from coordinator.errors import CoordinatorError, FlowerEndedError, JobError, ServiceError, StoppedError
from coordinator.histories import History
from coordinator.lifecycle import Step, in_turn, next_step, participants, tick_is_due
from coordinator.readiness import require_ready
from coordinator.rounds import JobRounds
from coordinator.runs import Flower, Register, RunState
from coordinator.standing import Standing
from ledger import envelope
from ledger.errors import LedgerError, ReadOnlyError
from ledger.record import Record
from ledger.records import Ended, Start, Tick

WATCH_SECONDS = 1.0  # between looks at a run whose process may have died
IDLE_SECONDS = 1.0  # between looks for what time alone brings: an approval period or a job that ends
RETRY_SECONDS = (1.0, 60.0)  # first and longest wait after a failure
_log = logging.getLogger(__name__)


class Runner:
    """Works in one thread, through `run`."""

    def __init__(
        self,
        desk: Desk,
        flower: Flower,
        nodes: Register,
        config: CoordinatorConfig,
        announce: Callable[[Mapping[str, object]], None] = lambda event: None,
    ) -> None:
        """Begin nothing yet.

        Args:
            desk: What the jobs' exchanges share.
            flower: Where ServerApps run.
            nodes: Whose node is which.
            config: The coordinator's settings.
            announce: Told of what people wait for: a released job.
        """
        self._desk = desk
        self._flower = flower
        self._nodes = nodes
        self._config = config
        self._announce = announce
        self._asked: dict[str, float] = {}  # when a proposed job was seen first
        self._not_before: dict[str, float] = {}  # after a failure
        self._failures: dict[str, int] = {}
        self.problems: dict[str, str] = {}  # why a job does not go on, for displays

    def run(self) -> None:
        """Take jobs through their lives until the coordinator is stopped.

        Raises:
            ServiceError: the log cannot be written any more.
            FlowerEndedError: the SuperLink has to be started again, and then another runner.
        """
        try:
            while True:
                self._desk.sequencer.wait(lambda standing: standing.writable)
                self._require_flower()
                standing = self._desk.sequencer.standing
                if not self._may_step(standing):
                    self._desk.sequencer.wait_for_change(standing, IDLE_SECONDS)
        except StoppedError:
            return

    def rounds(self, job: str) -> JobRounds:
        """Return the rounds of a job that a ServerApp asks for: a `RoundsFactory`.

        Raises:
            JobError: no such job is running.
        """
        found = self._desk.sequencer.standing.state.jobs.get(job)
        if found is None or found.status != "running":
            raise JobError(f"job {job[:16]} is not running")
        return JobRounds(self._desk, job)

    def _may_step(self, standing: Standing) -> bool:
        """Do the first thing that is to be done, unless nothing may be appended at the moment."""
        try:
            return not self._desk.sequencer.clock_trouble and self._one_step(standing)
        except (
            ReadOnlyError
        ) as error:  # this clock jumped just now, or a write failed, which the next wait tells
            _log.warning("nothing can be appended: %s", error)
            return False

    def _one_step(self, standing: Standing) -> bool:
        """Do the first thing that is to be done; False when there is nothing."""
        now = self._desk.clock()
        if self._state_time(standing):
            return True
        if self._deliver_one(standing):
            return True
        for digest in in_turn(standing.state, standing.jobs):
            history = standing.jobs[digest]
            until = self._asked.setdefault(digest, now) + self._config.approval_seconds
            step = next_step(standing.state, history, int(now), asked_until=until)
            if step is not Step.WAIT and self._tried(digest, partial(self._do, standing, history, step)):
                return True
        return False

    def _state_time(self, standing: Standing) -> bool:
        """State the log's time where nothing else has for too long; tell whether that was so."""
        now = int(self._desk.clock())
        final = standing.final_size == standing.view.size
        if not tick_is_due(standing.state, now, final=final, every=self._config.tick_seconds):
            return False
        return self._append(standing, Tick(origin=standing.state.origin, time=now))

    def _meanwhile(self, running: History) -> None:
        """While one job runs: state the time, end jobs whose time is over, hand over what was released before.

        Once the time of the running job is over it is not stated here: an exchange under way is closed first, and
        what waits for the next one states it.
        """
        standing, now = self._desk.sequencer.standing, int(self._desk.clock())
        if now < running.job.expires_at and self._state_time(standing):
            return  # the standing is an old one now
        for digest in in_turn(standing.state, standing.jobs):
            history = standing.jobs[digest]
            if standing.state.jobs[digest].status == "proposed":
                step = next_step(standing.state, history, now, asked_until=math.inf)
                if step is Step.EXPIRE and self._tried(digest, partial(self._do, standing, history, step)):
                    return  # the standing is an old one now
        self._deliver_one(standing)

    def _deliver_one(self, standing: Standing) -> bool:
        """Hand over the first released job that is final and was not handed over; tell if there was one."""
        return any(
            self._tried(h.digest, partial(self._deliver, h))
            for h in standing.jobs.values()
            if h.release is not None and standing.final_size > h.end_index and not self._delivered(h)
        )

    def _tried(self, digest: str, action: Callable[[], bool]) -> bool:
        """Do something for one job; a failure holds back that job alone, for a while."""
        if self._desk.clock() < self._not_before.get(digest, 0.0):
            return False
        try:
            done = action()
        except (StoppedError, ServiceError):
            raise
        except (CoordinatorError, LedgerError) as error:
            self._require_flower()
            failures = self._failures[digest] = self._failures.get(digest, 0) + 1
            wait = min(RETRY_SECONDS[0] * 2.0 ** (failures - 1), RETRY_SECONDS[1])
            self._not_before[digest] = self._desk.clock() + wait
            if self.problems.get(digest) != str(error):
                _log.warning("job %s: %s", digest[:16], error)
            self.problems[digest] = str(error)
            return False
        self.problems.pop(digest, None)
        self._failures.pop(digest, None)
        return done

    def _require_flower(self) -> None:
        if not self._flower.alive():
            raise FlowerEndedError("Flower's SuperLink ended, or its folder is gone")

    def _do(self, standing: Standing, history: History, step: Step) -> bool:
        match step:
            case Step.START:
                return self._start(standing, history)
            case Step.RUN:
                return self._run(history)
            case Step.RELEASE:
                return self._release(history)
        reason = {
            Step.FINISH: "finished", Step.EXPIRE: "expired", Step.BELOW_MINIMUM: "below-minimum",
            Step.CANCEL: "cancelled",
        }[step]  # fmt: skip
        return self._end(standing, history, reason)

    def _start(self, standing: Standing, history: History) -> bool:
        require_ready(history.job, self._desk.blobs)
        state, job = standing.state, history.job
        self._desk.phases.add("approvals", self._desk.clock() - self._asked[history.digest])
        record = Start(
            origin=state.origin,
            job=history.digest,
            time=self._desk.sequencer.now(),
            participants=participants(state, state.jobs[history.digest], int(self._desk.clock())),
            model=job.model,
            software=job.software,
        )
        return self._append(standing, record)

    def _run(self, history: History) -> bool:
        """Let a ServerApp make the exchanges; return when they are over, raise when its process died."""
        self._nodes.scan()
        recovery.recover(self._desk.sequencer.standing, history.digest, self._desk.blobs)
        code = None
        if history.job.training.model == layouts.CUSTOM:
            code = self._desk.blobs.read(history.job.training.model_code)
        with self._desk.phases.during("start of the run"):
            run_id = self._flower.start_run(bundle(history.job.to_bytes(), code))
        began = len(history.closed)
        complete = False
        try:
            with self._desk.phases.during("rounds"):
                while not self._desk.sequencer.wait(
                    lambda s: not self._runs(s, history.digest), WATCH_SECONDS
                ):
                    state = self._flower.run_state(run_id)
                    if state.status == "finished":
                        raise JobError(self._died(history, began, state))
                    self._meanwhile(history)
            found = self._desk.sequencer.standing.state.jobs[history.digest]
            complete = found.next_round > found.record.last_exchange
        finally:
            if (
                not complete
            ):  # also a job that was ended: its ServerApp may wait for replies that nobody needs
                self._abandon(run_id)
        return True

    def _runs(self, standing: Standing, digest: str) -> bool:
        now = int(self._desk.clock())
        return next_step(standing.state, standing.jobs[digest], now, asked_until=now) is Step.RUN

    def _died(self, history: History, began: int, state: RunState) -> str:
        """Return what happened to a ServerApp; one that got further than the one before may start again soon."""
        if len(self._desk.sequencer.standing.jobs[history.digest].closed) > began:
            self._failures.pop(history.digest, None)
        return f"the ServerApp ended early ({state.outcome or 'unknown'}): it is started again"

    def _abandon(self, run_id: int) -> None:
        try:
            self._flower.stop_run(run_id)
        except CoordinatorError as error:
            _log.info("run %d could not be stopped: %s", run_id, error)

    def _release(self, history: History) -> bool:
        """Release and end a job in one batch, once its last exchange is final."""
        sequencer, blobs = self._desk.sequencer, self._desk.blobs
        with self._desk.phases.during("finality"):
            last = sequencer.standing.state.jobs[history.digest].last_index
            sequencer.wait(lambda s: s.final_size > last)
        with self._desk.phases.during("release"):
            standing = sequencer.standing
            history = standing.jobs[history.digest]
            built = release.build(
                standing.state,
                history,
                blobs.read(standing.state.jobs[history.digest].model),
                blobs.read(history.job.dictionary),
                evaluations.of_history(history, blobs.read),
            )
            blobs.put(built.artifact)
            blobs.put(built.card)  # from here on the record may name both
            ended = Ended(origin=standing.state.origin, job=history.digest, reason="finished")
            return self._append(standing, built.record, ended)

    def _end(self, standing: Standing, history: History, reason: str) -> bool:
        state = standing.state
        ended = Ended(origin=state.origin, job=history.digest, reason=reason)
        if reason == "expired" and state.time < history.job.expires_at:
            return self._append(standing, Tick(origin=state.origin, time=int(self._desk.clock())), ended)
        return self._append(standing, ended)

    def _delivered(self, history: History) -> bool:
        return (self._config.run(history.digest) / evidence.FOLDER).is_dir()

    def _deliver(self, history: History) -> bool:
        """Write what people look at, once the release is final; all of it is in the log and the store."""
        with self._desk.phases.during("evidence"):
            folder = self._config.run(history.digest)
            sequencer = self._desk.sequencer
            standing, kept = sequencer.standing, sequencer.final_sizes()
            evidence.write(folder, sequencer.read, kept, standing.state, history, self._desk.blobs)
        self._announce({"event": "released", "job": history.digest, "directory": str(folder)})
        return True

    def _append(self, standing: Standing, *batch: Record) -> bool:
        """Append the coordinator's records if nothing came in between; otherwise look again."""
        signed = [envelope.sign(record, self._desk.key) for record in batch]
        self._desk.sequencer.append(signed, after=standing.view.size)
        return True
