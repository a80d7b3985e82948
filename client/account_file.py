"""The file under a hospital's privacy account: one SQLite database, one writer, every commit on the disk.

Write-ahead log with `synchronous=FULL`: a commit returns only after the log is synced, so what returned is
there after a power failure. Charges and events are append-only, enforced by triggers. A second process is
refused by a lock beside the file; readers (`wardround hospital budget`) need no lock. After a full disk the
transaction is taken back and the file stays open; after any other failed write its outcome is unknown (a
failed sync leaves pages that look written), so nothing more is read or written until the file is opened anew.

What the rows mean is left to `client.budget`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from client.errors import BudgetError
from ledger.durable import sync_folder

APPLICATION_ID = 0x57415244
VERSION = 1
_SCHEMA = (
    """CREATE TABLE datasets (
        name TEXT PRIMARY KEY, epsilon REAL NOT NULL, delta REAL NOT NULL, filter_order REAL NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE charges (
        dataset TEXT NOT NULL REFERENCES datasets, number INTEGER NOT NULL, job TEXT NOT NULL,
        round INTEGER NOT NULL, model TEXT NOT NULL, delta REAL NOT NULL,
        epsilon_job TEXT NOT NULL, epsilon_dataset TEXT NOT NULL,
        PRIMARY KEY (dataset, number), UNIQUE (job, round)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE events (
        dataset TEXT NOT NULL, number INTEGER NOT NULL, side TEXT NOT NULL,
        noise_multiplier REAL NOT NULL, sample_rate REAL NOT NULL, count INTEGER NOT NULL,
        FOREIGN KEY (dataset, number) REFERENCES charges
    ) STRICT""",
    "CREATE INDEX events_of ON events (dataset, number)",
    """CREATE TABLE replies (
        dataset TEXT NOT NULL, number INTEGER NOT NULL, receipt BLOB NOT NULL, "update" BLOB, metrics BLOB,
        PRIMARY KEY (dataset, number), FOREIGN KEY (dataset, number) REFERENCES charges
    ) STRICT""",
    """CREATE VIEW charged AS SELECT c.dataset, c.number, c.job, c.round, c.model, c.delta, c.epsilon_job,
        c.epsilon_dataset, EXISTS (SELECT 1 FROM replies r WHERE r.dataset=c.dataset AND r.number=c.number)
        AS answered FROM charges c""",
    *(
        f"CREATE TRIGGER {table}_{act} BEFORE {act} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} are never taken back'); END"
        for table in ("charges", "events")
        for act in ("DELETE", "UPDATE")
    ),
)

Connect = Callable[[Path], sqlite3.Connection]
Row = tuple[Any, ...]


def connect(path: Path) -> sqlite3.Connection:
    """Open the database; transactions are begun and committed by hand."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


class AccountFile:
    """One open account. Every method raises `BudgetError`, and nothing else, when the disk fails."""

    def __init__(self, path: Path, connect: Connect = connect, *, read_only: bool = False) -> None:
        """Open the account at `path`; create it, private to its owner, unless `read_only`.

        Raises:
            BudgetError: another process has it open, it is no account, it is damaged, or the disk fails.
        """
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._lock_file = -1
        self.mutex = threading.RLock()
        try:
            if not read_only:
                self._create_and_lock()
            elif not path.is_file():
                raise BudgetError(f"there is no privacy account at {path}: start the hospital's agent first")
            self._connection = connect(path)
            self._prepare(self._connection, read_only=read_only)
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise BudgetError(f"the privacy account {path} cannot be opened: {_reason(error)}") from error
        except BudgetError:
            self.close()
            raise

    def _create_and_lock(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self._path.with_name(self._path.name + ".lock")
        self._lock_file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BudgetError(
                f"the privacy account {self._path} is open in another process: stop that agent first"
            ) from error
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._path.chmod(0o600)  # SQLite gives its side files the same mode
        sync_folder(self._path.parent)

    def _prepare(self, connection: sqlite3.Connection, *, read_only: bool) -> None:
        execute = connection.execute
        execute("PRAGMA foreign_keys=ON")
        if read_only:
            execute("PRAGMA query_only=ON")
        else:
            execute("PRAGMA journal_mode=WAL")
            execute("PRAGMA synchronous=FULL")
        [(application,)], [(version,)] = execute("PRAGMA application_id"), execute("PRAGMA user_version")
        [(tables,)] = execute("SELECT count(*) FROM sqlite_schema")
        if not read_only and (application, version, tables) == (0, 0, 0):
            with self.writing() as write:  # a crash before this commit leaves an empty file: begun again here
                for statement in _SCHEMA:
                    write(statement)
                write(f"PRAGMA application_id={APPLICATION_ID}")
                write(f"PRAGMA user_version={VERSION}")
            sync_folder(self._path.parent)
        elif application != APPLICATION_ID:
            raise BudgetError(f"{self._path} is not a privacy account: name another file")
        elif version != VERSION:
            raise BudgetError(f"the privacy account {self._path} is of version {version}: upgrade Wardround")
        [(verdict,)] = execute("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise BudgetError(f"the privacy account {self._path} is damaged: restore it from a backup")

    def close(self) -> None:
        """Close the file and give up the lock; safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(
                sqlite3.Error
            ):  # nothing is pending: every commit is on the disk already
                connection.close()
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    def read(self, sql: str, *values: object) -> list[Row]:
        """Return all rows of a query."""
        with self.mutex:
            try:
                return self._live().execute(sql, values).fetchall()
            except sqlite3.Error as error:
                self.close()
                raise self._failure(error) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[Callable[..., object]]:
        """Run statements as one transaction, on the disk when the block is left, or not there at all."""
        with self.mutex:
            connection = self._live()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield lambda sql, *values: connection.execute(sql, values)
                connection.execute("COMMIT")  # at this point, and not before, the rows exist after a crash
            except sqlite3.Error as error:
                self._abandon(connection, error)
                raise self._failure(error) from error
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.rollback()
                raise

    def _live(self) -> sqlite3.Connection:
        if self._connection is None:
            raise BudgetError(f"the privacy account {self._path} is closed: start the agent again")
        return self._connection

    def _abandon(self, connection: sqlite3.Connection, error: sqlite3.Error) -> None:
        """Take a transaction back if its outcome is known; otherwise close, keeping the answer on the disk."""
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            try:
                connection.rollback()
            except sqlite3.Error:
                self.close()
        else:
            self.close()

    def _failure(self, error: sqlite3.Error) -> BudgetError:
        return BudgetError(
            f"the privacy account {self._path} could not be written or read: {_reason(error)}; "
            "see to the disk, then start the agent again"
        )


def _reason(error: Exception) -> str:
    return error.strerror or "unknown" if isinstance(error, OSError) else str(error)
