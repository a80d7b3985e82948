"""A finished job's files for a notebook: fetched with patience, and found again when the same cell runs later."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from client import job_result
from client.errors import NotYetError
from client.job_result import CARD, MAX_FILE, MODEL, Result
from client.private_file import read_private
from client.researcher import Researcher

SECONDS = 120.0  # how long a coordinator may take to write the evidence after a release
_STEP = 0.3


def fetch(
    me: Researcher,
    job: str,
    out: Path,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Fetch a finished job's files, waiting for evidence that is being written.

    Args:
        me: Who asks.
        job: The job's digest.
        out: The folder to make; one that holds this job's released model and card already is taken as it is.
        clock: Monotonic seconds.
        sleep: Waits.

    Raises:
        JobStateError, UnreachableError, LocalStateError: see `job_result.fetch`.
    """
    story, _ = me.story(job)
    if story.release is not None and out.is_dir():
        named = {MODEL: story.release.artifact, CARD: story.release.card}
        if all(_digest(out / name) == digest for name, digest in named.items()):
            files = sum(p.is_file() for p in out.rglob("*"))
            return Result(folder=out, release=story.release, files=files)
    until = clock() + SECONDS
    while True:
        try:
            return job_result.fetch(me, job, out)
        except NotYetError:
            if clock() > until:
                raise
        sleep(_STEP)


def _digest(path: Path) -> str:
    data = read_private(path, MAX_FILE)
    return hashlib.sha256(data).hexdigest() if data is not None else ""
