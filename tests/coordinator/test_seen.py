"""No signed request is taken twice: within the window, at its edges, after a restart, after a crash on any line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator import seen
from coordinator.errors import StorageError
from coordinator.seen import WINDOW, BusyError, ReplayError, Seen, StaleError

KEY, OTHER = "a" * 64, "b" * 64
START = 1_000_000


def nonce(number: int) -> str:
    return f"{number:032x}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "requests.seen"


def test_a_request_is_taken_once(path: Path) -> None:
    made = Seen(path, START)
    now = START + 100
    made.take(KEY, nonce(1), now, now)
    made.take(KEY, nonce(2), now, now)
    made.take(OTHER, nonce(1), now, now)
    for later in range(now, now + WINDOW + 1):
        with pytest.raises(ReplayError):
            made.take(KEY, nonce(1), now, later)
    with pytest.raises(StaleError):
        made.take(KEY, nonce(1), now, now + WINDOW + 1)


@pytest.mark.parametrize("off", [-WINDOW, -1, 0, 1, WINDOW])
def test_a_clock_within_the_window_is_accepted(path: Path, off: int) -> None:
    made, now = Seen(path, START), START + 100
    made.take(KEY, nonce(1), now + off, now)


@pytest.mark.parametrize(
    ("off", "way"), [(-WINDOW - 1, "behind"), (WINDOW + 1, "ahead of"), (-7200, "behind")]
)
def test_a_clock_outside_is_told_by_how_much(path: Path, off: int, way: str) -> None:
    made, now = Seen(path, START), START + 10_000
    with pytest.raises(StaleError, match=f"is {abs(off)} s {way} this clock"):
        made.take(KEY, nonce(1), now + off, now)


def test_no_request_of_an_earlier_process_is_taken_whatever_its_clock_was(path: Path) -> None:
    first, now = Seen(path, START), START + 1000
    for off in range(-WINDOW, WINDOW + 1):
        first.take(KEY, nonce(off + 500), now + off, now)
    for opened in (now, now + 1, now + 30):  # killed at `now`; nothing was closed
        second = Seen(path, opened)
        for off in range(-WINDOW, WINDOW + 1):
            with pytest.raises((ReplayError, StaleError)):
                second.take(KEY, nonce(off + 500), now + off, opened)
        second.take(KEY, nonce(9999), opened + 1, opened + 1)  # and everybody else goes on a second later


def test_a_clock_that_is_set_back_opens_nothing(path: Path) -> None:
    made, now = Seen(path, START), START + 1000
    made.take(KEY, nonce(1), now, now)
    made.take(KEY, nonce(2), now + 2 * WINDOW, now + 2 * WINDOW)  # forgets the first
    with pytest.raises((StaleError, ReplayError)):
        made.take(KEY, nonce(1), now, now)


def test_a_torn_line_is_no_request_and_the_rest_is_remembered(path: Path) -> None:
    first, now = Seen(path, START), START + 1000
    first.take(KEY, nonce(1), now + 9, now)
    with path.open("a") as file:
        file.write(f"{now + 9} {nonce(2)[:7]}")
    second = Seen(path, now)
    with pytest.raises(ReplayError):
        second.take(KEY, nonce(1), now + 9, now + 1)
    second.take(KEY, nonce(2), now + 9, now + 1)


def test_one_members_flood_is_bounded_and_nobody_elses_trouble(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "MAX_NONCES", 100)
    made, now = Seen(path, START), START + 1000
    for number in range(100):
        made.take(KEY, nonce(number), now, now)
    with pytest.raises(BusyError, match="try again"):
        made.take(KEY, nonce(1000), now, now)
    made.take(OTHER, nonce(0), now, now)
    made.take(KEY, nonce(1000), now + WINDOW + 1, now + WINDOW + 1)


def test_memory_and_file_do_not_grow(path: Path) -> None:
    made = Seen(path, START)
    for second in range(0, 50 * WINDOW, 10):
        made.take(KEY, nonce(second), START + second + 30, START + second)
    assert len(made._nonces[KEY]) < 3 * WINDOW
    assert path.stat().st_size < 3 * WINDOW * 120


def test_what_cannot_be_written_down_is_not_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, now = Seen(path, START), START + 1000

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            made.take(KEY, nonce(1), now + 5, now)
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError, match="cannot"):
        Seen(path, now)
