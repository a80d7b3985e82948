"""A data use agreement before it is signed: `agreement.toml` and its text, as a folder, and the record they become.

The record holds the text's digest, so the text itself goes to the parties by whatever way they trust. Like a job, the
record is kept in the folder before it is sent: proposing again is proposing the same.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from decimal import Decimal as Number
from pathlib import Path
from typing import Any

from client import job_fields
from client.errors import JobFileError, LocalStateError
from client.private_file import read_private, write_private
from client.settings import Line
from ledger import records
from ledger.consortium_records import Agreement
from ledger.errors import MalformedError
from ledger.values import Code, DatasetName, Name, Part, Positive

FILE = "agreement.toml"
TEXT = "agreement.txt"
PROPOSED = "proposed.json"
MAX_TEXT = 16 << 20  # bytes
TEMPLATE = f"""\
# A data use agreement. Every party signs exactly this, with the digest of the text.
# The file of the text: whatever the parties have agreed on, word for word.
text = "{TEXT}"
# Members that sign it: the hospitals, and the researchers who may rely on it.
parties = ["northgate", "researcher"]
# The datasets that it is about, each "hospital/dataset".
datasets = ["northgate/heart-disease"]
# What they may be used for: lowercase words joined by hyphens.
purposes = ["cardiology-research"]
# How long it holds, from the day it is proposed.
expires = "52w"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementDraft(Part):
    """What a folder says."""

    text: Line
    parties: tuple[Name, ...]
    datasets: tuple[DatasetName, ...]
    purposes: tuple[Code, ...]
    expires_seconds: Positive


_FIELDS = {
    "text": ("text", job_fields.line),
    "parties": ("parties", job_fields.distinct(job_fields.name, "")),
    "datasets": ("datasets", job_fields.distinct(job_fields.dataset, "")),
    "purposes": ("purposes", job_fields.distinct(job_fields.code, "")),
    "expires": ("expires_seconds", job_fields.duration),
}


def new(path: Path) -> None:
    """Make a folder with a file that explains every line.

    Raises:
        JobFileError: the folder is in use.
        LocalStateError: the disk refuses.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise JobFileError(f"{path} exists: name a folder that does not")
    write_private(path / TEXT, b"Put the text of the agreement here.\n")
    write_private(path / FILE, TEMPLATE.encode())


def parse(data: bytes, where: str = FILE) -> AgreementDraft:
    """Read `agreement.toml`. Raises JobFileError, naming every line that is wrong."""
    try:
        value = tomllib.loads(data.decode(), parse_float=Number)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise JobFileError(f"not TOML: {error}", where=where) from None
    problems = [f"{key[:40]!r} is unknown: leave it out" for key in value if key not in _FIELDS]
    found: dict[str, Any] = {}
    for key, (attribute, read) in _FIELDS.items():
        try:
            if key not in value:
                problems.append(f"{key} is missing")
            else:
                found[attribute] = read(value[key])
        except JobFileError as error:
            problems.append(f"{key} must be {error}")
    problems += [
        f"{key} must name at least one" for key in ("parties", "datasets", "purposes") if found.get(key) == ()
    ]
    strangers = sorted(
        {ref.split("/")[0] for ref in found.get("datasets", ())} - set(found.get("parties", ()))
    )
    if found.get("parties") and strangers:
        problems.append(f"datasets names one of {strangers[0]}, which is not among parties")
    if problems:
        raise JobFileError(*problems, where=where)
    return AgreementDraft(**found)


def record_of(path: Path, origin: str, now: int) -> Agreement:
    """Return the record of a folder: the one that it became before, if nothing of it has changed.

    Args:
        path: The folder.
        origin: The log's.
        now: Unix seconds; the agreement's time begins here.

    Raises:
        JobFileError: a file is missing or wrong.
        LocalStateError: the disk refuses, or `proposed.json` is damaged.
    """
    draft = parse(_read(path / FILE, 1 << 16), str(path / FILE))
    made = Agreement(
        origin=origin,
        text=hashlib.sha256(_read(path / draft.text, MAX_TEXT)).hexdigest(),
        parties=draft.parties,
        datasets=draft.datasets,
        purposes=draft.purposes,
        expires_at=now + draft.expires_seconds,
    )
    kept = _kept(path / PROPOSED)
    if kept is not None and kept.expires_at > now and _terms(kept) == _terms(made):
        return kept
    write_private(path / PROPOSED, made.to_bytes())  # on the disk before anybody is asked
    return made


def _terms(record: Agreement) -> tuple[object, ...]:
    """What stays the same however often a folder is proposed."""
    return (record.origin, record.text, record.parties, record.datasets, record.purposes)


def _kept(path: Path) -> Agreement | None:
    data = read_private(path, records.MAX_RECORD_SIZE)
    if data is None:
        return None
    try:
        found = records.parse(data)
    except MalformedError as error:
        raise LocalStateError(f"{path}: {error}; move it away to propose anew") from None
    if not isinstance(found, Agreement):
        raise LocalStateError(f"{path} is no agreement: move it away to propose anew")
    return found


def _read(path: Path, limit: int) -> bytes:
    data = read_private(path, limit)
    if data is None:
        raise JobFileError(f"{path} is not there: make the folder with `wardround agreement new`")
    return data
