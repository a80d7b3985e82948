"""Lets an event loop wait for what other threads change: the log, or what was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

LONGEST_WAIT = 30.0  # seconds that a request may ask to wait


class Subject(Protocol):
    """What changes, such as a `Sequencer`."""

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change."""


class Changes:
    """Lets coroutines wait for the log, or something else, to change, without a thread each.

    A change wakes only those whose condition holds by then: a hundred cosignatures arrive while a hundred long polls
    wait for the next entry.
    """

    def __init__(self, *subjects: Subject) -> None:
        """Listen to what changes, from within a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}
        self._due = False  # a turn is scheduled already
        for subject in subjects:
            subject.subscribe(self._changed)

    async def wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        """Return once the condition holds, or after `seconds`. It is asked in the loop, and must be quick."""
        if condition() or seconds <= 0:
            return
        woken = self._loop.create_future()
        self._waiting[woken] = condition
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await woken
        finally:
            del self._waiting[woken]

    def _changed(self) -> None:
        """Called in whatever thread made a change."""
        if not self._due:
            self._due = True
            self._loop.call_soon_threadsafe(self._turn)

    def _turn(self) -> None:
        self._due = False  # first: what changes from here on is looked at again
        for woken, condition in self._waiting.items():
            if not woken.done() and condition():
                woken.set_result(None)
