"""A researcher at a coordinator without a network: what jobs need beside the log is kept in this process."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from client import job_templates, job_toml, member
from client.job_folder import JobFolder, load
from client.private_file import write_private
from client.researcher import Researcher
from ledger import example, records
from tests.client import hospital_folder
from tests.client.fake_coordinator import FakeCoordinator
from tests.ledger.consortium import digest


class Bench(FakeCoordinator):
    """A coordinator that takes deposits and hands out what finished jobs left; `fail` may break any request."""

    def __init__(self, path: Path) -> None:
        super().__init__(path / "log")
        self.path = path
        self.blobs: dict[str, bytes] = {}
        self.run: dict[str, bytes] = {}  # a finished job's files, by path
        self.listing: bytes | None = None  # in place of the honest one
        self.status: dict[str, Any] = {}  # what it says of its jobs
        self.asked: list[str] = []
        self.broken: dict[int, str] = {}  # number of a writing request -> "before" or "after" it took effect
        self._writes = 0

    def offer(self, *hospitals: str, **changes: Any) -> None:
        """Hospitals offer their datasets and agree with the researcher."""
        schema = hospital_folder.DICTIONARY.digest
        for name in hospitals:
            self.consortium.append(
                self.consortium.dataset(name, **{"schema": schema, "size_class": 64, **changes})
            )
        self.consortium.append(self.consortium.agreement(*hospitals))
        self.publish()

    def researcher(self, name: str = "researcher") -> Researcher:
        """The researcher, as another start of the program would have it."""
        folder = self.path / name
        if not folder.exists():
            write_private(folder / "keys" / "identity.key", example.KEYS[name].to_text().encode() + b"\n")
            (folder / "ca.pem").write_text("a fake coordinator needs none")
            (folder / member.FILE).write_text(
                f'name = "{name}"\ncoordinator = "localhost:1"\nauthority = "ca.pem"\n'
                f'charter = "{example.charter().digest()}"\n'
            )
        return Researcher(
            member.load(folder), door=self.door(), clock=lambda: float(self.now), sleep=lambda seconds: None
        )

    def write_folder(self, name: str = "job", **changes: Any) -> JobFolder:
        """A job's folder for the hospitals' dictionary."""
        path = self.path / name
        path.mkdir(exist_ok=True)
        standard: dict[str, Any] = {
            "name": name,
            "purpose": hospital_folder.PURPOSE,
            "dictionary": "dictionary.json",
            "min_participants": 2,
            "rounds": 3,
            "live_evaluations": 1,
        }
        draft = replace(job_templates.DRAFTS["breast-cancer"], **{**standard, **changes})
        (path / "dictionary.json").write_bytes(hospital_folder.DICTIONARY.to_bytes())
        (path / job_toml.FILE).write_text(job_toml.to_toml(draft))
        return load(path)

    def approve(self, job: str, *hospitals: str) -> None:
        self.append(*(self.consortium.approval(h, job) for h in hospitals))

    def start_with(self, job: str, *hospitals: str) -> None:
        for hospital in hospitals:
            self.approve(job, hospital)
        self.start(job)

    def finish(self, job: str) -> None:
        """Run every exchange of a started job and release it; write what it leaves."""
        while (found := self.consortium.job_state(job)).next_round <= found.record.last_exchange:
            for hospital in sorted(found.parties):
                self.consortium.append(self.consortium.receipt(hospital, job))
            self.consortium.append(self.consortium.round_(job))
        model, card = b"a model", b"# a card\n"
        made = self.consortium.release(job)
        made = replace(made, artifact=sha(model), card=sha(card))
        self.consortium.append(made)
        self.consortium.append(records.Ended(origin=made.origin, job=job, reason="finished"))
        self.publish()
        update = b"an update"
        self.run = {
            "model.safetensors": model,
            "card.md": card,
            "evidence/model.safetensors": model,
            "evidence/card.md": card,
            "evidence/bundle.json": b"{}",
            f"evidence/blobs/{sha(update)}": update,
            "evidence/log/tile/0/000.p/7": b"tile",
        }

    def answer(self, request: httpx.Request) -> httpx.Response:
        with self.lock:
            path = request.url.path
            self.asked.append(f"{request.method} {path}")
            if request.method == "GET" and path.startswith("/api/runs/"):
                return self._run(path.removeprefix("/api/runs/"))
            if path == "/api/status":
                return httpx.Response(200, json=self.status)
            if request.method == "GET" or path == "/api/cosignatures":
                return super().answer(request)
            self._writes += 1
            how = self.broken.get(self._writes, "")
            if how == "before":
                raise httpx.ConnectError("refused")
            answer = self._deposit(request) if request.method == "PUT" else super().answer(request)
            if how == "after":
                raise httpx.ReadError("cut")
            return answer

    def _deposit(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.rsplit("/", 1)[1]
        assert sha(request.content) == name
        assert request.url.params["kind"] in ("code", "dictionary", "model")
        self.blobs[name] = request.content
        return httpx.Response(200, json={"digest": name})

    def _run(self, path: str) -> httpx.Response:
        _, _, name = path.partition("/")
        if not name:
            if not self.run:
                return httpx.Response(404, json={"error": "not yet"})
            files = [{"path": p, "size": len(d), "digest": sha(d)} for p, d in sorted(self.run.items())]
            return httpx.Response(200, content=self.listing or json.dumps({"files": files}).encode())
        data = self.run.get(name)
        return httpx.Response(404) if data is None else httpx.Response(200, content=data)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


__all__ = ["Bench", "digest", "sha"]
