"""Flower's processes killed, its folder deleted, in the middle of `wardround demo`: no round lost, no second charge.

Runs where `test_faults`, which kills the same processes on separate hosts, cannot: then the SuperLink alone is
killed, once. With WARDROUND_FAULTS=1 the ServerApp's process is killed and the SuperLink's folder deleted in the same
job, too.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from client.budget import Account
from client.demo_data import BREAST_CANCER
from coordinator import evidence_check
from ledger import audit, envelope
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError
from ledger.note import Note
from ledger.records import Round
from ledger.source import open_source
from ledger.store import PENDING
from tests.end_to_end import hosts

SECONDS = 280.0  # a limit against hanging, not a measurement
FAULTS = ("superlink", "host", "folder") if os.environ.get("WARDROUND_FAULTS") else ("superlink",)


def rounds(log: Path) -> list[Round]:
    """The round records so far; none before there is a log."""
    try:
        read = open_source(str(log))
        size = Checkpoint.from_text(Note.from_bytes(read(PENDING)).text).size
        found = [envelope.parse_entry(data).record for data in audit.entries(read, size)]
    except (LedgerError, OSError):  # the demo is still founding the log
        return []
    return [r for r in found if isinstance(r, Round)]


def reached(log: Path, count: int) -> bool:
    return len(rounds(log)) >= count


def wait_until(condition: Callable[[], bool], demo: subprocess.Popen[str], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert demo.poll() is None, f"the demo ended before {what}"
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def processes(directory: Path, main: str) -> list[int]:
    """Process ids of the coordinator's children of one kind: those whose output goes below this directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().decode(errors="replace")
            output = (path / "fd" / "1").readlink()
        except OSError:
            continue
        if main in command and directory in output.parents:
            found.append(int(path.name))
    return sorted(found)


def strike(fault: str, coordinator: Path) -> None:
    if fault == "folder":
        shutil.rmtree(coordinator / "flower")
        return
    main = {"superlink": "coordinator.superlink:run_superlink", "host": "coordinator.server_app:run_host"}[
        fault
    ]
    pids = processes(coordinator, main)
    assert pids, f"no {fault} runs"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_flower_dies_in_the_middle_of_a_job(tmp_path: Path) -> None:
    if not os.environ.get("WARDROUND_FAULTS") and not hosts.obstacle():
        pytest.skip(
            "test_faults kills the same processes, on separate hosts: WARDROUND_FAULTS=1 runs this, too"
        )
    directory = tmp_path / "run"
    log = directory / "coordinator" / "log"
    command = [sys.executable, "-m", "wardround", "demo", "--directory", str(directory), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        for number, fault in enumerate(FAULTS, start=1):
            wait_until(partial(reached, log, 2 * number), demo, f"round {2 * number}")
            strike(fault, directory / "coordinator")
        out, err = demo.communicate(timeout=SECONDS)
    assert demo.returncode == 0, err[-3000:]
    result: dict[str, Any] = json.loads(out)
    total = BREAST_CANCER.rounds
    exchanges = rounds(log)
    assert [r.round for r in exchanges] == list(range(1, total + 2))  # and the evaluation of the last model
    evidence_check.verify(Path(result["run"]) / "evidence")
    for name in BREAST_CANCER.hospitals:
        account = Account.open(directory / "hospitals" / name / "account.sqlite", read_only=True)
        try:
            (statement,) = account.history()
        finally:
            account.close()
        assert [c.round for c in statement.charges] == list(range(1, total + 2))  # each exchange once
