"""A builder that waits: taken once, replaced, ended with whoever keeps it, and no worse than none when it died."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from client import building, model_builder
from client.building import Builder
from client.settings import Limits
from client.spare_builder import SpareBuilder
from tests.client import warm_builder
from tests.client.warm_builder import LIMITS, SHAPE

MODEL = b"""
from torch import nn
def build_model(input_shape, outputs):
    return nn.Linear(*input_shape, outputs)
"""
Spares = Callable[[], SpareBuilder]


@pytest.fixture(scope="module", autouse=True)
def _imports() -> None:
    model_builder.warm_up()


@pytest.fixture
def started() -> list[int]:
    return []


@pytest.fixture
def spares(started: list[int]) -> Iterator[Spares]:
    made = []

    def spawn(limits: Limits) -> Builder:
        builder = warm_builder.fork(limits)
        started.append(builder.pid)
        return builder

    def make() -> SpareBuilder:
        made.append(SpareBuilder(LIMITS, spawn))
        return made[-1]

    yield make
    for spare in made:
        spare.close()
    for pid in started:
        assert gone(pid), "a builder was left behind"


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def build(spare: SpareBuilder, limits: Limits = LIMITS) -> bytes:
    return building.build(MODEL, input_shape=SHAPE, outputs=1, limits=limits, start=spare.take)


def test_without_preparing_a_builder_is_started_when_it_is_wanted(spares: Spares, started: list[int]) -> None:
    spare = spares()
    assert build(spare) == build(spare)
    assert len(started) == 2


def test_the_one_that_waits_is_taken_and_the_next_one_started(spares: Spares, started: list[int]) -> None:
    spare = spares()
    spare.prepare()
    spare.prepare()
    assert len(started) == 1
    first = build(spare)
    assert len(started) == 2
    assert gone(started[0])
    assert build(spare) == first
    assert len(started) == 3


def test_one_that_died_while_it_waited_is_replaced(spares: Spares, started: list[int]) -> None:
    spare = spares()
    spare.prepare()
    os.kill(started[0], signal.SIGKILL)
    os.waitid(os.P_PID, started[0], os.WEXITED | os.WNOWAIT)
    assert build(spare)
    assert len(started) == 3


def test_one_with_other_limits_is_left_waiting(spares: Spares, started: list[int]) -> None:
    spare = spares()
    spare.prepare()
    other = Limits(threads=1, memory_mib=600, model_seconds=60, gpu=False)
    assert build(spare, other)
    assert len(started) == 2
    assert not gone(started[0])


def test_none_is_kept_when_none_can_be_started_and_the_reason_is_told_to_whoever_wants_one() -> None:
    def refuse(limits: Limits) -> Builder:
        raise BlockingIOError("no more processes")

    spare = SpareBuilder(LIMITS, refuse)
    spare.prepare()
    with pytest.raises(BlockingIOError):
        build(spare)
    spare.close()


def test_it_ends_with_the_process_that_keeps_it(spares: Spares, started: list[int]) -> None:
    spare = spares()
    spare.prepare()
    spare.close()
    assert gone(started[0])
    assert build(spare)
    assert len(started) == 2  # none is kept ready any more
