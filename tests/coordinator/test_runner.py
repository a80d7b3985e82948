"""A job's whole life in the runner, over the real bridge, with a Flower that only carries; deaths and full disks."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open

from coordinator import evidence_check, remote_rounds
from coordinator.blobs import BlobStore
from coordinator.config import CoordinatorConfig
from coordinator.errors import BridgeError, StorageError
from coordinator.exchange import Arrival, Value
from coordinator.nodes import DepositedNodes
from coordinator.remote_rounds import RoundsServer
from coordinator.runner import Runner
from coordinator.runs import RunState
from coordinator.superlink import NodeState
from ledger import example, records
from ledger.records import Abort
from ledger.values import Setting
from tests.coordinator.ward import HOSPITALS, Ward, honest, sha


class CarryingFlower:
    """Runs what the ServerApp's process runs, in a thread; dies when it is told to."""

    def __init__(self, ward: Ward) -> None:
        self.ward = ward
        self.threads: list[threading.Thread] = []
        self.jobs: list[str] = []
        self.dies_after: list[int] = []  # exchanges, of each run in turn
        self.failed: set[int] = set()
        self.stopped: list[int] = []
        self.dead = False

    def alive(self) -> bool:
        return not self.dead

    def start_run(self, content: bytes) -> int:
        with zipfile.ZipFile(io.BytesIO(content)) as bundle:
            job = sha(bundle.read("job.json"))
        self.jobs.append(job)
        lives = self.dies_after.pop(0) if self.dies_after else 1000
        run = len(self.jobs) - 1
        thread = threading.Thread(target=self._carry, args=(run, job, lives))
        self.threads.append(thread)
        thread.start()
        return run

    def run_state(self, run_id: int) -> RunState:
        over = not self.threads[run_id].is_alive()
        outcome = "failed" if run_id in self.failed else "completed"
        return RunState(status="finished" if over else "running", outcome=outcome if over else "", details="")

    def stop_run(self, run_id: int) -> None:
        self.stopped.append(run_id)

    def register_node(self, name: str, public_key: bytes) -> int:
        return self.ward.nodes.known[name]

    def unregister_node(self, node_id: int) -> None:
        raise AssertionError("no key is taken away here")

    def nodes(self) -> tuple[NodeState, ...]:
        return tuple(
            NodeState(node_id=node, name=name, online=name in self.ward.nodes.there)
            for name, node in self.ward.nodes.known.items()
        )

    def answer(
        self, name: str, node: int, config: Mapping[str, Value], model: NDArray[np.float32]
    ) -> Arrival | None:
        """What a hospital replies."""
        return honest(self.ward)(name, node, config, model)

    def _carry(self, run: int, job: str, lives: int) -> None:
        names = {node: name for name, node in self.ward.nodes.known.items()}
        try:
            with closing(remote_rounds.connect(job)) as rounds:
                for _ in range(lives):
                    exchange = rounds.next_exchange()
                    if exchange is None:
                        return
                    for node, config in exchange.configs.items():
                        arrival = self.answer(names[node], node, config, exchange.model)
                        assert arrival is not None
                        rounds.receive(arrival)
                self.failed.add(run)
        except BridgeError:
            self.failed.add(run)


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


