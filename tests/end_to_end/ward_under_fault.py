"""A running consortium that faults are put into: real processes, restarted as a service manager would.

Each process runs on a host of its own (`hosts`). What a fault has cost is read afterwards from the log, the
hospitals' accounts and the evidence: nothing is taken from what a process says of itself.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from client.budget import Account
from client.demo_data import BREAST_CANCER
from coordinator import evidence_check
from coordinator.errors import CoordinatorError
from ledger import audit, envelope
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError
from ledger.note import Note
from ledger.record import Record
from ledger.records import Abort, Dataset, Incident, Job, Receipt, Round
from ledger.source import open_source
from tests.end_to_end.hosts import Host, kill, stop
from wardround_demo_setup import Setup, agreement, job, prepare

PORT = 8443
COORDINATOR = "coordinator"
RESTART_SECONDS = 1.0  # what a service manager waits before it starts something again
POLL = 0.2
PATIENCE = 240.0  # seconds until a job must have ended, whatever happened


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
    restarts: int = 0

    def start(self) -> None:
        self.wanted = True
        self.process = self.host.start(
            *self.command, str(self.folder), log=self.folder / "output.log", environment=self.environment
        )

    def tend(self) -> None:
        """Start it again where it has ended by itself."""
        if not self.wanted or self.process is None or self.process.poll() is None:
            self.ended_at = 0.0
            return
        now = time.monotonic()
        self.ended_at = self.ended_at or now
        if now - self.ended_at >= RESTART_SECONDS:
            self.restarts += 1
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
        """Return its child process whose command line holds `part`."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(c for c in children if any(part in word for word in c.cmdline()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a run."""

    status: str  # of the job
    rounds: int  # closed with a model
    aborted: int
    left_out: int  # receipts that a participant did not give, over all rounds
    double_charged: int  # rounds that an account charged twice; must be 0
    unaccounted: int  # receipts on the log whose charge no account of its hospital holds
    incidents: tuple[str, ...]
    restarts: dict[str, int]
    verified: str  # what an outsider's audit says


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
        self.lent: list[Path] = []  # further account files that stand for a hospital's folder

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
        """Return what the coordinator's log holds, from its files."""
        read = open_source(str(self.setup.coordinator / "log"))
        size = Checkpoint.from_text(Note.from_bytes(read("checkpoint.pending")).text).size
        return [envelope.parse_entry(data).record for data in audit.entries(read, size)]

    def closed(self) -> int:
        """How many exchanges are on the log, aborted ones included."""
        try:
            return sum(isinstance(r, Round | Abort) for r in self.records())
        except (LedgerError, OSError):  # the files are being replaced
            return 0

    def ended(self) -> str:
        """How the job ended, or ""."""
        try:
            found = [r for r in self.records() if r.TYPE == "ended"]
        except (LedgerError, OSError):
            return ""
        return str(getattr(found[-1], "reason", "")) if found else ""

    def finish(self) -> Outcome:
        """Wait for the job's end and say what became of it."""
        status = ""
        try:
            status = self.wait(self.ended, "the job's end")
            if status == "finished":
                self.wait(self._delivered, "the evidence", 60)
        except AssertionError as error:
            status = status or f"stands still ({error})"
        return self.outcome(status)

    def outcome(self, status: str) -> Outcome:
        """Read from the disks what a run has cost."""
        records = self.records()
        closing = [r for r in records if isinstance(r, Round | Abort)]
        receipts = [r for r in records if isinstance(r, Receipt)]
        double, unaccounted = self._charges(receipts)
        return Outcome(
            status=status,
            rounds=sum(isinstance(r, Round) for r in closing),
            aborted=sum(isinstance(r, Abort) for r in closing),
            left_out=sum(len(r.left_out) for r in closing),
            double_charged=double,
            unaccounted=unaccounted,
            incidents=tuple(sorted(f"{r.member}: {r.code}" for r in records if isinstance(r, Incident))),
            restarts={name: s.restarts for name, s in self.services.items() if s.restarts},
            verified=self._verify(status),
        )

    def _charges(self, receipts: list[Receipt]) -> tuple[int, int]:
        """Compare the accounts with the log: nothing charged twice, nothing released without a charge."""
        double = unaccounted = 0
        for name in self.hospitals:
            charged: Counter[tuple[str, int]] = Counter()
            numbers: set[int] = set()
            paths = [self.setup.hospital(name) / "account.sqlite", *(p for p in self.lent if name in str(p))]
            for path in paths:
                account = Account.open(path, read_only=True)
                try:
                    charges = [c for s in account.history() for c in s.charges]
                finally:
                    account.close()
                charged.update((c.job, c.round) for c in charges) if path == paths[0] else None
                numbers |= {c.number for c in charges}
            double += sum(count - 1 for count in charged.values())
            newest = max(numbers, default=0)
            own = [r for r in receipts if r.hospital == name]
            # after a restore the whole plan was charged under a later number: nothing the log shows is beyond it
            unaccounted += sum(r.charge not in numbers and r.charge > newest for r in own)
        return double, unaccounted

    def _verify(self, status: str) -> str:
        try:
            if status == "finished":
                evidence_check.verify(self._run() / "evidence", charter=self.setup.charter.digest())
                return "passes, every round computed again"
            read = open_source(str(self.setup.coordinator / "log"))
            size = Checkpoint.from_text(Note.from_bytes(read("checkpoint")).text).size
            audit.replay(read, size)
            return f"passes up to {size} entries"
        except (LedgerError, CoordinatorError) as error:
            return f"refuses: {error}"

    def _run(self) -> Path:
        assert self.job is not None
        return self.setup.coordinator / "runs" / self.job.digest()

    def _delivered(self) -> bool:
        return (self._run() / "evidence").is_dir()

    def _offers(self, wanted: int) -> list[Record]:
        try:
            found: list[Record] = [r for r in self.records() if isinstance(r, Dataset)]
        except (LedgerError, OSError):
            return []
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
                self._python(), "-c", code, self.address, str(authority), str(file)
            )
            assert "PostRefused" not in done.stderr, done.stderr
            return done.returncode == 0

        self.wait(posted, "an answer to a record")

    @staticmethod
    def _python() -> str:
        import sys

        return sys.executable

    def _address_everything(self, port: int) -> None:
        """Let the hospitals reach the coordinator by its host's name."""
        host = self.hosts[COORDINATOR].address
        if host == "localhost":
            return
        toml = self.setup.coordinator / "coordinator.toml"
        text = toml.read_text().replace('"127.0.0.1"', '"0.0.0.0"').replace('"localhost"', f'"{host}"')
        toml.write_text(text)
        shutil.rmtree(self.setup.coordinator / "tls" / "server.pem", ignore_errors=True)
        for name in self.hospitals:
            file = self.setup.hospital(name) / "hospital.toml"
            file.write_text(file.read_text().replace("localhost", host))


def as_json(outcome: Outcome) -> str:
    """Return an outcome as one line."""
    return json.dumps({name: getattr(outcome, name) for name in Outcome.__slots__})
