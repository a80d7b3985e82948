"""Persons decide while the agent runs: each decision becomes one record, through every crash, and holds at once."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from client.agent import Agent
from client.cli import app
from client.decisions import FOR_GOOD, Decisions
from client.decisions_cli import _end_of
from client.errors import ClientError, ConfigError, DecisionError, LocalStateError
from client.member import Membership
from client.reviewed import reviewed
from ledger.errors import StorageError
from ledger.records import Approval, Dataset, Refusal, Withdrawal
from tests.client.fake_coordinator import follow, training_of_the_test
from tests.client.test_agent import Scene, code_of, entry_of, receipt_of, skip_of, statement

REF = "alpha/heart"
CODE = (
    b"from torch import nn\n\n\n"
    b"def build_model(*, input_shape, outputs):\n    return nn.Linear(input_shape[0], outputs)\n"
)
RUNNER = CliRunner()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(tmp_path)
    monkeypatch.setattr(Membership, "connect", lambda self: made.coordinator.door())
    yield made
    made.coordinator.close()


def policy(scene: Scene, text: str) -> None:
    """Replace the [policy] table of alpha's settings, as a person would."""
    path = scene.hospital.folder / "hospital.toml"
    kept = path.read_text().partition("[policy]")[0]
    path.write_text(f"{kept}[policy]\nmin_participants = 1\n{text}\n")


def asking(scene: Scene) -> None:
    from client import config

    policy(scene, 'approve = "ask"')
    scene.hospital = config.load(scene.hospital.folder)


