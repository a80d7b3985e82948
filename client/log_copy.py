"""A member's own verified copy of the log, for those who are no witness: followed and judged, never cosigned.

Several commands of one member share the copy: each opens it for one pull and closes it again, taking turns by a lock
of their own. What was accepted is a value; nothing that the coordinator says beside the log is believed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from client.consortium import Consortium
from client.errors import UnreachableError
from client.follower import Sight
from client.member import Membership
from client.premises import open_mirror
from client.turn import turn
from ledger.envelope import Entry, parse_entry
from ledger.errors import InconsistentError, MalformedError, RuleError, VerificationError
from ledger.mirror import Mirror

FOLDER = "mirror"
TURN = "mirror.turn"
TURN_SECONDS = 60.0  # how long another command may need the copy


class LogCopy:
    """The log as one member follows it. One thread at a time."""

    def __init__(
        self, membership: Membership, door: Consortium, clock: Callable[[], float] = time.time
    ) -> None:
        """Read nothing yet.

        Args:
            membership: Whose copy; its charter digest decides which log is followed.
            door: Where the log is read.
            clock: Unix seconds.
        """
        self._membership = membership
        self._door = door
        self._clock = clock
        self._sight: Sight | None = None

    @property
    def sight(self) -> Sight:
        """The log as accepted last. Raises UnreachableError before anything was."""
        if self._sight is None:
            raise UnreachableError("nothing of the log was read yet")
        return self._sight

    def pull(self) -> Sight:
        """Verify and store what is new; return the log as it is now.

        Raises:
            UnreachableError: the log cannot be read now, or what was read does not fit together: try again.
            InconsistentError, RuleError: the log contradicts itself or its rules; the evidence is kept.
            StorageError, LocalStateError: the copy cannot be read or written.
        """
        with self._open() as mirror:
            try:
                mirror.follow(self._door.read, int(self._clock()))
            except (InconsistentError, RuleError):
                raise
            except (VerificationError, MalformedError, FileNotFoundError) as error:
                raise UnreachableError(f"the log cannot be followed now: {error}") from None
            view = mirror.view
            assert view is not None  # `follow` accepted the charter, or raised
            self._sight = Sight(
                state=view.state,
                size=view.size,
                root=view.root,
                final_size=mirror.final_size,
                conflict=mirror.conflict() is not None,
            )
        return self._sight

    def wait(self, seconds: float) -> Sight:
        """Wait until the log grows, at most so long, and pull. Raises as `pull`."""
        self._door.wait_for_pending(self.sight.size, seconds)
        return self.pull()

    def entries(self, start: int, end: int) -> list[Entry]:
        """Return accepted entries: from `start` to before `end`."""
        with self._open() as mirror:
            return [parse_entry(data) for data in mirror.entries(start, end)]

    @contextmanager
    def _open(self) -> Iterator[Mirror]:
        folder = self._membership.folder
        with (
            turn(folder / TURN, seconds=TURN_SECONDS, make=True),
            open_mirror(folder / FOLDER, self._membership.charter) as mirror,
        ):
            yield mirror
