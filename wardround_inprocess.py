"""A consortium in one process: what the network and Flower carry between processes is handed over by calls.

Nothing else is replaced. Hospitals reach the coordinator's log by a door of their own (`wardround_door`); rounds are
asked for by the coordinator's own `JobRounds` and answered by each hospital's own gate.
"""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from client import exchange as hospital_side
from client.exchange import Handle
from coordinator.errors import CoordinatorError, StoppedError
from coordinator.exchange import Arrival, Exchange, Rounds
from coordinator.runs import RunState
from ledger.errors import LedgerError

_RUNNING = RunState(status="running", outcome="", details="")


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
