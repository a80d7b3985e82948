"""A coordinator's folder in one file, and back: what is on it is checked before any of it takes effect.

The file is a tar of private files. `log/` holds the log as its own published files have it, up to the checkpoint that
was the newest when the backup began; a running coordinator is not disturbed, for those files are swapped whole and
never changed. The blobs come after the log, so that whatever a record names was stored before. `manifest.json` comes
last, with the size and SHA-256 of everything. Not in it: what can be derived (`runs/`) and what ends with a process
(`flower/`, `rounds/`).

It holds every key of the coordinator: keep it as safe as those, and encrypt it with a tool that you trust before it
leaves the machine. A restored coordinator is read-only until a quorum of its witnesses has reported; the entries that
came after the backup come back with their reports (`ledger.restart`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from coordinator import config
from coordinator.errors import BackupError
from ledger import audit
from ledger.checkpoint import Checkpoint
from ledger.durable import sync_folder
from ledger.errors import LedgerError
from ledger.merkle import leaf_hash, root_hash
from ledger.note import Note
from ledger.rebuild import rebuild
from ledger.source import open_source
from ledger.store import CHECKPOINTS, PENDING
from ledger.view import View

MANIFEST = "manifest.json"
FORMAT = 1
PREVIOUS = "previous.view"  # file of a coordinator's folder: the dead log's view, where its log follows one
_ENTRIES = "log/entries"  # each entry after its length, 2 bytes, big-endian
_PENDING = "log/pending"
_FINAL = "log/final"
_SKIPPED = ("flower", "log", "rounds", "runs")  # folders
_MAX_MANIFEST = 256 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What a backup holds, as its manifest says."""

    origin: str
    size: int  # entries of the log
    root: str
    made_at: int  # Unix seconds
    files: int
    bytes: int


