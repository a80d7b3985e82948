"""What runs behind the public port: Flower's SuperLink, the nodes' registration, the bridge and the job runner.

All of it lives in one thread, which starts the parts in order and ends them in the opposite one. What another part
needs of it is an attribute that is None until it is there. A SuperLink that ends, by whatever cause, is started again
with everything that hangs on it: node ids are new then, hospitals find out by themselves, and the exchange under way
is asked for again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from coordinator import remote_rounds, status
from coordinator.acknowledgements import Acknowledgements
from coordinator.blobs import BlobStore
from coordinator.config import CoordinatorConfig
from coordinator.desk import Desk
from coordinator.errors import CoordinatorError, StoppedError, TransportError
from coordinator.evaluations import Evaluations
from coordinator.exchange import Rounds
from coordinator.gateway import GatewaySettings
from coordinator.nodes import DepositedNodes
from coordinator.phases import Phases
from coordinator.remote_rounds import RoundsServer
from coordinator.runner import Runner
from coordinator.sendings import Sendings
from coordinator.sequencer import Sequencer
from coordinator.superlink import SuperLink, SuperLinkSettings
from coordinator.tls import TlsFiles
from coordinator.voice import Voice
from coordinator.waiting import Waits
from ledger.errors import LedgerError
from ledger.signature import SigningKey

RESTART_SECONDS = (0.5, 30.0)  # first and longest wait before the SuperLink is started again
_log = logging.getLogger(__name__)


class BackOffice:
    """Start it once; `stop` returns when everything has ended."""

    def __init__(
        self,
        config: CoordinatorConfig,
        sequencer: Sequencer,
        blobs: BlobStore,
        key: SigningKey,
        tls: TlsFiles,
        announce: Callable[[Mapping[str, object]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start nothing yet."""
        self.sequencer = sequencer
        self.blobs = blobs
        self.voice = Voice(key, clock)
        self.acknowledgements = Acknowledgements(config.directory / "acknowledged", blobs, self.voice)
        self.failure = ""  # why it ended by itself
        self.trouble = ""  # why no job goes on at the moment
        self.gateway: GatewaySettings | None = None
        self.sendings = Sendings()
        self._config = config
        self._key = key
        self._tls = tls
        self._announce = announce
        self._clock = clock
        self._phases = Phases()
        self._waits = Waits()
        self._runner: Runner | None = None
        self._nodes: DepositedNodes | None = None
        self._thread: threading.Thread | None = None
        self._measuring = threading.Lock()
        self._measured: dict[str, tuple[int, Evaluations]] = {}  # by job: exchanges seen, and what they say

    def start(self, on_end: Callable[[], None]) -> None:
        """Start in a thread of its own; `on_end` is called when it has ended, for whatever reason."""
        self._thread = threading.Thread(target=self._run, args=(on_end,), name="back office")
        self._thread.start()

    def stop(self) -> None:
        """End everything, and wait for it. Idempotent."""
        self.sequencer.stop()
        if self._thread is not None:
            self._thread.join()

    def status(self) -> dict[str, Any]:
        """Return what displays show."""
        standing = self.sequencer.standing
        with self._measuring:
            for digest, history in standing.jobs.items():
                seen, known = self._measured.get(digest, (0, Evaluations()))
                for closed in history.closed[seen:]:
                    known = known.after(history, closed, self.blobs.read)
                self._measured[digest] = (max(seen, len(history.closed)), known)
            measured = {digest: known for digest, (_, known) in self._measured.items()}
        problems = dict(self._runner.problems) if self._runner is not None else {}
        found = status.status(standing, measured, self._phases.seconds(), problems, self._waits.of)
        return {**found, "trouble": self.trouble or self.sequencer.clock_trouble}

    def scan_nodes(self) -> None:
        """Make Flower's register follow the deposited keys, once it is there. Raises CoordinatorError."""
        if self._nodes is not None:
            self._nodes.scan()

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase."""
        return self._phases.seconds()

    def online(self) -> int | None:
        """Return how many hospitals' nodes are connected, or None while nobody knows."""
        try:
            return len(self._nodes.online()) if self._nodes is not None else None
        except TransportError:
            return None

    def _run(self, on_end: Callable[[], None]) -> None:
        self.failure = "the coordinator's runner ended by itself: see the error above"
        try:
            self._work()
            self.failure = ""
        except StoppedError:
            self.failure = ""
        except (CoordinatorError, LedgerError) as error:
            self.failure = str(error)
        finally:
            on_end()

    def _work(self) -> None:
        """Start the parts, run the jobs until the coordinator is stopped, end the parts."""
        config, began = self._config, time.monotonic()
        with RoundsServer(config.directory, self._rounds) as bridge:
            os.environ[remote_rounds.SOCKET] = str(bridge.path)  # inherited by the ServerApp's process
            settings = SuperLinkSettings(
                directory=config.directory / "flower", tls=self._tls, rounds=remote_rounds.FACTORY
            )
            wait, longest = RESTART_SECONDS
            while not self.sequencer.stopped:
                try:
                    with SuperLink(settings) as superlink:
                        wait = RESTART_SECONDS[0]
                        self._serve(superlink, began)
                    return
                except TransportError as error:
                    if self._runner is None:  # it never started: a mistake in the machine's set-up
                        raise
                    self.trouble = f"{error}: it is started again"
                    _log.warning("%s", self.trouble)
                finally:
                    self.gateway = None  # requests for Flower are held meanwhile
                    self.sendings.add()  # a look held for the SuperLink that ended is over
                began = time.monotonic()
                self.sequencer.wait(lambda standing: False, wait)
                wait = min(2 * wait, longest)

    def _serve(self, superlink: SuperLink, began: float) -> None:
        """Run the jobs on one SuperLink until the coordinator is stopped. Raises TransportError: it ended."""
        config = self._config
        self._nodes = nodes = DepositedNodes(config.nodes, superlink)
        nodes.scan()  # before anybody is let in: to a SuperLink that was started again, every node is new
        desk = Desk(
            sequencer=self.sequencer,
            blobs=self.blobs,
            nodes=nodes,
            key=self._key,
            phases=self._phases,
            round_seconds=config.round_seconds,
            patience_seconds=config.patience_seconds,
            clock=self._clock,
            acknowledgements=self.acknowledgements,
            waits=self._waits,
            sendings=self.sendings,
        )
        self._runner = Runner(desk, superlink, nodes, config, self._announce)
        self.gateway = GatewaySettings(address=superlink.address, authority=self._tls.authority)
        self.trouble = ""
        self._phases.add("start-up", time.monotonic() - began)
        self._announce({"event": "ready"})
        self._runner.run()

    def _rounds(self, job: str) -> Rounds:
        if self._runner is None:
            raise StoppedError("the runner is not there yet")
        return self._runner.rounds(job)
