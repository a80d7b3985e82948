"""A message that did not arrive is given again, to the look that asks again and to no other."""

from __future__ import annotations

import pytest
from starlette.responses import Response

from client.fleet_client import LOOK
from client.flower_connection import HEARTBEAT_SECONDS
from coordinator.repeated_looks import NAME, SILENT_SECONDS, RepeatedLooks

MESSAGE, LATER, NOTHING = Response(b"message"), Response(b"later"), Response(b"")
KEY = "k"


class Clock:
    """Stands still unless told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def looks(clock: Clock) -> RepeatedLooks:
    return RepeatedLooks(clock)


def test_both_ends_call_the_header_the_same_and_a_living_process_is_heard_in_time() -> None:
    assert LOOK == NAME
    assert SILENT_SECONDS >= 2 * HEARTBEAT_SECONDS


def test_a_look_that_is_repeated_gets_the_message_again_until_it_arrives(looks: RepeatedLooks) -> None:
    assert not looks.lost(KEY, "p.1")
    assert looks.settle(KEY, "p.1", MESSAGE, gone=False) is MESSAGE
    for _ in range(3):
        assert looks.lost(KEY, "p.1")
        assert looks.settle(KEY, "p.1", NOTHING, gone=False) is MESSAGE
    assert not looks.lost(KEY, "p.2")
    assert looks.settle(KEY, "p.2", NOTHING, gone=False) is NOTHING
    assert not looks.lost(KEY, "p.1")  # it arrived: nothing is kept
    assert looks.settle(KEY, "p.1", NOTHING, gone=False) is NOTHING


def test_stranger_who_names_the_same_look_gets_nothing(looks: RepeatedLooks) -> None:
    looks.settle(KEY, "p.1", MESSAGE, gone=False)
    assert not looks.lost("another", "p.1")
    assert looks.settle("another", "p.1", NOTHING, gone=False) is NOTHING
    looks.heard("another", "p.1")


def test_a_message_for_a_look_that_was_given_up_goes_to_the_next_one_whatever_its_name(
    looks: RepeatedLooks,
) -> None:
    looks.settle(KEY, "p.1", MESSAGE, gone=True)
    assert looks.lost(KEY, "q.1")
    assert looks.settle(KEY, "q.1", NOTHING, gone=False) is MESSAGE
    assert looks.settle(KEY, "q.1", NOTHING, gone=False) is MESSAGE  # once more, had it been lost again
    assert looks.settle(KEY, "q.2", NOTHING, gone=False) is NOTHING


def test_a_look_that_was_given_up_does_not_say_that_the_message_before_it_arrived(
    looks: RepeatedLooks,
) -> None:
    looks.settle(KEY, "p.1", MESSAGE, gone=False)
    looks.settle(KEY, "p.2", NOTHING, gone=True)
    assert looks.settle(KEY, "p.1", NOTHING, gone=True) is MESSAGE  # nor is it given to nobody
    assert looks.settle(KEY, "p.3", NOTHING, gone=False) is MESSAGE


def test_a_newer_message_takes_the_place_of_the_one_before(looks: RepeatedLooks) -> None:
    looks.settle(KEY, "p.1", MESSAGE, gone=True)
    assert looks.settle(KEY, "p.2", LATER, gone=False) is LATER
    assert looks.settle(KEY, "p.2", NOTHING, gone=False) is LATER


@pytest.mark.parametrize("gone", [False, True])
def test_a_node_that_names_no_look_is_given_again_only_what_nobody_took(
    looks: RepeatedLooks, gone: bool
) -> None:
    looks.settle(KEY, "", MESSAGE, gone=gone)
    assert looks.lost(KEY, "") is gone
    assert looks.settle(KEY, "", NOTHING, gone=False) is (MESSAGE if gone else NOTHING)
    assert looks.settle(KEY, "", NOTHING, gone=False) is NOTHING


# --- another process of the same node ---


def test_successor_of_a_killed_agent_gets_its_message_once_the_dead_one_is_silent(
    looks: RepeatedLooks, clock: Clock
) -> None:
    looks.settle(KEY, "dead.4", MESSAGE, gone=False)
    clock.now += SILENT_SECONDS / 2
    assert not looks.lost(KEY, "new.0")
    assert looks.settle(KEY, "new.0", NOTHING, gone=False) is NOTHING
    looks.heard(KEY, "new.0")  # its own heartbeats say nothing of the dead one
    clock.now += SILENT_SECONDS / 2
    assert looks.lost(KEY, "new.0")
    assert looks.settle(KEY, "new.0", NOTHING, gone=False) is MESSAGE
    assert looks.settle(KEY, "new.1", NOTHING, gone=False) is NOTHING


def test_duplicate_agent_is_not_given_what_the_other_one_computes(looks: RepeatedLooks, clock: Clock) -> None:
    looks.settle(KEY, "one.4", MESSAGE, gone=False)
    for _ in range(100):  # however long it takes
        clock.now += HEARTBEAT_SECONDS
        looks.heard(KEY, "one.4")
        assert not looks.lost(KEY, "other.7")
        assert looks.settle(KEY, "other.7", NOTHING, gone=False) is NOTHING
    assert looks.settle(KEY, "one.5", NOTHING, gone=False) is NOTHING
    clock.now += SILENT_SECONDS
    assert looks.settle(KEY, "other.7", NOTHING, gone=False) is NOTHING  # it had arrived
