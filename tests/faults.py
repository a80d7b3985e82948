"""A disk that fails on demand: every write, sync, rename and commit of the ledger, before or after it happened.

`FaultyDisk` counts the calls that change something. A run without a fault tells how many there are; a test then
repeats it once for each call and each way to fail. "before": the call did nothing and fails. "after": it did its
work and fails all the same, so the caller cannot know. "half": a write of half of the bytes. SQLite's own writes
are below Python; transactions fail here as a whole, and torn write-ahead logs are made byte by byte in
`tests/ledger/test_store.py`. Nobody cuts the power, so a sync is counted but not carried out: that saves minutes.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import pytest

Mode = Literal["before", "after", "half"]
_CALLS = ("write", "fsync", "replace", "mkdir")
_WRITING = ("BEGIN", "INSERT", "UPDATE", "COMMIT")


def _no_sync(descriptor: int) -> None:
    """Stands for os.fsync."""


class FaultyDisk:
    """Fails call number `at` (from 0) of those made while it is `active`; counts them all in `calls`."""

    def __init__(self, at: int = -1, mode: Mode = "before", error: int = errno.EIO) -> None:
        self.at = at
        self.mode = mode
        self.error = error
        self.calls: list[str] = []

    @contextmanager
    def active(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in _CALLS:
                real = getattr(os, name) if name != "fsync" else _no_sync
                patch.setattr(os, name, partial(self._call, name, real))
            patch.setattr(os, "open", partial(self._open, os.open))
            patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=self._connection()))
            yield

    def _open(self, real: Callable[..., int], path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if not flags & os.O_CREAT:
            return real(path, flags, *rest, **named)
        number: int = self._call("open", real, path, flags, *rest, **named)
        return number

    def _call(self, name: str, real: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        number = len(self.calls)
        self.calls.append(name)
        if number != self.at:
            return real(*arguments, **named)
        if self.mode == "half" and name == "write":
            descriptor, data = arguments
            real(descriptor, bytes(data)[: len(data) // 2])
        elif self.mode == "after":
            result = real(*arguments, **named)
            if name == "open":
                os.close(result)  # nobody will
        raise OSError(self.error, os.strerror(self.error))

    def _connection(self) -> type[sqlite3.Connection]:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if not sql.startswith(_WRITING):
                    sql = sql.replace("synchronous = FULL", "synchronous = OFF")
                    return super().execute(sql, *values)
                return disk._statement(sql, partial(super().execute, sql, *values))

            def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
                return disk._statement(sql, partial(super().executemany, sql, *values))

        return Connection

    def _statement(self, sql: str, run: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        number = len(self.calls)
        self.calls.append(sql.partition(" ")[0])
        if number != self.at:
            return run()
        if self.mode == "after":
            run()
        raise sqlite3.OperationalError("disk I/O error")
