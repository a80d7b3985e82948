"""When an exchange may be asked for, or closed, before it costs a round: the rules, pure, and what displays show.

- Nobody is asked while fewer hospitals are connected than the exchange needs, however long that takes. Where enough
  are, those who are away are waited for a moment only (`patience_seconds`), and once they were given up not again.
- Whoever goes away during an exchange is waited for by the same rule, but no longer than the exchange's deadline, and
  is asked again: it sends what it has computed.
- After an exchange that was aborted below its minimum, the next one waits until enough hospitals should be willing:
  until the k-th smallest of their times, where the exchange needs k. Whoever took part is willing at once. A skip may
  carry a hint, in whole seconds, of when its hospital would take part (its next open hour, the end of its pause). For
  everybody else, and at the least for whoever skipped, it is a back-off that doubles with every such abort in a row:
  no liar can make a job burn its rounds by a hint of a second. A hint beyond LONGEST_HINT is cut to it.
- Waiting ends at once when the job is ended or its time is over; the log's time is stated for that.

So one closed period costs one aborted round at most. Hints are kept in memory alone: a coordinator that is started
again asks at once, which may cost one more, and is also the way to make it ask at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from coordinator.histories import History
from ledger.records import Abort

LONGEST_HINT = 7 * 86_400  # seconds: a week's hours come again after a week
BACKOFF = (60.0, 3600.0)  # seconds, first and longest, for whoever gave no hint
AWAY = "away"
_WORDS = {
    AWAY: "away",
    "hours": "outside its hours",
    "paused": "paused",
    "busy": "busy with another job",
    "crashed": "its last round was lost in a crash",
    "refused": "it refused the last round",
    "unreachable": "not reached in the last round",
    "late": "no answer in the last round",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why one hospital is waited for."""

    code: str  # AWAY, the code of its skip, or why it was left out
    since: int = 0  # Unix seconds; 0 where that says nothing
    until: int = 0  # when it should take part, Unix seconds; 0: nobody knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What a job waits for."""

    needed: int  # hospitals
    until: int = 0  # Unix seconds; 0: until enough hospitals are connected
    reasons: Mapping[str, Reason] = field(default_factory=dict)  # by hospital

    def to_json(self) -> dict[str, Any]:
        """Return it for displays."""
        found = {n: {"code": r.code, "since": r.since, "until": r.until} for n, r in self.reasons.items()}
        return {"needed": self.needed, "until": self.until, "hospitals": found}


class Waits:
    """What each job waits for at the moment. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: dict[str, Wait] = {}

    def put(self, job: str, wait: Wait | None) -> None:
        """Say what a job waits for; None: it does not."""
        with self._lock:
            if wait is None:
                self._waits.pop(job, None)
            else:
                self._waits[job] = wait

    def of(self, job: str) -> Wait | None:
        """Return what a job waits for."""
        with self._lock:
            return self._waits.get(job)


def read_hint(value: object) -> int | None:
    """Return a skip's hint, cut to LONGEST_HINT, or None: it is none."""
    return min(value, LONGEST_HINT) if type(value) is int and value >= 0 else None


def backoff(aborted: int) -> float:
    """Return how many seconds to wait after so many exchanges in a row that were below their minimum."""
    first, longest = BACKOFF
    return min(first * 2.0 ** min(aborted - 1, 64), longest) if aborted > 0 else 0.0


def aborted_in_a_row(history: History) -> int:
    """Return how many of a job's last exchanges were aborted below their minimum."""
    count = 0
    for closed in reversed(history.closed):
        if not isinstance(closed.record, Abort) or closed.record.code != "below-minimum":
            break
        count += 1
    return count


def willing_from(now: float, aborted: int, hint: int | None) -> float:
    """Return when to ask a hospital again that did not take part, Unix seconds."""
    return now + max(backoff(aborted), hint or 0)


def ask_at(times: Iterable[float], needed: int) -> float:
    """Return when `needed` hospitals should be willing, Unix seconds; 0.0 where there are not so many.

    Args:
        times: When each hospital that may take part should be, Unix seconds.
        needed: At least 1 where anything is to be waited for.
    """
    ordered = sorted(times)
    return ordered[needed - 1] if 0 < needed <= len(ordered) else 0.0


def is_enough(connected: int, needed: int, *, others_away: bool, waited: float, patience: float) -> bool:
    """Whether to ask now.

    Args:
        connected: Hospitals that are connected, of those that would be asked.
        needed: How many the exchange needs.
        others_away: Whether somebody is away who has not been given up.
        waited: Seconds so far.
        patience: Seconds that such a one is waited for.
    """
    return connected >= needed and not (others_away and waited < patience)


def words(found: Mapping[str, Any]) -> str:
    """Return what `Wait.to_json` says in one line."""
    reasons = found["hospitals"].items()
    named = "; ".join(f"{name} is {_reason(reason)}" for name, reason in reasons)
    if found["until"]:
        return f"waits until {_time(found['until'])} for {found['needed']} hospitals: {named}"
    return f"waits until {found['needed']} hospitals are connected: {named}"


def _reason(reason: Mapping[str, Any]) -> str:
    code = reason["code"]
    since = f" since {_time(reason['since'])}" if reason["since"] else ""
    until = f" until {_time(reason['until'])}" if reason["until"] and code != AWAY else ""
    return f"{_WORDS.get(code, code)}{since}{until}"


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
