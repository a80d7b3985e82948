"""Knows when hospitals' nodes may find a message, so that the port need not ask the SuperLink for each that looks.

A hundred nodes that ask every second cost more than their rounds. Only an exchange brings messages, one to each node:
one that took its message of the newest exchange, while no other is open, finds nothing before the next one is sent.
So the gateway holds such a request until then, for some seconds. It is only ever late by those, whatever is missed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from coordinator.exchange import Arrival, Exchange, Rounds


class Dispatches:
    """How many exchanges were sent, and how many are open; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: tuple[Callable[[], None], ...] = ()
        self.sent = 0  # since the start
        self.open = 0  # being answered now
        self.ended = False  # nobody is to wait any more

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each exchange that is sent, in whatever thread; it must return at once."""
        self._listeners = (*self._listeners, listener)

    def opened(self) -> None:
        """Note that an exchange is about to be sent."""
        with self._lock:
            self.sent, self.open = self.sent + 1, self.open + 1
        self._tell()

    def closed(self) -> None:
        """Note that an exchange is over."""
        with self._lock:
            self.open -= 1

    def end(self) -> None:
        """Let go of everybody who waits: the service stops."""
        self.ended = True
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            with suppress(RuntimeError):  # an event loop that has just closed
                listener()


class Noted:
    """The `Rounds` of a job, whose exchanges are noted."""

    def __init__(self, rounds: Rounds, dispatches: Dispatches) -> None:
        self._rounds = rounds
        self._dispatches = dispatches
        self._open = False

    def next_exchange(self) -> Exchange | None:
        """See `Rounds`."""
        self._over()
        exchange = self._rounds.next_exchange()
        if exchange is not None:
            self._open = True
            self._dispatches.opened()
        return exchange

    def receive(self, arrival: Arrival) -> None:
        """See `Rounds`."""
        self._rounds.receive(arrival)

    def close(self) -> None:
        """See `Rounds`."""
        self._over()
        self._rounds.close()

    def _over(self) -> None:
        if self._open:
            self._open = False
            self._dispatches.closed()
