"""The commands: what they print, and one clear line, no half-made state, for whatever a person can get wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

import wardround
from client import predict_cli, run_cli
from client.agent import Agent
from client.cli import app
from client.config import load
from client.errors import ClientError, LocalStateError
from client.predict import FORMAT
from ledger.errors import LedgerError
from tests.client import hospital_folder
from tests.client.fake_coordinator import FakeCoordinator, follow

RUNNER = CliRunner()
PATIENCE = 60.0  # seconds; a limit against hanging, not a measurement


def output(*arguments: str) -> str:
    result = RUNNER.invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def state_of(folder: Path) -> set[str]:
    """What the agent itself may write."""
    return {p.name for p in folder.iterdir()} & {
        "account.sqlite",
        "mirror",
        "worker",
        "jobs",
        "standing.json",
    }


BREAK: dict[str, tuple[Callable[[Path], object], str]] = {
    "unreadable data file": (lambda f: (f / "patients.csv").unlink(), "cannot read .*patients.csv"),
    "missing column": (
        lambda f: (f / "patients.csv").write_text("id,sex,num\n"),
        "column 'age' is missing",
    ),
    "label out of range": (
        lambda f: (f / "patients.csv").write_text(
            hospital_folder.table([*hospital_folder.rows(), "x,40,1,7"])
        ),
        "must be corrected first",
    ),
    "wrong size class": (
        lambda f: (f / "patients.csv").write_text(hospital_folder.table(hospital_folder.rows(9))),
        "size_class",
    ),
    "no secret": (lambda f: (f / "keys" / "dataset.secret").unlink(), "dataset.secret"),
    "no identity key": (lambda f: (f / "keys" / "identity.key").unlink(), "identity.key"),
    "no node key": (lambda f: (f / "keys" / "node.pem").unlink(), "node.pem"),
    "no authority": (lambda f: (f / "ca.pem").unlink(), "ca.pem"),
    "no dictionary": (lambda f: (f / "dictionary.json").unlink(), "dictionary.json"),
    "damaged dictionary": (
        lambda f: (f / "dictionary.json").write_text("{}"),
        "dictionary.json: data dictionary",
    ),
    "damaged account": (lambda f: (f / "account.sqlite").write_bytes(b"x" * 5000), "account"),
    "folder in the way": (lambda f: (f / "mirror").write_text("a file"), "mirror"),
}


@pytest.mark.parametrize("case", BREAK, ids=BREAK)
def test_bad_input_before_the_start_is_one_line_and_nothing_half_made(tmp_path: Path, case: str) -> None:
    folder = hospital_folder.write(tmp_path / "alpha")
    damage, said = BREAK[case]
    damage(folder)
    before = state_of(folder)
    coordinator = FakeCoordinator(tmp_path / "log")
    with pytest.raises((ClientError, LedgerError), match=said) as caught:
        Agent(load(folder), consortium=coordinator.door())
    coordinator.close()
    assert "\n" not in str(caught.value)
    if case != "folder in the way":  # found last, when the account is there already, empty
        assert state_of(folder) == before


@pytest.fixture(scope="module")
def after_a_round(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a hospital that has been through one round."""
    path = tmp_path_factory.mktemp("run")
    coordinator = FakeCoordinator(path / "log")
    folder = hospital_folder.write(path / "alpha")
    (path / "fake").mkdir()
    command = [sys.executable, "-m", "tests.client.fake_worker", str(path / "fake")]
    with Agent(
        load(folder), clock=lambda: coordinator.now, consortium=coordinator.door(), worker=command
    ) as agent:
        follow(agent)
        job = coordinator.job_on_alpha_and_bravo()
        follow(agent)
        coordinator.start(job)
        reply = agent.handle(coordinator.message(job))
        receipt = reply.config["receipt"]
        assert isinstance(receipt, bytes)
        coordinator.close_round(job, receipt)
        agent.follow_once()
    coordinator.close()
    return folder


def test_budget_says_epsilon_of_how_much_at_which_delta_for_whom(after_a_round: Path) -> None:
    lines = output("budget", str(after_a_round)).splitlines()
    assert lines[0].startswith("alpha/heart: epsilon ")
    assert " of 8 spent at delta 0.0001 (add/remove one patient), 1 charges" in lines[0]
    assert all("delta" in line and "add/remove one patient" in line for line in lines)
    [found] = json.loads(output("budget", str(after_a_round), "--json"))
    assert found["relation"] == "add/remove one patient"
    assert [c["round"] for c in found["charges"]] == [1]
    assert 0 < float(found["epsilon_spent"]) < 8


def test_log_lists_this_hospitals_records(after_a_round: Path) -> None:
    receipts = json.loads(output("log", str(after_a_round), "--type", "receipt", "--json"))
    assert len(receipts) == 1
    mine, everything = output("log", str(after_a_round)), output("log", str(after_a_round), "--all")
    assert "alpha" in mine
    assert "bravo/heart" not in mine
    assert len(everything.splitlines()) > len(mine.splitlines())


