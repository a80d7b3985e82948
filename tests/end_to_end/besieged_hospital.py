"""One honest hospital among liars: its agent in a process of its own, reached by a real Flower deployment.

SuperLink, gateway, TLS, ServerApp's process, node, worker and patients' rows are real; bravo's records, the other
witnesses' cosignatures and everything that the coordinator says are the test's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Metadata
from flwr.app.message import make_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from numpy.typing import NDArray

from client.budget import Account
from client.config import FILE
from client.exchange import Request
from client.flower_connection import Connection, NodeSettings, new_node_key
from client.flower_message import pack, without_content
from coordinator.bundle import bundle
from coordinator.exchange import Arrival
from coordinator.gateway import Gateway, GatewaySettings
from coordinator.remote_rounds import FACTORY, SOCKET, RoundsServer
from coordinator.superlink import SuperLink, SuperLinkSettings
from coordinator.tls import TlsFiles, ensure_tls
from ledger import envelope, example
from ledger.records import Receipt
from tests.client import hospital_folder
from tests.client.fake_coordinator import MODEL
from tests.end_to_end.dishonest_coordinator import (
    PATIENCE,
    Dictation,
    DishonestCoordinator,
    LyingPort,
    wait_until,
)

BUNDLE = b'{"job":"forged rounds"}'
SUPERLINK_NODE = 1  # the id by which Flower's messages name their sender
LONG_ROUNDS = 30
LONG = {
    "rounds": LONG_ROUNDS,
    "evaluate": tuple(range(1, LONG_ROUNDS + 2)),  # every message is due a histogram
    "min_participants": 1,  # a round may go on without alpha
}
STOP_SECONDS = 20


class AgentProcess:
    """`wardround hospital run DIR --json`, and the events that it printed."""

    def __init__(self, folder: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._log = (folder / "stderr.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wardround", "hospital", "run", str(folder), "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def stop(self) -> int:
        """End it, if it runs, and return its exit status. Idempotent."""
        self.process.send_signal(signal.SIGTERM)  # nothing where it has ended
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        return status


@dataclass(frozen=True, slots=True, kw_only=True)
class Siege:
    """Everything that runs, and what a test does with it."""

    folder: Path  # alpha's
    tls: TlsFiles
    coordinator: DishonestCoordinator
    port: LyingPort
    superlink: SuperLink
    node_id: int  # alpha's
    run_id: int
    dictation: Dictation
    agent: AgentProcess

    # --- jobs ---

    def propose(self, **changes: Any) -> str:
        """Cancel what runs, propose another job, and wait until alpha's agent has approved it."""
        coordinator, consortium = self.coordinator, self.coordinator.consortium
        wait_until(lambda: "alpha/heart" in consortium.state.datasets, "alpha's dataset")
        coordinator.settle()
        with coordinator.lock:
            for job, found in consortium.state.jobs.items():
                if found.status in ("proposed", "running"):
                    consortium.append(consortium.ended(job, "cancelled"), "researcher")
            job = coordinator.job_on_alpha_and_bravo(**{**LONG, **changes})
        wait_until(lambda: "alpha" in consortium.job_state(job).approved, "alpha's approval")
        return job

    def start(self, **changes: Any) -> str:
        """Propose a job, wait for alpha's approval and start it; everything is final."""
        job = self.propose(**changes)
        with self.coordinator.lock:
            self.coordinator.start(job)
        return job

    def message(self, job: str, model: NDArray[np.float32] = MODEL, **changes: Any) -> Request:
        """The honest message of the job's next exchange, but for `changes`."""
        with self.coordinator.lock:
            return self.coordinator.message(
                job, model, **{"deadline": int(time.time() + PATIENCE), **changes}
            )

    # --- over the transport ---

    def ask(self, request: Request) -> Arrival:
        """Send a message to alpha; return what came back."""
        return self.dictation.ask(self.node_id, request)

    def refused(self, request: Request) -> object:
        """Send a message that alpha must refuse without a charge, and without a byte computed from rows."""
        before = self.charges
        arrival = self.ask(request)
        assert arrival.failure == ""
        assert arrival.update is None
        assert arrival.metrics is None
        assert arrival.config.keys() == {"kind", "code"}
        assert arrival.config["kind"] == "refusal"
        assert self.charges == before
        return arrival.config["code"]

    def obeyed(self, request: Request) -> bytes:
        """Send a message that alpha must obey, charging it once; return the receipt."""
        before = self.charges
        entry, receipt = read_receipt(self.ask(request))
        assert (receipt.round, receipt.charge) == (request.config["round"], before + 1)
        assert self.charges == before + 1
        return entry

    def forge(self, stranger: Connection, request: Request) -> dict[str, Any]:
        """Send alpha a message in the SuperLink's name, from another hospital; return what its agent told of it."""
        seen = len(self.agent.events)
        metadata = Metadata(
            run_id=self.run_id,
            message_id="",
            src_node_id=SUPERLINK_NODE,
            dst_node_id=self.node_id,
            reply_to_message_id="",
            group_id=str(request.config["round"]),
            created_at=time.time(),
            ttl=PATIENCE,
            message_type="train",
        )
        message = make_message(metadata=metadata, content=pack(request.config, {"model": request.model}))
        root = without_content(message)
        message.metadata.__dict__["_message_id"] = root.object_id
        pushed = PushMessagesRequest(
            node=stranger.node,
            messages_list=[message_to_proto(message)],
            message_object_trees=[get_object_tree(root)],
        )
        stranger.client.PushMessages(pushed)
        wait_until(lambda: any(e["event"] == "round" for e in self.agent.events[seen:]), "the forged message")
        return next(e for e in self.agent.events[seen:] if e["event"] == "round")

    @contextmanager
    def stranger(self) -> Iterator[Connection]:
        """The connection of another registered hospital's node."""
        private_key, public_key = new_node_key()
        self.superlink.register_node("bravo", public_key)
        settings = NodeSettings(
            address=f"localhost:{self.port.number}",
            authority=self.tls.authority.read_bytes(),
            private_key=private_key,
            id_file=self.folder.with_name("bravo.id"),
        )
        connection = Connection(settings)
        connection.activate()
        try:
            yield connection
        finally:
            connection.leave()

    # --- what alpha did ---

    @property
    def charges(self) -> int:
        """How many rounds alpha's account was charged for."""
        path = self.folder / "account.sqlite"
        account = Account.open(path, read_only=True)
        try:
            return sum(len(statement.charges) for statement in account.history())
        finally:
            account.close()

    def require_cosigned(self) -> None:
        """Wait for alpha's cosignature of everything that the log has now."""
        size = self.coordinator.folder.store.size
        wait_until(lambda: self.coordinator.cosigned(size), f"alpha's cosignature of size {size}")


