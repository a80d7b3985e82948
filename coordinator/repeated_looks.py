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

from starlette.responses import Response

NAME = "wardround-look"  # header
SILENT_SECONDS = 20.0  # two heartbeats: after as long, the SuperLink calls a node away


class RepeatedLooks:
    """The last message given to each node, until its next look shows that it arrived. Used in one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know of none.

        Args:
            clock: Seconds.
        """
        self._clock = clock
        self._given: dict[
            str, tuple[str, Response]
        ] = {}  # by node key; "" for a look whose sender had hung up
        self._heard: dict[str, float] = {}  # by node key: when the process that has it was heard of last

    def heard(self, key: str, name: str) -> None:
        """Take note of any request of a process, after the SuperLink let it in."""
        if key in self._given and _process(self._given[key][0]) == _process(name):
            self._heard[key] = self._clock()

    def lost(self, key: str, name: str) -> bool:
        """Whether a look asks for what was given before.

        Args:
            key: The node's public key as its request states it, believed by nobody yet.
            name: The look's, "" where the node gives none.
        """
        if key not in self._given:
            return False
        given = self._given[key][0]
        if given in ("", name):
            return True
        silent = self._clock() - self._heard[key] >= SILENT_SECONDS
        return _process(given) != _process(name) and silent

    def settle(self, key: str, name: str, answer: Response, *, gone: bool) -> Response:
        """Return what a look is answered with, after the SuperLink let its sender in.

        Args:
            key: The node's public key, which the SuperLink knows.
            name: The look's.
            answer: The SuperLink's.
            gone: Whether the sender is known to have hung up meanwhile.
        """
        if not answer.body and self.lost(key, name):
            answer = self._given[key][1]
        elif not answer.body and (gone or not self._arrived(key, name)):
            return answer
        self._given.pop(key, None)
        self._heard.pop(key, None)
        if answer.body and (gone or name):
            self._given[key] = ("" if gone else name, answer)
            self._heard[key] = self._clock()
        return answer

    def _arrived(self, key: str, name: str) -> bool:
        """Whether a look that finds nothing shows that the last message arrived: its own process asks on."""
        return key in self._given and _process(self._given[key][0]) == _process(name)


def _process(name: str) -> str:
    return name.partition(".")[0]
