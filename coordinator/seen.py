"""Which signed requests were seen already: none is taken twice, also across a crash and a restart.

A request is taken while its time is within WINDOW of this clock, and its nonce is remembered in memory until it is
older than that. A restart forgets: so what is not newer than the opening of the log is refused, and an earlier
process can have taken something newer only from a sender whose clock ran ahead. Those few are written down, on the
disk before they are answered, and read again at the next start. A clock set back between two starts is not covered.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable
from pathlib import Path

from coordinator.errors import StorageError
from ledger.durable import sync_folder

WINDOW = 60  # seconds that a member's clock may differ from this one
MAX_NONCES = 10_000  # of one member in the window; about 80 requests a second
MAX_FILE = 16 << 20  # bytes
_LINE = re.compile(r"(0|[1-9][0-9]{0,14}) ([0-9a-f]{32}) ([0-9a-f]{64})")


class StaleError(Exception):
    """The request is older or newer than the window, or of before this start."""


class ReplayError(Exception):
    """The request was seen before."""


class BusyError(Exception):
    """This member has sent too many requests in the window."""


class Seen:
    """The memory of nonces. Any thread may ask."""

    def __init__(self, path: Path, opened: int) -> None:
        """Begin at `opened`, Unix seconds: every earlier process of this folder had ended by then.

        Raises:
            StorageError: what an earlier process wrote down cannot be read or replaced.
        """
        self._path = path
        self._lock = threading.Lock()
        self._opened = opened
        self._floor = opened + 1  # nothing older is taken; never decreases, even if the clock does
        self._nonces: dict[str, dict[str, int]] = {}  # by key: nonce -> its request's time
        self._swept = opened
        self._begin()

    def take(self, key: str, nonce: str, created: int, now: int) -> None:
        """Note that a request is answered.

        Args:
            key: The sender's, hex; a present member's, or this would grow without bounds.
            nonce: Of the request.
            created: The request's time, Unix seconds.
            now: This clock's.

        Raises:
            StaleError, ReplayError, BusyError: refuse it.
            StorageError: it could not be written down.
        """
        if abs(now - created) > WINDOW:
            way = "behind" if created < now else "ahead of"
            raise StaleError(
                f"the request's time is {abs(now - created)} s {way} this clock, and at most {WINDOW} s are allowed: "
                "set the clock that is wrong"
            )
        with self._lock:
            self._sweep(now)
            if created < self._floor:
                raise StaleError(
                    "the coordinator has just started, or its clock was set back: try again in a moment"
                )
            known = self._nonces.setdefault(key, {})
            if nonce in known:
                raise ReplayError("this request was sent before: sign each one afresh")
            if len(known) >= MAX_NONCES:
                raise BusyError(f"more than {MAX_NONCES} requests in {2 * WINDOW} s: try again in a minute")
            if created > now:
                self._write_down(f"{created} {nonce} {key}\n")
            known[nonce] = created

    def _sweep(self, now: int) -> None:
        """Forget what the window refuses by now."""
        self._floor = max(self._floor, now - WINDOW)
        if now <= self._swept + WINDOW // 4:
            return
        self._swept = now
        for key, known in list(self._nonces.items()):
            kept = {nonce: created for nonce, created in known.items() if created >= self._floor}
            if kept:
                self._nonces[key] = kept
            else:
                del self._nonces[key]
        self._replace(self._ahead(now))

    def _begin(self) -> None:
        for created, nonce, key in self._read():
            if created > self._opened:
                self._nonces.setdefault(key, {})[nonce] = created
        self._replace(self._ahead(self._opened))

    def _ahead(self, now: int) -> list[str]:
        return [
            f"{created} {nonce} {key}\n"
            for key, known in self._nonces.items()
            for nonce, created in known.items()
            if created > now
        ]

    def _read(self) -> list[tuple[int, str, str]]:
        try:
            with self._path.open("rb") as file:
                text = file.read(MAX_FILE).decode("ascii", "replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot read {self._path}: {error.strerror}") from None
        found = (_LINE.fullmatch(line) for line in text.split("\n"))  # a torn last line was never answered
        return [(int(m[1]), m[2], m[3]) for m in found if m is not None]

    def _write_down(self, line: str) -> None:
        try:
            new = not self._path.exists()
            with self._path.open("a", encoding="ascii") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync_folder(self._path.parent)
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror}") from None

    def _replace(self, lines: Iterable[str]) -> None:
        """Keep only what a next start needs; a crash leaves the old file or the new one."""
        content, new = "".join(lines), self._path.with_suffix(".new")
        try:
            if not content and not (self._path.exists() and self._path.stat().st_size):
                return
            with new.open("w", encoding="ascii") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror}") from None
