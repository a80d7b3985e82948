"""What `wardround hospital check` finds in the hospital's folder: settings, the copy of the log, the account.

Each `observe_` reads, and changes nothing; each `judge_` decides on what was read and touches nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from client import config, settings_file
from client.budget import Account
from client.config import Hospital
from client.errors import BudgetError, ClientError, ConfigError, LocalStateError
from client.preflight_codes import Finding
from client.standing import Standing
from ledger import audit, envelope
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError
from ledger.note import Note
from ledger.source import open_source
from ledger.store import PENDING
from ledger.view import NOTHING, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Who may do what with the hospital's folder."""

    path: Path
    mode: int
    owner: int
    keys_mode: int  # of keys/, or 0o700 where there is none
    user: int  # who runs this check; 0 may do anything


def observe_settings(directory: Path) -> Hospital | ConfigError:
    """Read hospital.toml, or say what is wrong with it."""
    try:
        return config.load(directory)
    except ConfigError as error:
        return error


def judge_settings(found: Hospital | ConfigError) -> Finding:
    """Decide on the settings."""
    if isinstance(found, ConfigError):
        return Finding(code="settings.wrong", sentence=str(found))
    return Finding(code="settings", sentence=f"{found.folder / config.FILE} is that of {found.name}")


def judge_samples(hospital: Hospital) -> Iterator[Finding]:
    """Find what `join` wrote and a person has not edited, where no value could be right by chance."""
    values = (
        ("dataset.name", hospital.dataset.name, settings_file.SAMPLE_NAME),
        ("dataset.purposes", hospital.dataset.purposes, (settings_file.SAMPLE_PURPOSE,)),
        ("policy.purposes", hospital.policy.purposes, (settings_file.SAMPLE_PURPOSE,)),
    )
    for name, value, sample in values:
        if value == sample:
            shown = value if isinstance(value, str) else ", ".join(value)
            yield Finding(
                code="settings.sample", sentence=f"{name} is still {shown!r}, which is only a sample"
            )


def observe_folder(directory: Path) -> Folder:
    """Look at the folder's owner and permissions. Raises OSError: there is no such folder."""
    found = directory.stat()
    keys = directory / "keys"
    return Folder(
        path=directory,
        mode=found.st_mode & 0o777,
        owner=found.st_uid,
        keys_mode=keys.stat().st_mode & 0o777 if keys.is_dir() else 0o700,
        user=os.geteuid(),
    )


def judge_folder(folder: Folder) -> Iterator[Finding]:
    """Decide whether only its owner can use it."""
    sound = True
    if folder.user not in (0, folder.owner):
        sound = False
        yield Finding(
            code="folder.owner", sentence=f"{folder.path} belongs to user {folder.owner}, not {folder.user}"
        )
    for path, mode in ((folder.path, folder.mode), (folder.path / "keys", folder.keys_mode)):
        if mode & 0o077:
            sound = False
            code = "folder.writable" if mode & 0o022 else "folder.open"
            yield Finding(code=code, sentence=f"others may use {path} (mode {mode:04o})")
    if sound:
        yield Finding(code="folder", sentence=f"{folder.path} is its owner's alone")


def observe_agent(account: Path) -> bool:
    """Tell whether an agent holds the folder: it keeps a lock beside the account."""
    try:
        lock = os.open(account.with_name(account.name + ".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # never started, or not ours to read: the folder's owner is another check
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given up at once, below
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def judge_agent(running: bool) -> Finding:
    """Say whether the agent runs; either is well."""
    return Finding(
        code="agent",
        sentence="it runs, and alone" if running else "it does not run, and nothing else uses it",
    )


def observe_person(directory: Path) -> str | LocalStateError:
    """Return why a person must decide, or "", or why that cannot be known."""
    try:
        return Standing(directory).person
    except LocalStateError as error:
        return error


def judge_person(waits: str | LocalStateError) -> Finding:
    """Decide whether anything waits for a person."""
    if isinstance(waits, LocalStateError):
        return Finding(code="person.damaged", sentence=str(waits))
    if waits:
        return Finding(code="person.waits", sentence=f"the agent waits for a person: {waits}")
    return Finding(code="person", sentence="nothing waits for a person")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The hospital's copy of the log, as far as a check needs it."""

    view: View | None  # None: nothing was followed yet
    charter: str  # digest of entry 0
    identity: str  # hex public key of keys/identity.key, or "" where that is unusable
    witness: str  # verifier line of keys/witness.key, or ""


def observe_copy(hospital: Hospital) -> Copy | str:
    """Read the copy's files, also while the agent writes; or say why they cannot be read."""
    identity = witness = ""
    try:
        identity = envelope.public_hex(hospital.read_identity_key())
        witness = hospital.read_witness_key().verifier.to_text()
    except ClientError:
        pass  # the check of the keys says so
    try:
        read = open_source(str(hospital.mirror))
        size = Checkpoint.from_text(Note.from_bytes(read(PENDING)).text).size
        entries = [envelope.parse_entry(data) for data in audit.entries(read, size)]
        view = NOTHING.extend(entries)
    except FileNotFoundError:
        return Copy(view=None, charter="", identity=identity, witness=witness)
    except LedgerError as error:
        if not hospital.mirror.exists():
            return Copy(view=None, charter="", identity=identity, witness=witness)
        return f"{hospital.mirror}: {error}"
    return Copy(view=view, charter=entries[0].digest, identity=identity, witness=witness)


def judge_copy(copy: Copy | str, name: str, charter: str) -> Iterator[Finding]:
    """Decide whether the copy is of this consortium, and this hospital a member with these keys."""
    if isinstance(copy, str):
        yield Finding(code="copy.damaged", sentence=copy)
    elif copy.view is None:
        yield Finding(
            code="copy", sentence="there is no copy of the log yet: the agent's first start makes it"
        )
    elif copy.charter != charter:
        yield Finding(
            code="copy.charter", sentence=f"it follows the charter {copy.charter[:16]}, not {charter[:16]}"
        )
    elif (member := copy.view.state.member(name)) is None:
        yield Finding(code="copy.member", sentence=f"{name} is no member in {copy.view.size} entries")
    else:
        pairs = (("identity", copy.identity, member.key), ("witness", copy.witness, member.witness))
        other = [which for which, mine, theirs in pairs if mine and theirs and mine != theirs]
        for which in other:
            yield Finding(code="copy.key", sentence=f"keys/{which}.key is not the key of {name} on the log")
        if not other:
            yield Finding(code="copy", sentence=f"{copy.view.size} entries; {name} is a {member.role}")


def judge_account(path: Path) -> Finding:
    """Open the privacy account for reading, and say what it holds."""
    if not path.exists():
        return Finding(code="account", sentence="there is none yet: the agent's first start makes it")
    try:
        account = Account.open(path, read_only=True)
        try:
            statements = account.history()
        finally:
            account.close()
    except BudgetError as error:
        return Finding(code="account.damaged", sentence=str(error))
    spent = "; ".join(
        f"epsilon {s.epsilon_spent} of {s.lifetime.epsilon:g} spent at delta {s.lifetime.delta:g} "
        "(add/remove one patient)"
        for s in statements
    )
    return Finding(code="account", sentence=spent or "nothing was spent")
