"""Holds a job's next exchange back until enough hospitals are connected and should be willing: `waiting` at work.

The rules are `coordinator.waiting`'s. Here they meet the clock, Flower's register of nodes and the log: its time is
stated here when a job's own time runs out during a wait, since nothing else would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

from coordinator import closing, waiting
from coordinator.closing import Answer
from coordinator.desk import Desk
from coordinator.standing import Standing
from coordinator.waiting import AWAY, Reason, Wait
from ledger import envelope
from ledger.records import Abort, Round, Skip, Tick

NODE_POLL_SECONDS = (0.1, 2.0)  # between looks at who is there: first, and after a long while
WILLING_POLL_SECONDS = 1.0  # between looks at the clock
_CALM = 60  # a wait looks every this part of its length so far


class Attendance:
    """Waits before the exchanges of one running job. One thread at a time."""

    def __init__(self, desk: Desk, job: str, goes_on: Callable[[Standing], bool]) -> None:
        """Know of nobody yet.

        Args:
            desk: What all jobs share.
            job: Its digest.
            goes_on: Whether the job has a next exchange.
        """
        self._desk = desk
        self._job = job
        self._goes_on = goes_on
        self._given_up: frozenset[str] = frozenset()  # away for so long that no round waits for them
        self._since: dict[str, float] = {}  # when each who is away was missed first
        self._willing: dict[str, tuple[float, str]] = {}  # when to ask again, and why not now; after an abort

    @property
    def away(self) -> frozenset[str]:
        """Who was waited for in vain, and is not asked: it would be charged for a message that it finds too late."""
        return self._given_up

    def await_enough(self, held: Collection[str]) -> bool:
        """Wait until the next exchange may be asked for.

        Args:
            held: Hospitals whose replies to it are here already.

        Returns:
            Whether the job still goes on.

        Raises:
            StoppedError: the coordinator is being stopped.
            LedgerError, CoordinatorError: nobody can be waited for; ask again after a restart.
        """
        try:
            with self._desk.phases.during("absence"):
                return self._await_willing(held) and self._await_connected(held)
        finally:
            self._desk.waits.put(self._job, None)

    def await_back(self, away: Collection[str], needed: int, deadline: float) -> list[str]:
        """Wait for hospitals that went away during an exchange; return those that can be asked again.

        All are waited for a moment, as before an exchange, and until the deadline where the exchange would come to
        nothing without them. Those who were away at its beginning, and given up, are not waited for.

        Args:
            away: The hospitals.
            needed: How many of them the exchange needs.
            deadline: Of the exchange, Unix seconds.

        Raises:
            StoppedError: the coordinator is being stopped.
            LedgerError, CoordinatorError: nobody can be waited for; ask again after a restart.
        """
        missed = sorted(set(away) - self._given_up)
        if needed > len(missed):
            return []  # it comes to nothing with them, too: nobody is to be charged for it
        try:
            with self._desk.phases.during("absence"):
                gone = self._wait_for(lambda: (missed, needed), deadline)
        finally:
            self._desk.waits.put(self._job, None)
        if gone is None:
            return []
        self._given_up |= gone
        return [name for name in missed if name not in gone] if self._desk.clock() < deadline else []

    def closed(self, record: Round | Abort, answers: Mapping[str, Answer]) -> None:
        """Remember who should be willing when, after an exchange that was aborted below its minimum."""
        self._willing = {}
        if not isinstance(record, Abort) or record.code != "below-minimum":
            return
        now, out = self._desk.clock(), {item.hospital: item.code for item in record.left_out}
        aborted = waiting.aborted_in_a_row(self._desk.sequencer.standing.jobs[self._job])
        for name, code in out.items():
            answer = answers.get(name)
            skip = answer.skip.record if answer is not None and answer.skip is not None else None
            hint = answer.retry_after if answer is not None and isinstance(skip, Skip) else None
            why = skip.code if isinstance(skip, Skip) else code
            self._willing[name] = (waiting.willing_from(now, aborted, hint), why)

    def state_time(self) -> None:
        """State the log's time once a running job's own is over, so that it ends: called while anything waits."""
        standing, now = self._desk.sequencer.standing, int(self._desk.clock())
        expires = standing.state.jobs[self._job].record.expires_at
        if standing.state.time < expires <= now:
            tick = envelope.sign(Tick(origin=standing.state.origin, time=now), self._desk.key)
            self._desk.sequencer.append([tick], after=standing.view.size)

    def _await_willing(self, held: Collection[str]) -> bool:
        while self._willing:
            asked, needed = self._needed(held)
            times = {name: self._willing.get(name, (0.0, ""))[0] for name in asked}
            until, now = waiting.ask_at(times.values(), needed), self._desk.clock()
            if until <= now:
                break
            later = {name: at for name, at in times.items() if at > now}
            reasons = {n: Reason(code=self._willing[n][1], until=int(at)) for n, at in later.items()}
            self._say(Wait(needed=needed, until=int(until), reasons=reasons))
            if self._ends_within(min(WILLING_POLL_SECONDS, until - now)):
                return False
        self._willing = {}
        return self._goes_on(self._desk.sequencer.standing)

    def _await_connected(self, held: Collection[str]) -> bool:
        """Wait for the minimum for ever, and for those beyond it a moment, so that a short absence costs no round."""
        away = self._wait_for(lambda: self._needed(held), math.inf)
        if away is None:
            return False
        self._given_up = away
        return self._goes_on(self._desk.sequencer.standing)

    def _wait_for(
        self, wanted: Callable[[], tuple[Collection[str], int]], deadline: float
    ) -> frozenset[str] | None:
        """Wait until enough hospitals are connected; return who is away by then. None: the job ended meanwhile.

        Args:
            wanted: Returns the hospitals, and how many of them are needed.
            deadline: Unix seconds.
        """
        began, given_up, (shortest, longest) = self._desk.clock(), self._given_up, NODE_POLL_SECONDS
        while True:
            asked, needed = wanted()
            now, online = self._desk.clock(), self._desk.nodes.online()
            away = frozenset(asked) - online
            others = {name: at for name, at in self._since.items() if name not in asked}
            self._since = others | {name: self._since.get(name, now) for name in away}
            given_up &= away
            if now >= deadline or waiting.is_enough(
                len(asked) - len(away),
                needed,
                others_away=bool(away - given_up),
                waited=now - began,
                patience=self._desk.patience_seconds,
            ):
                return away
            reasons = {name: Reason(code=AWAY, since=int(self._since[name])) for name in sorted(away)}
            self._say(Wait(needed=max(needed, 1), reasons=reasons))
            if self._ends_within(min(max(shortest, (now - began) / _CALM), longest)):
                return None

    def _needed(self, held: Collection[str]) -> tuple[list[str], int]:
        """Return who would be asked now, and how many of them the exchange needs."""
        standing = self._desk.sequencer.standing
        found, history = standing.state.jobs[self._job], standing.jobs[self._job]
        may = closing.asked(found)
        asked = [name for name in may if name not in held]
        minimum = min(closing.minimum(history, found.next_round), len(may))  # nobody else can come
        return asked, minimum - (len(may) - len(asked))

    def _say(self, wait: Wait) -> None:
        self._desk.waits.put(self._job, wait)

    def _ends_within(self, seconds: float) -> bool:
        self.state_time()
        return self._desk.sequencer.wait(lambda s: not self._goes_on(s), seconds)
