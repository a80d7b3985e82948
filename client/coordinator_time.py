"""The time that signed requests state: this machine's, or the coordinator's own where the two differ.

A coordinator takes a request within a minute of its clock, while a witness's clock may be ten minutes off
(PROTOCOL.md, "Time"). So where a request is refused, the difference is learnt from the answer's Date header and
remembered. The coordinator's word is enough for it: a request's time is a token of freshness for the coordinator
alone. It is used for nothing else: records, cosignatures and every judgement of the log go by this machine's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parsedate_to_datetime

NOTICEABLE = 5  # seconds by which a newly seen difference must be another one than the one remembered
WORTH_TELLING = 60  # seconds


def difference(date: str, now: float) -> int | None:
    """Return by how many seconds another clock is ahead of this one, or None: the header is no time since 1970.

    Args:
        date: A Date header.
        now: This clock, Unix seconds.
    """
    try:
        there = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return round(there - now) if there >= 0 else None


def trouble(ahead: int) -> str:
    """Return what a person should know of a difference, in one line, or ""."""
    if abs(ahead) <= WORTH_TELLING:
        return ""
    way = "ahead of" if ahead > 0 else "behind"
    return f"the coordinator's clock is {abs(ahead)} s {way} this machine's: set the one that is wrong"


class CoordinatorTime:
    """May be used from several threads.

    Attributes:
        tell: Told of a difference in one line, once somebody listens; "" when the clocks agree again.
    """

    def __init__(
        self, clock: Callable[[], float], tell: Callable[[str], None] = lambda trouble: None
    ) -> None:
        """Know of no difference; `clock` gives Unix seconds."""
        self.tell = tell
        self._clock = clock
        self._ahead = 0

    def now(self) -> int:
        """Return the time for a request, Unix seconds."""
        return max(0, int(self._clock()) + self._ahead)

    def learn(self, date: str) -> bool:
        """Remember how far the coordinator's clock is; return whether that is news, so that asking again may help."""
        ahead = difference(date, self._clock())
        if ahead is None or abs(ahead - self._ahead) < NOTICEABLE:
            return False
        self._ahead = ahead
        self.tell(trouble(ahead))
        return True
