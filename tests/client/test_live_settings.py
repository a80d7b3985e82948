"""hospital.toml read again by a running agent: what takes effect, what needs a restart, what a damaged file does."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.live_settings import LiveSettings
from client.premises import read_dictionary
from tests.client import hospital_folder
from tests.client.fake_coordinator import follow
from tests.client.test_agent import Scene
from tests.client.test_decisions import policy

FIXED: dict[str, tuple[str, str]] = {
    "name": ('name = "alpha"', 'name = "alpine"'),
    "coordinator": ("localhost:8443", "elsewhere.example:8443"),
    "authority": ('authority = "ca.pem"', 'authority = "other.pem"'),
    "charter": ('charter = "', 'charter = "0'),
    "dataset.name": ('name = "heart"', 'name = "lung"'),
    "dataset.file": ("patients.csv", "other.csv"),
    "dataset.one_row_per_patient": ("[policy]", "[policy]"),
}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.coordinator.close()


def edit(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "hospital.toml"
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize("name", FIXED)
def test_what_needs_a_restart_is_named_and_changes_nothing(tmp_path: Path, name: str) -> None:
    live = LiveSettings(hospital_folder.hospital(tmp_path / "alpha"), read_dictionary)
    before, (old, new) = live.hospital, FIXED[name]
    folder = before.folder

    def change(text: str) -> str:
        if name == "charter":
            digest = before.charter
            return text.replace(digest, "0" * 64)
        if name == "dataset.one_row_per_patient":
            return text.replace("[policy]", "one_row_per_patient = true\n[policy]")
        return text.replace(old, new, 1)

    edit(folder, change)
    edit(folder, lambda text: text.replace('approve = "built-in"', 'approve = "never"'))
    with pytest.raises(Exception, match=rf"changes {name}: restart the agent") as caught:
        live.reload()
    assert "\n" not in str(caught.value)
    assert live.hospital is before  # the policy of the same file does not hold either


def test_policy_limits_and_the_offer_take_effect_together(tmp_path: Path) -> None:
    live = LiveSettings(hospital_folder.hospital(tmp_path / "alpha"), read_dictionary)
    folder = live.hospital.folder
    assert live.reload() is False
    edit(folder, lambda text: text.replace("epsilon = 8", "epsilon = 6") + "[limits]\nthreads = 2\n")
    edit(folder, lambda text: text.replace('approve = "built-in"', 'approve = "ask"'))
    assert live.reload() is True
    assert (live.hospital.dataset.epsilon, live.hospital.limits.threads) == ("6", 2)
    assert live.hospital.policy.approve == "ask"


def test_a_damaged_file_keeps_the_old_settings_and_says_so_in_one_line(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    with scene.agent() as agent:
        follow(agent)
        for damage in ("[policy\n", 'name = "alpha"\n', "\x00", ""):
            (scene.hospital.folder / "hospital.toml").write_text(damage)
            caplog.clear()
            agent.reload()
            follow(agent)
            [record] = [r for r in caplog.records if r.levelno >= logging.WARNING]
            assert "the old settings hold on" in record.getMessage()
            assert "\n" not in record.getMessage()
        scene.coordinator.job_on_alpha_and_bravo()
        follow(agent)
    assert [e["event"] for e in scene.events] == ["registered", "approved"]


def test_a_damaged_dictionary_keeps_the_old_settings(tmp_path: Path) -> None:
    live = LiveSettings(hospital_folder.hospital(tmp_path / "alpha"), read_dictionary)
    before = live.hospital
    edit(before.folder, lambda text: text.replace('approve = "built-in"', 'approve = "never"'))
    (before.folder / "dictionary.json").write_text("{}")
    with pytest.raises(Exception, match=r"dictionary\.json"):
        live.reload()
    assert live.hospital is before


def test_a_job_that_waits_is_approved_by_rule_once_the_policy_says_so(scene: Scene) -> None:
    policy(scene, 'approve = "ask"')
    with scene.agent() as agent:
        agent.reload()
        follow(agent)
        job = scene.coordinator.job_on_alpha_and_bravo()
        follow(agent)
        policy(scene, 'approve = "built-in"')
        follow(agent)
        assert [e for e in scene.events if e["event"] == "approved"] == []  # not before it is told
        agent.reload()
        follow(agent)
        assert {"event": "approved", "job": job} in scene.events


def test_changed_limits_start_another_worker_and_other_changes_do_not(scene: Scene) -> None:
    with scene.agent() as agent:
        follow(agent)
        first = agent.worker_pid
        policy(scene, 'approve = "ask"')
        agent.reload()
        follow(agent)
        assert agent.worker_pid == first
        edit(scene.hospital.folder, lambda text: text + "[limits]\nthreads = 2\n")
        agent.reload()
        follow(agent)
        assert agent.worker_pid != first


def test_a_signal_is_enough_while_the_agents_threads_run(scene: Scene) -> None:
    """Only the enrolment's thread: the node needs a network."""
    with scene.agent() as agent:
        follow(agent)
        policy(scene, 'approve = "ask"')
        before = signal.signal(signal.SIGHUP, lambda *_: agent.reload())
        thread = threading.Thread(target=agent._enrol, daemon=True)
        thread.start()
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            patience = time.monotonic() + 60
            while {"event": "reloaded", "changed": True} not in scene.events:
                assert time.monotonic() < patience
                time.sleep(0.01)
        finally:
            signal.signal(signal.SIGHUP, before)
            agent.stop()
            thread.join(60)
        assert agent._premises.hospital.policy.approve == "ask"