def test_resume(tmp_path: Path) -> None:
    from client.standing import Standing

    folder = hospital_folder.write(tmp_path / "alpha")
    assert "nothing waits" in output("resume", str(folder))
    Standing(folder).ask_person("restored")
    assert "confirmed (restored)" in output("resume", str(folder))
    assert not Standing(folder).person


def test_every_help_has_an_example() -> None:
    typed = "run check unit budget log resume jobs show approve refuse withdraw pause unpause offer"
    for command in typed.split():
        assert f"Example: wardround hospital {command}" in output(command, "--help")
    assert "Example: wardround predict" in RUNNER.invoke(predict_cli.app, ["--help"]).output


def test_predict_prints_a_probability_or_why_there_is_none(tmp_path: Path) -> None:
    weights = {"weight": np.array([[0.0, 2.0]], np.float32), "bias": np.array([0.0], np.float32)}
    dictionary = hospital_folder.DICTIONARY.to_bytes().decode()
    metadata = {"format": FORMAT, "model": "logistic-regression", "dictionary": dictionary}
    save_file(weights, tmp_path / "m.safetensors", metadata=metadata)
    (tmp_path / "new.csv").write_text("age,sex\n60,1\n60,0\n60,\n")
    arguments = [str(tmp_path / "m.safetensors"), str(tmp_path / "new.csv")]
    result = RUNNER.invoke(predict_cli.app, arguments, catch_exceptions=False)
    assert result.output.splitlines() == ["1\t0.8808", "2\t0.1192", "3\tsex: missing"]
    found = json.loads(RUNNER.invoke(predict_cli.app, [*arguments, "--json"]).output)
    assert [f["problem"] for f in found] == ["", "", "sex: missing"]
    assert found[2]["probability"] is None
    assert RUNNER.invoke(predict_cli.app, arguments[:1]).exit_code == 2


def test_usage_errors_exit_2_and_ours_exit_1_with_one_line(tmp_path: Path) -> None:
    assert RUNNER.invoke(app, ["run"]).exit_code == 2
    assert RUNNER.invoke(app, ["no-such"]).exit_code == 2
    found = subprocess.run(
        [sys.executable, "-m", "wardround", "hospital", "run", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert "hospital.toml" in found.stderr


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("starts", "status"), [(True, 75), (False, 1)], ids=["while it ran: again", "at the start: a person"]
)
def test_the_exit_status_says_whether_a_restart_may_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: bool, status: int
) -> None:
    class Failing:
        def __init__(self, *_: object, **__: object) -> None:
            if not starts:
                raise LocalStateError("the disk is full")

        def __enter__(self) -> Failing:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def run(self) -> None:
            raise LocalStateError("the disk is full")

    monkeypatch.setattr(run_cli, "Agent", Failing)
    folder = hospital_folder.write(tmp_path / "alpha")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        with pytest.raises(SystemExit) as ended:
            wardround.main(["hospital", "run", str(folder)])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ended.value.code == status


def test_run_survives_a_coordinator_that_is_not_there_and_ends_when_told(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from coordinator.tls import ensure_tls

    folder = hospital_folder.write(tmp_path / "alpha")
    authority = ensure_tls(tmp_path / "tls", [], datetime.now(UTC)).authority
    (folder / "ca.pem").write_bytes(authority.read_bytes())
    text = (folder / "hospital.toml").read_text().replace("localhost:8443", "127.0.0.1:9")  # discard: nobody
    (folder / "hospital.toml").write_text(text + '[journal]\nfile = "agent.log"\n')
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # systemd's end
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(PATIENCE)
    command = [sys.executable, "-m", "wardround", "hospital", "run", str(folder), "--json"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "NOTIFY_SOCKET": str(tmp_path / "notify")},
    )
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"event": "following"}
    trouble = [json.loads(process.stdout.readline()) for _ in range(2)]  # both connections, each told once
    assert {(t["event"], t["part"]) for t in trouble} == {("trouble", "log"), ("trouble", "rounds")}
    assert all("cannot be reached" in t["trouble"] for t in trouble)
    assert manager.recv(1000).startswith(b"READY=1\nSTATUS=started")
    (folder / "agent.log").rename(folder / "agent.log.moved")  # as logrotate does
    process.send_signal(signal.SIGHUP)
    wait_for((folder / "agent.log").exists)
    time.sleep(0.5)  # more requests fail
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate()
    watchdog.cancel()
    manager.close()
    assert process.returncode == 0
    assert '"event": "following"' in (folder / "agent.log.moved").read_text()
    assert '"event": "stopped"' in (folder / "agent.log").read_text()
    assert json.loads(out.splitlines()[-1]) == {"event": "stopped"}  # after what the settings read again gave
    assert "cannot be reached" in errors
    assert "Traceback" not in errors
