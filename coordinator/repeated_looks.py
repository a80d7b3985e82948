"""Gives a node again what it was given and did not get: the SuperLink hands a message out once, to whoever asks.

A node that waited in vain asks again, and names its look as before (header `NAME`; the name changes with every
message that arrives). The answer was lost on the way then, or came when the node had given up. What a process got is
never given twice, and of two agents with one key none gets what the other one got.

Only messages that the SuperLink gave out are kept, and only who was let in by it, with this very look, gets one.
"""

from __future__ import annotations

from starlette.responses import Response

NAME = "wardround-look"  # header


class RepeatedLooks:
    """The last message given to each node, until its next look shows that it arrived. Used in one event loop."""

    def __init__(self) -> None:
        """Know of none."""
        self._given: dict[
            str, tuple[str, Response]
        ] = {}  # by node key; "" for a look whose sender had hung up

    def lost(self, key: str, name: str) -> bool:
        """Whether a look asks for what was given before.

        Args:
            key: The node's public key as its request states it, believed by nobody yet.
            name: The look's, "" where the node gives none.
        """
        return key in self._given and self._given[key][0] in ("", name)

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
        elif not answer.body and gone:
            return answer  # it did not see that the last one arrived
        self._given.pop(key, None)
        if answer.body and (gone or name):
            self._given[key] = ("" if gone else name, answer)
        return answer
