"""A builder that is started before it is wanted: what takes it seconds is importing torch, not building.

For a notebook, where one model after another is tried. A builder serves one job and ends, so each needs a fresh one;
the next one starts while the last one's model is looked at. It waits confined, on an empty pipe, and ends with this
process, however that ends: then nobody holds the pipe.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from client import building
from client.building import Builder
from client.settings import Limits


class SpareBuilder:
    """Keeps one ready, once `prepare` was called. Any thread may."""

    def __init__(self, limits: Limits, spawn: Callable[[Limits], Builder] = building.spawn) -> None:
        """Start none.

        Args:
            limits: Of all that it will start.
            spawn: Starts one.
        """
        self._limits = limits
        self._spawn = spawn
        self._lock = threading.Lock()
        self._spare: Builder | None = None
        self._wanted = False

    def prepare(self) -> None:
        """Have one ready from now on, if the system lets one be started: whoever takes one is told why not."""
        with self._lock:
            if not self._wanted:
                self._wanted = True
                atexit.register(self.close)
            self._start()

    def take(self, limits: Limits) -> Builder:
        """Return one, and start the next: for `building.build(start=...)`."""
        with self._lock:
            builder = self._spare if limits == self._limits else None
            if builder is not None:
                self._spare = None
                if not _lives(builder):
                    building.end(builder)
                    builder = None
            taken = builder or self._spawn(limits)
            if self._wanted:
                self._start()
            return taken

    def close(self) -> None:
        """End the one that waits; none is kept ready any more."""
        with self._lock:
            self._wanted = False
            if self._spare is not None:
                building.end(self._spare)
                self._spare = None

    def _start(self) -> None:
        if self._spare is None:
            with suppress(OSError):
                self._spare = self._spawn(self._limits)


def _lives(builder: Builder) -> bool:
    return os.waitid(os.P_PID, builder.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
