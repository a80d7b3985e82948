"""A consortium under way for the coordinator's tests: a real log on a real disk, hospitals and witnesses in memory.

`Ward` founds it with the example's keys and brings one job to its approvals; `Hospital` answers messages as an honest
one does, and each test spoils what it wants spoiled. Witnesses cosign at once unless they are told not to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from coordinator.acknowledgements import Acknowledgements
from coordinator.blobs import BlobStore
from coordinator.desk import Desk
from coordinator.exchange import Arrival, Exchange, Packed, Value
from coordinator.metrics import BINS
from coordinator.phases import Phases
from coordinator.rounds import JobRounds
from coordinator.sequencer import Sequencer
from coordinator.standing import Standing
from coordinator.voice import Voice
from ledger import envelope, example, records
from ledger.checkpoint import Checkpoint, cosign
from ledger.log import Log
from ledger.note import Note
from ledger.record import Record
from ledger.values import Mechanism, Participant, Setting

HOSPITALS = ("alpha", "bravo", "charlie")
PARAMETERS = 5  # logistic regression on four features
NOISE = "2"
HISTOGRAM_NOISE = "1"
DICTIONARY = b'{"label":{"meaning":"ill","name":"y"},"name":"tiny","source":"made up","variables":[]}'


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def integers(words: str, count: int) -> NDArray[np.int64]:
    """Numbers of the size of honest noised sums, the same in every release of every library."""
    stream = hashlib.shake_256(words.encode()).digest(4 * count)
    return np.frombuffer(stream, dtype="<i4").astype(np.int64) >> 10


def histogram(words: str) -> NDArray[np.int64]:
    """Counts in which positives score higher."""
    jitter = integers(words, 2 * BINS).reshape(2, BINS) % 3
    return np.array([[9, 8, 6, 4, 2, 1], [1, 2, 4, 6, 8, 9]], dtype=np.int64) + jitter


class Clock:
    """Stands still unless it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Nodes:
    """Everybody's node, everybody there."""

    def __init__(self, hospitals: Sequence[str]) -> None:
        self.known = {name: 2**63 + place for place, name in enumerate(hospitals)}
        self.there = set(hospitals)

    def ids(self) -> Mapping[str, int]:
        return self.known

    def online(self) -> frozenset[str]:
        return frozenset(self.there)


@dataclass(slots=True)
class Hospital:
    """Answers like an honest hospital; charges count up, as its account does."""

    ward: Ward
    name: str
    charge: int = 0
    sent: dict[int, Arrival] = field(default_factory=dict)  # what it stored and would send again

    def answer(self, node_id: int, config: Mapping[str, Value], model: NDArray[np.float32]) -> Arrival:
        number = cast(int, config["round"])
        if number not in self.sent:
            self.sent[number] = self.make(node_id, config, model)
        return replace(self.sent[number], node_id=node_id)

    def make(
        self,
        node_id: int,
        config: Mapping[str, Value],
        model: NDArray[np.float32],
        *,
        update: Packed | None = None,
        metrics: Packed | None = None,
        **changes: Any,
    ) -> Arrival:
        """Train, sign, and reply; arrays and fields of the receipt may be given."""
        assert sha(model.tobytes()) == config["model"]
        number, job = cast(int, config["round"]), self.ward.job
        trains, due = number <= job.rounds, number in job.evaluate
        if trains and update is None:
            update = integers(f"{self.name} {number}", PARAMETERS)
        if due and metrics is None:
            metrics = histogram(f"{self.name} {number}")
        self.charge += 1
        head = Checkpoint.from_text(Note.from_bytes(cast(bytes, config["checkpoint"])).text)
        receipt = records.Receipt(
            origin=example.ORIGIN,
            hospital=self.name,
            job=job.digest(),
            round=number,
            model_before=str(config["model"]),
            update=sha(update.tobytes()) if update is not None and trains else "",
            metrics=sha(metrics.tobytes()) if metrics is not None and due else "",
            mechanisms=self.mechanisms(number),
            charge=self.charge,
            epsilon_job=f"{self.charge / 10:g}",
            epsilon_dataset=f"{self.charge / 10:g}",
            checkpoint_size=head.size,
            checkpoint_root=head.root.hex(),
        )
        entry = envelope.sign(replace(receipt, **changes), example.KEYS[self.name])
        return Arrival(
            node_id=node_id, config={"kind": "receipt", "receipt": entry}, update=update, metrics=metrics
        )

    def mechanisms(self, number: int) -> tuple[Mechanism, ...]:
        job = self.ward.job
        due = [histogram_mechanism()] if number in job.evaluate else []
        return (*([training_mechanism()] if number <= job.rounds else []), *due)


