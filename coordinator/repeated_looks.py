"""Gives a node again what it was given and did not get: the SuperLink hands a message out once, to whoever asks.

A node that waited in vain asks again, and names its look as before (header `NAME`: its process, a dot, a number that
changes with every message that arrives). The answer was lost on the way then, or came when the node had given up.
A process that was killed with a message in hand has a successor, which gets it once the dead one has been silent for
SILENT_SECONDS; a living one is not, for its heartbeats go on whatever it computes. So what a process got is not given
twice, and of two agents with one key none gets what the other one got.

Only messages that the SuperLink gave out are kept, and only who was let in by it, with this very look, gets one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import Response

NAME = "wardround-look"  # header
SILENT_SECONDS = 20.0  # two heartbeats: after as long, the SuperLink calls a node away


@dataclass(slots=True)
class _Given:
    """A message that a node was given."""

    name: str  # of the look; "" where its sender had hung up
    answer: Response
    heard: float  # when the process that has it was heard of last

    def is_of(self, name: str) -> bool:
        """Whether the process that has it is the one that names itself so."""
        return self.name.partition(".")[0] == name.partition(".")[0]


class RepeatedLooks:
    """The last message given to each node, until its next look shows that it arrived. Used in one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know of none.

        Args:
            clock: Seconds.
        """
        self._clock = clock
        self._given: dict[str, _Given] = {}  # by node key

    def heard(self, key: str, name: str) -> None:
        """Take note of any request of a process, after the SuperLink let it in."""
        given = self._given.get(key)
        if given is not None and given.is_of(name):
            given.heard = self._clock()

    def lost(self, key: str, name: str) -> bool:
        """Whether a look asks for what was given before.

        Args:
            key: The node's public key as its request states it, believed by nobody yet.
            name: The look's, "" where the node gives none.
        """
        given = self._given.get(key)
        if given is None or given.name in ("", name):
            return given is not None
        return not given.is_of(name) and self._clock() - given.heard >= SILENT_SECONDS

    def settle(self, key: str, name: str, answer: Response, *, gone: bool) -> Response:
        """Return what a look is answered with, after the SuperLink let its sender in.

        Args:
            key: The node's public key, which the SuperLink knows.
            name: The look's.
            answer: The SuperLink's.
            gone: Whether the sender is known to have hung up meanwhile.
        """
        given = self._given.get(key)
        if not answer.body and given is not None and self.lost(key, name):
            answer = given.answer
        if answer.body and (gone or name):
            self._given[key] = _Given("" if gone else name, answer, self._clock())
        elif answer.body or (not gone and given is not None and given.is_of(name)):
            self._given.pop(key, None)  # it names no look, or asks on: the last message arrived
        return answer
