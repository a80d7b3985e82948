"""A small consortium as separate processes, and a researcher's folder: what the commands of one are tested with.

The folders are the demonstration's; everything after founding is typed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import wardround_demo_setup as founding
from client.demo_data import BREAST_CANCER
from client.errors import UnreachableError
from client.log_copy import LogCopy
from client.member import FILE, load
from client.private_file import write_private
from ledger import envelope

SECONDS = 120
HOSPITALS = ("hillcrest", "lakeside", "northgate")


@dataclass(slots=True, kw_only=True)
class Processes:
    """A coordinator and its hospitals at work."""

    setup: founding.Setup
    researcher: Path
    typed: list[str] = field(default_factory=list)
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def folders(self) -> dict[str, Path]:
        hospitals = {name: self.setup.hospital(name) for name in self.setup.settings.hospitals}
        return {"coordinator": self.setup.coordinator, **hospitals}

    def start(self, name: str) -> None:
        folder = self.folders[name]
        words = ("coordinator", "up") if name == "coordinator" else ("hospital", "run")
        with (folder / "output.log").open("ab") as output:
            self.children[name] = subprocess.Popen(
                command(*words, folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"},
            )

    def kill(self, name: str) -> None:
        self.children[name].kill()
        self.children[name].wait()

    def stop(self) -> None:
        for child in self.children.values():
            child.send_signal(signal.SIGTERM)
        for child in self.children.values():
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def wardround(self, *words: str | Path, status: int = 0) -> str:
        """Type a command; return what it prints, or its one line of error."""
        self.typed.append(" ".join(("wardround", *map(str, words))))
        done = subprocess.run(command(*words), capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == status, (self.typed[-1], done.stdout[-2000:], done.stderr[-3000:])
        assert "Traceback" not in done.stderr
        return done.stdout if status == 0 else done.stderr

    def agree(self) -> None:
        """Wait until every hospital has offered its dataset, then let all of them sign the agreement."""
        membership = load(self.researcher)
        with closing(membership.connect()) as door:
            log, until = LogCopy(membership, door), time.monotonic() + SECONDS
            while True:
                assert time.monotonic() < until, "the hospitals' offers did not come"
                assert all(child.poll() is None for child in self.children.values())
                try:
                    datasets = [d.record for d in log.pull().state.datasets.values()]
                    if len(datasets) == len(self.setup.settings.hospitals):
                        agreed = founding.agreement(self.setup, datasets)
                        door.post_record(
                            envelope.sign(agreed, *(self.setup.keys[name] for name in agreed.parties))
                        )
                        return
                except UnreachableError:
                    pass
                time.sleep(0.2)


def command(*words: str | Path) -> Sequence[str]:
    return [sys.executable, "-m", "wardround", *map(str, words)]


@contextmanager
def processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    """Found a consortium of three hospitals, none of which may be dishonest, and start it."""
    monkeypatch.setattr(founding, "MAX_DISHONEST", 0)
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    setup = founding.prepare(folder / "run", replace(BREAST_CANCER, hospitals=HOSPITALS), None, port)
    researcher = folder / "researcher"
    (researcher / "keys").mkdir(parents=True)
    write_private(researcher / "keys" / "identity.key", setup.keys["researcher"].to_text().encode() + b"\n")
    shutil.copyfile(setup.coordinator / "tls" / "ca.pem", researcher / "ca.pem")
    (researcher / FILE).write_text(
        f'name = "researcher"\ncoordinator = "localhost:{port}"\nauthority = "ca.pem"\n'
        f'charter = "{setup.charter.digest()}"\n'
    )
    found = Processes(setup=setup, researcher=researcher)
    try:
        for name in found.folders:
            found.start(name)
        yield found
    finally:
        found.stop()
