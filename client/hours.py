"""When a hospital may train: spans of local time such as "mon-fri 19:00-06:00", and whether a moment lies in one.

A span's days are those on which it begins; one whose end is not after its beginning runs over midnight into the next
day. Judged by the clock on the wall: in the night in which clocks go back, an hour that comes twice is in or out
twice; in the night in which they go forward, an hour that does not come is never in. Pure: the moment is an argument.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ledger.errors import MalformedError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = "|".join(DAYS)
_MINUTE = r"([01][0-9]|2[0-3]):([0-5][0-9])"
_SPAN = re.compile(rf"(?:({_DAY})(?:-({_DAY}))? )?{_MINUTE}-(?:{_MINUTE}|(24:00))", re.ASCII)
_WHOLE_DAY = 24 * 60  # minutes
_QUARTER = 15  # minutes: clocks change at such a boundary, and every zone's difference is a multiple of it
_HORIZON = 8 * _WHOLE_DAY  # minutes: a week's hours come again within it, clock changes or not


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span, in minutes of the day: `start` is in it, `end` is not."""

    days: frozenset[int]  # 0 is Monday
    start: int
    end: int  # at most `start` when it runs over midnight

    def holds(self, day: int, minute: int) -> bool:
        """Whether a minute of a weekday lies in it."""
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        evening = day in self.days and minute >= self.start
        morning = (day - 1) % 7 in self.days and minute < self.end
        return evening or morning


def parse(text: str) -> Span:
    """Read a span: "mon-fri 19:00-06:00", "sat 00:00-24:00", or "08:00-17:30" on every day.

    Raises:
        MalformedError: it is none, or it is empty.
    """
    if (match := _SPAN.fullmatch(text)) is None:
        raise MalformedError('policy.hours must be like "mon-fri 19:00-06:00" or "08:00-17:30"')
    first, last, *numbers, midnight = match.groups()
    start = int(numbers[0]) * 60 + int(numbers[1])
    end = _WHOLE_DAY if midnight else int(numbers[2]) * 60 + int(numbers[3])
    if start == end:
        raise MalformedError(f'policy.hours: "{text}" is empty: write 00:00-24:00 for a whole day')
    if first is None:
        return Span(days=frozenset(range(7)), start=start, end=end)
    begin = DAYS.index(first)
    count = (DAYS.index(last) - begin) % 7 + 1 if last else 1
    return Span(days=frozenset((begin + i) % 7 for i in range(count)), start=start, end=end)


def is_open(spans: Iterable[str], moment: datetime) -> bool:
    """Whether training is allowed at a moment; no span at all allows it always.

    Args:
        spans: As `parse` reads them.
        moment: In the machine's local time zone; one without a zone is refused.

    Raises:
        MalformedError: a span is none.
        ValueError: the moment has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone: whose hours are meant?")
    parsed = [parse(span) for span in spans]
    minute = moment.hour * 60 + moment.minute
    return not parsed or any(span.holds(moment.weekday(), minute) for span in parsed)


def local(seconds: float) -> datetime:
    """Return Unix seconds as this machine's local time."""
    return datetime.fromtimestamp(seconds).astimezone()


def next_open(
    spans: Sequence[str], seconds: float, to_local: Callable[[float], datetime] = local
) -> int | None:
    """Return when training is allowed next, Unix seconds, rounded up; None where that is more than a week away.

    It is searched by the clock on the wall as it will run, so nights in which clocks change are right too.

    Args:
        spans: As `parse` reads them.
        seconds: From when on, Unix seconds.
        to_local: Returns Unix seconds as local time: a time of one zone's moment does not tell the zone's rules.

    Raises:
        MalformedError: a span is none.
    """
    if is_open(spans, to_local(seconds)):
        return math.ceil(seconds)
    parsed = [parse(span) for span in spans]
    first = math.floor(seconds) // 60 + 1  # minutes since 1970
    for quarter in range(first // _QUARTER, (first + _HORIZON) // _QUARTER):
        wall = to_local(quarter * _QUARTER * 60)
        begins = wall.hour * 60 + wall.minute
        for minute in range(_QUARTER):
            number = quarter * _QUARTER + minute
            if number >= first and any(span.holds(wall.weekday(), begins + minute) for span in parsed):
                return number * 60
    return None
