"""What may be told to stop, and tells of it: stands in for a `Sequencer`."""

from __future__ import annotations

from collections.abc import Callable


class Service:
    """Runs until `stop`."""

    def __init__(self) -> None:
        self.stopped = False
        self._listeners: list[Callable[[], None]] = []

    def subscribe(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def stop(self) -> None:
        self.stopped = True
        for listener in self._listeners:
            listener()
