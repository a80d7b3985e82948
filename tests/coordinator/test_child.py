"""A child hears its parent, ends when told, and is gone when its parent is, by whatever cause."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coordinator.child import Child, Words

HERE = "tests.coordinator.test_child"


def echo(arguments: list[str], words: Words) -> None:
    """A child's main: print what is heard."""
    print("arguments", *arguments, os.environ.get("GIVEN"), flush=True)
    while True:
        print("heard", words.get(), flush=True)


def stubborn(arguments: list[str], words: Words) -> None:
    """A child's main: ignore requests to end, and have a child of its own."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("grandchild", grandchild.pid, flush=True)
    time.sleep(600)


def parent(arguments: list[str], words: Words) -> None:
    """A child's main: be the parent of another, and say its pid."""
    child = Child(f"{HERE}:echo", [], {}, Path(arguments[0]))
    print("child", child.pid, flush=True)
    time.sleep(600)


def said(log: Path, word: str) -> list[str]:
    """Wait until a line of the log starts with `word`; return its other words."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines() if log.exists() else ():
            if line.split(" ")[0] == word:
                return line.split(" ")[1:]
        time.sleep(0.02)
    raise AssertionError(f"{word!r} was not said; the log has {log.read_text()!r}")


def gone(pid: int) -> bool:
    """Wait until a process has ended (a zombie that nobody reaps has)."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        if state.stdout.strip()[:1] in ("", "Z"):
            return True
        time.sleep(0.02)
    return False


def test_a_child_gets_arguments_environment_and_words(tmp_path: Path) -> None:
    child = Child(f"{HERE}:echo", ["a", "b c"], {"GIVEN": "value"}, tmp_path / "log")
    try:
        assert said(tmp_path / "log", "arguments") == ["a", "b", "c", "value"]
        child.tell(b"run")
        assert said(tmp_path / "log", "heard") == ["b'run'"]
        assert child.runs()
    finally:
        child.end()
    assert not child.runs()
    assert child.log_tail().endswith("heard b'run'")
    child.tell(b"too late")  # nobody hears it; no error
    child.end()


def test_a_stubborn_child_and_its_own_children_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.child.STOP_SECONDS", 0.2)
    child = Child(f"{HERE}:stubborn", [], {}, tmp_path / "log")
    grandchild = int(said(tmp_path / "log", "grandchild")[0])
    child.end()
    assert not child.runs()
    assert gone(grandchild)


def test_sigkill_of_the_parent_takes_the_child_along(tmp_path: Path) -> None:
    middle = Child(f"{HERE}:parent", [str(tmp_path / "inner.log")], {}, tmp_path / "log")
    inner = int(said(tmp_path / "log", "child")[0])
    said(tmp_path / "inner.log", "arguments")
    os.kill(middle.pid, signal.SIGKILL)
    assert gone(inner)
    middle.end()
