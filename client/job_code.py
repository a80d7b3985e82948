"""A job's own model.py at this hospital: fetched by its digest for a person to read, copied to `models/` on approval.

    jobs/<digest>/model.py        for reading only; nothing executes it from there
    models/<name>-<digest>.py     what a person approved: exactly these bytes may be run

Bytes of another digest are never kept, and what lies on the disk is checked again each time it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from client.config import Hospital
from client.errors import UnreachableError
from client.private_file import read_private, write_private
from client.reviewed import CUSTOM, MAX_SIZE, reviewed
from ledger.records import Job

MODEL = "model.py"
_KEPT = 12  # digits of the digest in a file's name
Fetch = Callable[[str, int], bytes]  # digest, most bytes -> content; raises UnreachableError


def brings_code(job: Job) -> bool:
    """Whether a job's model is its own and not part of the installed software."""
    return job.training.model == CUSTOM


def read_code(hospital: Hospital, digest: str, job: Job, fetch: Fetch) -> bytes:
    """Return a job's model.py, fetched once and kept for reading.

    Args:
        hospital: The settings.
        digest: The job's.
        job: Its record, which names the file's digest.
        fetch: Brings content from the coordinator.

    Raises:
        UnreachableError: the coordinator has not got it, or serves other bytes.
        LocalStateError: the disk fails.
    """
    path, wanted = hospital.folder / "jobs" / digest / MODEL, job.training.model_code
    data = read_private(path, MAX_SIZE)
    if data is not None and hashlib.sha256(data).hexdigest() == wanted:
        return data
    data = fetch(wanted, MAX_SIZE)
    if hashlib.sha256(data).hexdigest() != wanted:
        raise UnreachableError(f"the coordinator served other bytes than {wanted[:16]}")
    write_private(path, data)
    return data


def approve_code(hospital: Hospital, job: Job, code: bytes) -> str:
    """Put the file that a person has read among those that may be run; return its path, or "" if it was there.

    Raises:
        LocalStateError: the disk fails.
    """
    digest = hashlib.sha256(code).hexdigest()
    if digest in reviewed(hospital.models):
        return ""
    path = hospital.models / f"{job.name}-{digest[:_KEPT]}.py"
    write_private(path, code)
    return str(path)


def earlier_code(hospital: Hospital, digest: str) -> bytes | None:
    """Return a file among those that may be run, or None. Raises LocalStateError."""
    path = reviewed(hospital.models).get(digest)
    return read_private(path, MAX_SIZE) if path is not None else None
