"""A running consortium that faults are put into: real processes, restarted as a service manager would.

Each process runs on a host of its own (`hosts`). What a fault has cost is `fault_costs`'.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from client.demo_data import BREAST_CANCER
from ledger import envelope
from ledger.errors import LedgerError
from ledger.record import Record
from ledger.records import Abort, Dataset, Job, Round
from ledger.unit import PERSON, STOPPED, USAGE
from tests.end_to_end import fault_costs
from tests.end_to_end.fault_costs import Outcome
from tests.end_to_end.hosts import Host, kill, stop
from wardround_demo_setup import Setup, agreement, job, prepare

PORT = 8443
COORDINATOR = "coordinator"
RESTART_SECONDS = 1.0  # what a service manager waits before it starts something again; the unit's is longer
FOR_A_PERSON = (STOPPED, PERSON, USAGE)  # exit statuses after which the unit starts nothing again
POLL = 0.2
PATIENCE = 240.0  # seconds until a job must have ended, whatever happened
DELIVERY_SECONDS = 60.0  # from its end to its evidence
CHILD_SECONDS = 60.0  # until a process that was killed is there again


@dataclass(slots=True)
class Service:
    """One process that is kept running, unless a fault wants it down."""

    host: Host
    folder: Path
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    wanted: bool = True
    ended_at: float = 0.0
    ended: list[int] = field(default_factory=list)  # how it ended by itself, or by a fault

    @property
    def screen(self) -> Path:
        """What it prints; not in its folder, whose disk may be full, nor in a backup of that."""
        return self.folder.with_name(f"{self.folder.name}.screen")

    def start(self) -> None:
        self.wanted = True
        self.process = self.host.start(
            *self.command, str(self.folder), log=self.screen, environment=self.environment
        )

    def tend(self) -> None:
        """Start it again where it has ended by itself, unless it says that a person must repair something."""
        if not self.wanted or self.process is None or self.process.poll() is None:
            self.ended_at = 0.0
            return
        now = time.monotonic()
        if not self.ended_at:
            self.ended.append(self.process.returncode)
            self.wanted = self.process.returncode not in FOR_A_PERSON
            self.ended_at = now
        elif now - self.ended_at >= RESTART_SECONDS:
            self.ended_at = 0.0
            self.start()

    def kill(self) -> None:
        """Kill it with all its children; `tend` starts it again."""
        assert self.process is not None
        kill(self.process)

    def down(self) -> None:
        """Kill it and leave it down."""
        self.wanted = False
        self.kill()

    def child(self, part: str) -> psutil.Process:
        """Return its child process whose command line holds `part`, as soon as there is one: it may be restarting."""
        assert self.process is not None
        until = time.monotonic() + CHILD_SECONDS
        while time.monotonic() < until:
            with suppress(psutil.Error):  # a child that ends at this moment
                for child in psutil.Process(self.process.pid).children(recursive=True):
                    if child.status() != psutil.STATUS_ZOMBIE and any(
                        part in word for word in child.cmdline()
                    ):
                        return child
            time.sleep(0.05)
        raise AssertionError(f"there was no {part} within {CHILD_SECONDS:.0f} s")


class Ward:
    """The consortium; `running` starts it."""

    def __init__(self, folder: Path, hosts: dict[str, Host], rounds: int, port: int = PORT) -> None:
        self.hosts = hosts
        self.rounds = rounds
        settings = replace(BREAST_CANCER, rounds=rounds)
        self.setup: Setup = prepare(folder / "ward", settings, None, port)
        self.address = f"{hosts[COORDINATOR].address}:{port}"
        self._address_everything(port)
        self.services = {
            COORDINATOR: Service(hosts[COORDINATOR], self.setup.coordinator, ("coordinator", "up")),
            **{
                name: Service(hosts[name], self.setup.hospital(name), ("hospital", "run"))
                for name in settings.hospitals
            },
        }
        self.job: Job | None = None
        self.lent: list[Path] = []  # account files of copies of a hospital's folder
        self.typed: list[str] = []  # the commands of a person

    @property
    def hospitals(self) -> tuple[str, ...]:
        return self.setup.settings.hospitals

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start everybody; stop them at the end."""
        try:
            for service in self.services.values():
                service.start()
            yield
        finally:
            for service in self.services.values():
                service.wanted = False
                if service.process is not None:
                    stop(service.process)

    def propose(self) -> None:
        """Agree and propose, as the researcher; wait until the job runs."""
        wanted = len(self.hospitals)
        offers = self.wait(lambda: self._offers(wanted), "every hospital's offer")
        agreed = agreement(self.setup, offers)
        self._post(envelope.sign(agreed, *(self.setup.keys[name] for name in agreed.parties)))
        self.job = job(self.setup, agreed)
        self._post(envelope.sign(self.job, self.setup.keys["researcher"]))
        self.wait(lambda: self.closed() >= 1, "the first round")

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Tend the services until a condition holds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for service in self.services.values():
                service.tend()
            if found := condition():
                return found
            time.sleep(POLL)
        raise AssertionError(f"{what} did not come within {seconds:.0f} s")

    def after_round(self, number: int) -> None:
        """Wait until a round is closed."""
        self.wait(lambda: self.closed() >= number, f"round {number}")

    def records(self) -> list[Record]:
        """Return what the coordinator's log holds, from its files; nothing while they are being replaced."""
        try:
            return fault_costs.records(self.setup.coordinator / "log")
        except (LedgerError, OSError):
            return []

    def closed(self) -> int:
        """How many exchanges are on the log, aborted ones included."""
        return sum(isinstance(r, Round | Abort) for r in self.records())

    def ended(self) -> str:
        """How the job ended, or ""."""
        found = [r for r in self.records() if r.TYPE == "ended"]
        return str(getattr(found[-1], "reason", "")) if found else ""

    def said(self, name: str, words: str) -> bool:
        """Whether a member's screen has shown some words."""
        return words in self.services[name].screen.read_text(errors="replace")

    def finish(self) -> Outcome:
        """Wait for the job's end and say what became of it."""
        status = ""
        try:
            status = self.wait(self.ended, "the job's end")
            if status == "finished":
                self.wait(self._delivered, "the evidence", DELIVERY_SECONDS)
        except AssertionError as error:
            status = status or f"stands still ({error})"
        log = self.setup.coordinator / "log"
        accounts = {
            name: (self.setup.hospital(name) / "account.sqlite", *(p for p in self.lent if name in str(p)))
            for name in self.hospitals
        }
        ended = Counter(f"{name}: {status}" for name, s in self.services.items() for status in s.ended)
        return fault_costs.measure(
            fault_costs.records(log),
            accounts,
            status=status,
            ended=ended,
            typed=self.typed,
            verified=fault_costs.verify(self._run(), log, self.setup.charter.digest()),
        )

    def person(self, name: str, *command: str, again: bool = True) -> str:
        """Have a person type `wardround hospital ...` or another command about a member's folder.

        Args:
            name: The member.
            command: Noun, verb and options; the folder is put after the verb.
            again: Whether the service is stopped before and started again afterwards.

        Returns:
            What was printed.
        """
        service = self.services[name]
        if again and service.process is not None:
            service.wanted = False
            stop(service.process)
        said = service.host.wardround(*command[:2], service.folder, *command[2:])
        self.show(name, " ".join(word.rpartition("/")[2] for word in command), said)
        if again:
            service.start()
        return said

    def show(self, name: str, command: str, said: str) -> None:
        """Put what a person typed, and what was printed, on a member's screen."""
        self.typed.append(f"wardround {command}")
        with self.services[name].screen.open("a") as screen:
            screen.write(f"$ wardround {command}\n{said}")

    def _run(self) -> Path:
        assert self.job is not None
        return self.setup.coordinator / "runs" / self.job.digest()

    def _delivered(self) -> bool:
        return (self._run() / "evidence").is_dir()

    def _offers(self, wanted: int) -> list[Record]:
        found: list[Record] = [r for r in self.records() if isinstance(r, Dataset)]
        return found if len(found) == wanted else []

    def _post(self, entry: bytes) -> None:
        """Type it on the coordinator's own host, where nothing is cut."""
        code = (
            "import sys; from pathlib import Path; from client.consortium import Consortium\n"
            "door = Consortium(sys.argv[1], Path(sys.argv[2]).read_bytes())\n"
            "print(door.post_record(Path(sys.argv[3]).read_bytes()))"
        )
        file = self.setup.directory / "record"
        file.write_bytes(entry)
        authority = self.setup.coordinator / "tls" / "ca.pem"

        def posted() -> bool:
            done = self.hosts[COORDINATOR].run(
                sys.executable, "-c", code, self.address, str(authority), str(file)
            )
            assert "PostRefused" not in done.stderr, done.stderr
            return done.returncode == 0

        self.wait(posted, "an answer to a record")

    def _address_everything(self, port: int) -> None:
        """Let the hospitals reach the coordinator by its host's name."""
        host = self.hosts[COORDINATOR].address
        toml = self.setup.coordinator / "coordinator.toml"
        toml.write_text(toml.read_text() + "patience_seconds = 60\n")  # as `coordinator init` writes
        if host == "localhost":
            return
        text = toml.read_text().replace('"127.0.0.1"', '"0.0.0.0"').replace('"localhost"', f'"{host}"')
        toml.write_text(text)
        shutil.rmtree(self.setup.coordinator / "tls" / "server.pem", ignore_errors=True)
        for name in self.hospitals:
            file = self.setup.hospital(name) / "hospital.toml"
            file.write_text(file.read_text().replace("localhost", host))
