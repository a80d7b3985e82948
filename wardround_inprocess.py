"""A consortium in one process: what the network and Flower carry between processes is handed over by calls.

Nothing else is replaced. Hospitals ask the coordinator's public port, request by request, signed; rounds are asked
for by the coordinator's own `JobRounds` and answered by each hospital's own gate.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import httpx
from starlette.applications import Starlette

from client import exchange as hospital_side
from client.exchange import Handle
from coordinator.errors import CoordinatorError, StoppedError
from coordinator.exchange import Arrival, Exchange, Rounds
from coordinator.runs import RunState
from ledger.errors import LedgerError

ANSWER_SECONDS = 120.0  # for one request; a limit against hanging
_RUNNING = RunState(status="running", outcome="", details="")


class PublicPort(httpx.BaseTransport):
    """The coordinator's public port as an httpx transport: no socket, no TLS. A context manager; any thread asks."""

    def __init__(self, app: Starlette) -> None:
        """Answer with `app`, in an event loop of its own."""
        self._asgi = httpx.ASGITransport(app)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="public port", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(ANSWER_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        asked = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        return asyncio.run_coroutine_threadsafe(self._answer(asked), self._loop).result(ANSWER_SECONDS)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        answer = await self._asgi.handle_async_request(request)
        content = await answer.aread()
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)

    async def _leave(self) -> None:
        """End what still waits for an answer."""
        own = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not own]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_default_executor()


class InProcessNodes:
    """Every hospital's node is this process, and always there."""

    def __init__(self, hospitals: Sequence[str]) -> None:
        """Number the hospitals."""
        self._ids = {name: number for number, name in enumerate(hospitals, start=1)}

    def ids(self) -> Mapping[str, int]:
        """Return hospital -> node id."""
        return self._ids

    def online(self) -> frozenset[str]:
        """Return everybody."""
        return frozenset(self._ids)

    def scan(self) -> None:
        """Nobody comes or goes."""


class InProcessFlower:
    """Runs of "ServerApps" that are threads of this process: a `coordinator.runs.Flower`."""

    def __init__(self, handles: Mapping[int, Handle], workers: int) -> None:
        """Run nothing yet.

        Args:
            handles: What answers for each node.
            workers: How many hospitals may work at the same time.
        """
        self._handles = handles
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="hospital")
        self._threads: list[threading.Thread] = []
        self._states: list[RunState] = []
        self.rounds: Callable[[str], Rounds] = _nobody

    def alive(self) -> bool:
        """It cannot die alone."""
        return True

    def start_run(self, content: bytes) -> int:
        """Start the run of a bundle."""
        job = _job_in(content)
        number = len(self._threads)
        self._states.append(_RUNNING)
        thread = threading.Thread(target=self._run, args=(number, job), name="rounds", daemon=True)
        self._threads.append(thread)
        thread.start()
        return number

    def run_state(self, run_id: int) -> RunState:
        """Return how far a run is."""
        return self._states[run_id]

    def stop_run(self, run_id: int) -> None:
        """A run ends by itself when the coordinator is stopped or the job has ended."""

    def close(self) -> None:
        """Wait for what is under way."""
        for thread in self._threads:
            thread.join()
        self._pool.shutdown(cancel_futures=True)

    def _run(self, number: int, job: str) -> None:
        outcome, details = "failed", ""
        try:
            rounds = self.rounds(job)
            while (asked := rounds.next_exchange()) is not None:
                self._conduct(rounds, asked, number)
            rounds.close()
            outcome = "completed"
        except StoppedError:
            outcome = "stopped"
        except (CoordinatorError, LedgerError) as error:
            details = str(error)
        finally:
            self._states[number] = RunState(status="finished", outcome=outcome, details=details)

    def _conduct(self, rounds: Rounds, asked: Exchange, number: int) -> None:
        """Ask every hospital, some at a time, and take the answers in the order of asking."""
        futures = [
            self._pool.submit(self._ask, node, config, asked, number)
            for node, config in asked.configs.items()
        ]
        try:
            for future in futures:
                rounds.receive(future.result())
        finally:
            for future in futures:
                future.cancel()

    def _ask(
        self, node: int, config: Mapping[str, hospital_side.Value], asked: Exchange, number: int
    ) -> Arrival:
        request = hospital_side.Request(
            run_id=number, expires_at=asked.deadline, model=asked.model, config=config
        )
        reply = self._handles[node](request)
        return Arrival(node_id=node, config=reply.config, update=reply.update, metrics=reply.metrics)


def _nobody(job: str) -> Rounds:
    raise StoppedError("the runner is not there yet")


def _job_in(content: bytes) -> str:
    """Return the digest of the job that a bundle carries."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return hashlib.sha256(archive.read("job.json")).hexdigest()
