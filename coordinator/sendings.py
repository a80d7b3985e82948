"""Counts when messages went out to hospitals' nodes, for whoever waits for one: any thread counts, any may listen."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Sendings:
    """How often a ServerApp has left messages with the SuperLink."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._count = 0
        self._listeners: tuple[Callable[[], None], ...] = ()

    @property
    def count(self) -> int:
        """How often so far."""
        return self._count

    def add(self) -> None:
        """Count one more, after the SuperLink has taken its messages."""
        with self._lock:
            self._count += 1
        for listener in self._listeners:
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each one, in whatever thread counted it; it must return at once."""
        with self._lock:
            self._listeners = (*self._listeners, listener)