@contextmanager
def running(
    ward: Ward, flower: CarryingFlower, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> Iterator[Runner]:
    """A runner at work; stopped at the end."""
    monkeypatch.setattr("coordinator.runner.WATCH_SECONDS", 0.05)
    monkeypatch.setattr("coordinator.runner.IDLE_SECONDS", 0.02)
    monkeypatch.setattr("coordinator.runner.RETRY_SECONDS", (0.0, 0.0))
    keys = ward.folder / "nodes"
    keys.mkdir(exist_ok=True)
    for name in HOSPITALS:
        (keys / f"{name}.pub").write_text("a key")
    nodes = DepositedNodes(keys, flower)
    desk = replace(ward.desk(), nodes=nodes)
    config = CoordinatorConfig(directory=ward.folder, port=1, **settings)
    runner = Runner(desk, flower, nodes, config)
    with RoundsServer(ward.folder, runner.rounds) as bridge:
        monkeypatch.setenv(remote_rounds.SOCKET, str(bridge.path))
        thread = threading.Thread(target=runner.run)
        thread.start()
        try:
            yield runner
        finally:
            ward.sequencer.stop()
            thread.join(30)
            assert not thread.is_alive()


def finished(ward: Ward, job: records.Job) -> bool:
    """Wait until a job has ended, and its evidence is there if it was released."""
    digest = job.digest()
    ward.sequencer.wait(lambda s: bool(s.jobs[digest].ended), 20)
    history = ward.sequencer.standing.jobs[digest]
    if history.release is None:
        return True
    for _ in range(400):
        if (ward.folder / "runs" / digest / "evidence").is_dir():
            return True
        threading.Event().wait(0.02)
    return False


def status(ward: Ward, job: records.Job) -> str:
    return ward.sequencer.standing.state.jobs[job.digest()].status


def test_job_goes_from_proposal_to_evidence(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(ward, CarryingFlower(ward), monkeypatch):
        ward.propose()
        ward.approve()
        assert finished(ward, ward.job)
    run = ward.folder / "runs" / ward.job.digest()
    found = evidence_check.verify(run / "evidence", charter=example.charter().digest())
    assert (found.rounds, found.updates) == (3, 9)
    release = ward.sequencer.standing.jobs[ward.job.digest()].release
    assert release is not None
    assert sha((run / "model.safetensors").read_bytes()) == release.artifact
    assert sha((run / "card.md").read_bytes()) == release.card
    assert [m.name for m in release.metrics] == ["auroc", "brier", "log-loss"]
    card = (run / "card.md").read_text()
    assert "add/remove one patient" in card
    assert "Not claimed" in card
    assert status(ward, ward.job) == "finished"


def test_server_app_that_dies_is_started_again_at_the_recorded_round(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    flower = CarryingFlower(ward)
    flower.dies_after = [1, 2, 0]
    with running(ward, flower, monkeypatch):
        ward.propose()
        ward.approve()
        assert finished(ward, ward.job)
    assert len(flower.jobs) == 4
    assert flower.stopped[:3] == [0, 1, 2]
    assert [h.charge for h in ward.hospitals.values()] == [4, 4, 4]
    assert [r.round for r in ward.closed] == [1, 2, 3, 4]
    assert not any(isinstance(r, Abort) for r in ward.closed)


def test_jobs_run_one_after_the_other(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    flower = CarryingFlower(ward)
    first = ward.job
    with running(ward, flower, monkeypatch):
        ward.propose()
        ward.approve()
        assert finished(ward, first)
        ward.job = second = replace(first, name="second")
        for hospital in ward.hospitals.values():
            hospital.sent.clear()
        ward.propose()
        ward.approve()
        assert finished(ward, second)
    assert flower.jobs == [first.digest(), second.digest()]


def test_coordinator_killed_after_the_release_writes_the_evidence_at_its_next_start(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runner, "_deliver", lambda self, history: False)
    with running(ward, CarryingFlower(ward), monkeypatch):
        ward.propose()
        ward.approve()
        ward.sequencer.wait(lambda s: bool(s.jobs[ward.job.digest()].ended), 20)
    monkeypatch.undo()
    run = ward.folder / "runs" / ward.job.digest()
    assert not run.exists()
    ward.reopen()
    with running(ward, CarryingFlower(ward), monkeypatch):
        assert finished(ward, ward.job)
    evidence_check.verify(run / "evidence")


@pytest.mark.parametrize("missing", ["model", "dictionary"])
def test_job_whose_files_are_missing_waits_and_says_so(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    digest = getattr(ward.job, missing)
    data = ward.blobs.read(digest)
    ward.blobs.delete(digest)
    with running(ward, CarryingFlower(ward), monkeypatch) as runner:
        ward.propose()
        ward.approve()
        for _ in range(400):
            if ward.job.digest() in runner.problems:
                break
            threading.Event().wait(0.01)
        assert "hand it in" in runner.problems[ward.job.digest()]
        assert status(ward, ward.job) == "proposed"
        ward.blobs.put(data)
        assert finished(ward, ward.job)
        assert runner.problems == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "resnet"}, "no model 'resnet'"),
        ({"parameters": 6}, "initial parameters are not 6"),
        ({"model": "small-cnn"}, "a small-cnn of these settings has 14177 parameters"),
    ],
)
def test_job_that_cannot_run_never_starts(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    ward.job = replace(ward.job, training=replace(ward.job.training, **change))
    with running(ward, CarryingFlower(ward), monkeypatch) as runner:
        ward.propose()
        ward.approve()
        for _ in range(400):
            if ward.job.digest() in runner.problems:
                break
            threading.Event().wait(0.01)
        assert said in runner.problems[ward.job.digest()]
        assert status(ward, ward.job) == "proposed"


def test_strategy_that_needs_more_hospitals_never_starts(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    two = Setting(name="num-malicious-nodes", value="2")
    krum = replace(ward.job.aggregation, strategy="krum", settings=(two,))
    ward.job = replace(ward.job, aggregation=krum)
    with running(ward, CarryingFlower(ward), monkeypatch) as runner:
        ward.propose()
        ward.approve()
        for _ in range(400):
            if ward.job.digest() in runner.problems:
                break
            threading.Event().wait(0.01)
        assert "krum needs 7 hospitals" in runner.problems[ward.job.digest()]


def test_full_disk_ends_the_run_and_the_job_goes_on_when_there_is_space(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = BlobStore.put, [4]

    def put(self: BlobStore, data: bytes) -> str:
        left[0] -= 1
        if left[0] == 0:
            raise StorageError("cannot write a blob: No space left on device")
        return real(self, data)

    monkeypatch.setattr(BlobStore, "put", put)
    flower = CarryingFlower(ward)
    with running(ward, flower, monkeypatch):
        ward.propose()
        ward.approve()
        assert finished(ward, ward.job)
    assert len(flower.jobs) == 2
    assert [h.charge for h in ward.hospitals.values()] == [4, 4, 4]


def test_proposed_job_that_expires_is_ended_with_the_time_on_the_record(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(ward, CarryingFlower(ward), monkeypatch, tick_seconds=86_400):
        ward.propose()
        ward.clock.now = ward.job.expires_at + 5
        assert finished(ward, ward.job)
    assert status(ward, ward.job) == "expired"
    assert ward.sequencer.standing.state.time >= ward.job.expires_at


def test_time_is_stated_when_nothing_else_states_it(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(ward, CarryingFlower(ward), monkeypatch, tick_seconds=100):
        ward.clock.now += 200
        assert ward.sequencer.wait(lambda s: s.state.time == int(ward.clock.now), 10)


def test_job_without_a_single_model_is_cancelled_not_released(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.waiting.BACKOFF", (0.0, 0.0))
    for hospital in ward.hospitals.values():
        hospital.sent = {n: Arrival(node_id=0, failure="late") for n in range(1, 5)}
    with running(ward, CarryingFlower(ward), monkeypatch):
        ward.propose()
        ward.approve()
        assert finished(ward, ward.job)
    assert status(ward, ward.job) == "cancelled"
    assert not (ward.folder / "runs").exists()


def test_job_with_its_own_model_is_released_as_it_travelled(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = b"def build_model(*, input_shape, outputs): ...\n"
    training = replace(ward.job.training, model="custom", model_code=sha(code))
    ward.job = replace(ward.job, training=training)
    with running(ward, CarryingFlower(ward), monkeypatch) as runner:
        ward.propose()
        ward.approve()
        for _ in range(400):
            if ward.job.digest() in runner.problems:
                break
            threading.Event().wait(0.01)
        assert "model.py" in runner.problems[ward.job.digest()]
        ward.blobs.put(code)
        assert finished(ward, ward.job)
    run = ward.folder / "runs" / ward.job.digest()
    evidence_check.verify(run / "evidence")
    assert (run / "evidence" / "blobs" / sha(code)).read_bytes() == code
    with safe_open(run / "model.safetensors", framework="numpy") as file:
        assert list(file.keys()) == ["parameters"]