def training_mechanism(local_steps: int = 1) -> Mechanism:
    return Mechanism(
        name="dp-sgd", noise_multiplier=NOISE, sample_rate="1", steps=local_steps, max_grad_norm="0.5"
    )


def histogram_mechanism() -> Mechanism:
    return Mechanism(
        name="histogram", noise_multiplier=HISTOGRAM_NOISE, sample_rate="1", steps=1, max_grad_norm="1"
    )


class Ward:
    """A coordinator's folder with a job that everybody has approved."""

    def __init__(self, folder: Path, **job: Any) -> None:
        self.folder = folder
        self.clock = Clock(example.FOUNDED + 60.0)
        self.cosigning = tuple(example.WITNESSES)
        charter = envelope.sign(example.charter(), *example.KEYS.values())
        log = Log.create(folder / "log", charter, [example.LOG_KEY], example.FOUNDED)
        self.sequencer = Sequencer(log, self.clock, begun=True)
        self.blobs = BlobStore(folder / "blobs")
        self.voice = Voice(example.KEYS["coordinator"], self.clock)
        self.acknowledgements = Acknowledgements(folder / "acknowledged", self.blobs, self.voice)
        self.nodes = Nodes(HOSPITALS)
        self.hospitals = {name: Hospital(self, name) for name in HOSPITALS}
        self._busy = True  # nobody cosigns what leads up to the job: one checkpoint covers it all
        self.sequencer.subscribe(self.cosign)
        self.initial = np.linspace(-1, 1, PARAMETERS).astype("<f4").tobytes()
        self.blobs.put(self.initial)
        self.blobs.put(DICTIONARY)
        self.agree()
        self.job = self.make_job(**job)
        self._busy = False

    def agree(self) -> None:
        """Datasets and the agreement."""
        for name in HOSPITALS:
            size_class = 64 if name == "alpha" else 32
            made = replace(
                example.dataset(name),
                hospital=name,
                schema=sha(DICTIONARY),
                size_class=size_class,
                epsilon="50",
            )
            self.submit(made, name)
        self.agreement = replace(
            example.agreement(),
            parties=tuple(sorted((*HOSPITALS, "researcher"))),
            datasets=tuple(f"{name}/heart" for name in HOSPITALS),
        )
        self.submit(self.agreement, *self.agreement.parties)

    def make_job(self, **changes: Any) -> records.Job:
        base = example.job()
        standard: dict[str, Any] = {
            "agreements": (self.agreement.digest(),),
            "datasets": tuple(f"{name}/heart" for name in HOSPITALS),
            "dictionary": sha(DICTIONARY),
            "model": sha(self.initial),
            "training": replace(
                base.training,
                model="logistic-regression",
                parameters=PARAMETERS,
                local_steps=1,
                learning_rate="0.3",
                max_grad_norm="0.5",
                sample_rate="1",
                settings=(Setting(name="grid-bits", value="20"),),
            ),
            "aggregation": replace(base.aggregation, strategy="fedavg", weighting="size-class", settings=()),
            "epsilon": "20",
            "heldout_epsilon": "3",
            "rounds": 3,
            "evaluate": (2, 4),
            "min_participants": 2,
        }
        return replace(base, **{**standard, **changes})

    def propose(self) -> None:
        self.submit(self.job, "researcher")

    def approve(self, *hospitals: str) -> None:
        for name in hospitals or HOSPITALS:
            number = self.sequencer.standing.state.approval_numbers.get(name, 0) + 1
            approval = records.Approval(
                origin=example.ORIGIN,
                hospital=name,
                number=number,
                job=self.job.digest(),
                dataset=f"{name}/heart",
                cohort=sha(name.encode()),
                epsilon="40",
                training=training_mechanism(self.job.training.local_steps),
                evaluation=(histogram_mechanism(),) * len(self.job.evaluate),
            )
            self.submit(approval, name)

    def start(self, *hospitals: str) -> None:
        """Start the job as the runner does, without one."""
        self._busy = True
        self.propose()
        self.approve(*hospitals)
        self._busy = False
        self.start_proposed()

    def start_proposed(self) -> None:
        """Start the job with everybody who approved it."""
        standing = self.sequencer.standing
        found = standing.state.jobs[self.job.digest()]
        participants = tuple(
            Participant(
                hospital=name,
                approval=approval,
                weight=standing.state.datasets[f"{name}/heart"].record.size_class,
            )
            for name, approval in sorted(found.approved.items())
        )
        record = records.Start(
            origin=example.ORIGIN,
            job=self.job.digest(),
            time=self.sequencer.now(),
            participants=participants,
            model=self.job.model,
            software=self.job.software,
        )
        self.append(record)

    def submit(self, record: Record, *signers: str) -> None:
        self.sequencer.submit(envelope.sign(record, *(example.KEYS[name] for name in signers)))

    def append(self, *batch: Record) -> None:
        signed = [envelope.sign(record, example.KEYS["coordinator"]) for record in batch]
        assert self.sequencer.append(signed, after=self.sequencer.standing.view.size)

    def cosign(self) -> None:
        """Let the witnesses that are there cosign the newest checkpoint; called after every change."""
        if self._busy or self.sequencer.stopped or self.sequencer.failure or not self.cosigning:
            return
        self._busy = True
        try:
            note = Note.from_bytes(self.sequencer.pending())
            size = Checkpoint.from_text(note.text).size
            if size > self.sequencer.standing.final_size:
                for name in self.cosigning:
                    line = cosign(note.text, example.WITNESSES[name], int(self.clock.now))
                    self.sequencer.cosign(size, line)
        finally:
            self._busy = False

    def desk(self) -> Desk:
        return Desk(
            sequencer=self.sequencer,
            blobs=self.blobs,
            nodes=self.nodes,
            key=example.KEYS["coordinator"],
            phases=Phases(),
            round_seconds=60,
            patience_seconds=0,
            clock=self.clock,
            acknowledgements=self.acknowledgements,
        )

    def rounds(self) -> JobRounds:
        return JobRounds(self.desk(), self.job.digest())

    def reopen(self) -> None:
        """Stop the coordinator and open its folder again, its witnesses reporting."""
        with self.sequencer:
            note = self.sequencer.pending()
        self.acknowledgements = Acknowledgements(self.folder / "acknowledged", self.blobs, self.voice)
        self.sequencer = Sequencer(Log.open(self.folder / "log", [example.LOG_KEY]), self.clock)
        for name in example.WITNESSES:
            line = cosign(Note.from_bytes(note).text, example.WITNESSES[name], int(self.clock.now))
            report = Note.from_bytes(note).with_signatures(line).to_bytes()
            self.sequencer.report(self.sequencer.question, report, [])
        assert self.sequencer.standing.writable
        self.sequencer.subscribe(self.cosign)

    @property
    def closed(self) -> tuple[Any, ...]:
        """The records that closed the job's exchanges."""
        return tuple(c.record for c in self.sequencer.standing.jobs[self.job.digest()].closed)


