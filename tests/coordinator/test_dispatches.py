"""A look for a message is held where there can be none, and let go as soon as there may be one."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from coordinator import gateway as module
from coordinator.dispatches import Dispatches, Noted
from coordinator.exchange import Arrival, Exchange
from coordinator.gateway import Gateway, GatewaySettings
from coordinator.tls import ensure_tls

LONG = 60.0  # seconds of a hold that must not pass
NODE = {"flwr-public-key": "alpha"}


class Two:
    """The rounds of a job with two exchanges."""

    def __init__(self) -> None:
        self.left = 2
        self.closed = False

    def next_exchange(self) -> Exchange | None:
        self.left -= 1
        model = np.zeros(1, dtype=np.float32)
        return Exchange(round=1, model=model, configs={}, deadline=0.0) if self.left >= 0 else None

    def receive(self, arrival: Arrival) -> None:
        raise AssertionError(arrival)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return ensure_tls(tmp_path, [], datetime.now(UTC)).authority


class Scene:
    """A SuperLink with a box of messages, behind a gateway, and a node that looks."""

    def __init__(self, authority: Path) -> None:
        self.dispatches = Dispatches()
        self.messages: list[bytes] = []
        settings = GatewaySettings(address="127.0.0.1:1", authority=authority)
        self.gateway = Gateway(settings, httpx.MockTransport(self._answer), dispatches=self.dispatches)
        transport = httpx.ASGITransport(Starlette(routes=list(self.gateway.routes)))
        self.client = httpx.AsyncClient(transport=transport, base_url="https://public")

    def _answer(self, request: httpx.Request) -> httpx.Response:
        body = self.messages.pop(0) if self.messages else b""
        return httpx.Response(200, content=body, headers={"content-length": str(len(body))})

    async def look(self) -> bytes:
        return (await self.client.post("/v1/fleet/pull-messages", headers=NODE, content=b"x")).content

    def send(self) -> None:
        self.messages.append(b"message")
        self.dispatches.opened()


def test_a_look_waits_for_the_next_exchange(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_SECONDS", LONG)

    async def run() -> None:
        scene = Scene(authority)
        for _ in range(2):  # before the first exchange, and after a message was taken
            looking = asyncio.create_task(scene.look())
            await asyncio.sleep(0.05)
            assert not looking.done()
            scene.send()
            assert await asyncio.wait_for(looking, LONG / 2) == b"message"
            scene.dispatches.closed()

    asyncio.run(run())


def test_a_message_that_is_still_on_its_way_is_asked_for_again(
    authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOLD_SECONDS", LONG)

    async def run() -> None:
        scene = Scene(authority)
        scene.dispatches.opened()
        assert [await scene.look() for _ in range(3)] == [b"", b"", b""]  # nothing was taken: none is held
        scene.messages.append(b"message")
        assert await scene.look() == b"message"

    asyncio.run(run())


def test_nobody_is_held_while_two_jobs_are_asked(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_SECONDS", LONG)

    async def run() -> None:
        scene = Scene(authority)
        scene.send()
        scene.send()
        assert [await scene.look() for _ in range(3)] == [b"message", b"message", b""]

    asyncio.run(run())


def test_the_end_and_the_clock_let_everybody_go(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        scene = Scene(authority)
        monkeypatch.setattr(module, "HOLD_SECONDS", 0.05)
        assert await scene.look() == b""
        monkeypatch.setattr(module, "HOLD_SECONDS", LONG)
        began, looking = time.monotonic(), asyncio.create_task(scene.look())
        await asyncio.sleep(0.05)
        scene.dispatches.end()
        assert await looking == b""
        assert time.monotonic() - began < LONG

    asyncio.run(run())


def test_exchanges_of_a_job_are_counted_and_closed_once() -> None:
    dispatches, rounds = Dispatches(), Two()
    noted = Noted(rounds, dispatches)
    assert noted.next_exchange() is not None
    assert (dispatches.sent, dispatches.open) == (1, 1)
    assert noted.next_exchange() is not None
    assert (dispatches.sent, dispatches.open) == (2, 1)
    assert noted.next_exchange() is None
    noted.close()
    assert (dispatches.sent, dispatches.open, rounds.closed) == (2, 0, True)
