"""`wardround.simulate`: a job at hospitals that are all in this process, with the real client and coordinator code.

Founding, agreement, approvals, rounds, cosignatures, budgets and release are those of a consortium; what the network
and Flower would carry is handed over by calls (`wardround_inprocess`). So a simulated run leaves a real log and real
evidence. Hundreds of hospitals go on Flower's engine instead (`wardround_crowd`), which keeps no log.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import wardround_founding
import wardround_settling
from client import config, job_initial, job_match, job_record
from client.agent import Agent
from client.decisions import Decisions
from client.errors import ClientError, JobFileError
from client.job_folder import JobFolder
from client.job_story import Story
from client.notebook import job_files
from client.notebook.figures import Figures
from client.notebook.job_files import Drafted
from client.worker_here import WorkerHere
from coordinator import evidence
from coordinator.acknowledgements import Acknowledgements
from coordinator.blobs import BlobStore
from coordinator.config import CoordinatorConfig
from coordinator.desk import Desk
from coordinator.errors import CoordinatorError
from coordinator.phases import Phases
from coordinator.runner import Runner
from coordinator.sequencer import Sequencer
from coordinator.voice import Voice
from ledger import audit, envelope
from ledger.errors import LedgerError
from ledger.job_records import Job
from ledger.records import Agreement, Dataset
from wardround_door import Door
from wardround_figures import Figuring
from wardround_founding import DAY, RESEARCHER
from wardround_inprocess import InProcessFlower, InProcessNodes

ORIGIN = "simulation.invalid/consortium"
MOST = 64  # hospitals, coordinator and researcher are the members that a charter can found
ROUND_SECONDS = 86_400  # nobody is late in a simulation
LOOK_SECONDS = 0.2  # between looks at what has happened
TEXT = b"A simulation: every hospital is the data scientist."
Watch = Callable[[Figures], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What a simulation leaves."""

    figures: Figures
    evidence: Path
    charter: str  # digest of the simulated consortium's
    hospitals: Mapping[str, Path]  # each hospital's folder, with its budget
    seconds: Mapping[str, float]  # by phase


def simulate(
    job: Drafted,
    datasets: Mapping[str, object],
    directory: Path,
    *,
    lifetime_epsilon: str | None = None,
    watch: Watch = lambda figures: None,
) -> Simulated:
    """Simulate a job; see `wardround.simulate` for what a notebook gets.

    Args:
        job: The job; which datasets and agreements it names is of no account here.
        datasets: By hospital: a DataFrame, a pair of arrays (inputs, labels), or a path.
        directory: Where the consortium's folders go; must not exist, or be empty.
        lifetime_epsilon: Budget of each dataset, a decimal; twice the job's target where none is given.
        watch: Is given the figures so far, after each exchange, in this thread.

    Raises:
        JobFileError: the job has a problem, or too few hospitals take part; says who declined, and why.
        DataError: a hospital's rows cannot be used; says whose, and why.
        ClientError, CoordinatorError, LedgerError: one line says what is wrong.
    """
    folder = job_files.unsaved(job)
    folder = replace(folder, draft=replace(folder.draft, datasets=(), agreements=()))
    _require(folder, datasets)
    began = time.monotonic()
    made = wardround_founding.found(
        directory, sorted(datasets), origin=ORIGIN, name="simulation", dishonest=0, port=1
    )
    wardround_settling.settle(made, folder, datasets, lifetime_epsilon)
    with ExitStack() as stack:
        simulation = _Simulation(made, folder, stack)
        figures = simulation.run(watch)
        seconds = {"in all": time.monotonic() - began, **simulation.phases.seconds()}
    return Simulated(
        figures=figures,
        evidence=simulation.config.run(figures.digest) / evidence.FOLDER,
        charter=made.charter.digest(),
        hospitals={name: made.hospital(name) for name in sorted(datasets)},
        seconds=seconds,
    )


def _require(folder: JobFolder, datasets: Mapping[str, object]) -> None:
    folder.require_sound()
    least, given = folder.draft.min_participants, len(datasets)
    if given < least:
        raise JobFileError(
            f"the job needs at least {least} hospitals (min_participants) and {given} datasets are given: give more, "
            "or lower it"
        )
    if given > MOST - 2:
        raise JobFileError(
            f"{given} hospitals are more than one charter founds with ({MOST - 2}): simulate with engine='ray'"
        )


