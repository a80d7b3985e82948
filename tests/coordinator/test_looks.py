"""Looks for messages: held while there can be none, let through when there may be one, never held for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from coordinator.looks import Looks
from coordinator.sendings import Sendings
from tests.coordinator.stoppable import Service

PATIENCE = 20.0  # seconds; a limit against hanging, not a measurement
KEY = "k"


def play(
    scene: Callable[[Looks, Sendings, Service], Coroutine[Any, Any, None]], seconds: float = PATIENCE
) -> None:
    async def run() -> None:
        sendings, service = Sendings(), Service()
        await asyncio.wait_for(scene(Looks(sendings, service, seconds), sendings, service), PATIENCE)

    asyncio.run(run())


async def is_held(looks: Looks, key: str = KEY) -> bool:
    """Whether a look is still held after a while."""
    task = asyncio.create_task(looks.hold(key))
    await asyncio.sleep(0.02)
    held = not task.done()
    task.cancel()
    return held


def test_a_node_that_was_never_let_in_is_not_held() -> None:
    async def scene(looks: Looks, sendings: Sendings, service: Service) -> None:
        assert not await is_held(looks)
        looks.looked("another", 0, found=False)
        assert not await is_held(looks)

    play(scene)


def test_a_node_is_held_until_a_thread_counts_a_sending() -> None:
    async def scene(looks: Looks, sendings: Sendings, service: Service) -> None:
        looks.looked(KEY, await looks.hold(KEY), found=False)
        assert await is_held(looks)
        waiting = [asyncio.create_task(looks.hold(KEY)) for _ in range(3)]
        await asyncio.sleep(0)
        threading.Thread(target=sendings.add).start()
        assert await asyncio.gather(*waiting) == [1, 1, 1]

    play(scene)


def test_a_sending_between_two_looks_is_not_missed() -> None:
    async def scene(looks: Looks, sendings: Sendings, service: Service) -> None:
        count = await looks.hold(KEY)
        sendings.add()  # while the SuperLink answers
        looks.looked(KEY, count, found=False)
        assert not await is_held(looks)

    play(scene)


def test_a_message_stands_for_one_sending_and_nothing_for_all() -> None:
    async def scene(looks: Looks, sendings: Sendings, service: Service) -> None:
        looks.looked(KEY, await looks.hold(KEY), found=False)
        for _ in range(3):
            sendings.add()
        looks.looked(KEY, await looks.hold(KEY), found=True)
        assert not await is_held(looks)  # the second may have left one too
        looks.looked(KEY, await looks.hold(KEY), found=True)
        assert not await is_held(looks)
        looks.looked(KEY, await looks.hold(KEY), found=False)  # the third left none
        assert await is_held(looks)

    play(scene)


def test_a_first_look_that_finds_a_message_is_held_next() -> None:
    async def scene(looks: Looks, sendings: Sendings, service: Service) -> None:
        sendings.add()
        looks.looked(KEY, await looks.hold(KEY), found=True)
        assert await is_held(looks)

    play(scene)


def test_a_message_that_nobody_counted_comes_late_and_not_never() -> None:
    async def scene(looks: Looks, sendings: Sendings, service: Service) -> None:
        looks.looked(KEY, await looks.hold(KEY), found=False)
        assert await looks.hold(KEY) == 0
        looks.looked(KEY, 0, found=True)
        assert await looks.hold(KEY) == 0

    play(scene, seconds=0.01)


def test_nobody_is_held_once_the_service_stops() -> None:
    async def scene(looks: Looks, sendings: Sendings, service: Service) -> None:
        looks.looked(KEY, await looks.hold(KEY), found=False)
        waiting = asyncio.create_task(looks.hold(KEY))
        await asyncio.sleep(0)
        service.stop()
        await waiting
        await looks.hold(KEY)

    play(scene)
