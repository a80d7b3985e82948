"""Lets an event loop wait for what other threads change: the log, or what was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

LONGEST_WAIT = 30.0  # seconds that a request may ask to wait


class Subject(Protocol):
    """What changes, such as a `Sequencer`."""

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change."""


class Changes:
    """Lets coroutines wait for the log, or something else, to change, without a thread each."""

    def __init__(self, *subjects: Subject) -> None:
        """Listen to what changes, from within a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        for subject in subjects:
            subject.subscribe(self._changed)

    async def wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        """Return once the condition holds, or after `seconds`."""
        deadline = self._loop.time() + seconds
        while not condition() and (left := deadline - self._loop.time()) > 0:
            try:
                await asyncio.wait_for(self._event.wait(), left)
            except TimeoutError:
                return

    def _changed(self) -> None:
        """Called in whatever thread changed the log."""
        self._loop.call_soon_threadsafe(self._turn)

    def _turn(self) -> None:
        self._event.set()
        self._event = asyncio.Event()
