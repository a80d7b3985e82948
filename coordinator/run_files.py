"""What a finished job left, for members to fetch: `runs/<job>/` as `coordinator.evidence` wrote it, file by file.

Nothing but the listed files is ever opened: a path from outside is looked up, never joined. A folder appears whole
and does not change afterwards, so its listing is made once. Whoever is handed the evidence of a released job is on
the record before the first byte leaves, once, however many files it fetches.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, JSONResponse, Response

from coordinator import evidence, release
from coordinator.errors import StorageError
from coordinator.handouts import Handout, Handouts
from coordinator.histories import History
from coordinator.routing import Call, Handler, refused
from coordinator.sequencer import Sequencer
from ledger import canonical
from ledger.values import Member

ITEM = "evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFile:
    """One file of a finished job."""

    file: Path
    size: int  # bytes
    digest: str  # lowercase hex SHA-256


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All files of a finished job, by path."""

    files: Mapping[str, RunFile]

    def to_json(self) -> dict[str, list[dict[str, str | int]]]:
        """Return the listing."""
        return {"files": [{"path": p, "size": f.size, "digest": f.digest} for p, f in self.files.items()]}

    @property
    def digest(self) -> str:
        """SHA-256 of the listing: stands for all of it on the record."""
        return hashlib.sha256(canonical.dumps(self.to_json())).hexdigest()


class RunFiles:
    """Answers for one log's finished jobs; `handlers` by their names in the table."""

    def __init__(self, runs: Path, sequencer: Sequencer, handouts: Handouts) -> None:
        """Answer for one folder.

        Args:
            runs: Where finished jobs' folders are.
            sequencer: Owner of the log.
            handouts: Puts on the record who was handed what.
        """
        self._runs = runs
        self._sequencer = sequencer
        self._handouts = handouts
        self._lock = threading.Lock()
        self._known: dict[str, Run] = {}
        self.handlers: dict[str, Handler] = {"run": self._list, "run-file": self._file}

    def find(self, job: str) -> Run | None:
        """Return a released job's files, or None while they are not there.

        Raises:
            StorageError: the disk cannot be read.
        """
        history = self._sequencer.standing.jobs.get(job)
        if (
            history is None or history.release is None
        ):  # so `job` is a digest of this log, and may become a path
            return None
        with self._lock:
            if job not in self._known and (self._runs / job / evidence.FOLDER).is_dir():
                self._known[job] = Run(files=_read(self._runs / job))
            return self._known.get(job)

    async def _list(self, call: Call) -> Response:
        run = await run_in_threadpool(self.find, call.values["job"])
        if run is None:
            return refused(404, "no such finished job, or its evidence is not written yet")
        return JSONResponse(run.to_json())

    async def _file(self, call: Call) -> Response:
        job = call.values["job"]
        run = await run_in_threadpool(self.find, job)
        known = run.files.get(call.values["path"]) if run is not None else None
        if run is None or known is None:
            return refused(404, "no such file of a finished job")
        history = self._sequencer.standing.jobs[job]
        handout = Handout(
            job=job,
            member=call.sender.name,
            item=ITEM,
            content=run.digest,
            right=_right(call.sender, history),
        )
        await run_in_threadpool(self._handouts.note, handout)
        return FileResponse(known.file, media_type="application/octet-stream")


def _right(member: Member, history: History) -> str:
    if member.role == "auditor":
        return "audit"
    return "participation" if member.role == "hospital" and member.name in history.parties else "release"


def _read(run: Path) -> dict[str, RunFile]:
    bundle = (p for p in (run / evidence.FOLDER).rglob("*") if p.is_file() and not p.is_symlink())
    try:
        return {
            p.relative_to(run).as_posix(): RunFile(file=p, size=p.stat().st_size, digest=_digest(p))
            for p in sorted((*bundle, run / release.MODEL, run / release.CARD))
        }
    except OSError as error:
        raise StorageError(f"cannot read {run}: {error.strerror}; see to the disk") from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
