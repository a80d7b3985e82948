"""A hospital's part in ending a dead log: check a succession against its own copy, sign it, and follow the new log.

The copy of the dead log stays, under another name, as evidence. The privacy account stays as it is: the new log knows
nothing of what was spent, the account does, so budgets hold over both.
"""

from __future__ import annotations

import re
from pathlib import Path

from client.config import FILE, Hospital, read_file
from client.errors import ConfigError, LocalStateError
from client.private_file import write_private
from ledger import envelope, records, succeed
from ledger.database import DATABASE
from ledger.envelope import Entry
from ledger.errors import StorageError
from ledger.mirror import Mirror
from ledger.records import Succession
from ledger.view import View

_CHARTER = re.compile(r'^(\s*charter\s*=\s*)"[0-9a-f]{64}"', re.M)
_NEXT = "mirror.next"


def read_draft(path: Path) -> Succession:
    """Return the succession in a file. Raises ConfigError, MalformedError: it holds none."""
    record = records.parse(read_file(path, records.MAX_RECORD_SIZE))
    if not isinstance(record, Succession):
        raise ConfigError(f"{path} holds a {record.TYPE} record, no succession")
    return record


def check(hospital: Hospital, record: Succession) -> tuple[View, list[str]]:
    """Return this hospital's view of the dead log at the size that a succession names, and what else it changes.

    Raises:
        LocalStateError: this hospital's copy does not reach that far.
        LedgerError: the succession does not follow this hospital's copy of the log.
    """
    with Mirror.open(hospital.mirror) as mirror:
        if record.previous.size > mirror.size:
            raise LocalStateError(
                f"this hospital has {mirror.size} entries of the dead log, not {record.previous.size}"
            )
        view = mirror.view_at(record.previous.size)
        succeed.require_true(view, mirror.final_size, record)
    return view, succeed.differences(view, record)


def sign(hospital: Hospital, record: Succession) -> bytes:
    """Return the succession with this hospital's signature; `check` comes first."""
    return envelope.sign(record, hospital.read_identity_key())


def follow(hospital: Hospital, entry: Entry) -> None:
    """Follow the new log from its entry 0 on; may be done again after a crash. The agent must not run.

    Raises:
        LocalStateError, ConfigError: the disk or the settings fail.
        RuleError: the succession was not decided by those who could.
        LedgerError: it does not follow this hospital's copy of the dead log.
    """
    record, folder = entry.record, hospital.folder
    if not isinstance(record, Succession):
        raise ConfigError(f"the file holds a {record.TYPE} record, no succession")
    if not (hospital.mirror / DATABASE).is_file():  # a crash came between the two renamings
        _rename(folder / _NEXT, hospital.mirror)
        return
    with Mirror.open(hospital.mirror) as mirror:
        old = envelope.parse_entry(mirror.entries(0, 1)[0]).digest if mirror.size else entry.digest
    if old == entry.digest:
        return  # it follows that log already
    view, _ = check(hospital, record)
    view.succeeded_by(entry)
    try:
        Mirror.create(folder / _NEXT, entry.digest, dead=view).close()
    except StorageError:
        if not (folder / _NEXT / DATABASE).is_file():
            raise
    _name_charter(folder / FILE, entry.digest)
    _rename(hospital.mirror, folder / f"mirror-{old[:16]}")
    _rename(folder / _NEXT, hospital.mirror)


def _name_charter(path: Path, digest: str) -> None:
    text = read_file(path, 1 << 20).decode()
    changed, count = _CHARTER.subn(rf'\g<1>"{digest}"', text)
    if count != 1:
        raise ConfigError(
            f'{path} does not state the charter on a line of its own: write charter = "{digest}"'
        )
    write_private(path, changed.encode())


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        raise LocalStateError(f"cannot rename {source} to {target}: {error.strerror}") from None
