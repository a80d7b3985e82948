"""What a finished job left, for members to fetch: `runs/<job>/` as `coordinator.evidence` wrote it, file by file.

    GET /api/runs/JOB       {"files": [{"path", "size", "digest"}]}, sorted by path
    GET /api/runs/JOB/PATH  one of exactly those files
Nothing but the listed files is ever opened: a path from outside is looked up, never joined. A folder appears whole
and does not change afterwards, so its listing is made once.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from coordinator import evidence, release
from coordinator.api import guarded
from coordinator.callers import Callers
from coordinator.errors import StorageError
from coordinator.sequencer import Sequencer


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFile:
    """One file of a finished job."""

    file: Path
    size: int  # bytes
    digest: str  # lowercase hex SHA-256


class RunFiles:
    """Answers requests. Mount `routes` under `/api`."""

    def __init__(self, runs: Path, sequencer: Sequencer, callers: Callers) -> None:
        """Answer for the jobs of one log.

        Args:
            runs: Where finished jobs' folders are.
            sequencer: Owner of the log.
            callers: Tells who reads.
        """
        self._runs = runs
        self._sequencer = sequencer
        self._callers = callers
        self._lock = threading.Lock()
        self._known: dict[str, Mapping[str, RunFile]] = {}
        self.routes = (
            Route("/runs/{job}", guarded(self._list), methods=["GET"]),
            Route("/runs/{job}/{path:path}", guarded(self._file), methods=["GET"]),
        )

    def listing(self, job: str) -> Mapping[str, RunFile]:
        """Return a job's files by their path; none while its evidence is not there.

        Raises:
            StorageError: the disk cannot be read.
        """
        history = self._sequencer.standing.jobs.get(job)
        if history is None or history.release is None:  # so `job` is a digest, and may become a path
            return {}
        with self._lock:
            if job not in self._known and (self._runs / job / evidence.FOLDER).is_dir():
                self._known[job] = _read(self._runs / job)
            return self._known.get(job, {})

    async def _list(self, request: Request) -> Response:
        await self._callers.member(request)
        found = await run_in_threadpool(self.listing, request.path_params["job"])
        if not found:
            return _nothing()
        files = [{"path": p, "size": f.size, "digest": f.digest} for p, f in found.items()]
        return JSONResponse({"files": files})

    async def _file(self, request: Request) -> Response:
        await self._callers.member(request)
        found = await run_in_threadpool(self.listing, request.path_params["job"])
        if (known := found.get(request.path_params["path"])) is None:
            return _nothing()
        return FileResponse(known.file, media_type="application/octet-stream")


def _nothing() -> Response:
    return JSONResponse({"error": "no such file of a finished job"}, status_code=404)


def _read(run: Path) -> dict[str, RunFile]:
    bundle = sorted(p for p in (run / evidence.FOLDER).rglob("*") if p.is_file() and not p.is_symlink())
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