class _Simulation:
    """A consortium at work. What is opened is closed by the stack."""

    def __init__(self, made: wardround_founding.Consortium, folder: JobFolder, stack: ExitStack) -> None:
        self.phases = Phases()
        self.config = CoordinatorConfig(
            directory=made.coordinator, port=made.port, round_seconds=ROUND_SECONDS, patience_seconds=0
        )
        self._made = made
        self._folder = folder
        self._failure: Exception | None = None
        log = wardround_founding.begin_log(made)
        self._sequencer = stack.enter_context(Sequencer(log, time.time, begun=True))
        self._blobs = BlobStore(self.config.blobs)
        self._agents = self._open_agents(stack)
        numbers = InProcessNodes(list(self._agents))
        handles = {numbers.ids()[name]: agent.handle for name, agent in self._agents.items()}
        self._flower = InProcessFlower(handles, min(len(handles), os.cpu_count() or 1))
        desk = Desk(
            sequencer=self._sequencer,
            blobs=self._blobs,
            nodes=numbers,
            key=made.keys["coordinator"],
            phases=self.phases,
            round_seconds=self.config.round_seconds,
            patience_seconds=self.config.patience_seconds,
            acknowledgements=self._acknowledgements,
        )
        self._runner = Runner(desk, self._flower, numbers, self.config)
        self._flower.rounds = self._runner.rounds

    def run(self, watch: Watch) -> Figures:
        """Carry the job from its proposal to its release; return its figures."""
        with self.phases.during("agreement and approvals"):
            job = self._propose()
        threads = [
            threading.Thread(target=partial(self._guarded, task), name=task.__name__, daemon=True)
            for task in (self._runner.run, self._follow)
        ]
        for thread in threads:
            thread.start()
        try:
            return self._watch(job.digest(), watch)
        finally:
            self._sequencer.stop()
            self._flower.close()
            for thread in threads:
                thread.join()

    def _open_agents(self, stack: ExitStack) -> dict[str, Agent]:
        """Open everybody's agent, each with its door to the coordinator."""
        made, voice = self._made, Voice(self._made.keys["coordinator"], time.time)
        self._acknowledgements = Acknowledgements(made.coordinator / "acknowledged", self._blobs, voice)
        agents = {}
        for name in made.witnesses:
            hospital = config.load(made.hospital(name))
            door = Door(self._sequencer, voice, hospital.read_authority())
            agents[name] = stack.enter_context(Agent(hospital, consortium=door, worker=WorkerHere))
        return agents

    def _propose(self) -> Job:
        """Put the datasets, the agreement, the job and the approvals on the log."""
        self._turn()
        made, standing = self._made, self._sequencer.standing
        datasets = [d.record for d in standing.state.datasets.values()]
        agreement = self._agreement(datasets)
        self._sequencer.submit(envelope.sign(agreement, *(made.keys[name] for name in agreement.parties)))
        folder = self._folder
        initial = job_initial.compute(folder.draft, folder.dictionary, folder.source)
        state, now = self._sequencer.standing.state, int(time.time())
        fitting = job_match.match(folder.draft, folder.dictionary, state, RESEARCHER, now)
        if fitting.problems:
            raise JobFileError(*fitting.problems)
        job = job_record.build(
            folder,
            initial,
            origin=state.origin,
            researcher=RESEARCHER,
            datasets=[d.ref for d in fitting.datasets],
            agreements=fitting.agreements,
            now=max(now, state.time),
        )
        for _, content, _ in job_record.blobs(folder, initial):
            self._blobs.put(content)
        self._sequencer.submit(envelope.sign(job, made.keys[RESEARCHER]))
        for name in self._agents:
            size = self._sequencer.standing.view.size
            Decisions(made.hospital(name)).decide(job.digest(), "approve", size)
        self._turn()
        return job

    def _agreement(self, datasets: Sequence[Dataset]) -> Agreement:
        return Agreement(
            origin=ORIGIN,
            text=hashlib.sha256(TEXT).hexdigest(),
            parties=tuple(sorted((*self._agents, RESEARCHER))),
            datasets=tuple(sorted(d.ref for d in datasets)),
            purposes=(self._folder.draft.purpose,),
            expires_at=int(time.time()) + max(30 * DAY, 2 * self._folder.draft.expires_seconds),
        )

    def _turn(self) -> None:
        """Let every agent follow, and do what is to be done now."""
        for agent in self._agents.values():
            agent.follow_once()
            agent.enrol_once()
        for agent in self._agents.values():
            agent.follow_once()

    def _follow(self) -> None:
        """Let the agents follow the log as they would by their long polls, until the coordinator is stopped."""
        seen = self._sequencer.standing
        while not self._sequencer.stopped:
            self._sequencer.wait_for_change(seen, LOOK_SECONDS)
            seen = self._sequencer.standing
            for agent in self._agents.values():
                agent.follow_once()

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except (ClientError, CoordinatorError, LedgerError) as error:
            if not self._sequencer.stopped:
                self._failure = error
                self._sequencer.stop()

    def _watch(self, job: str, watch: Watch) -> Figures:
        """Tell what happens until the evidence is there. Raises JobFileError: the job ended otherwise."""
        figuring, told = Figuring(self._blobs.read), -1
        while True:
            standing = self._sequencer.standing
            history, status = standing.jobs[job], standing.state.jobs[job].status
            delivered = (self.config.run(job) / evidence.FOLDER).is_dir()
            if len(history.closed) != told or delivered:
                told = len(history.closed)
                figures = figuring.of(history, status)
                watch(figures)
            if delivered and status == "finished":
                return figures
            if self._failure is not None:
                raise self._failure
            if status not in ("proposed", "running", "released", "finished"):
                raise JobFileError(self._why(job, status))
            self._sequencer.wait_for_change(standing, LOOK_SECONDS)

    def _why(self, job: str, status: str) -> str:
        """Return why a job ended without a model."""
        story = Story(digest=job)
        entries = audit.entries(self._sequencer.read, self._sequencer.standing.view.size)
        events = story.follow([envelope.parse_entry(entry) for entry in entries], 0)
        said = [e.line for e in events if e.kind in ("refused", "abort", "skip")]
        return f"the job ended ({status}): {'; '.join(said[-4:]) or 'nobody took part'}"
