"""A hospital's agent: one process that follows the log, cosigns, answers jobs, and answers rounds.

Four threads, so that none waits for another: the follower (long poll, cosign), the enrolment (dataset, approvals),
the acknowledgements, and the Flower node (rounds). Only the worker process reads rows. A dead network, coordinator or
worker is waited for; a disk that fails ends the agent with one line, and a restart goes on from what is on it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from client import premises, restore
from client.attempt import Attempts, Hooks, Outcome
from client.config import Hospital
from client.consortium import Consortium
from client.enrolment import Enrolment
from client.errors import ClientError, ConfigError, LocalStateError, UnreachableError, WorkerError
from client.exchange import Handle
from client.follower import Sight
from client.oversight import Oversight
from client.standing import RESTORED
from client.troubles import CLOCK, LOG, ROUNDS, Troubles
from client.worker_questions import Questions
from ledger.envelope import Entry
from ledger.errors import LedgerError
from ledger.records import Abort, Round, Start

IDLE_SECONDS = 5.0  # between turns of the enrolment that nothing asked for
RETRY_SECONDS = (0.5, 5.0)  # first and longest, after a turn that the coordinator or the worker failed
WATCH_SECONDS = 0.5  # between looks at the decisions of persons
STOP_SECONDS = 5.0  # a round in hand is let to its end for so long
Tell = Callable[[dict[str, Any]], None]
_log = logging.getLogger(__name__)


class Agent:
    """A running agent; a context manager that ends its worker and closes its files.

    Attributes:
        handle: Answers one message: what the Flower node calls.
        renewed: Whether `run` returned because keys were replaced: a new agent goes on with them.
    """

    def __init__(
        self,
        hospital: Hospital,
        *,
        tell: Tell = lambda event: None,
        clock: Callable[[], float] = time.time,
        consortium: Consortium | None = None,
        worker: Sequence[str] | Callable[[Hospital], Questions] = (),
    ) -> None:
        """Check the hospital's files, then open what the agent keeps. Nothing is written before the check is over.

        Args:
            hospital: The settings.
            tell: Called with every event, for a display.
            clock: Unix seconds.
            consortium: The coordinator, for tests.
            worker: The worker's command, for tests; or what makes a worker, for simulations.

        Raises:
            ClientError, LedgerError: one line: what is wrong, where, and what to do.
        """
        self._tell = tell
        self._stopping = threading.Event()
        self._work = threading.Event()
        self._hup = threading.Event()
        self._failure: Exception | None = None
        self.renewed = False
        self._node: Any = None
        self._premises = premises.enter(hospital, clock=clock, consortium=consortium, worker=worker)
        self._follower = self._premises.follower
        self._offer = self._premises.decisions.offer
        self._enrolment = Enrolment(self._premises, tell)
        self._oversight = Oversight(self._premises, tell)
        self._troubles = Troubles(tell, clock)
        self._premises.consortium.time.tell = partial(self._troubles.report, CLOCK)
        hooks = Hooks(
            approvals=self._enrolment.approval_of,
            report=self._report,
            examine=self._oversight.examine,
            sent=self._oversight.expect,
            restored=self._deal_with_backup,
            tell=self._tell_outcome,
            fail=self.fail,
        )
        self.handle: Handle = Attempts(self._premises, hooks).handle

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._premises.close()

    @property
    def worker_pid(self) -> int:
        """Process id of the worker of now."""
        return self._premises.worker.pid

    @property
    def sight(self) -> Sight | None:
        """The log as accepted so far."""
        return self._follower.sight()

    def run(self) -> None:
        """Work until `stop`.

        Raises:
            ClientError, LedgerError: what made it impossible to go on.
        """
        from client.flower_connection import NodeSettings  # a second to import: not needed before
        from client.flower_node import FlowerNode

        settings = NodeSettings(
            address=self._premises.hospital.coordinator,
            authority=self._premises.authority,
            private_key=self._premises.node_key,
            id_file=self._premises.hospital.folder / "node.id",
            report=partial(self._troubles.report, ROUNDS),
            proxy=self._premises.hospital.proxy,
        )
        threads = [threading.Thread(target=self._guarded, args=(task,), name=name, daemon=True) for name, task in (
            ("follower", self._follow), ("acknowledgements", self._acknowledge), ("enrolment", self._enrol),
        )]  # fmt: skip
        self._tell({"event": "following"})
        if reason := self._premises.standing.person:
            self._tell({"event": "person", "reason": reason})
        for thread in threads:
            thread.start()
        self._node = FlowerNode(settings, self.handle)
        threads.append(
            threading.Thread(target=self._guarded, args=(self._node.run,), name="node", daemon=True)
        )
        threads[-1].start()
        self._stopping.wait()
        self._node.stop()
        for thread in threads[2:]:
            thread.join(timeout=STOP_SECONDS)
        # Not those that may sit in a long poll: they write whole files, or under the lock that closing takes.
        self._tell({"event": "keys" if self.renewed else "stopped"})
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Make `run` return; may be called from any thread or signal handler."""
        self._stopping.set()
        self._work.set()

    def fail(self, error: Exception) -> None:
        """End the agent because of an error that it cannot work with."""
        self._failure = self._failure or error
        self.stop()

    def reload(self) -> None:
        """Have `hospital.toml` read again; may be called from any thread or signal handler."""
        self._hup.set()
        self._work.set()

    def follow_once(self) -> None:
        """Pull and cosign once: what the follower's thread does for ever."""
        self._noticed(self._follower.pull())
        self._follower.cosign()

    def enrol_once(self) -> bool:
        """Do one turn of the paperwork: what the enrolment's thread does for ever."""
        offer = self._premises.decisions.offer
        if self._hup.is_set() or offer != self._offer:  # what a person offers stands in hospital.toml
            self._hup.clear()
            self._offer = offer
            self._reload()
        sight = self._follower.sight()
        if sight is not None:
            self._deal_with_backup(sight)
        self._oversight.examine()
        self._oversight.hand_in_again()
        self._oversight.hand_in_wanted()
        return self._enrolment.turn()

    def acknowledge_once(self) -> bool:
        """Get the acknowledgement of one receipt, if one is expected: what that thread does for ever."""
        return self._oversight.fetch(self._stopping, 0.0)

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except (ClientError, LedgerError) as error:
            self.fail(error)
        finally:
            if not self._stopping.is_set():  # a fault of ours: half an agent is worse than none
                self.fail(
                    LocalStateError("a part of the agent ended, the lines above say why: start it again")
                )

    def _follow(self) -> None:
        self._follower.run(self._stopping, self._noticed, partial(self._troubles.report, LOG))

    def _noticed(self, entries: list[Entry]) -> None:
        """The log was read: there may be a job to answer, a round about to come, or a word that was not kept."""
        self._oversight.followed()
        if entries:
            self._work.set()
        if self._node is not None and any(isinstance(e.record, Start | Round | Abort) for e in entries):
            self._node.hurry()

    def _enrol(self) -> None:
        warm, retry = False, RETRY_SECONDS[0]
        while not self._stopping.is_set():
            self._work.clear()
            wait, stamp = RETRY_SECONDS[0], self._premises.decisions.stamp()
            if self._premises.renewed():
                self.renewed = True
                self.stop()
                return
            try:
                if not self.enrol_once():
                    wait = IDLE_SECONDS
                    if not warm and self._enrolment.is_registered:  # which needs no torch: others wait for it
                        self._premises.worker.warm()
                        warm = True
                        continue
                retry = RETRY_SECONDS[0]
            except (UnreachableError, WorkerError) as error:
                _log.info("%s", error)
                wait, retry = retry, min(2 * retry, RETRY_SECONDS[1])
            self._rest(wait, stamp)

    def _reload(self) -> None:
        """Take up changed settings, or say in one line why not and go on with the old ones."""
        try:
            changed = self._premises.settings.reload()
        except ConfigError as error:
            _log.error("the old settings hold on: %s", error)
            return
        self._premises.worker.adopt(self._premises.hospital)
        self._enrolment.settings_changed()
        self._tell({"event": "reloaded", "changed": changed})

    def _rest(self, seconds: float, stamp: int) -> None:
        """Wait until there may be work: for an entry, a signal, or a decision since the folder had this stamp."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and self._premises.decisions.stamp() == stamp:
            if self._work.wait(min(left, WATCH_SECONDS)):
                return

    def _acknowledge(self) -> None:
        self._oversight.run(self._stopping)

    def _report(self, origin: str, code: str, evidence: str) -> None:
        self._oversight.report(origin, code, evidence)
        self._work.set()

    def _deal_with_backup(self, sight: Sight) -> bool:
        """Tell whether the account came from a backup; the first time, charge the worst and ask a person."""
        account, standing, hospital = (
            self._premises.account,
            self._premises.standing,
            self._premises.hospital,
        )
        if standing.restored or not restore.is_behind(account, sight.state, hospital.ref):
            return bool(standing.person)
        everything = self._follower.entries()
        jobs = restore.charge_all(account, sight.state, hospital.name, hospital.ref, everything)
        # Charged: only now does the log's lead vanish, so a crash before this line leads here again.
        standing.ask_person(RESTORED)
        _log.error(
            "the privacy account is older than the log: this folder came from a backup, or a copy of it runs "
            "elsewhere: then let one of them run alone. %d jobs were charged whole and this hospital withdraws from "
            "them. Take a new witness key (`wardround member rotate %s --witness`), then stop the agent, run "
            "`wardround hospital resume`, and start it again",
            *(len(jobs), hospital.folder),
        )
        self._tell({"event": "person", "reason": "restored"})
        self._work.set()
        return True

    def _tell_outcome(self, outcome: Outcome) -> None:
        self._tell(
            {
                "event": "round",
                "job": outcome.job,
                "round": outcome.round,
                "kind": outcome.kind,
                "code": outcome.code,
                "seconds": round(outcome.seconds, 4),
            }
        )
