"""Holds a node's look for messages back while there can be none, so that it need not be asked again and again.

Every look costs the gateway and the SuperLink some milliseconds, and a node that expects a message looks twenty times
a second: a hundred of them left no time for the messages themselves. The coordinator's own ServerApp tells when it
has left messages (`coordinator.sendings`), so a look is let through at once if messages were left since the node's
last one, and otherwise when some are, or after HOLD_SECONDS: what the count does not know of comes late, not never.

Only a node that the SuperLink has let in is held and remembered: a stranger's first look is refused by it at once.
"""

from __future__ import annotations

from typing import Protocol

from coordinator.changes import Changes, Subject
from coordinator.sendings import Sendings

HOLD_SECONDS = 15.0  # well below the 30 s that a node waits for an answer


class Service(Subject, Protocol):
    """What may be told to stop, and tells of it: a `Sequencer`."""

    @property
    def stopped(self) -> bool:
        """Whether it was told."""


class Looks:
    """Who has looked after how many sendings. Used in one event loop."""

    def __init__(self, sendings: Sendings, service: Service, seconds: float = HOLD_SECONDS) -> None:
        """Listen, from within a running event loop.

        Args:
            sendings: Counts when messages were left.
            service: Nobody is held any more once it is told to stop.
            seconds: How long a look is held at most.
        """
        self._sendings = sendings
        self._service = service
        self._seconds = seconds
        self._changes = Changes(sendings, service)
        self._seen: dict[str, int] = {}  # by node key: the sendings whose messages it has pulled

    async def hold(self, key: str, *, at_once: bool = False) -> int:
        """Return when a node may look, and how many sendings there were by then.

        Args:
            key: The node's public key as its request states it, believed by nobody yet.
            at_once: Whether there is something for it in any case.
        """
        seen = self._seen.get(key)
        if seen is not None and not at_once:
            await self._changes.wait_for(
                lambda: self._sendings.count > seen or self._service.stopped, self._seconds
            )
        return self._sendings.count

    def looked(self, key: str, sendings: int, *, found: bool) -> None:
        """Remember a look that the SuperLink has answered.

        Args:
            key: The node's public key, which the SuperLink knows.
            sendings: What `hold` returned.
            found: Whether there was a message: another may lie behind it then.
        """
        before = self._seen.get(key, sendings - 1 if found else sendings)
        self._seen[key] = min(before + 1, sendings) if found else sendings
