"""A coordinator without a network: the real log, its rules and its files, behind httpx's mock transport.

Honest by default; a test takes its `consortium` and `folder` to lie with. Other hospitals' cosignatures are added
as soon as something is published, unless `witnesses` is emptied.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from client import software
from client.agent import Agent
from client.consortium import Consortium as Door
from client.coordinator_time import CoordinatorTime
from client.exchange import Request
from ledger import envelope, example, records, statements
from ledger.errors import RuleError
from ledger.note import Note
from ledger.signature import Signature
from ledger.source import read_file
from ledger.values import Training
from tests.client import hospital_folder
from tests.ledger.consortium import Consortium
from tests.ledger.log_folder import WITNESSES, LogFolder

MODEL = np.zeros(hospital_folder.PARAMETERS, dtype=np.float32)
EDGES = ("0.166667", "0.333333", "0.5", "0.666667", "0.833333")
ALPHA = example.WITNESSES["alpha"].name


def model_digest(model: NDArray[np.float32]) -> str:
    return hashlib.sha256(model.astype("<f4").tobytes()).hexdigest()


class FakeCoordinator:
    """The service's log files and records; rounds are played by the test."""

    def __init__(self, path: Path, consortium: Consortium | None = None) -> None:
        self.consortium = consortium or Consortium.founded()
        self.folder = LogFolder(path)
        self.witnesses = [key for key in WITNESSES if key.name != ALPHA]
        self.lines: list[tuple[int, Signature]] = []  # cosignatures received
        self.blobs: dict[str, bytes] = {}  # by the digest that it is asked for
        self.down = False  # answers nothing
        self.deaf = False  # takes records, and its answer is lost
        self.lock = threading.RLock()
        self.acknowledged: dict[str, str] = {}  # receipt -> acknowledgement
        self.wanted: set[str] = set()  # digests of blobs that it lacks
        self.handed_in: dict[str, bytes] = {}
        self.proposals: list[dict[str, Any]] = []  # as it shows them
        self.publish()

    def door(self) -> Door:
        """What a hospital reaches the coordinator by."""
        return _Door(self)

    def close(self) -> None:
        self.folder.store.close()

    @property
    def now(self) -> int:
        return self.consortium.state.time

    def publish(self) -> None:
        """Sign what is new, with the cosignatures of the other hospitals."""
        if self.consortium.view.size > self.folder.store.size:
            self.folder.publish(self.consortium, witnesses=self.witnesses)

    def append(self, *found: records.Record) -> None:
        for record in found:
            self.consortium.append(record)
        self.publish()

    def note(self) -> bytes:
        """The newest pending checkpoint."""
        return self.folder.read("checkpoint.pending")

    # --- stretches of a life ---

    def job_on_alpha_and_bravo(self, **changes: Any) -> str:
        """Propose a job that alpha's agent can train; bravo offers and approves, alpha's agent is asked."""
        if "bravo/heart" not in self.consortium.state.datasets:
            schema = hospital_folder.DICTIONARY.digest
            self.consortium.append(self.consortium.dataset("bravo", schema=schema))
            self.consortium.append(self.consortium.agreement("alpha", "bravo"))
        standard: dict[str, Any] = {
            "dictionary": hospital_folder.DICTIONARY.digest,
            "model": model_digest(MODEL),
            "software": software.installed(),
            "rounds": 3,
            "evaluate": (2, 4),
            "training": training_of_the_test(),
        }
        record = self.consortium.job("alpha", "bravo", **{**standard, **changes})
        job = self.consortium.append(record).digest
        approval = self.consortium.approval("bravo", job)
        self.consortium.append(approval)
        self.publish()
        return job

    def start(self, job: str) -> None:
        self.append(self.consortium.start(job))

    def message(self, job: str, model: NDArray[np.float32] = MODEL, **changes: Any) -> Request:
        """The honest message of a job's next exchange."""
        found = self.consortium.job_state(job)
        config: dict[str, Any] = {
            "job": job,
            "round": found.next_round,
            "model": model_digest(model),
            "checkpoint": self.note(),
            "deadline": self.now + 60,
        }
        if found.next_round in found.record.evaluate:
            config["edges"] = json.dumps(EDGES)
        return Request(run_id=1, expires_at=self.now + 60.0, model=model, config={**config, **changes})

    def close_round(self, job: str, *receipts: bytes, **codes: str) -> None:
        """Close a round with these receipts and bravo's, in one batch; the model stays what it was."""
        consortium = self.consortium
        batch = [envelope.open_entry(data) for data in receipts]
        for entry in batch:
            consortium.append(entry)
        consortium.append(consortium.receipt("bravo", job))
        consortium.append(consortium.round_(job, codes, model_after=consortium.job_state(job).model))
        self.publish()

    # --- HTTP ---

    def answer(self, request: httpx.Request) -> httpx.Response:
        with self.lock:
            if self.down:
                raise httpx.ConnectError("refused")
            path = request.url.path
            if path.startswith("/log/"):
                return self._file(path.removeprefix("/log/"))
            if path == "/api/news":
                return httpx.Response(404)  # its log is read file by file
            if path == "/api/records":
                answer = self._record(request.content)
                if self.deaf:
                    raise httpx.ReadTimeout("the read operation timed out")
                return answer
            if path == "/api/proposals":
                return httpx.Response(200, json={"proposals": self.proposals})
            if path == "/api/wanted":
                return httpx.Response(200, json={"blobs": sorted(self.wanted)})
            if path.startswith("/api/wanted/"):
                self.handed_in[path.rpartition("/")[2]] = request.content
                return httpx.Response(200, json={})
            if path.startswith("/api/acknowledgements/"):
                return self._acknowledgement(path.rpartition("/")[2])
            if path.startswith("/api/blobs/"):
                content = self.blobs.get(path.removeprefix("/api/blobs/"))
                return httpx.Response(404) if content is None else httpx.Response(200, content=content)
            return self._cosignature(json.loads(request.content))

    def _file(self, path: str) -> httpx.Response:
        try:
            return httpx.Response(200, content=read_file(self.folder.path / path, 1 << 24))
        except FileNotFoundError:
            return httpx.Response(404)

    def _record(self, data: bytes) -> httpx.Response:
        entry = envelope.open_entry(data)
        if entry.digest not in self.consortium.state.seen:
            try:
                self.consortium.append(entry)
            except RuleError as error:
                said = self.objection(entry.digest, error.rule)
                answer = {"rule": error.rule, "error": error.reason, "statement": said}
                return httpx.Response(409, json=answer)
            self.publish()
        index = self.consortium.state.seen.get(entry.digest, self.consortium.view.size - 1)
        said = self.promise(entry.digest, index + 1)
        return httpx.Response(200, json={"index": index, "digest": entry.digest, "statement": said})

    def _acknowledgement(self, digest: str) -> httpx.Response:
        if digest not in self.acknowledged:
            return httpx.Response(404, json={"error": "none"})
        return httpx.Response(200, json={"statement": self.acknowledged[digest]})

    # --- statements ---

    def promise(self, record: str, size: int) -> str:
        origin, time = self.consortium.state.origin, self.now
        return self.signed(statements.Promise(origin=origin, record=record, size=size, time=time))

    def objection(self, record: str, rule: str, size: int = 0) -> str:
        """The honest objection, unless a size is given."""
        size = size or self.consortium.view.size
        origin, time = self.consortium.state.origin, self.now
        made = statements.Objection(origin=origin, record=record, rule=rule, size=size, time=time)
        return self.signed(made)

    def acknowledge(self, receipt: bytes) -> None:
        """Let the arrival of a reply be acknowledged."""
        record = envelope.open_entry(receipt).record
        assert isinstance(record, records.Receipt)
        made = statements.Acknowledgement(
            origin=record.origin, job=record.job, round=record.round, hospital=record.hospital,
            receipt=record.digest(), update=record.update, received_at=self.now,
        )  # fmt: skip
        self.acknowledged[record.digest()] = self.signed(made)

    def signed(self, statement: statements.Statement) -> str:
        return statements.sign(statement, example.KEYS["coordinator"]).decode()

    def _cosignature(self, body: dict[str, Any]) -> httpx.Response:
        size, line = body["size"], Signature.from_line(body["line"])
        self.lines.append((size, line))
        store = self.folder.store
        if self.witnesses and size == store.size:
            note = Note.from_bytes(store.final(size) or store.pending() or b"")
            store.finalise(size, note.with_signatures(line).to_bytes())
        return httpx.Response(200, json={"final": bool(self.witnesses)})


class _Door(Door):
    """The real client over the mock transport."""

    def __init__(self, coordinator: FakeCoordinator) -> None:
        self._key = None
        self.time = CoordinatorTime(time.time)
        self._client = httpx.Client(
            base_url="https://coordinator.test", transport=httpx.MockTransport(coordinator.answer)
        )


def training_of_the_test() -> Training:
    """The example's training, of a model that fits the test's dictionary."""
    code = software.models_digest()
    return replace(example.job().training, parameters=hospital_folder.PARAMETERS, model_code=code)


def follow(agent: Agent) -> None:
    """Let an agent follow and do its paperwork until nothing is left to do."""
    agent.follow_once()
    while agent.enrol_once():
        agent.follow_once()
    agent.follow_once()
