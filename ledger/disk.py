"""Files of a log's directory: written once and never changed, or swapped whole. Used by `store` only.

A file appears under its name complete (temporary file, rename) but, unless it is asked for, not yet on the
medium: `Folder.sync` sees to all files written so far. Every OSError becomes one StorageError.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from ledger.errors import StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SQLITE_FULL = 13  # SQLITE_FULL


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn failures of the disk and of SQLite into StorageError: `what` failed, and what to do."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        full = getattr(error, "errno", None) in _FULL or (
            getattr(error, "sqlite_errorcode", 0) & 0xFF == _SQLITE_FULL
        )
        if full:
            raise StorageError(f"{what}: the disk is full; free space, then start again") from error
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StorageError(f"{what}: {reason}; stop, check the disk, then start again") from error


class Folder:
    """One directory. Names are relative, with forward slashes, and come from this package only.

    Args:
        root: The directory.
    """

    __slots__ = ("_unsynced", "root")

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._unsynced: list[str] = []

    def lock(self) -> int:
        """Lock the directory for this process until the returned descriptor is closed.

        Raises:
            StorageError: another process has it.
        """
        with storage_errors(f"cannot lock {self.root}"):
            descriptor = os.open(f"{self.root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise StorageError(f"{self.root} is in use by another process: stop that one first") from None
        return descriptor

    def read(self, name: str) -> bytes:
        """Return a file's bytes: a `tiles.Read`.

        Raises:
            FileNotFoundError: there is none.
            StorageError: it cannot be read.
        """
        try:
            descriptor = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(name) from None
        except OSError as error:
            raise StorageError(f"cannot read {name}: {error.strerror}") from error
        with storage_errors(f"cannot read {name}"), os.fdopen(descriptor, "rb") as file:
            return file.read()

    def names(self, folder: str) -> set[str]:
        """Return the names in a subdirectory; none if it is not there."""
        with storage_errors(f"cannot list {folder}"), suppress(FileNotFoundError):
            return {path.name for path in Path(self.root, folder).iterdir()}
        return set()

    def write_once(self, name: str, data: bytes) -> None:
        """Write a file whose bytes never change; one that is there already is compared, and kept.

        Args:
            name: Relative path.
            data: All of it.

        Raises:
            StorageError: it is there with other bytes, or it could not be written.
        """
        try:
            existing = self.read(name)
        except FileNotFoundError:
            self.replace(name, data)
            return
        if existing == data:
            self._unsynced.append(name)  # a process that was killed may have left it in memory only
        elif is_torn(existing, data):
            self.replace(name, data)
        else:
            raise StorageError(
                f"{name} does not hold what log.sqlite says: one of them was altered or comes from an old backup"
            )

    def replace(self, name: str, data: bytes, *, sync: bool = False) -> None:
        """Swap a file's content in one step.

        Args:
            name: Relative path.
            data: All of it.
            sync: Whether its bytes must be on the medium before they take the place of the old ones.

        Raises:
            StorageError: it could not be written.
        """
        path = f"{self.root}/{name}"
        temporary = f"{path}.tmp"
        with storage_errors(f"cannot write {name}"):
            try:
                _write(temporary, data, sync)
                Path(temporary).replace(path)
            except OSError:
                with suppress(OSError):
                    Path(temporary).unlink()
                raise
        self._unsynced.append(name)

    def sync(self) -> None:
        """Return once every file written so far, and its name, is on the medium.

        Raises:
            StorageError: the outcome is unknown.
        """
        folders = {"."} if self._unsynced else set()
        with storage_errors(f"cannot sync {self.root}"):
            for name in dict.fromkeys(self._unsynced):
                _sync(f"{self.root}/{name}")
                folders.update(str(parent) for parent in PurePosixPath(name).parents)
            for folder in sorted(folders, reverse=True):  # a directory before the one that names it
                _sync(f"{self.root}/{folder}")
        self._unsynced.clear()


def is_torn(existing: bytes, data: bytes) -> bool:
    """Whether a crash can have left `existing` of `data`: its beginning, then nothing or zeros."""
    beginning = existing.rstrip(b"\0")
    return len(existing) <= len(data) and data.startswith(beginning)


def _write(path: str, data: bytes, sync: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
