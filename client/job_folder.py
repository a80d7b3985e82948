"""A job's folder: `job.toml`, perhaps `model.py` and a data dictionary, and `submitted.json` once it was proposed.

A folder is made whole or not at all, and read into one frozen value. The record that a folder became is kept in it
before anything is sent, so that submitting again, also after a crash, finds the same job.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client import dictionary as dictionaries
from client import job_problems, job_templates, job_toml
from client.dictionary import SHIPPED, Dictionary
from client.errors import DictionaryError, JobFileError, LocalStateError
from client.job_toml import JobDraft
from client.private_file import read_private, write_private
from client.reviewed import MAX_SIZE as MAX_MODEL
from ledger import canonical, records
from ledger.errors import MalformedError
from ledger.job_records import Job
from ledger.values import Digest, Part

MODEL = "model.py"
DICTIONARY = "dictionary.json"  # what a dictionary that does not ship is called, where nobody says
SUBMITTED = "submitted.json"
FORMAT = "wardround-submitted/1"
MAX_SUBMITTED = 4 * records.MAX_RECORD_SIZE  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContent:
    """All that a researcher decides about a job, wherever it is kept."""

    draft: JobDraft
    dictionary: Dictionary
    source: bytes | None  # of `model.py`

    @property
    def content(self) -> str:
        """Digest of everything that a researcher decided: two folders of one content are one job."""
        told = {
            "draft": canonical.plain(self.draft),
            "dictionary": self.dictionary.digest,
            "model": hashlib.sha256(self.source).hexdigest() if self.source is not None else "",
        }
        return hashlib.sha256(canonical.dumps(told)).hexdigest()

    def problems(self) -> list[str]:
        """Return what is wrong with the job by itself, a line each."""
        return job_problems.problems(self.draft, self.dictionary, self.source)

    @property
    def where(self) -> str:
        """How errors call it."""
        return f"job {self.draft.name}"

    def require_sound(self) -> None:
        """Refuse a job with a problem. Raises JobFileError, with all of them."""
        if found := self.problems():
            raise JobFileError(*found, where=self.where)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFolder(JobContent):
    """A job as its folder holds it, read at one moment."""

    path: Path

    @property
    def where(self) -> str:
        """How errors call it: the file to correct."""
        return str(self.path / job_toml.FILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted(Part):
    """What `submitted.json` holds: the record that a folder became."""

    format: str
    content: Digest
    record: str  # the job's canonical JSON, before it was signed

    @property
    def job(self) -> Job:
        """The record. Raises MalformedError for anything else."""
        found = records.parse(self.record.encode())
        if not isinstance(found, Job):
            raise MalformedError("the record is no job")
        return found


def load(path: Path) -> JobFolder:
    """Read a job's folder.

    Raises:
        JobFileError: naming every line of `job.toml` that is wrong, or the file that is missing.
    """
    file = path / job_toml.FILE
    draft = job_toml.parse(_read(file, job_toml.MAX_SIZE), str(file))
    model = path / MODEL
    return JobFolder(
        path=path,
        draft=draft,
        dictionary=_dictionary(path, draft.dictionary),
        source=_read(model, MAX_MODEL) if model.is_file() else None,
    )


def new(path: Path, template: str = "breast-cancer") -> JobFolder:
    """Make a job's folder from a template; it must not exist, or be empty.

    Raises:
        JobFileError: no such template, or the folder is in use.
        LocalStateError: the disk refuses; nothing half-made is left under its name.
    """
    if template not in job_templates.DRAFTS:
        raise JobFileError(
            f"no template {template[:40]!r}: choose one of {', '.join(sorted(job_templates.DRAFTS))}"
        )
    heading = job_templates.HEADING.replace("DIR", str(path))
    files = {
        job_toml.FILE: job_toml.to_toml(job_templates.DRAFTS[template], heading=heading),
        **job_templates.files(template),
    }
    _write(path, {name: text.encode() for name, text in files.items()})
    return load(path)


def save(content: JobContent, path: Path) -> JobFolder:
    """Make a job's folder from a job, of the same content; one that holds this very job already stays as it is.

    Args:
        content: The job, sound or not.
        path: The folder to make.

    Raises:
        JobFileError: the folder is in use, or the dictionary's name is no file's that a folder could hold.
        LocalStateError: the disk refuses; nothing half-made is left under its name.
    """
    if (path / job_toml.FILE).is_file():
        if (found := load(path)).content == content.content:
            return found
        raise JobFileError(f"{path} holds another job, {found.draft.name}: name another folder")
    named = content.draft.dictionary
    heading = job_templates.HEADING.replace("DIR", str(path))
    files = {job_toml.FILE: job_toml.to_toml(content.draft, heading=heading).encode()}
    if content.source is not None:
        files[MODEL] = content.source
    if not (named in SHIPPED and dictionaries.shipped(named) == content.dictionary):
        if Path(named).name != named or named in (*files, MODEL, SUBMITTED):
            raise JobFileError(
                f'dictionary = "{named}" is no file of this folder: call it "{DICTIONARY}"',
                where=content.where,
            )
        files[named] = content.dictionary.to_bytes()
    _write(path, files)
    return load(path)


def submitted(path: Path) -> Submitted | None:
    """Return what a folder was submitted as, or None.

    Raises:
        LocalStateError: `submitted.json` is not what `keep` wrote.
    """
    data = read_private(path / SUBMITTED, MAX_SUBMITTED)
    if data is None:
        return None
    try:
        found = canonical.build(Submitted, canonical.loads(data, MAX_SUBMITTED))
        if found.format != FORMAT:
            raise MalformedError("it is of another version")
        found.job  # noqa: B018 - parsed to see that it can be
    except MalformedError as error:
        raise LocalStateError(
            f"{path / SUBMITTED}: {error}; restore it, or move it away to submit this folder as a new job"
        ) from None
    return found


def keep(folder: JobFolder, job: Job) -> None:
    """Write down what a folder is submitted as, on the disk when this returns. Raises LocalStateError."""
    made = Submitted(format=FORMAT, content=folder.content, record=job.to_bytes().decode())
    write_private(folder.path / SUBMITTED, canonical.dumps(canonical.plain(made)))


def _dictionary(path: Path, named: str) -> Dictionary:
    """Read the job's dictionary: a shipped one by its name, any other by its file."""
    try:
        if named in SHIPPED and not (path / named).exists():
            return dictionaries.shipped(named)
        file = path / named
        if not file.is_file():
            raise JobFileError(
                f"dictionary {named!r} is no file of {path} and does not come with Wardround: there are "
                f"{', '.join(SHIPPED)}"
            )
        return dictionaries.parse(_read(file, dictionaries.MAX_SIZE))
    except DictionaryError as error:
        raise JobFileError(str(error), where=str(path / named)) from None


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder's files beside its place, then move them there in one step."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise JobFileError(f"{path} exists: name a folder that does not")
        partial.mkdir(parents=True)
        try:
            for name, data in files.items():
                (partial / name).write_bytes(data)
            partial.replace(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise LocalStateError(f"cannot make {path}: {error.strerror}; see to the disk") from None


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise JobFileError(
            f"{path} is not there: name a job's folder, or make one with `wardround job new`"
        ) from None
    except OSError as error:
        raise JobFileError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > limit:
        raise JobFileError(f"{path} is larger than {limit} bytes: it is not what it should be")
    return data
