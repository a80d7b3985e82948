"""Waiting in an event loop: a change wakes those whose condition holds, and nobody misses one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

from coordinator.changes import Changes

PATIENCE = 20.0  # seconds; a limit against hanging, not a measurement


class Number:
    """Something that changes."""

    def __init__(self) -> None:
        self.value = 0
        self._listeners: list[Callable[[], None]] = []

    def subscribe(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def has(self, wanted: int) -> bool:
        return self.value >= wanted

    def add(self) -> None:
        self.value += 1
        for listener in self._listeners:
            listener()


def test_each_is_woken_when_its_condition_holds() -> None:
    async def run() -> list[int]:
        number, woken = Number(), list[int]()
        changes = Changes(number)

        async def wait(wanted: int) -> None:
            await changes.wait_for(lambda: number.value >= wanted, PATIENCE)
            assert number.value >= wanted
            woken.append(wanted)

        tasks = [asyncio.create_task(wait(wanted)) for wanted in (3, 1, 2)]
        await asyncio.sleep(0)
        for _ in range(3):
            number.add()
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
        return woken

    assert asyncio.run(run()) == [1, 2, 3]


def test_changes_of_many_threads_lose_nobody() -> None:
    async def run() -> int:
        number = Number()
        changes = Changes(number)
        reached = [partial(number.has, wanted) for wanted in range(1, 101)]
        waiting = [asyncio.create_task(changes.wait_for(condition, PATIENCE)) for condition in reached]
        lock = threading.Lock()

        def add() -> None:
            for _ in range(25):
                with lock:
                    number.add()

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE / 2)
        for thread in threads:
            thread.join()
        return number.value

    assert asyncio.run(run()) == 100


def test_who_waits_in_vain_goes_on_after_its_time() -> None:
    async def run() -> None:
        changes = Changes(Number())
        await changes.wait_for(lambda: False, 0.01)
        await changes.wait_for(lambda: False, 0)

    asyncio.run(run())
