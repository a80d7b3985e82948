"""The rows of one log: its SQLite database, read and written in transactions. Used through `store` only.

WAL with synchronous=FULL: when a transaction has committed it is on the medium. One process has the database to
itself. After a failed write the outcome is unknown, so everything is refused until it is opened again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ledger.disk import storage_errors
from ledger.errors import StorageError
from ledger.signature import Signature

DATABASE = "log.sqlite"
FORMAT_VERSION = 1
_APPLICATION_ID = 1_465_009_228  # "WRDL"
_SCHEMA = """
BEGIN;
PRAGMA application_id = 1465009228;
PRAGMA user_version = 1;
CREATE TABLE entries (position INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note BLOB NOT NULL, final BLOB);
CREATE TABLE cosignatures (
    size INTEGER NOT NULL, name TEXT NOT NULL, key_id BLOB NOT NULL, line TEXT NOT NULL,
    PRIMARY KEY (size, name, key_id)
) WITHOUT ROWID;
CREATE TABLE snapshot (
    only INTEGER PRIMARY KEY CHECK (only = 1), size INTEGER NOT NULL, digest BLOB NOT NULL, view BLOB NOT NULL
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE settled (only INTEGER PRIMARY KEY CHECK (only = 1), size INTEGER NOT NULL);
INSERT INTO settled VALUES (1, 0);
COMMIT;
"""  # settled: every derived file of a checkpoint up to this size is on the medium


class Database:
    """An open database. Calls must not overlap; different threads may make them."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Open `path`, or make it.

        Raises:
            StorageError: not a log's database, damaged, or of a newer version.
        """
        self._broken = ""
        with storage_errors(f"cannot open {path}"):
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._identify(path, create)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                if not self._tables():
                    self._db.executescript(_SCHEMA)
            except (sqlite3.Error, StorageError):
                self._db.close()
                raise

    def close(self) -> None:
        """Close the database."""
        self._broken = self._broken or "it is closed"
        with storage_errors(f"cannot close {DATABASE}"):
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def entries(self, start: int, end: int) -> list[bytes]:
        """Return entries start <= index < end; fewer where the log is shorter."""
        query = "SELECT data FROM entries WHERE position >= ? AND position < ? ORDER BY position"
        return [row[0] for row in self._query(query, start, end)]

    def sizes(self) -> list[int]:
        """Return every size that has a signed checkpoint, ascending."""
        return [row[0] for row in self._query("SELECT size FROM checkpoints ORDER BY size")]

    def signed(self, size: int) -> bytes | None:
        """Return the signed checkpoint of a size, as it was stored first."""
        return self._one("SELECT note FROM checkpoints WHERE size = ?", size)

    def pending(self) -> bytes | None:
        """Return the newest signed checkpoint, None in an empty log."""
        return self._one("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1")

    def final_sizes(self) -> list[int]:
        """Return every size that has a final checkpoint, ascending."""
        return [
            row[0] for row in self._query("SELECT size FROM checkpoints WHERE final NOT NULL ORDER BY size")
        ]

    def final_size(self) -> int:
        """Return the size of the newest final checkpoint, 0 before there is one."""
        found = self._query("SELECT size FROM checkpoints WHERE final NOT NULL ORDER BY size DESC LIMIT 1")
        return int(found[0][0]) if found else 0

    def final(self, size: int | None = None) -> bytes | None:
        """Return a final checkpoint with its cosignatures: the newest, or that of a size."""
        size = self.final_size() if size is None else size
        return self._one("SELECT final FROM checkpoints WHERE size = ?", size)

    def cosignatures(self, size: int) -> list[Signature]:
        """Return the stored cosignatures of a checkpoint, sorted by name."""
        query = "SELECT line FROM cosignatures WHERE size = ? ORDER BY name, key_id"
        return [Signature.from_line(row[0]) for row in self._query(query, size)]

    def add_cosignatures(self, size: int, lines: Sequence[Signature]) -> None:
        """Store verified cosignatures of a checkpoint; a key's newer line replaces its older one.

        Raises:
            StorageError: a write failed.
        """
        rows = [(size, line.name, line.key_id, line.to_line()) for line in lines]
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO cosignatures VALUES (?, ?, ?, ?)", rows)

    def fact(self, name: str) -> bytes | None:
        """Return what was last stored under a name."""
        return self._one("SELECT value FROM facts WHERE name = ?", name)

    def facts(self, prefix: str = "") -> dict[str, bytes]:
        """Return every fact whose name begins so, sorted by name."""
        rows = self._query("SELECT name, value FROM facts ORDER BY name")
        return {name: value for name, value in rows if name.startswith(prefix)}

    def put(self, facts: Mapping[str, bytes]) -> None:
        """Store facts durably.

        Raises:
            StorageError: a write failed.
        """
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def snapshot(self) -> tuple[int, bytes] | None:
        """Return the size and the bytes of the newest snapshot of the view; the entries since are to be applied.

        Raises:
            StorageError: its bytes are not those that were stored.
        """
        rows = self._query("SELECT size, digest, view FROM snapshot")
        if not rows:
            return None
        size, digest, view = rows[0]
        if sha256(view).digest() != digest:
            raise StorageError(f"the snapshot in {DATABASE} was altered: restore the directory from a backup")
        return size, view

    def save_snapshot(self, size: int, view: bytes) -> None:
        """Store a snapshot of the view at a size, in place of the older one.

        Raises:
            StorageError: a write failed.
        """
        with self._transaction() as db:
            _save_snapshot(db, size, view)

    def _commit_entries(
        self,
        head: bytes | None,
        entries: Sequence[bytes],
        sizes: tuple[int, int],
        note: bytes,
        snapshot: bytes | None,
        facts: Mapping[str, bytes],
    ) -> None:
        """Add entries and the checkpoint over them in one transaction, if `head` is still the newest one."""
        old_size, size = sizes
        with self._transaction() as db:
            if self.pending() != head:
                raise StorageError(f"{DATABASE} was changed by something else: stop, and find out what")
            db.executemany("INSERT INTO entries VALUES (?, ?)", enumerate(entries, old_size))
            db.execute("INSERT INTO checkpoints VALUES (?, ?, NULL)", (size, note))
            if snapshot is not None:
                _save_snapshot(db, size, snapshot)
            if facts:
                db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def _commit_final(self, size: int, note: bytes, settled: int) -> None:
        with self._transaction() as db:
            db.execute("UPDATE settled SET size = ?", (settled,))
            db.execute("INSERT OR IGNORE INTO checkpoints VALUES (?, ?, NULL)", (size, note))
            db.execute("UPDATE checkpoints SET final = ? WHERE size = ?", (note, size))

    def _settled(self) -> int:
        return int(self._query("SELECT size FROM settled")[0][0])

    def _settle(self, size: int) -> None:
        with self._transaction() as db:
            db.execute("UPDATE settled SET size = ?", (size,))

    def _require_sound(self) -> None:
        if self._broken:
            raise StorageError(f"nothing more can be done with {DATABASE}: {self._broken}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Refuse everything after a failure inside: what is on the disk is then unknown."""
        self._require_sound()
        done = False
        try:
            yield
            done = True
        finally:
            if not done:
                self._broken = "an earlier write failed; stop, and open the directory again"

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing(), storage_errors(f"cannot write {DATABASE}"):
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")

    def _query(self, query: str, *values: object) -> list[Any]:
        self._require_sound()
        with storage_errors(f"cannot read {DATABASE}"):
            return self._db.execute(query, values).fetchall()

    def _one(self, query: str, *values: object) -> bytes | None:
        rows = self._query(query, *values)
        return rows[0][0] if rows else None

    def _tables(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])

    def _identify(self, path: Path, create: bool) -> None:
        ours = self._db.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID
        if not ours and (self._tables() or not create):
            raise StorageError(f"{path} is not the database of a log")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT_VERSION:
            raise StorageError(f"{path} has format {version}: install a newer version of this software")


def _save_snapshot(db: sqlite3.Connection, size: int, view: bytes) -> None:
    row = (size, sha256(view).digest(), view)
    db.execute("INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?, ?)", row)
