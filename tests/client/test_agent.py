"""An agent against a fake coordinator: what it answers, what it writes first, and what it survives."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.agent import Agent
from client.budget import Account
from client.charges import WHOLE_PLAN, Charge
from client.config import Hospital
from client.errors import UnreachableError, WorkerError
from client.exchange import Reply
from client.standing import Standing
from ledger import envelope, records
from ledger.errors import StorageError
from ledger.records import Receipt, Skip
from ledger.values import Software
from tests.client import hospital_folder
from tests.client.fake_coordinator import MODEL, FakeCoordinator, follow, training_of_the_test
from tests.client.fake_worker import DIES_ON, JOURNAL
from tests.ledger.consortium import digest

REF = "alpha/heart"


class Scene:
    """A coordinator, alpha's folder, and alpha's agent, which may be started again."""

    def __init__(self, path: Path) -> None:
        self.coordinator = FakeCoordinator(path / "log")
        self.hospital: Hospital = hospital_folder.hospital(path / "alpha")
        self.worker_folder = path / "fake"
        self.worker_folder.mkdir()
        self.events: list[dict[str, object]] = []

    @contextmanager
    def agent(self) -> Iterator[Agent]:
        with Agent(
            self.hospital,
            tell=self.events.append,
            clock=lambda: self.coordinator.now,
            consortium=self.coordinator.door(),
            worker=[sys.executable, "-m", "tests.client.fake_worker", str(self.worker_folder)],
        ) as agent:
            yield agent

    def started(self, agent: Agent, **changes: object) -> str:
        """A job that alpha's agent has approved, and that runs."""
        follow(agent)
        job = self.coordinator.job_on_alpha_and_bravo(**changes)
        follow(agent)
        self.coordinator.start(job)
        return job

    def asked(self) -> list[str]:
        """The commands that the worker got."""
        journal = self.worker_folder / JOURNAL
        return journal.read_text().split() if journal.exists() else []

    def account(self) -> Account:
        return Account.open(self.hospital.account, read_only=True)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.coordinator.close()


@pytest.fixture
def agent(scene: Scene) -> Iterator[Agent]:
    with scene.agent() as made:
        yield made


def receipt_of(reply: Reply) -> Receipt:
    data = reply.config["receipt"]
    assert isinstance(data, bytes)
    record = envelope.open_entry(data).record
    assert isinstance(record, Receipt)
    return record


def entry_of(reply: Reply) -> bytes:
    data = reply.config["receipt"]
    assert isinstance(data, bytes)
    return data


def skip_of(reply: Reply) -> Skip:
    data = reply.config["record"]
    assert isinstance(data, bytes)
    record = envelope.open_entry(data).record
    assert isinstance(record, Skip)
    return record


