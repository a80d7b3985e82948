"""When a hospital that skips would take part again: nights in which clocks change, pauses, nothing of its rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import sitting_out
from client.decisions import FOR_GOOD
from client.hours import is_open, next_open

BERLIN = ZoneInfo("Europe/Berlin")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # its clocks change by half an hour
DAY = 86_400
SPANS = [
    "02:15-02:45",
    "mon-fri 19:00-06:00",
    "sat 00:00-24:00",
    "sun 22:00-02:00",
    "08:00-08:01",
    "01:59-03:01",
]
zones = st.sampled_from([UTC, BERLIN, LORD_HOWE])
spans = st.lists(st.sampled_from(SPANS), min_size=1, max_size=2)
# Weeks in which clocks change in both places, and others.
moments = st.floats(
    datetime(2026, 3, 1, tzinfo=UTC).timestamp(), datetime(2026, 11, 1, tzinfo=UTC).timestamp()
)


def local_of(zone: tzinfo) -> Callable[[float], datetime]:
    return lambda seconds: datetime.fromtimestamp(seconds, zone)


@settings(max_examples=30, deadline=None)
@given(spans, moments, zones)
def test_next_open_is_open_and_no_minute_before_it_is(found: list[str], now: float, zone: tzinfo) -> None:
    to_local = local_of(zone)
    opens = next_open(found, now, to_local)
    assert opens is not None
    assert opens >= now
    assert is_open(found, to_local(opens))
    minutes = range(int(now) // 60 + 1, opens // 60)
    for minute in [*minutes[:200], *minutes[-200:]]:
        assert not is_open(found, to_local(minute * 60))
    assert opens - now < 1 or not is_open(found, to_local(now))


@pytest.mark.parametrize(
    ("span", "now", "opens"),
    [
        ("19:00-06:00", "2026-03-28T12:00", "2026-03-28T18:00"),  # winter time
        ("07:00-08:00", "2026-03-28T12:00", "2026-03-29T05:00"),  # the night in which clocks go forward
        ("02:30-02:40", "2026-03-28T12:00", "2026-03-30T00:30"),  # an hour that does not come: the day after
        ("07:00-08:00", "2026-10-24T12:00", "2026-10-25T06:00"),  # the night in which clocks go back
        ("02:30-02:40", "2026-10-25T00:50", "2026-10-25T01:30"),  # the hour that comes twice, its second time
        ("mon 08:00-09:00", "2026-11-02T08:00", "2026-11-09T07:00"),
    ],
)
def test_next_open_by_hand_in_berlin(span: str, now: str, opens: str) -> None:
    moment, expected = (datetime.fromisoformat(t).replace(tzinfo=UTC).timestamp() for t in (now, opens))
    assert next_open([span], moment, local_of(BERLIN)) == expected


def test_no_span_is_open_at_once_and_an_hour_that_never_comes_is_not_found() -> None:
    assert next_open([], 1e9 + 0.5) == 10**9 + 1
    march = datetime(2026, 3, 23, 12, tzinfo=UTC).timestamp()
    assert next_open(["sun 02:30-02:40"], march, local_of(BERLIN)) is None


def test_a_pause_ends_in_open_hours_and_one_without_an_end_is_asked_about_daily() -> None:
    now = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
    to_local = local_of(UTC)
    assert sitting_out.retry_after("paused", now, int(now) + 7200, [], to_local) == 7200
    assert sitting_out.retry_after("paused", now, int(now) + 7200, ["19:00-20:00"], to_local) == 7 * 3600
    assert sitting_out.retry_after("paused", now, FOR_GOOD, [], to_local) == DAY
    assert sitting_out.retry_after("paused", now, int(now) + 99 * DAY, [], to_local) == sitting_out.LONGEST
    assert sitting_out.retry_after("hours", now, 0, ["19:00-20:00"], to_local) == 7 * 3600
    assert sitting_out.code(now, int(now) + 1, []) == "paused"
    assert sitting_out.code(now, 0, []) == ""


@given(st.sampled_from(["busy", "crashed"]), moments, st.integers(0, FOR_GOOD), spans)
def test_other_reasons_give_a_constant(code: str, now: float, paused: int, found: list[str]) -> None:
    assert sitting_out.retry_after(code, now, paused, found) == (sitting_out.BUSY if code == "busy" else 0)
