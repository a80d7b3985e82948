"""A coordinator's folder for the log that follows a dead one: drafted, signed by the members elsewhere, then made.

    1. `draft` makes the new log's key and the record that a quorum of the dead log's witnesses must sign
    2. each of them checks it against its own copy of the dead log and signs (`wardround hospital succeed`)
    3. `make` puts the signatures together and makes the folder; its log begins with the succession
Blobs, the coordinator's key, TLS and the nodes' keys come along; datasets, agreements and jobs are registered anew.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from coordinator import backup, config
from coordinator.config import read_key
from coordinator.errors import SuccessionError
from ledger import envelope, succeed
from ledger.durable import write_private
from ledger.log import Log
from ledger.records import Succession
from ledger.signature import KeyType, SigningKey
from ledger.source import open_source
from ledger.view import View

ENTRY = "succession.entry"  # what hospitals follow the new log by
_TAKEN_ALONG = ("blobs", "nodes", "tls")


def draft(old: Path, new: Path, origin: str, now: int) -> Succession:
    """Make the new log's key below `new`, once, and return the succession to be signed.

    Raises:
        SuccessionError: nothing was ever final, or the disk refuses.
        ConfigError, LedgerError: the old folder or its log cannot be used.
    """
    view = _dead(old)
    path = new / "keys" / "log.key"
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            key = SigningKey(name=origin, type=KeyType.ED25519, seed=secrets.token_bytes(32))
            write_private(path, key.to_text().encode())
    except OSError as error:
        raise SuccessionError(f"cannot write {path}: {error.strerror}") from None
    verifier = read_key(path).verifier
    if verifier.name != origin:
        raise SuccessionError(f"{path} is the key of {verifier.name}: name that origin, or another folder")
    return succeed.propose(view, origin, verifier.to_text(), now)


def make(old: Path, new: Path, signed: Sequence[bytes], now: int) -> bytes:
    """Make the new folder of the signed succession, and return its log's entry 0.

    Raises:
        SuccessionError: the folder holds a log already, or the disk refuses.
        RuleError: too few have signed, or a rule forbids it; `rule` says which.
        ConfigError, LedgerError: a folder, a log or a signature cannot be used.
    """
    view, first = _dead(old), succeed.collect(signed)
    if (new / "log").exists():
        raise SuccessionError(f"{new} holds a log already: name another folder")
    view.succeeded_by(envelope.open_entry(first))  # decided, before anything is written
    key = read_key(new / "keys" / "log.key")
    try:
        for name in _TAKEN_ALONG:
            if (old / name).is_dir():
                shutil.copytree(old / name, new / name, dirs_exist_ok=True, copy_function=_link)
        write_private(new / "keys" / "coordinator.key", (old / "keys" / "coordinator.key").read_bytes())
        write_private(new / backup.PREVIOUS, view.to_bytes())
        write_private(new / ENTRY, first)
        shutil.copyfile(old / config.FILE, new / config.FILE)
        Log.create(new / "log", first, [key], now, dead=view).close()  # the last step: now it is a log
    except OSError as error:
        raise SuccessionError(
            f"cannot make {new}: {error.strerror}; remove its log folder, try again"
        ) from None
    return first


def _dead(old: Path) -> View:
    config.load(old)
    try:
        return succeed.last_final(open_source(str(old / "log")), backup.read_previous(old))
    except FileNotFoundError:
        raise SuccessionError(f"nothing of the log in {old} was ever final: found a new consortium") from None


def _link(source: str, target: str) -> str:
    """Copy a file that never changes, at no cost where the disk is the same; keys and certificates are copied."""
    if f"{os.sep}blobs{os.sep}" in source and not source.endswith(f"{os.sep}lock"):
        try:
            os.link(source, target)
        except OSError:
            return str(shutil.copy2(source, target))
        return target
    return str(shutil.copy2(source, target))