def code_of(reply: Reply) -> object:
    assert reply.config["kind"] == "refusal"
    assert reply.update is None
    assert reply.metrics is None
    return reply.config["code"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_dataset_whose_answer_was_lost_is_registered_once_and_committed_to_once(
    scene: Scene, caplog: pytest.LogCaptureFixture, killed: bool
) -> None:
    """The salt of a second commitment would take the place of the one that opens what is on the record."""
    with scene.agent() as agent:
        agent.follow_once()
        scene.coordinator.deaf = True
        with pytest.raises(UnreachableError):
            agent.enrol_once()
        scene.coordinator.deaf = False
        if not killed:
            agent.enrol_once()
    if killed:
        with scene.agent() as agent:  # as after a kill before the log was read again
            agent.enrol_once()
    assert scene.asked().count("commit") == 1
    assert "not taken" not in caplog.text
    assert scene.coordinator.consortium.state.datasets[REF].record.version == 1


def test_a_whole_job(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    state = scene.coordinator.consortium.state
    assert state.datasets[REF].record.size_class == hospital_folder.SIZE_CLASS
    assert state.jobs[job].approved["alpha"]
    for number in range(1, 5):
        reply = agent.handle(scene.coordinator.message(job))
        receipt = receipt_of(reply)
        assert (receipt.round, receipt.charge) == (number, number)
        assert (reply.update is None) == (number == 4)
        assert (reply.metrics is None) == (number not in (2, 4))
        if reply.update is not None:
            assert hashlib.sha256(reply.update.astype("<i8").tobytes()).hexdigest() == receipt.update
        scene.coordinator.close_round(job, entry_of(reply))  # the ledger's rules take the receipt
    party = scene.coordinator.consortium.job_state(job).parties["alpha"]
    assert party.receipts == 4
    assert float(party.epsilon_job) <= float(scene.coordinator.consortium.job_state(job).record.epsilon)
    assert scene.asked().count("train") == 3
    told = [(e["round"], e["kind"], e["code"]) for e in scene.events if e["event"] == "round"]
    assert told == [(number, "receipt", "") for number in range(1, 5)]


def test_rows_of_a_job_that_has_ended_are_forgotten(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    consortium = scene.coordinator.consortium
    consortium.append(consortium.ended(job, "cancelled"), "researcher")
    scene.coordinator.publish()
    follow(agent)
    assert scene.asked().count("forget") == 1


def test_it_cosigns_before_it_trains(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    scene.coordinator.lines.clear()
    reply = agent.handle(scene.coordinator.message(job))
    assert [size for size, _ in scene.coordinator.lines] == [receipt_of(reply).checkpoint_size]
    assert receipt_of(reply).checkpoint_root == scene.coordinator.consortium.view.root.hex()


def test_asked_again_the_same_bytes_are_sent(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    message = scene.coordinator.message(job)
    first, second = agent.handle(message), agent.handle(message)
    assert_same(first, second)
    assert scene.asked().count("train") == 1


def test_asked_again_after_a_restart_the_same_bytes_are_sent(scene: Scene) -> None:
    with scene.agent() as agent:
        job = scene.started(agent)
        first = agent.handle(scene.coordinator.message(job))
    with scene.agent() as agent:
        assert_same(first, agent.handle(scene.coordinator.message(job)))
    assert scene.asked().count("train") == 1


def assert_same(first: Reply, second: Reply) -> None:
    assert first.config == second.config
    assert first.update is not None
    assert second.update is not None
    assert first.update.tobytes() == second.update.tobytes()


def test_worker_killed_in_a_round_is_a_skip_whose_charge_stands(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    (scene.worker_folder / DIES_ON).write_text("train")
    skip = skip_of(agent.handle(scene.coordinator.message(job)))
    assert (skip.round, skip.code) == (1, "crashed")
    again = skip_of(agent.handle(scene.coordinator.message(job)))
    assert again == skip  # never trained a second time
    assert scene.asked().count("train") == 1
    scene.coordinator.append(skip)  # the ledger's rules take it
    assert [c.round for c in statement(scene)] == [1]


def statement(scene: Scene) -> tuple[Charge, ...]:
    account = scene.account()
    try:
        (found,) = account.history()
        return found.charges
    finally:
        account.close()


def test_agent_killed_after_the_charge_skips_and_goes_on(scene: Scene) -> None:
    with scene.agent() as agent:
        job = scene.started(agent, min_participants=1)
        (scene.worker_folder / DIES_ON).write_text("train")
        agent.handle(scene.coordinator.message(job))  # stands for a crash: charged, nothing stored
    with scene.agent() as agent:
        skip = skip_of(agent.handle(scene.coordinator.message(job)))
        scene.coordinator.append(skip)
        scene.coordinator.close_round(job, alpha="skipped")
        reply = agent.handle(scene.coordinator.message(job))
        assert (receipt_of(reply).round, receipt_of(reply).charge) == (2, 2)


def test_exhausted_budget_is_refused_before_a_row_is_touched(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    agent._premises.account.register(
        REF, 0.3, 0.0001
    )  # a person lowers the lifetime budget in the middle of a job
    for _ in range(2):
        assert code_of(agent.handle(scene.coordinator.message(job))) == "budget"
    assert not {"open", "train", "histogram"} & set(scene.asked())
    assert statement(scene) == ()


def test_job_that_cannot_be_paid_for_is_declined(scene: Scene, agent: Agent) -> None:
    follow(agent)
    job = scene.coordinator.job_on_alpha_and_bravo(epsilon="0.0001")
    follow(agent)
    assert {"event": "refused", "job": job, "code": "budget"} in scene.events
    assert "prepare" not in scene.asked()
    assert "alpha" not in scene.coordinator.consortium.job_state(job).approved


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"dictionary": digest("another dictionary")}, "dictionary"),
        ({"delta": "0.002"}, "delta"),
        ({"software": ()}, ""),
        ({"purpose": "cardiology-research", "epsilon": "3"}, ""),
    ],
)
def test_policy_decides_by_the_record(
    scene: Scene, agent: Agent, changes: dict[str, object], code: str
) -> None:
    follow(agent)
    job = scene.coordinator.job_on_alpha_and_bravo(**changes)
    follow(agent)
    approved = "alpha" in scene.coordinator.consortium.job_state(job).approved
    assert approved == (code == "")
    assert [e["code"] for e in scene.events if e["event"] == "refused"] == ([code] if code else [])


def test_job_for_other_software_is_declined(scene: Scene, agent: Agent) -> None:
    follow(agent)
    older = Software(name="torch", version="0.0.1", digest="")
    job = scene.coordinator.job_on_alpha_and_bravo(software=(older,))
    follow(agent)
    assert {"event": "refused", "job": job, "code": "software"} in scene.events


def test_job_with_its_own_model_code_waits_for_a_person(scene: Scene, agent: Agent) -> None:
    follow(agent)
    training = replace(training_of_the_test(), model="custom")
    job = scene.coordinator.job_on_alpha_and_bravo(training=training)
    follow(agent)
    assert {"event": "waiting", "job": job, "code": "own-model"} in scene.events
    assert not [e for e in scene.events if e["event"] in ("approved", "refused")]
    assert "prepare" not in scene.asked()


def test_the_snapshot_is_taken_once_however_often_posting_fails(scene: Scene) -> None:
    with scene.agent() as agent:
        follow(agent)
        job = scene.coordinator.job_on_alpha_and_bravo()
        agent.follow_once()
        post = agent._premises.consortium.post_record

        def fails(entry: bytes) -> str:
            post(entry)  # it arrives, but the answer does not
            raise StorageError("stands for a crash")

        agent._premises.consortium.post_record = fails  # type: ignore[method-assign]
        with pytest.raises(StorageError):
            agent.enrol_once()
    with scene.agent() as agent:
        follow(agent)
        approved = scene.coordinator.consortium.job_state(job).approved["alpha"]
        assert agent._enrolment.approval_of(job) == approved
    assert scene.asked().count("prepare") == 1


def test_a_worker_that_dies_of_a_job_is_tried_again_and_then_the_job_is_declined(
    scene: Scene, agent: Agent
) -> None:
    follow(agent)
    job = scene.coordinator.job_on_alpha_and_bravo()
    agent.follow_once()
    for _ in range(2):
        (scene.worker_folder / DIES_ON).write_text("prepare")
        with pytest.raises(WorkerError):
            agent.enrol_once()
    (scene.worker_folder / DIES_ON).write_text("prepare")
    follow(agent)
    assert {"event": "refused", "job": job, "code": "data"} in scene.events
    assert scene.asked().count("prepare") == 3


def test_own_receipt_absent_is_an_incident_and_the_job_gets_no_more(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    sent = receipt_of(agent.handle(scene.coordinator.message(job)))
    forged = replace(sent, update=digest("an update that alpha never sent"))
    other = scene.coordinator.consortium.entry(forged, "alpha")  # somebody has alpha's key
    scene.coordinator.close_round(job, other.data)
    assert code_of(agent.handle(scene.coordinator.message(job))) == "receipt-missing"
    follow(agent)
    incidents = [
        e.record for e in scene.coordinator.consortium.entries if isinstance(e.record, records.Incident)
    ]
    assert [(i.member, i.code, i.evidence) for i in incidents] == [
        ("alpha", "receipt-missing", sent.digest())
    ]
    assert code_of(agent.handle(scene.coordinator.message(job))) == "stopped"
    assert scene.coordinator.lines[-1][0] == scene.coordinator.consortium.view.size  # still cosigning
    assert Standing(scene.hospital.folder).stopped(job)


def test_left_out_as_late_is_no_incident(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent, min_participants=1)
    agent.handle(scene.coordinator.message(job))
    scene.coordinator.close_round(job, alpha="late")
    assert receipt_of(agent.handle(scene.coordinator.message(job))).round == 2


def test_account_behind_the_log_is_charged_whole_withdraws_and_asks_a_person(scene: Scene) -> None:
    path = scene.hospital.account
    with scene.agent() as agent:
        job = scene.started(agent)
        backup = backup_of(path)
        for _ in range(2):
            reply = agent.handle(scene.coordinator.message(job))
            scene.coordinator.close_round(job, entry_of(reply))
    restore(path, backup)
    with scene.agent() as agent:
        before = len(scene.coordinator.lines)
        assert code_of(agent.handle(scene.coordinator.message(job))) == "person"
        follow(agent)
        party = scene.coordinator.consortium.job_state(job).parties["alpha"]
        assert party.withdrawn
        assert len(scene.coordinator.lines) == before  # nothing is cosigned from a backup
        assert scene.asked().count("train") == 2
    charges = statement(scene)
    assert [(c.round, c.number) for c in charges] == [(WHOLE_PLAN, 3)]
    assert [e.count for e in charges[0].training] == [3]
    with scene.agent() as agent:  # still waiting after a restart
        assert code_of(agent.handle(scene.coordinator.message(job))) == "person"


def test_account_restored_between_two_jobs_is_charged_for_the_one_that_ended(scene: Scene) -> None:
    path = scene.hospital.account
    with scene.agent() as agent:
        follow(agent)
        backup = backup_of(path)
        job = scene.started(agent)
        reply = agent.handle(scene.coordinator.message(job))
        scene.coordinator.close_round(job, entry_of(reply))
        scene.coordinator.consortium.append(
            scene.coordinator.consortium.ended(job, "cancelled"), "researcher"
        )
        scene.coordinator.publish()
    restore(path, backup)
    with scene.agent() as agent:
        follow(agent)
    [charge] = statement(scene)
    assert [e.count for e in charge.training] == [2]  # round 1, and 2 which may have been asked


def test_account_ahead_of_the_log_goes_on(scene: Scene) -> None:
    with scene.agent() as agent:
        job = scene.started(agent, min_participants=1)
        agent.handle(scene.coordinator.message(job))  # charged, never logged
        scene.coordinator.close_round(job, alpha="late")
    with scene.agent() as agent:
        assert receipt_of(agent.handle(scene.coordinator.message(job))).charge == 2


def backup_of(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.parent.glob(path.name + "*")}


def restore(path: Path, backup: dict[str, bytes]) -> None:
    for old in path.parent.glob(path.name + "*"):
        old.unlink()
    for name, data in backup.items():
        (path.parent / name).write_bytes(data)


def test_checkpoint_that_the_log_does_not_show(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    message = scene.coordinator.message(job)
    ahead = scene.coordinator.consortium.fork()
    ahead.append(ahead.tick())
    note = scene.coordinator.folder.note([e.data for e in ahead.entries]).to_bytes()
    forged = replace(message, config={**message.config, "checkpoint": note})
    assert code_of(agent.handle(forged)) == "unknown-checkpoint"
    strange = replace(message, config={**message.config, "checkpoint": b"\xff\x00no note"})
    assert code_of(agent.handle(strange)) == "unknown-checkpoint"
    assert "train" not in scene.asked()


def test_deadline_that_no_clock_can_wait_for_is_no_crash(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    message = scene.coordinator.message(job)
    endless = replace(message, config={**message.config, "deadline": 2**63 - 1})
    assert agent.handle(endless).config["kind"] == "receipt"


def test_checkpoint_of_a_fork_ends_the_training_for_good(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    message = scene.coordinator.message(job)
    agent.follow_once()
    entries = [e.data for e in scene.coordinator.consortium.entries]
    other = scene.coordinator.consortium.entry(scene.coordinator.consortium.tick(7)).data
    fork = scene.coordinator.folder.note([*entries[:-1], other]).to_bytes()  # same size, another last entry
    forged = replace(message, config={**message.config, "checkpoint": fork})
    assert code_of(agent.handle(forged)) == "conflict"
    assert code_of(agent.handle(message)) == "conflict"
    assert "train" not in scene.asked()


def test_rolled_back_checkpoint(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    old = scene.coordinator.note()
    reply = agent.handle(scene.coordinator.message(job))
    scene.coordinator.close_round(job, entry_of(reply))
    message = scene.coordinator.message(job, checkpoint=old)
    assert code_of(agent.handle(message)) == "wrong-round"  # as far as this agent has looked
    agent.follow_once()
    assert code_of(agent.handle(message)) == "rolled-back"


def test_no_quorum_on_the_start(scene: Scene, agent: Agent) -> None:
    follow(agent)
    job = scene.coordinator.job_on_alpha_and_bravo()
    follow(agent)
    scene.coordinator.witnesses.clear()
    scene.coordinator.start(job)
    assert code_of(agent.handle(scene.coordinator.message(job))) == "last-not-final"
    assert statement(scene) == ()


def test_no_quorum_on_r_minus_1(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    reply = agent.handle(scene.coordinator.message(job))
    scene.coordinator.witnesses.clear()
    scene.coordinator.close_round(job, entry_of(reply))
    reply = agent.handle(scene.coordinator.message(job))  # one round ahead of finality is allowed
    scene.coordinator.close_round(job, entry_of(reply))
    assert code_of(agent.handle(scene.coordinator.message(job))) == "earlier-not-final"


def test_model_with_other_bytes_than_its_digest(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    other = MODEL + np.float32(1)
    honest = scene.coordinator.message(job)
    assert code_of(agent.handle(replace(honest, model=other))) == "model-digest"
    assert code_of(agent.handle(scene.coordinator.message(job, model=other))) == "wrong-model"


def test_coordinator_that_does_not_answer_is_a_refusal_and_no_crash(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    message = scene.coordinator.message(job)
    scene.coordinator.down = True
    assert code_of(agent.handle(message)) == "log"
    scene.coordinator.down = False
    assert receipt_of(agent.handle(message)).round == 1


def test_seeded_noise_is_never_stored_or_sent(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    train = agent._premises.worker.train
    agent._premises.worker.train = lambda *a: (train(*a)[0], False)  # type: ignore[method-assign]
    assert code_of(agent.handle(scene.coordinator.message(job))) == "account"
    with pytest.raises(Exception, match="seeded"):
        raise agent._failure or AssertionError
