"""A hundred hospitals' agents and one coordinator on this machine: seconds a round, memory, and where the time goes.

    python -m tests.benchmarks.hundred_agents [--agents 100] [--rounds 20] [--hosts 4]

The coordinator is `wardround coordinator up`. The agents are the real ones (mirror, rules, cosignatures, account,
Flower node), some to a process; only their workers are light: they answer with small random integers and hold no
torch. A charter holds 64 members, so more hospitals come by amendment, signed by a quorum, as they would in life.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from client import config, software
from client.agent import Agent
from client.consortium import Consortium
from client.errors import PostRefusedError, UnreachableError
from client.flower_connection import new_node_key
from coordinator.blobs import BlobStore
from coordinator.tls import ensure_tls
from ledger import audit, envelope, finality, report
from ledger.log import Log
from ledger.policy import quorum_size
from ledger.records import Agreement, Amendment, Charter, Job
from ledger.signature import KeyType, SigningKey
from ledger.source import open_source
from ledger.values import MAX_MEMBERS, Aggregation, Member, Terms, Training
from tests.client import hospital_folder
from tests.end_to_end.hosts import stop
from wardround_processes import free_port

ORIGIN = "benchmark.wardround.example/hundred"
PURPOSE = hospital_folder.PURPOSE
PARAMETERS = hospital_folder.PARAMETERS
DAY = 86_400
PATIENCE = 900.0  # seconds for any one stage
POLL = 0.25
LIGHT_WORKER = "tests.client.fake_worker"


class Consortium100:
    """The keys and folders of everybody."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.port = free_port()
        self.hospitals = [f"hospital-{i:03}" for i in range(count)]
        self.keys = {n: _key(n) for n in (*self.hospitals, "coordinator", "researcher")}
        self.log_key = _key(ORIGIN)
        self.witnesses = {
            n: SigningKey(name=f"{n}.example/w", type=KeyType.COSIGNATURE, seed=secrets.token_bytes(32))
            for n in self.hospitals
        }
        self.charter = self._charter()
        self._coordinator()
        for name in self.hospitals:
            self._hospital(name)

    @property
    def coordinator(self) -> Path:
        return self.folder / "coordinator"

    def hospital(self, name: str) -> Path:
        return self.folder / "hospitals" / name

    def door(self) -> Consortium:
        authority = (self.coordinator / "tls" / "ca.pem").read_bytes()
        return Consortium(f"localhost:{self.port}", authority, key=self.keys["researcher"])

    def _member(self, name: str) -> Member:
        hospital = name in self.witnesses
        return Member(
            name=name,
            role="hospital" if hospital else name,
            key=envelope.public_hex(self.keys[name]),
            witness=self.witnesses[name].verifier.to_text() if hospital else "",
        )

    def _charter(self) -> Charter:
        founders = ["coordinator", *self.hospitals[: MAX_MEMBERS - 2], "researcher"]
        witnesses = len(founders) - 2
        terms = Terms(
            members=tuple(self._member(name) for name in sorted(founders)),
            max_dishonest=_dishonest(witnesses),
            quorum=quorum_size(witnesses, _dishonest(witnesses)),
            log=self.log_key.verifier.to_text(),
            recovery_keys=(),
            recovery_quorum=0,
            rules=1,
        )
        return Charter(origin=ORIGIN, name="hundred", founded_at=int(time.time()), terms=terms)

    def _amendment(self) -> bytes:
        later = self.hospitals[MAX_MEMBERS - 2 :]
        count = len(self.hospitals)
        record = Amendment(
            origin=ORIGIN,
            replaces=1,
            add=tuple(self._member(name) for name in later),
            remove=(),
            rotate=(),
            revoke=(),
            max_dishonest=_dishonest(count),
            quorum=quorum_size(count, _dishonest(count)),
            log="",
            rules=1,
        )
        voters = [m.name for m in self.charter.terms.members if m.witness]
        signers = [*voters[: self.charter.terms.quorum], *later]
        return envelope.sign(record, *(self.keys[name] for name in signers))

    def _coordinator(self) -> None:
        directory = self.coordinator
        for name in ("keys", "nodes"):
            (directory / name).mkdir(parents=True)
        for name, key in (("log", self.log_key), ("coordinator", self.keys["coordinator"])):
            _write_key(directory / "keys" / f"{name}.key", key)
        (directory / "coordinator.toml").write_text(
            f'host = "127.0.0.1"\nport = {self.port}\nround_seconds = 600\npatience_seconds = 120\n'
        )
        ensure_tls(directory / "tls", ["localhost"], datetime.now(UTC))
        founders = [self.keys[m.name] for m in self.charter.terms.members]
        entry = envelope.sign(self.charter, *founders)
        with Log.create(directory / "log", entry, [self.log_key], int(time.time())) as log:
            if len(self.hospitals) > MAX_MEMBERS - 2:
                log.append([self._amendment()], int(time.time()))
        blobs = BlobStore(directory / "blobs")
        blobs.put(hospital_folder.DICTIONARY.to_bytes())
        blobs.put(bytes(4 * PARAMETERS))

    def _hospital(self, name: str) -> None:
        folder = hospital_folder.write(self.hospital(name))
        private, public = new_node_key()
        (folder / "keys" / "node.pem").write_bytes(private)
        (self.coordinator / "nodes" / f"{name}.pub").write_bytes(public)
        _write_key(folder / "keys" / "identity.key", self.keys[name])
        _write_key(folder / "keys" / "witness.key", self.witnesses[name])
        (folder / "ca.pem").write_bytes((self.coordinator / "tls" / "ca.pem").read_bytes())
        text = (folder / config.FILE).read_text()
        lines = [
            f'name = "{name}"',
            f'coordinator = "localhost:{self.port}"',
            'authority = "ca.pem"',
            f'charter = "{self.charter.digest()}"',
        ]
        (folder / config.FILE).write_text("\n".join([*lines, text[text.index("[dataset]") :]]))

    def agreement(self) -> Agreement:
        return Agreement(
            origin=ORIGIN,
            text="0" * 64,
            parties=tuple(sorted([*self.hospitals, "researcher"])),
            datasets=tuple(f"{name}/heart" for name in self.hospitals),
            purposes=(PURPOSE,),
            expires_at=int(time.time()) + DAY,
        )

    def job(self, agreement: str, rounds: int) -> Job:
        return Job(
            origin=ORIGIN,
            researcher="researcher",
            name="hundred",
            purpose=PURPOSE,
            agreements=(agreement,),
            datasets=tuple(f"{name}/heart" for name in self.hospitals),
            dictionary=hospital_folder.DICTIONARY.digest,
            model=_digest(bytes(4 * PARAMETERS)),
            training=Training(
                model="logistic-regression",
                model_code=software.models_digest(),
                parameters=PARAMETERS,
                loss="bce-with-logits",
                local_steps=1,
                learning_rate="0.3",
                max_grad_norm="0.5",
                sample_rate="1",
                settings=(),
            ),
            aggregation=Aggregation(strategy="fedavg", weighting="uniform", settings=()),
            epsilon="3",
            heldout_epsilon="0",
            delta="0.0001",
            rounds=rounds,
            evaluate=(),
            min_participants=len(self.hospitals) * 9 // 10,
            expires_at=int(time.time()) + DAY,
            software=software.installed(),
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _key(name: str) -> SigningKey:
    return SigningKey(name=name, type=KeyType.ED25519, seed=secrets.token_bytes(32))


def _write_key(path: Path, key: SigningKey) -> None:
    path.write_text(key.to_text() + "\n")
    path.chmod(0o600)


def _dishonest(witnesses: int) -> int:
    return (witnesses - 1) // 3


def post(door: Consortium, entry: bytes) -> None:
    """Post a record until the log takes it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            door.post_record(entry)
            return
        except UnreachableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL)
        except PostRefusedError as error:
            raise SystemExit(f"refused: {error}") from None


def host(folders: Sequence[str]) -> None:
    """Be the process of some agents, until the standard input ends."""
    agents = []
    for folder in map(Path, folders):
        worker = [sys.executable, "-m", LIGHT_WORKER, str(folder / "worker")]
        (folder / "worker").mkdir(exist_ok=True)
        agent = Agent(config.load(folder), worker=worker)
        agents.append(agent)
        threading.Thread(target=agent.run, daemon=True).start()
    sys.stdin.read()
    for agent in agents:
        agent.stop()
    time.sleep(1)


@contextmanager
def processes(built: Consortium100, hosts: int) -> Iterator[dict[str, list[psutil.Process]]]:
    """Start the coordinator and the agents' hosts; yield the processes by kind."""
    up = subprocess.Popen(
        [sys.executable, "-m", "wardround", "coordinator", "up", str(built.coordinator)],
        stdout=subprocess.DEVNULL,
    )
    names = [str(built.hospital(n)) for n in built.hospitals]
    command = [sys.executable, "-m", "tests.benchmarks.hundred_agents", "--be-host"]
    running = [
        subprocess.Popen([*command, *names[i::hosts]], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for i in range(hosts)
    ]
    try:
        yield {"coordinator": [psutil.Process(up.pid)], "agents": [psutil.Process(p.pid) for p in running]}
    finally:
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
        for process in running:
            process.kill()
            process.wait()
        stop(up)


def measure(kinds: dict[str, list[psutil.Process]]) -> dict[str, tuple[float, float]]:
    """Return (processor seconds, resident MiB) by kind of process; children are kinds of their own."""
    found: dict[str, tuple[float, float]] = {}
    for kind, roots in kinds.items():
        for root in roots:
            for process in (root, *root.children(recursive=True)):
                name = kind if process == root else _child(kind, process)
                used = process.cpu_times()
                seconds, memory = found.get(name, (0.0, 0.0))
                found[name] = (
                    seconds + used.user + used.system,
                    memory + process.memory_info().rss / 2**20,
                )
    return found


def _seconds(measured: dict[str, tuple[float, float]]) -> dict[str, float]:
    return {kind: round(seconds, 1) for kind, (seconds, _) in measured.items()}


def _child(kind: str, process: psutil.Process) -> str:
    if kind == "agents":
        return "light workers"
    line = " ".join(process.cmdline())
    return "SuperLink" if "run_superlink" in line else "ServerApp" if "run_host" in line else "other"


def status(door: Consortium, job: str) -> dict[str, Any]:
    """Return the status with this job's own under "own"."""
    found = dict(door.status())
    found["own"] = next((j for j in found["jobs"] if j["digest"] == job), {"status": "", "round": 0})
    return found


def wait(door: Consortium, job: str, reached: int, what: str) -> dict[str, Any]:
    """Wait until a job has closed so many rounds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            found = status(door, job)
            if found["own"]["round"] >= reached and (reached or found["own"]["status"] == "running"):
                return found
        except UnreachableError:
            pass
        time.sleep(POLL)
    raise SystemExit(f"{what} did not come within {PATIENCE:.0f} s")


def run(folder: Path, agents: int, rounds: int, hosts: int) -> dict[str, Any]:
    """Run it all; return the figures."""
    began = time.monotonic()
    built = Consortium100(folder, agents)
    built_at = time.monotonic()
    with processes(built, hosts) as kinds, _closing(built.door()) as door:
        _wait_for_datasets(built, door)
        offered = time.monotonic()
        agreed = built.agreement()
        post(door, envelope.sign(agreed, *(built.keys[name] for name in agreed.parties)))
        proposed = built.job(agreed.digest(), rounds)
        post(door, envelope.sign(proposed, built.keys["researcher"]))
        wait(door, proposed.digest(), 1, "the first round")
        first = time.monotonic()
        before, phases = measure(kinds), status(door, proposed.digest())["phases"]
        starting = {"until offered": round(offered - built_at, 1), "first round": round(first - offered, 1)}
        print(json.dumps({**starting, "processor seconds": _seconds(before)}), file=sys.stderr, flush=True)
        for reached in range(2, rounds + 1):
            found = wait(door, proposed.digest(), reached, f"round {reached}")
            last, after = time.monotonic(), measure(kinds)
            so_far = {
                "round": reached,
                "seconds": round(last - first, 1),
                "processor seconds": _seconds(after),
            }
            print(json.dumps({**so_far, "phases": found["phases"]}), file=sys.stderr, flush=True)
    spans = {name: found["phases"][name] - phases.get(name, 0.0) for name in found["phases"]}
    return {
        "agents": agents,
        "rounds": rounds,
        "entries": found["log"]["size"],
        "left out of the last round": len(found["own"]["left_out"]),
        "seconds": {
            "folders": round(built_at - began, 1),
            "until all offered their dataset": round(offered - built_at, 1),
            "approvals and first round": round(first - offered, 1),
            "a round": round((last - first) / (rounds - 1), 2),
        },
        "seconds of a round by phase": {k: round(v / (rounds - 1), 2) for k, v in spans.items() if v > 0.01},
        "processor seconds of a round": {
            k: round((after[k][0] - before.get(k, (0.0, 0.0))[0]) / (rounds - 1), 2) for k in after
        },
        "resident MiB": {k: round(v[1]) for k, v in after.items()},
    }


@contextmanager
def _closing(door: Consortium) -> Iterator[Consortium]:
    try:
        yield door
    finally:
        door.close()


def _wait_for_datasets(built: Consortium100, door: Consortium) -> None:
    """Wait until every hospital's offer is on the log."""
    deadline = time.monotonic() + PATIENCE
    amended = len(built.hospitals) > MAX_MEMBERS - 2
    wanted = 1 + amended + len(built.hospitals)
    while time.monotonic() < deadline:
        try:
            if door.status()["log"]["size"] >= wanted:
                return
        except UnreachableError:
            pass
        time.sleep(POLL)
    raise SystemExit("not every hospital offered its dataset")


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--be-host", nargs="+")
    options = parser.parse_args()
    if options.be_host:
        host(options.be_host)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder), options.agents, options.rounds, options.hosts)
        print(json.dumps({**figures, "verified": verified(Path(folder) / "coordinator" / "log")}, indent=2))


def verified(log: Path) -> str:
    """Audit the log that was left, as `wardround ledger verify` does; return what it established first."""
    view = audit.audit(open_source(str(log)), policy=None).view
    policy = finality.trust_policy(view.state.witness_sets[-1])
    return next(report.established(audit.audit(open_source(str(log)), policy=policy)))


if __name__ == "__main__":
    main()
