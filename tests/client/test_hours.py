"""Hours of training: spans over midnight, nights in which clocks change, and what is no span at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import hours
from client.hours import DAYS, is_open
from client.settings import Policy
from ledger.errors import MalformedError

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
clock = st.integers(0, 24 * 60 - 1)
moments = st.integers(0, 7 * 24 * 60 - 1).map(lambda m: MONDAY + timedelta(minutes=m))


def spelled(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@pytest.mark.parametrize(
    ("span", "moment", "inside"),
    [
        ("mon-fri 19:00-06:00", "mon 18:59", False),
        ("mon-fri 19:00-06:00", "mon 19:00", True),
        ("mon-fri 19:00-06:00", "tue 05:59", True),
        ("mon-fri 19:00-06:00", "tue 06:00", False),
        ("mon-fri 19:00-06:00", "mon 03:00", False),  # Sunday's night does not begin on a weekday
        ("mon-fri 19:00-06:00", "sat 03:00", True),  # Friday's night
        ("mon-fri 19:00-06:00", "sat 20:00", False),
        ("sat-mon 00:00-24:00", "sun 12:00", True),
        ("sat-mon 00:00-24:00", "mon 23:59", True),
        ("sat-mon 00:00-24:00", "tue 00:00", False),
        ("08:00-17:30", "wed 17:29", True),
        ("08:00-17:30", "wed 17:30", False),
        ("sun 22:00-02:00", "mon 01:59", True),
    ],
)
def test_spans_by_hand(span: str, moment: str, inside: bool) -> None:
    day, time = moment.split()
    at = MONDAY + timedelta(days=DAYS.index(day), hours=int(time[:2]), minutes=int(time[3:]))
    assert is_open([span], at) is inside


@given(clock, clock, moments)
def test_a_daily_span_and_its_complement_share_no_moment_and_miss_none(
    start: int, end: int, moment: datetime
) -> None:
    if start != end:
        span, rest = f"{spelled(start)}-{spelled(end)}", f"{spelled(end)}-{spelled(start)}"
        assert is_open([span], moment) != is_open([rest], moment)


@given(st.integers(0, 6), st.integers(0, 6), clock, clock, moments)
def test_a_span_of_days_is_the_stretch_that_begins_on_each_of_them(
    first: int, last: int, start: int, end: int, moment: datetime
) -> None:
    if start == end:
        return
    length = (end - start) % (24 * 60)
    begins = [MONDAY + timedelta(days=d - 7, minutes=start) for d in range(21) if _within(d % 7, first, last)]
    expected = any(b <= moment < b + timedelta(minutes=length) for b in begins)
    text = f"{DAYS[first]}-{DAYS[last]} {spelled(start)}-{spelled(end)}"
    assert is_open([text], moment) is expected


def _within(day: int, first: int, last: int) -> bool:
    return (day - first) % 7 <= (last - first) % 7


@given(moments)
def test_no_span_allows_always_and_several_add_up(moment: datetime) -> None:
    assert is_open([], moment)
    assert is_open(["00:00-24:00"], moment)
    assert is_open(["00:00-12:00", "12:00-24:00"], moment)
    assert not is_open(["00:00-12:00"], moment) or not is_open(["12:00-24:00"], moment)


@given(st.integers(0, 3 * 24 * 60))
def test_nights_in_which_clocks_change_are_judged_by_the_clock_on_the_wall(minute: int) -> None:
    for day in (datetime(2026, 3, 28, tzinfo=BERLIN), datetime(2026, 10, 24, tzinfo=BERLIN)):
        moment = (day.astimezone(UTC) + timedelta(minutes=minute)).astimezone(BERLIN)
        wall = moment.hour * 60 + moment.minute
        assert is_open(["02:15-02:45"], moment) is (135 <= wall < 165)
        assert is_open(["19:00-06:00"], moment) is (wall >= 19 * 60 or wall < 6 * 60)


def test_an_hour_that_comes_twice_is_in_twice_and_one_that_does_not_come_is_never_in() -> None:
    for first_half in (0, 1):  # 02:30 summer time, then 02:30 winter time
        assert is_open(["02:00-03:00"], datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=first_half))
    night = datetime(2026, 3, 28, 23, tzinfo=UTC)
    walked = [(night + timedelta(minutes=m)).astimezone(BERLIN) for m in range(180)]
    assert not any(is_open(["02:00-03:00"], moment) for moment in walked)


@pytest.mark.parametrize(
    "text",
    ["", "19:00", "mon", "19:00-24:30", "25:00-06:00", "mon-fri  19:00-06:00", "Mon 19:00-20:00",
     "mon,tue 01:00-02:00", "19:00-19:00", "19:00-06:00 ", "１９:00-20:00", "24:00-01:00"],
)  # fmt: skip
def test_what_is_no_span_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(MalformedError, match=r"policy\.hours") as caught:
        hours.parse(text)
    assert "\n" not in str(caught.value)
    with pytest.raises(MalformedError):
        Policy(
            approve="ask", researchers=(), purposes=("a",), max_epsilon_per_job="1", min_participants=1,
            smallest_cohort=1, hours=(text,),
        )  # fmt: skip


def test_a_moment_without_a_zone_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="time zone"):
        is_open(["08:00-09:00"], datetime(2026, 1, 1))


def test_unix_seconds_become_this_machines_local_time() -> None:
    moment = hours.local(1_790_000_000)
    assert moment.tzinfo is not None
    assert moment.timestamp() == 1_790_000_000
