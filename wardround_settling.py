"""Hospitals' folders for a job that a data scientist tries alone: what each hospital's person would do, for all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import wardround_founding
from client.accounting import round_up
from client.job_folder import JobFolder
from client.notebook import rows_file
from client.reviewed import FOLDER as MODELS
from wardround_founding import Consortium, Offered


def settle(
    made: Consortium, folder: JobFolder, datasets: Mapping[str, object], lifetime_epsilon: str | None = None
) -> None:
    """Write every hospital's folder: its rows, a budget that lets the job in, and the job's model.py as read.

    Args:
        made: The consortium.
        folder: The job.
        datasets: By hospital: a DataFrame, a pair of arrays (inputs, labels), or a path.
        lifetime_epsilon: Budget of each dataset, a decimal; twice the job's target where none is given.

    Raises:
        DataError: a hospital's rows cannot be used; says whose, and why.
        LocalStateError: the disk refuses.
    """
    draft = folder.draft
    dearest = max(draft.epsilon, draft.heldout_epsilon, key=float)
    for name in sorted(datasets):
        kind, file, own = rows_file.of(name, datasets[name], folder.dictionary, made.directory / "data")
        offered = Offered(
            name=folder.dictionary.name,
            kind=kind,
            file=file,
            dictionary=folder.dictionary.to_bytes(),
            purpose=draft.purpose,
            epsilon=lifetime_epsilon or round_up(2 * float(dearest)),
            delta=draft.delta,
            epsilon_per_job=dearest,
            moved=own,
        )
        wardround_founding.settle(made, name, offered)
        _review(made.hospital(name), folder)


def _review(hospital: Path, folder: JobFolder) -> None:
    """Do what a person does who has read the job's model.py."""
    if folder.source is not None:
        (hospital / MODELS).mkdir()
        (hospital / MODELS / "model.py").write_bytes(folder.source)
