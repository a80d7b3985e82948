"""Whether a job that hospitals have approved can be run here: looked at before its start, not found in a round."""

from __future__ import annotations

import numpy as np

from coordinator import layouts, terms
from coordinator.blobs import BlobStore
from coordinator.errors import JobError
from ledger.job_records import Job


def require_ready(job: Job, blobs: BlobStore) -> None:
    """Look for whatever would stop a job later.

    Args:
        job: The job.
        blobs: Where its files must be.

    Raises:
        JobError: saying what is missing or wrong.
        IntegrityError: a file is damaged.
    """
    if problem := terms.problem(job):
        raise JobError(problem)
    layouts.layout(job)
    needed = {"initial parameters": job.model, "data dictionary": job.dictionary}
    if job.training.model == layouts.CUSTOM:
        needed["model.py"] = job.training.model_code
    for what, digest in needed.items():
        if digest not in blobs:
            raise JobError(f"the job's {what} ({digest[:16]}) is not here: hand it in, then the job starts")
    if blobs.size(job.model) != 4 * job.training.parameters:
        raise JobError(f"the initial parameters are not {job.training.parameters} float32 numbers")
    if not np.isfinite(np.frombuffer(blobs.read(job.model), dtype="<f4")).all():
        raise JobError("the initial parameters are not all finite: no round could give a model")