def write(directory: Path, out: Path, now: int) -> Backup:
    """Write a backup of a coordinator that runs or is stopped.

    Args:
        directory: Its folder.
        out: The file, which must not be there yet.
        now: Unix seconds.

    Raises:
        ConfigError: no coordinator's folder.
        BackupError: the file cannot be written, or is there; nothing is left of it.
        LedgerError: the log's files do not fit together.
    """
    config.load(directory)
    if out.exists():
        raise BackupError(f"{out} is there already: name another file")
    temporary = out.with_name(f".{out.name}.partial")
    try:
        number = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(number, "w+b") as file:
                os.fchmod(file.fileno(), 0o600)  # a file that a crash left keeps its old mode otherwise
                made = _write(directory, file, now)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(out)  # complete, and on the disk: from here on it is a backup
            sync_folder(out.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise BackupError(f"cannot write {out}: {error.strerror or error}; see to the disk") from None
    return made


def restore(archive: Path, directory: Path) -> Backup:
    """Make a coordinator's folder of a backup; it appears whole or not at all.

    Raises:
        BackupError: the folder is not empty, the file is no backup or was altered, or the disk refuses.
        LedgerError: the log in it is not what a log signed.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise BackupError(f"{directory} is not empty: name a new folder")
    temporary = directory.with_name(f".{directory.name}.restoring")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a restore that was killed
        temporary.mkdir(mode=0o700, parents=True)
        try:
            found = _extract(archive, temporary)
            _rebuild_log(temporary)
            for folder in sorted({p.parent for p in temporary.rglob("*")}, reverse=True):
                sync_folder(folder)
            temporary.replace(directory)  # over an empty folder, or none
            sync_folder(directory.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, tarfile.TarError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BackupError(f"cannot restore {archive}: {reason}") from None
    return found


def _write(directory: Path, file: BinaryIO, now: int) -> Backup:
    listed: dict[str, dict[str, Any]] = {}
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        origin, size, root = _write_log(directory, tar, listed, now)
        for path in _others(directory):
            name = path.relative_to(directory).as_posix()
            with suppress(FileNotFoundError), path.open("rb") as stream:  # removed meanwhile
                _add(tar, name, stream, os.fstat(stream.fileno()).st_size, listed, now)
        manifest = {
            "format": FORMAT, "origin": origin, "size": size, "root": root, "made_at": now, "files": listed,
        }  # fmt: skip
        data = json.dumps(manifest, indent=1, sort_keys=True).encode()
        _add(tar, MANIFEST, io.BytesIO(data), len(data), {}, now)
    return _summary(manifest)


def _write_log(
    directory: Path, tar: tarfile.TarFile, listed: dict[str, dict[str, Any]], now: int
) -> tuple[str, int, str]:
    """Write the log up to its newest checkpoint; return its origin, size and root."""
    folder = directory / "log"
    if not (folder / PENDING).is_file():
        raise BackupError(f"{folder} holds no log yet: until it is founded, copy {directory} itself")
    read = open_source(str(folder))
    pending = read(PENDING)
    head = Checkpoint.from_text(Note.from_bytes(pending).text)
    entries = list(audit.entries(read, head.size))
    if root_hash(map(leaf_hash, entries)) != head.root:
        raise BackupError(f"{folder} is damaged: its entries do not lead to its checkpoint; restore it first")
    parts = {_ENTRIES: b"".join(len(e).to_bytes(2, "big") + e for e in entries), _PENDING: pending}
    for path in sorted((folder / CHECKPOINTS).glob("*")):
        if path.name.isdecimal() and int(path.name) <= head.size:
            parts[f"{_FINAL}/{path.name}"] = path.read_bytes()
    for name, data in parts.items():
        _add(tar, name, io.BytesIO(data), len(data), listed, now)
    return head.origin, head.size, head.root.hex()


def _others(directory: Path) -> Iterator[Path]:
    """Yield every file beside the log that is worth keeping, blobs last."""
    found = [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and not path.is_symlink()
        and path.relative_to(directory).parts[0] not in _SKIPPED
        and path.relative_to(directory).parts[:2] not in (("blobs", "incoming"), ("blobs", "lock"))
        and not path.name.startswith(".")
    ]
    yield from sorted(found, key=lambda path: path.relative_to(directory).parts[0] == "blobs")


class _Hashing:
    """A stream that hashes what is read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.digest.update(data)
        return data


def _add(
    tar: tarfile.TarFile,
    name: str,
    stream: BinaryIO,
    size: int,
    listed: dict[str, dict[str, Any]],
    now: int,
) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, now
    hashing = _Hashing(stream)
    tar.addfile(member, hashing)
    listed[name] = {"size": size, "sha256": hashing.digest.hexdigest()}


def _extract(archive: Path, folder: Path) -> Backup:
    """Write out every member, then hold all of it to the manifest."""
    found: dict[str, dict[str, Any]] = {}
    with tarfile.open(archive, mode="r:") as tar:
        for member in tar:
            place = PurePosixPath(member.name)
            strange = place.is_absolute() or ".." in place.parts or member.name != str(place)
            stream = tar.extractfile(member) if member.isreg() and not strange else None
            if stream is None or member.name in found:
                raise BackupError(f"{archive} is no backup of a coordinator: it holds {member.name[:80]!r}")
            found[member.name] = _copy(stream, folder / place)
    path = folder / MANIFEST
    if found.pop(MANIFEST, {"size": _MAX_MANIFEST})["size"] >= _MAX_MANIFEST:
        raise BackupError(f"{archive} is no backup of a coordinator, or was cut short: it has no manifest")
    try:
        manifest = json.loads(path.read_bytes())
        same, known = manifest["files"] == found, manifest["format"] <= FORMAT
        summary = _summary(manifest)
    except (ValueError, KeyError, TypeError):
        raise BackupError(f"{archive}: its manifest is damaged") from None
    if not known:
        raise BackupError(
            f"{archive} has format {manifest['format']}: install a newer version of this software"
        )
    if not same:
        raise BackupError(f"{archive} was altered or damaged: its content is not what its manifest says")
    path.unlink()
    return summary


def _copy(stream: Any, path: Path) -> dict[str, Any]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(number, "wb") as file:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def _rebuild_log(folder: Path) -> None:
    """Make the log's directory of its parts, and remove those."""
    data, entries, at = (folder / _ENTRIES).read_bytes(), [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 2], "big")
        entries.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    finals = {int(path.name): path.read_bytes() for path in (folder / _FINAL).glob("*")}
    pending = (folder / _PENDING).read_bytes()
    shutil.rmtree(folder / "log")
    rebuild(folder / "log", entries, pending, finals, read_previous(folder))


def read_previous(folder: Path) -> View | None:
    """Return the view of the dead log that a coordinator's log follows, or None where it follows none.

    Raises:
        BackupError: the file that holds it is damaged.
    """
    path = folder / PREVIOUS
    if not path.exists():
        return None
    try:
        return View.from_bytes(path.read_bytes())
    except LedgerError as error:
        raise BackupError(f"{path} is damaged: {error}") from None


def _summary(manifest: dict[str, Any]) -> Backup:
    files = manifest["files"]
    return Backup(
        origin=manifest["origin"],
        size=manifest["size"],
        root=manifest["root"],
        made_at=manifest["made_at"],
        files=len(files),
        bytes=sum(f["size"] for f in files.values()),
    )
