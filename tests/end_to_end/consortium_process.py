"""A consortium of real processes on loopback: a coordinator's folder, members' folders, and the real commands."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import wardround as front_door
from client.member import load as load_member
from ledger import audit, envelope
from ledger.checkpoint import Checkpoint
from ledger.joining import Invitation
from ledger.note import Note
from ledger.record import Record
from ledger.source import open_source

PATIENCE = 120.0  # seconds; a limit against hanging, not a measurement
ORIGIN = "w.example/heart"
HOSPITALS = ("northgate", "riverside", "eastfield")
RESEARCHER = "uni"
GROUPS = re.compile(r"(?:[0-9a-f]{4}  ){3}[0-9a-f]{4}")


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(*arguments: str | Path, typed: str | None = None) -> subprocess.Popen[str]:
    """Start a command; its output is collected."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wardround", *map(str, arguments)],
        stdin=subprocess.PIPE if typed is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    if typed is not None:
        assert process.stdin is not None
        process.stdin.write(typed)
        process.stdin.flush()
    return process


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    """Wait for a command and return what it said; never a traceback."""
    try:
        out, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        raise AssertionError(f"it hangs:\n{out}") from None
    assert "Traceback" not in out, out
    assert process.returncode == status, out
    return out


def wardround(*arguments: str | Path, status: int = 0) -> str:
    """Run a short command in this process: what it prints, in both streams."""
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        pytest.raises(SystemExit) as ended,
    ):
        front_door.main([*map(str, arguments)])
    assert (ended.value.code or 0) == status, said.getvalue()
    return said.getvalue()


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not in time: {what}")


class Output:
    """Reads a process's lines as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str) -> str:
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.text())) is None:
            ended = self.process.poll() is not None and not self._thread.is_alive()
            if ended or time.monotonic() >= deadline:
                raise AssertionError(f"no {pattern!r} in\n{self.text()}")
            time.sleep(0.05)
        return found[0]

    def end(self, number: int = signal.SIGTERM) -> str:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return self.text()

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def succeed(self) -> str:
        """Wait for the end, which is a good one."""
        assert self.process.wait(PATIENCE) == 0, self.text()
        return self.end()


class Place:
    """The folders of one consortium."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.coordinator = folder / "coordinator"
        self.invitations: dict[str, str] = {}
        self.output: Output | None = None

    def member(self, name: str) -> Path:
        return self.folder / name

    def init(self, *more: str, invite: Mapping[str, str] | None = None) -> None:
        wanted = invite or {**dict.fromkeys(HOSPITALS, "hospital"), RESEARCHER: "researcher"}
        options = [part for name, role in wanted.items() for part in ("--invite", f"{role}:{name}")]
        out = wardround(
            "coordinator", "init", self.coordinator, "--name", "heart-study", "--origin", ORIGIN,
            "--public-name", "localhost", "--host", "127.0.0.1", "--port", str(self.port), "--json", *options, *more,
        )  # fmt: skip
        self.invitations = {i["name"]: i["invitation"] for i in json.loads(out)["invitations"]}

    def invite(self, name: str, role: str) -> str:
        out = wardround("coordinator", "invite", self.coordinator, name, "--role", role, "--json")
        self.invitations[name] = json.loads(out)["invitation"]
        return self.invitations[name]

    def invitation(self, name: str) -> Invitation:
        return Invitation.from_text(self.invitations[name])

    @contextmanager
    def up(self) -> Iterator[Output]:
        self.output = Output(start("coordinator", "up", self.coordinator))
        try:
            self.output.wait_for("waiting for the founders|serving https")
            yield self.output
        finally:
            self.output.end()

    def join(self, name: str, *more: str, typed: str | None = None) -> subprocess.Popen[str]:
        noun = "hospital" if self.invitation(name).role == "hospital" else "member"
        return start(noun, "join", self.member(name), self.invitations[name], *more, typed=typed)

    def draft(self) -> str:
        """The digest of the frozen charter, as somebody with an honest screen reads it out."""
        found = json.loads(wardround("coordinator", "members", self.coordinator, "--json"))
        return str(found["charter"])

    def found(self) -> dict[str, str]:
        """Let everybody join, compare and sign; return what each one's screen showed. The coordinator runs."""
        joining = {name: Output(self.join(name, typed="")) for name in self.invitations}
        shown = {}
        for name, output in joining.items():
            output.wait_for("sixteen groups")
            shown[name] = "".join("".join(GROUPS.findall(output.text())).split())
        for output in joining.values():
            output.type(f"{shown[name][-16:-8]} {shown[name][-8:]}")
        for output in joining.values():
            assert "has joined" in output.succeed()
        return shown

    def records(self) -> list[Record]:
        """What the coordinator's log holds, read from its files."""
        read = open_source(str(self.coordinator / "log"))
        size = Checkpoint.from_text(Note.from_bytes(read("checkpoint.pending")).text).size
        return [envelope.parse_entry(data).record for data in audit.entries(read, size)]

    def charter_of(self, name: str) -> str:
        return load_member(self.member(name)).charter