def read_receipt(arrival: Arrival) -> tuple[bytes, Receipt]:
    """Return a reply's receipt, as bytes and as a record."""
    assert (arrival.failure, arrival.config["kind"]) == ("", "receipt"), arrival.config
    entry = arrival.config["receipt"]
    assert isinstance(entry, bytes)
    record = envelope.open_entry(entry).record
    assert isinstance(record, Receipt)
    return entry, record


@contextmanager
def besieged(folder: Path) -> Iterator[Siege]:
    """Start everything; the agent, which takes as long, meanwhile."""
    with ExitStack() as stack:
        tls = ensure_tls(folder / "tls", [], datetime.now(UTC))
        coordinator = DishonestCoordinator(folder / "log")
        stack.callback(coordinator.close)
        port = LyingPort(coordinator, tls)
        stack.callback(port.stop)
        hospital, public_key = folder / "alpha", new_node_key()
        _write_hospital(hospital, coordinator, port.number, tls, public_key[0])
        agent = AgentProcess(hospital)
        stack.callback(agent.stop)
        dictation = Dictation()
        bridge = stack.enter_context(RoundsServer(folder, lambda job: dictation))
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv(SOCKET, str(bridge.path))  # the ServerApp's process inherits it
        settings = SuperLinkSettings(directory=folder / "superlink", tls=tls, rounds=FACTORY)
        superlink = stack.enter_context(SuperLink(settings))
        stack.callback(port.stop)  # before the SuperLink, which waits for open connections
        stack.callback(agent.stop)
        stack.callback(dictation.end)
        node_id = superlink.register_node("alpha", public_key[1])
        port.gateway = Gateway(GatewaySettings(address=superlink.address, authority=tls.authority))
        yield Siege(
            folder=hospital,
            tls=tls,
            coordinator=coordinator,
            port=port,
            superlink=superlink,
            node_id=node_id,
            run_id=superlink.start_run(bundle(BUNDLE)),
            dictation=dictation,
            agent=agent,
        )


def _write_hospital(
    folder: Path, coordinator: DishonestCoordinator, port: int, tls: TlsFiles, node_key: bytes
) -> None:
    hospital_folder.write(folder, None, {"epsilon": 500})  # many jobs are begun on it
    (folder / "keys" / "node.pem").write_bytes(node_key)
    shutil.copyfile(tls.authority, folder / "ca.pem")
    text = (folder / FILE).read_text()
    text = text.replace("localhost:8443", f"localhost:{port}")
    (folder / FILE).write_text(text.replace(example.charter().digest(), coordinator.charter))