def run(scene: Scene, *arguments: str) -> str:
    """Run a command of `wardround hospital` on alpha's folder; its errors come out as they are."""
    name, *rest = arguments
    wait = ["--wait", "0"] if name in ("approve", "refuse", "withdraw", "offer") else []
    result = RUNNER.invoke(app, [name, str(scene.hospital.folder), *rest, *wait], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(scene: Scene, *arguments: str) -> str:
    with pytest.raises(ClientError) as caught:
        run(scene, *arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def own(scene: Scene, *kinds: type) -> list[Any]:
    """Alpha's records of some kinds on the log."""
    found = (e.record for e in scene.coordinator.consortium.entries)
    return [r for r in found if isinstance(r, kinds) and getattr(r, "hospital", "") == "alpha"]


def custom(scene: Scene, code: bytes = CODE, **changes: Any) -> str:
    """A job with a model.py of its own, which the coordinator has."""
    digest = hashlib.sha256(code).hexdigest()
    scene.coordinator.blobs[digest] = code
    training = replace(training_of_the_test(), model="custom", model_code=digest)
    return scene.coordinator.job_on_alpha_and_bravo(training=training, **changes)


def test_a_job_that_waits_is_neither_approved_nor_refused_until_the_person_decides(scene: Scene) -> None:
    asking(scene)
    with scene.agent() as agent:
        follow(agent)
        job = scene.coordinator.job_on_alpha_and_bravo()
        for _ in range(3):
            follow(agent)
        assert [e for e in scene.events if e["event"] == "waiting"] == [
            {"event": "waiting", "job": job, "code": "ask"}  # said once
        ]
        assert own(scene, Approval, Refusal) == []
        assert "not on the record yet" in run(scene, "approve", job[:8])
        follow(agent)
        follow(agent)
    [given] = own(scene, Approval)
    assert (given.job, given.number) == (job, 1)


def test_refused_by_a_person_says_person_and_nothing_more(scene: Scene) -> None:
    asking(scene)
    with scene.agent() as agent:
        follow(agent)
        job = scene.coordinator.job_on_alpha_and_bravo()
        follow(agent)
        run(scene, "refuse", job[:8])
        follow(agent)
    with scene.agent() as agent:
        follow(agent)
        assert [(r.job, r.code) for r in own(scene, Refusal)] == [(job, "person")]
        run(scene, "approve", job[:8])  # a person may think again
        follow(agent)
    assert [r.job for r in own(scene, Approval)] == [job]
    assert len(own(scene, Refusal)) == 1


@pytest.mark.parametrize(
    ("verdict", "moment"),
    [
        ("approve", "before the worker"),
        ("approve", "before the post"),
        ("approve", "after the post"),
        ("refuse", "after the post"),
        ("withdraw", "before the post"),
    ],
)
def test_killed_between_decision_and_record_there_is_exactly_one_record(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, verdict: str, moment: str
) -> None:
    if verdict != "withdraw":
        asking(scene)
    with scene.agent() as agent:
        follow(agent)
        job = scene.coordinator.job_on_alpha_and_bravo()
        follow(agent)
        run(scene, verdict, job[:8])
        agent.follow_once()
        crash(agent, monkeypatch, moment)
        with pytest.raises(StorageError):
            agent.enrol_once()
    with scene.agent() as agent:
        follow(agent)
        follow(agent)
    kind = {"approve": Approval, "refuse": Refusal, "withdraw": Withdrawal}[verdict]
    assert len(own(scene, kind)) == 1
    assert scene.asked().count("prepare") == (1 if verdict != "refuse" else 0)


def crash(agent: Agent, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Let an agent's next step at one place be its last."""
    door, worker = agent._premises.consortium, agent._premises.worker
    post = door.post_record

    def dies(*arguments: Any) -> str:
        if moment == "after the post":
            post(*arguments)  # it arrives, but the answer does not
        raise StorageError("stands for a crash")

    if moment == "before the worker":
        monkeypatch.setattr(worker, "prepare", dies)
    else:
        monkeypatch.setattr(door, "post_record", dies)


def test_a_decision_that_could_not_be_written_leaves_the_one_before(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions = Decisions(scene.hospital.folder)
    decisions.decide("a" * 64, "withdraw", 3)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(LocalStateError, match="No space left"):
        decisions.decide("a" * 64, "approve", 4)
    found = decisions.of("a" * 64)
    assert found is not None
    assert (found.verdict, found.size) == ("withdraw", 3)
    assert [d.verdict for d in decisions.all()] == ["withdraw"]


def test_decisions_are_private_files_and_a_damaged_one_is_named(scene: Scene) -> None:
    decisions = Decisions(scene.hospital.folder)
    decisions.decide("a" * 64, "approve", 3)
    path = scene.hospital.folder / "decisions" / f"{'a' * 64}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    path.rename(path.with_name(f"{'b' * 64}.json"))
    with pytest.raises(LocalStateError, match="another job"):
        decisions.of("b" * 64)
    path.write_text('{"job":"' + "a" * 64 + '","verdict":"approve-all","size":1}')
    with pytest.raises(LocalStateError, match=r"damaged: remove it"):
        decisions.of("a" * 64)


def test_a_withdrawal_binds_this_agent_at_once_and_after_a_restart_logged_or_not(scene: Scene) -> None:
    with scene.agent() as agent:
        job = scene.started(agent)
        message = scene.coordinator.message(job)
        scene.coordinator.lock.acquire()  # commands need no coordinator
        run(scene, "withdraw", job[:8])
        scene.coordinator.lock.release()
        assert code_of(agent.handle(message)) == "withdrawn"
        assert own(scene, Withdrawal) == []
    with scene.agent() as agent:
        assert code_of(agent.handle(message)) == "withdrawn"
        follow(agent)
        assert len(own(scene, Withdrawal)) == 1
        assert code_of(agent.handle(scene.coordinator.message(job))) == "withdrawn"
    assert statement(scene) == ()
    assert "train" not in scene.asked()


def test_withdrawn_while_the_worker_computes_nothing_leaves(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scene.agent() as agent:
        job = scene.started(agent)
        train = agent._premises.worker.train

        def meanwhile(*arguments: Any) -> Any:
            run(scene, "withdraw", job[:8])
            return train(*arguments)

        monkeypatch.setattr(agent._premises.worker, "train", meanwhile)
        reply = agent.handle(scene.coordinator.message(job))
    assert code_of(reply) == "withdrawn"
    assert [(c.round, c.answered) for c in statement(scene)] == [(1, False)]  # the charge stands


def test_approved_again_after_a_withdrawal_takes_a_new_number_and_counts_what_was_spent_meanwhile(
    scene: Scene,
) -> None:
    with scene.agent() as agent:
        follow(agent)
        job = scene.coordinator.job_on_alpha_and_bravo(name="first")
        follow(agent)
        run(scene, "withdraw", "first")
        follow(agent)
        for _ in range(2):  # by rule it is never approved again
            follow(agent)
        assert len(own(scene, Approval)) == 1
    with scene.agent() as agent:
        follow(agent)
        assert len(own(scene, Approval)) == 1
        agent._premises.account.charge(
            dataset=REF, job="f" * 64, round_number=1, model_digest="e" * 64, delta=1e-4, production=True,
            training=[_event(2.83)], heldout=[],
        )  # fmt: skip
        run(scene, "approve", "first")
        follow(agent)
        follow(agent)
    first, second = own(scene, Approval)
    assert (first.job, first.number, second.job, second.number) == (job, 1, job, 2)
    assert float(second.training.noise_multiplier) > float(first.training.noise_multiplier)


def _event(noise: float) -> Any:
    from client.accounting import Event

    return Event(noise_multiplier=noise, sample_rate=1.0, count=20)


def test_an_approval_from_an_old_backup_does_not_undo_a_withdrawal(scene: Scene) -> None:
    asking(scene)
    with scene.agent() as agent:
        follow(agent)
        job = scene.coordinator.job_on_alpha_and_bravo()
        follow(agent)
        run(scene, "approve", job[:8])
        old = Decisions(scene.hospital.folder).of(job)
        follow(agent)
        run(scene, "withdraw", job[:8])
        follow(agent)
    assert old is not None
    Decisions(scene.hospital.folder).decide(job, "approve", old.size)  # the folder came from a backup
    with scene.agent() as agent:
        follow(agent)
        follow(agent)
    assert len(own(scene, Approval)) == 1
    assert "withdrawn" in run(scene, "jobs")


def test_a_person_says_no_while_the_approval_is_on_its_way(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking(scene)
    with scene.agent() as agent:
        follow(agent)
        job = scene.coordinator.job_on_alpha_and_bravo()
        follow(agent)
        run(scene, "approve", job[:8])
        prepare = agent._premises.worker.prepare

        def meanwhile(*arguments: Any) -> str:
            run(scene, "refuse", job[:8])
            return prepare(*arguments)

        monkeypatch.setattr(agent._premises.worker, "prepare", meanwhile)
        follow(agent)
        follow(agent)
    assert "alpha" not in scene.coordinator.consortium.job_state(job).approved
    assert len(own(scene, Withdrawal)) == 1


def test_a_running_agent_notices_a_decision_by_itself(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.agent.IDLE_SECONDS", 3600.0)  # nothing but the file can wake it
    asking(scene)
    with scene.agent() as agent:
        follow(agent)
        job = scene.coordinator.job_on_alpha_and_bravo()
        follow(agent)
        thread = threading.Thread(target=agent._enrol, daemon=True)
        thread.start()
        run(scene, "approve", job[:8])
        patience = time.monotonic() + 60
        while {"event": "approved", "job": job} not in scene.events:
            assert time.monotonic() < patience
            time.sleep(0.01)
        agent.stop()
        thread.join(60)


def test_an_approval_that_was_not_posted_yet_obeys_the_policy_of_now(scene: Scene) -> None:
    from client import config

    with scene.agent() as agent:
        follow(agent)
        scene.coordinator.job_on_alpha_and_bravo()
        agent.follow_once()

        def fails(entry: bytes) -> str:
            raise StorageError("stands for a crash before it is sent")

        agent._premises.consortium.post_record = fails  # type: ignore[method-assign]
        with pytest.raises(StorageError):
            agent.enrol_once()
    policy(scene, 'approve = "never"')
    scene.hospital = config.load(scene.hospital.folder)
    with scene.agent() as agent:
        follow(agent)
    assert [r.TYPE for r in own(scene, Approval, Refusal)] == ["refusal"]


def test_no_job_is_approved_while_settings_and_record_differ(scene: Scene) -> None:
    asking(scene)
    with scene.agent() as agent:
        follow(agent)
        job = scene.coordinator.job_on_alpha_and_bravo()
        follow(agent)
    path = scene.hospital.folder / "hospital.toml"
    path.write_text(path.read_text().replace("epsilon = 8", "epsilon = 6"))
    assert "wardround hospital offer" in refused(scene, "approve", job[:8])
    assert Decisions(scene.hospital.folder).of(job) is None


def test_a_paused_hospital_skips_before_anything_is_charged_and_goes_on_afterwards(scene: Scene) -> None:
    with scene.agent() as agent:
        job = scene.started(agent, min_participants=1)
        assert "paused until a person ends it" in run(scene, "pause")
        skip = skip_of(agent.handle(scene.coordinator.message(job)))
        assert (skip.round, skip.code) == (1, "paused")
        assert statement(scene) == ()
        run(scene, "unpause")
        assert skip_of(agent.handle(scene.coordinator.message(job))) == skip  # said once, said for the round
        scene.coordinator.append(skip)  # the ledger's rules take it
        scene.coordinator.close_round(job, alpha="skipped")
        assert receipt_of(agent.handle(scene.coordinator.message(job))).round == 2
    assert [(e["kind"], e["code"]) for e in scene.events if e["event"] == "round"] == [
        ("skip", "paused"), ("skip", "paused"), ("receipt", ""),
    ]  # fmt: skip


def test_a_pause_ends_by_itself_and_outlives_a_restart(scene: Scene) -> None:
    with scene.agent() as agent:
        job = scene.started(agent, min_participants=1)
    Decisions(scene.hospital.folder).pause(scene.coordinator.now + 30)
    with scene.agent() as agent:
        assert skip_of(agent.handle(scene.coordinator.message(job))).code == "paused"
        scene.coordinator.close_round(job, alpha="late")
        scene.coordinator.append(scene.coordinator.consortium.tick(60))
        assert receipt_of(agent.handle(scene.coordinator.message(job))).round == 2


def test_outside_its_hours_a_round_is_skipped_but_what_was_charged_goes_its_way(scene: Scene) -> None:
    with scene.agent() as agent:
        job = scene.started(agent, min_participants=1)
        first = agent.handle(scene.coordinator.message(job))
        now = datetime.fromtimestamp(scene.coordinator.now).astimezone()
        begin, end = now + timedelta(hours=2), now + timedelta(hours=3)
        policy(scene, f'hours = ["{begin:%H:%M}-{end:%H:%M}"]')
        agent.reload()
        follow(agent)
        again = agent.handle(scene.coordinator.message(job))
        assert again.config == first.config  # the same bytes, at whatever hour
        scene.coordinator.close_round(job, entry_of(first))
        skip = skip_of(agent.handle(scene.coordinator.message(job)))
        assert (skip.round, skip.code) == (2, "hours")
        policy(scene, f'hours = ["{now - timedelta(hours=1):%H:%M}-{end:%H:%M}"]')
        agent.reload()
        follow(agent)
        scene.coordinator.append(skip)
        scene.coordinator.close_round(job, alpha="skipped")
        assert receipt_of(agent.handle(scene.coordinator.message(job))).round == 3
    assert [c.round for c in statement(scene)] == [1, 3]


def test_a_worker_that_prepares_another_job_is_a_busy_skip_and_no_charge(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scene.agent() as agent:
        job = scene.started(agent)
        monkeypatch.setattr(agent._premises.worker, "is_free_within", lambda seconds: False)
        assert skip_of(agent.handle(scene.coordinator.message(job))).code == "busy"
    assert statement(scene) == ()


def test_a_withdrawn_or_restored_account_is_not_approved_again_by_rule(scene: Scene) -> None:
    with scene.agent() as agent:
        follow(agent)
        job = scene.coordinator.job_on_alpha_and_bravo()
        follow(agent)
        agent._premises.standing.ask_person("restored")
        follow(agent)
        assert len(own(scene, Withdrawal)) == 1
        agent._premises.standing.resume()
        follow(agent)
        follow(agent)
    assert [r.job for r in own(scene, Approval)] == [job]  # the first one, which was withdrawn


def test_a_jobs_own_model_is_approved_by_putting_exactly_the_file_shown_into_models(scene: Scene) -> None:
    with scene.agent() as agent:
        follow(agent)
        job = custom(scene)
        follow(agent)
        shown = run(scene, "show", job[:8])
        assert "the whole text" in shown
        assert "  | def build_model(*, input_shape, outputs):" in shown
        kept = scene.hospital.folder / "jobs" / job / "model.py"
        assert kept.read_bytes() == CODE
        assert reviewed(scene.hospital.models) == {}  # shown is not approved
        kept.write_bytes(CODE + b"# altered on the disk after it was read\n")
        run(scene, "approve", job[:8])
        assert list(reviewed(scene.hospital.models)) == [hashlib.sha256(CODE).hexdigest()]
        follow(agent)
        assert [r.job for r in own(scene, Approval)] == [job]
        later = custom(scene, CODE.replace(b"nn.Linear", b"nn.Bilinear"))
        follow(agent)
        shown = run(scene, "show", later[:8])
        assert "which this hospital approved last" in shown
        assert "  | -    return nn.Linear(input_shape[0], outputs)" in shown
        assert "  | +    return nn.Bilinear(input_shape[0], outputs)" in shown
        assert len(own(scene, Approval)) == 1  # another file waits again
        same = custom(scene, rounds=2, evaluate=(), heldout_epsilon="0")
        follow(agent)
        assert {"event": "waiting", "job": same, "code": "own-model"} in scene.events


def test_a_coordinator_that_serves_other_code_is_not_believed(scene: Scene) -> None:
    with scene.agent() as agent:
        follow(agent)
        job = custom(scene)
        follow(agent)
    [digest] = scene.coordinator.blobs
    scene.coordinator.blobs[digest] = b"import os\n"
    assert "its text cannot be shown: the coordinator served other bytes" in run(scene, "show", job[:8])
    assert "served other bytes" in refused(scene, "approve", job[:8])
    scene.coordinator.blobs.clear()
    assert "404" in refused(scene, "approve", job[:8])
    assert reviewed(scene.hospital.models) == {}
    assert Decisions(scene.hospital.folder).of(job) is None


def test_a_pushed_policy_changes_nothing(scene: Scene) -> None:
    """A job that names our settings and files, blobs that look like decisions: no file that policy reads changes."""
    asking(scene)
    evil = b'[policy]\napprove = "built-in"\nmax_epsilon_per_job = 100\n'
    with scene.agent() as agent:
        follow(agent)
        before = policy_files(scene.hospital.folder)
        jobs = [
            scene.coordinator.job_on_alpha_and_bravo(name=name)
            for name in ("hospital.toml", "decisions", "models", "pause.json", "policy.approve")
        ]
        for name in ("policy", "hospital.toml", "decisions"):
            scene.coordinator.blobs[name] = evil
        jobs.append(custom(scene, evil))
        follow(agent)
        run(scene, "show", jobs[-1][:8])  # fetches it
        message = scene.coordinator.message
        scene.coordinator.consortium.append(scene.coordinator.consortium.approval("alpha", jobs[0]))
        scene.coordinator.start(jobs[0])  # with an approval that alpha never gave
        pushed = message(
            jobs[0], approve="built-in", hours="", policy='approve = "built-in"', verdict="approve"
        )
        assert code_of(agent.handle(pushed)) == "approval"
        follow(agent)
        agent.reload()
        follow(agent)
        assert policy_files(scene.hospital.folder) == before
        assert [e for e in scene.events if e["event"] == "approved"] == []
    assert "train" not in scene.asked()


def policy_files(folder: Path) -> dict[str, bytes]:
    """Everything that decides what this hospital takes part in."""
    paths = [folder / "hospital.toml", *folder.glob("models/*"), *folder.glob("decisions/*")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.is_file()}


def test_a_name_that_looks_like_another_jobs_digits_is_ambiguous(scene: Scene) -> None:
    asking(scene)
    with scene.agent() as agent:
        follow(agent)
        honest = scene.coordinator.job_on_alpha_and_bravo()
        scene.coordinator.job_on_alpha_and_bravo(name=honest[:12])
        scene.coordinator.job_on_alpha_and_bravo(name=honest)
        follow(agent)
    assert "2 jobs are meant" in refused(scene, "approve", honest[:12])
    assert honest[:12] in run(scene, "approve", honest)  # all the digits are the digest's
    assert "give its name" in refused(scene, "approve", honest[:3])
    assert "give its name" in refused(scene, "refuse", "ffffffff\x1b[2J")


def test_commands_that_come_too_late_or_make_no_sense_are_one_line(scene: Scene) -> None:
    assert "start the agent" in refused(scene, "jobs")
    with scene.agent() as agent:
        job = scene.started(agent, name="running")
        follow(agent)
        assert "hospital withdraw" in refused(scene, "refuse", "running")
        assert "approved already" in run(scene, "approve", "running")
        scene.coordinator.job_on_alpha_and_bravo(name="other", delta="0.002")
        follow(agent)
        assert "delta" in refused(scene, "approve", "other")
        assert "not approved by this hospital" in refused(scene, "withdraw", "other")
        scene.coordinator.append(scene.coordinator.consortium.job("bravo", name="foreign"))
        follow(agent)
        assert "does not ask for alpha/heart" in refused(scene, "approve", "foreign")
        run(scene, "withdraw", job[:8])
        follow(agent)
        assert "too late" in refused(scene, "approve", job[:8])
        policy(scene, 'approve = "never"')
        agent.reload()
        scene.coordinator.job_on_alpha_and_bravo(name="last")
        follow(agent)
        assert "policy" in refused(scene, "approve", "last")


def test_a_new_version_of_the_dataset_is_shown_then_registered_once(scene: Scene) -> None:
    path = scene.hospital.folder / "hospital.toml"
    with scene.agent() as agent:
        follow(agent)
        assert "says what hospital.toml says" in run(scene, "offer")
        path.write_text(path.read_text().replace("epsilon = 8", "epsilon = 6"))
        shown = run(scene, "offer", "--yes")
        assert "epsilon     8  ->  6" in shown
        follow(agent)
        follow(agent)
        job = scene.coordinator.job_on_alpha_and_bravo()
        follow(agent)
    versions = own(scene, Dataset)
    assert [(v.version, v.epsilon) for v in versions] == [(1, "8"), (2, "6")]
    assert [r.job for r in own(scene, Approval)] == [job]
    path.write_text(path.read_text().replace("epsilon = 6", "epsilon = 8"))
    with pytest.raises(ConfigError, match="may not rise from 6 to 8"):
        run(scene, "offer", "--yes")


def test_an_offer_waits_for_the_job_that_runs_and_dies_with_other_settings(scene: Scene) -> None:
    path = scene.hospital.folder / "hospital.toml"
    with scene.agent() as agent:
        job = scene.started(agent)
        follow(agent)
        path.write_text(path.read_text().replace("epsilon = 8", "epsilon = 6"))
        assert "has ended" in run(scene, "offer", "--yes")
        follow(agent)
        assert len(own(scene, Dataset)) == 1
        path.write_text(path.read_text().replace("epsilon = 6", "epsilon = 5"))  # not what was agreed to
        agent.reload()
        consortium = scene.coordinator.consortium
        consortium.append(consortium.ended(job, "cancelled"), "researcher")
        scene.coordinator.publish()
        follow(agent)
        assert len(own(scene, Dataset)) == 1
        run(scene, "offer", "--yes")
        follow(agent)
    assert [v.epsilon for v in own(scene, Dataset)] == ["8", "5"]


def test_the_end_of_a_pause_is_read_as_local_time() -> None:
    now = datetime(2026, 11, 25, 12, 0).astimezone()
    assert _end_of("13:30", now) == int((now + timedelta(minutes=90)).timestamp())
    assert _end_of("11:00", now) == int((now + timedelta(hours=23)).timestamp())
    assert _end_of("2026-12-01 06:00", now) == int(datetime(2026, 12, 1, 6).astimezone().timestamp())
    for text in ("yesterday", "25:00", "2026-11-24 06:00"):
        with pytest.raises(DecisionError, match="--until"):
            _end_of(text, now)
    assert now.timestamp() < FOR_GOOD
