"""A dishonest coordinator on a real port: its log shows what the test wants, over the routes that agents use.

The records and their rules are `tests.client.fake_coordinator`'s; here they get a clock of now, TLS, long polls, and
another log to show instead of the real one. Flower's requests go through the real gateway. What the ServerApp sends
is `Dictation`: message by message, whatever the test says.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from client.exchange import Request
from coordinator.exchange import Arrival, Exchange
from coordinator.gateway import FORWARDED, PREFIX, Gateway
from coordinator.public_port import PublicPort, listen
from coordinator.tls import TlsFiles
from ledger import example, records
from ledger.checkpoint import cosign
from ledger.envelope import Entry
from ledger.note import Note
from ledger.signature import SigningKey
from ledger.source import read_file
from tests.client.fake_coordinator import ALPHA, FakeCoordinator
from tests.ledger.consortium import Consortium
from tests.ledger.log_folder import WITNESSES, LogFolder

PATIENCE = 60.0  # seconds; a limit against hanging, not a measurement
AGE = 300  # seconds since the founding: each round takes ten of the log's, and much less of the clock's
OTHERS = tuple(key for key in WITNESSES if key.name != ALPHA)  # four of five: a quorum without alpha
LONGEST_POLL = 5.0  # seconds
STEP = 0.02


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited too long: {what}"
        time.sleep(STEP)


class DishonestCoordinator(FakeCoordinator):
    """Honest until a test says otherwise; `settle` makes it honest again.

    Attributes:
        shown: The log that agents are shown instead of the real one.
    """

    def __init__(self, path: Path) -> None:
        self.shown: LogFolder | None = None
        self._lies = 0
        # Not the usual one, which lives at a fixed time: this agent has the machine's clock.
        consortium = Consortium()
        consortium.append(replace(example.charter(), founded_at=int(time.time()) - AGE))
        super().__init__(path, consortium)

    @property
    def charter(self) -> str:
        """Digest of the charter."""
        return self.consortium.entries[0].digest

    @property
    def shown_size(self) -> int:
        return (self.shown or self.folder).store.size

    def append(self, *found: records.Record) -> None:
        with self.lock:
            super().append(*found)

    def close_round(self, job: str, *receipts: bytes, **codes: str) -> None:
        with self.lock:
            super().close_round(job, *receipts, **codes)

    def settle(self) -> None:
        """Show the real log, all of it final."""
        with self.lock:
            self.shown, self.witnesses = None, list(OTHERS)
            self.publish()
            self.call_final(OTHERS)

    def call_final(self, witnesses: Sequence[SigningKey]) -> None:
        """Show the real log's newest checkpoint as final, with alpha's cosignature and these witnesses'."""
        with self.lock:
            store = self.folder.store
            note = Note.from_bytes(store.pending() or b"")
            own = [line for size, line in self.lines if size == store.size][:1]
            lines = [*own, *(cosign(note.text, key, self.now) for key in witnesses)]
            store.finalise(store.size, note.with_signatures(*lines).to_bytes())

    def lie(self, entries: list[Entry]) -> bytes:
        """Show a log of these entries instead, signed with the log's own key; return its checkpoint."""
        with self.lock:
            self._lies += 1
            folder = LogFolder(self.folder.path.with_name(f"lie-{self._lies}"))
            note = folder.publish_entries([entry.data for entry in entries])
            self.shown = folder
            return note

    def cosigned(self, size: int) -> bool:
        """Whether alpha's agent has handed a cosignature of this size over."""
        with self.lock:
            return any(found == size for found, _ in self.lines)

    def _file(self, path: str) -> httpx.Response:
        if self.shown is None:
            return super()._file(path)
        try:
            return httpx.Response(200, content=read_file(self.shown.path / path, 1 << 24))
        except FileNotFoundError:
            return httpx.Response(404)


class LyingPort:
    """The coordinator's one public port, in a thread; `gateway` is None until the SuperLink is there."""

    def __init__(self, coordinator: DishonestCoordinator, tls: TlsFiles) -> None:
        self.gateway: Gateway | None = None
        self._coordinator = coordinator
        self._stopping = False
        fleet = [Route(PREFIX + name, self._forward, methods=["POST"]) for name in FORWARDED]
        own = [
            Route(f"/{part}/{{path:path}}", self._answer, methods=["GET", "POST"]) for part in ("log", "api")
        ]
        listener = listen("127.0.0.1", 0)
        self._server = PublicPort(tls, Starlette(routes=[*own, *fleet]))
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(listener),))
        self._thread.start()
        wait_until(lambda: self._server.started, "the public port")
        self.number = int(listener.getsockname()[1])

    def stop(self) -> None:
        """Close the port, and the gateway's connections. Idempotent."""
        self._stopping = self._server.should_exit = True
        self._thread.join()

    async def _serve(self, listener: socket.socket) -> None:
        await self._server.serve([listener])
        if self.gateway is not None:
            await self.gateway.close()

    async def _forward(self, request: HttpRequest) -> Response:
        while self.gateway is None and not self._stopping:
            await asyncio.sleep(STEP)
        if self.gateway is None:
            return Response(status_code=503)
        route = next(route for route in self.gateway.routes if route.path == request.url.path)
        answer: Response = await route.endpoint(request)
        return answer

    async def _answer(self, request: HttpRequest) -> Response:
        body, above = await request.body(), request.query_params.get("above")
        deadline = time.monotonic() + min(float(request.query_params.get("wait", "0")), LONGEST_POLL)
        while above is not None and not self._stopping and time.monotonic() < deadline:
            if self._coordinator.shown_size > int(above):
                break
            await asyncio.sleep(STEP)
        url = f"https://coordinator.test{request.url.path}"
        asked = httpx.Request(request.method, url, content=body)
        answer = await run_in_threadpool(self._coordinator.answer, asked)
        return Response(answer.content, answer.status_code)


class Dictation:
    """The `Rounds` of the ServerApp: exchanges of one message each, as the test dictates them."""

    def __init__(self) -> None:
        self._exchanges: queue.Queue[Exchange | None] = queue.Queue()
        self._arrivals: queue.Queue[Arrival] = queue.Queue()

    def ask(self, node_id: int, request: Request) -> Arrival:
        """Have the ServerApp send a message to one node; return what came back."""
        number = request.config["round"]
        assert isinstance(number, int)
        exchange = Exchange(
            round=number,
            model=request.model,
            configs={node_id: request.config},
            deadline=time.time() + PATIENCE,
        )
        self._exchanges.put(exchange)
        return self._arrivals.get(timeout=2 * PATIENCE)

    def end(self) -> None:
        """Let the run end."""
        self._exchanges.put(None)

    def next_exchange(self) -> Exchange | None:
        return self._exchanges.get()

    def sent(self) -> None:
        return

    def receive(self, arrival: Arrival) -> None:
        self._arrivals.put(arrival)

    def close(self) -> None:
        return