def passing(
    ward: Ward, meanwhile: Callable[[], None] = lambda: None
) -> Callable[[Callable[[Standing], bool], float | None], bool]:
    """Return what takes the place of `Sequencer.wait`: time passes at once; something may happen meanwhile."""

    def wait(condition: Callable[[Standing], bool], seconds: float | None = None) -> bool:
        if seconds is not None and not condition(ward.sequencer.standing):
            ward.clock.now += seconds
            meanwhile()
        return condition(ward.sequencer.standing)

    return wait


Answerer = Callable[[str, int, Mapping[str, Value], NDArray[np.float32]], Arrival | None]


def honest(ward: Ward) -> Answerer:
    """Everybody answers as they should."""
    return lambda name, node, config, model: ward.hospitals[name].answer(node, config, model)


def carry(rounds: JobRounds, ward: Ward, answer: Answerer | None = None, exchanges: int = 1000) -> int:
    """Do what the ServerApp does: carry messages and replies; return how many exchanges were made."""
    ask = answer or honest(ward)
    names = {node: name for name, node in ward.nodes.known.items()}
    for done in range(exchanges):
        exchange = rounds.next_exchange()
        if exchange is None:
            return done
        deliver(rounds, exchange, names, ask)
    return exchanges


def deliver(rounds: JobRounds, exchange: Exchange, names: Mapping[int, str], ask: Answerer) -> None:
    for node, config in exchange.configs.items():
        arrival = ask(names[node], node, config, exchange.model)
        if arrival is not None:
            rounds.receive(arrival)
