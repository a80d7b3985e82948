"""Where a notebook's jobs are kept: one folder for each, found again by whoever runs the same cells later.

`jobs/NAME` holds what `wardround job` would read, and the record that the job became, from before anything is sent.
A folder is made whole or not at all, and never changed to hold another job.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from client import job_folder, job_toml
from client.dictionary import SHIPPED, Dictionary, shipped
from client.errors import JobFileError, JobStateError, LocalStateError
from client.job_fields import FIELDS
from client.job_folder import MODEL, JobFolder
from client.job_toml import JobDraft
from client.private_file import write_private
from ledger import durable

FOLDER = Path("jobs")  # beside the notebook
DICTIONARY = "dictionary.json"
HEADING = "A training job for Wardround, as a notebook made it.\n"
_SHOWN = 3  # differences that a sentence names


class Drafted(Protocol):
    """Whatever says all that a researcher decides about a job: `Job`, or a `JobFolder`."""

    @property
    def draft(self) -> JobDraft:
        """What `job.toml` holds."""

    @property
    def dictionary(self) -> Dictionary:
        """The data dictionary."""

    @property
    def source(self) -> bytes | None:
        """Bytes of `model.py`; None for a built-in model."""


def unsaved(job: Drafted, path: Path | None = None) -> JobFolder:
    """Return a job as its folder would hold it; nothing is written.

    Args:
        job: The job.
        path: The folder; where none is given, `jobs/NAME`, or a `JobFolder`'s own.

    Raises:
        JobFileError: what is given is no job.
    """
    if not all(hasattr(job, name) for name in ("draft", "dictionary", "source")):
        raise JobFileError(
            f"a {type(job).__name__} is no job: make one by wardround.Job.template(...), or read a folder by "
            "wardround.Job.load(...)"
        )
    if isinstance(job, JobFolder) and path in (None, job.path):
        return job
    ships = job.draft.dictionary in SHIPPED and shipped(job.draft.dictionary).digest == job.dictionary.digest
    named = job.draft.dictionary if ships else DICTIONARY
    return JobFolder(
        path=path or FOLDER / job.draft.name,
        draft=replace(job.draft, dictionary=named),
        dictionary=job.dictionary,
        source=job.source,
    )


def keep(job: Drafted, path: Path | None = None) -> JobFolder:
    """Return a job's folder: made now, or found as an earlier run of the same cells left it.

    Args:
        job: A sound job.
        path: As for `unsaved`.

    Raises:
        JobStateError: the folder holds another job.
        JobFileError: it holds something else, or was damaged.
        LocalStateError: the disk refuses.
    """
    wanted = unsaved(job, path)
    if wanted is job:
        return wanted
    if not wanted.path.exists():
        _write(wanted)
        return job_folder.load(wanted.path)
    found = job_folder.load(wanted.path)
    if differences := _differences(found, wanted):
        more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise JobStateError(
            f"{wanted.path} holds another job named {found.draft.name} ({', '.join(differences[:_SHOWN])}{more}): "
            "give this one a name of its own, or name another folder for it"
        )
    return found


def changed(job: Drafted, changes: Mapping[str, Any]) -> Drafted:
    """Return a job with other settings: a new value of the same kind where it can make one.

    Args:
        job: The job.
        changes: By field of its draft.
    """
    replaced = getattr(job, "replace", None)
    if callable(replaced):
        made: Drafted = replaced(**changes)
        return made
    folder = unsaved(job)
    return replace(folder, draft=replace(folder.draft, **changes))


def _differences(found: JobFolder, wanted: JobFolder) -> list[str]:
    """Return in what two jobs differ, as `job.toml` names it; where the dictionary's file lies is no difference."""
    told = [
        f"{field.where} is {_plain(there)} there and {_plain(here)} here"
        for field in FIELDS
        if field.attribute != "dictionary"
        and (there := getattr(found.draft, field.attribute))
        != (here := getattr(wanted.draft, field.attribute))
    ]
    if found.draft.strategy_settings != wanted.draft.strategy_settings:
        told.append("the strategy has other settings")
    if found.dictionary.digest != wanted.dictionary.digest:
        told.append("the data dictionary is another")
    if found.source != wanted.source:
        told.append(f"{MODEL} is another")
    return told


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) or "empty" if isinstance(value, tuple) else str(value)


def _write(folder: JobFolder) -> None:
    """Write a folder beside its place, then move it there in one step."""
    path = folder.path
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    files = {job_toml.FILE: job_toml.to_toml(folder.draft, heading=HEADING).encode()}
    if folder.draft.dictionary == DICTIONARY:
        files[DICTIONARY] = folder.dictionary.to_bytes()
    if folder.source is not None:
        files[MODEL] = folder.source
    try:
        try:
            for name, data in files.items():
                write_private(partial / name, data)
            partial.replace(path)  # from here on the folder is there, whole
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        durable.sync_folder(path.parent)
    except OSError as error:
        raise LocalStateError(f"cannot make {path}: {error.strerror}; see to the disk") from None
