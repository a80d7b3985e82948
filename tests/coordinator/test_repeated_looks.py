"""A message that did not arrive is given again, to the look that asks again and to no other."""

from __future__ import annotations

import pytest
from starlette.responses import Response

from client.fleet_client import LOOK
from coordinator.repeated_looks import NAME, RepeatedLooks

MESSAGE, LATER, NOTHING = Response(b"message"), Response(b"later"), Response(b"")
KEY = "k"


def test_both_ends_call_the_header_the_same() -> None:
    assert LOOK == NAME


def test_a_look_that_is_repeated_gets_the_message_again_until_it_arrives() -> None:
    looks = RepeatedLooks()
    assert not looks.lost(KEY, "1")
    assert looks.settle(KEY, "1", MESSAGE, gone=False) is MESSAGE
    for _ in range(3):
        assert looks.lost(KEY, "1")
        assert looks.settle(KEY, "1", NOTHING, gone=False) is MESSAGE
    assert not looks.lost(KEY, "2")
    assert looks.settle(KEY, "2", NOTHING, gone=False) is NOTHING
    assert not looks.lost(KEY, "1")  # it arrived: nothing is kept
    assert looks.settle(KEY, "1", NOTHING, gone=False) is NOTHING


def test_duplicate_agent_is_not_given_what_the_other_one_got() -> None:
    looks = RepeatedLooks()
    looks.settle(KEY, "one's", MESSAGE, gone=False)
    assert looks.settle(KEY, "other's", NOTHING, gone=False) is NOTHING


def test_stranger_who_names_the_same_look_gets_nothing() -> None:
    looks = RepeatedLooks()
    looks.settle(KEY, "1", MESSAGE, gone=False)
    assert not looks.lost("another", "1")
    assert looks.settle("another", "1", NOTHING, gone=False) is NOTHING


def test_a_message_for_a_look_that_was_given_up_goes_to_the_next_one_whatever_its_name() -> None:
    looks = RepeatedLooks()
    looks.settle(KEY, "1", MESSAGE, gone=True)
    assert looks.lost(KEY, "2")
    assert looks.settle(KEY, "2", NOTHING, gone=False) is MESSAGE
    assert looks.settle(KEY, "2", NOTHING, gone=False) is MESSAGE  # once more, had it been lost again
    assert looks.settle(KEY, "3", NOTHING, gone=False) is NOTHING


def test_a_look_that_was_given_up_does_not_say_that_the_message_before_it_arrived() -> None:
    looks = RepeatedLooks()
    looks.settle(KEY, "1", MESSAGE, gone=False)
    looks.settle(KEY, "2", NOTHING, gone=True)
    assert looks.settle(KEY, "1", NOTHING, gone=True) is MESSAGE  # nor is it given to nobody
    assert looks.settle(KEY, "3", NOTHING, gone=False) is MESSAGE


def test_a_newer_message_takes_the_place_of_the_one_before() -> None:
    looks = RepeatedLooks()
    looks.settle(KEY, "1", MESSAGE, gone=True)
    assert looks.settle(KEY, "2", LATER, gone=False) is LATER
    assert looks.settle(KEY, "2", NOTHING, gone=False) is LATER


@pytest.mark.parametrize("gone", [False, True])
def test_a_node_that_names_no_look_is_given_again_only_what_nobody_took(gone: bool) -> None:
    looks = RepeatedLooks()
    looks.settle(KEY, "", MESSAGE, gone=gone)
    assert looks.lost(KEY, "") is gone
    assert looks.settle(KEY, "", NOTHING, gone=False) is (MESSAGE if gone else NOTHING)
    assert looks.settle(KEY, "", NOTHING, gone=False) is NOTHING
