"""A fetched result as the run that `simulate` returns: its figures are the evidence's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from client import job_folder
from client.job_result import Result
from coordinator.errors import IntegrityError
from coordinator.evidence import BLOBS
from coordinator.histories import History
from wardround_figures import Figuring
from wardround_run import Run


def opened(found: Result, folder: Path, history: History, status: str, charter: str) -> Run:
    """Return what was fetched, to verify, plot and predict with.

    Args:
        found: The files.
        folder: The job's, as it was submitted.
        history: The job's, from the verified log.
        status: As the log says.
        charter: Digest of the consortium's charter.

    Raises:
        JobFileError: the job's folder was damaged.
        IntegrityError: the evidence is not what the log names.
    """
    figures = Figuring(_reader(found.evidence / BLOBS)).of(history, status)
    return Run(figures, job=job_folder.load(folder), charter=charter, result=found.folder, directory=None)


def _reader(folder: Path) -> Callable[[str], bytes]:
    def read(digest: str) -> bytes:
        try:
            data = (folder / digest).read_bytes()
        except OSError:
            raise IntegrityError(
                f"the evidence lacks {digest[:12]}: fetch it again into another folder"
            ) from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise IntegrityError(
                f"{digest[:12]} of the evidence was changed: fetch it again into another folder"
            )
        return data

    return read
