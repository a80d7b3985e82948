"""Cosignatures on their way into the log: those that wait for a turn at it are taken in together.

A cosignature costs a durable commit, and a hundred witnesses cosign each checkpoint at once. So lines queue, and
whoever gets the turn takes in all that are there by then, in one commit for each size. Nobody is answered before the
commit that holds their line.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from ledger.errors import LedgerError, MalformedError, VerificationError
from ledger.log import Log
from ledger.signature import Signature

MOST = 64  # lines in one commit; a note carries at most 100 signatures


@dataclass(slots=True, kw_only=True, eq=False)
class Turn:
    """One line in the queue, and what became of it."""

    size: int
    line: Signature
    done: bool = False
    final: bool = False
    error: LedgerError | LookupError | None = None

    def outcome(self) -> bool:
        """Return whether the checkpoint is final. Raises what is wrong with the line."""
        if self.error is not None:
            raise self.error
        return self.final

    def conclude(self, final: bool, error: LedgerError | LookupError | None = None) -> None:
        """Say what became of it."""
        self.done, self.final, self.error = True, final, error


class Queue:
    """Lines that nobody has taken in yet; any thread may add one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Turn] = []

    def add(self, size: int, line: Signature) -> Turn:
        """Queue a line."""
        turn = Turn(size=size, line=line)
        with self._lock:
            self._waiting.append(turn)
        return turn

    def take_in(self, log: Log) -> None:
        """Take in all that wait, and conclude each. Only whoever has the turn at the log may call it.

        Raises:
            StorageError: the outcome is unknown, for those that are not done.
        """
        with self._lock:
            waiting, self._waiting = self._waiting, []
        by_size: dict[int, list[Turn]] = {}
        for turn in waiting:
            by_size.setdefault(turn.size, []).append(turn)
        for size, turns in sorted(by_size.items()):
            for start in range(0, len(turns), MOST):
                _take_in(log, size, turns[start : start + MOST])


def _take_in(log: Log, size: int, turns: list[Turn]) -> None:
    """Take in lines of one size together; where one of them is wrong, each by itself."""
    if log.store.signed(size) is None:
        for turn in turns:
            turn.conclude(False, LookupError(f"this log has signed no checkpoint of size {size}"))
        return
    try:
        final = log.cosign(size, [turn.line for turn in turns])
    except (MalformedError, VerificationError) as error:
        if len(turns) == 1:
            turns[0].conclude(False, error)
            return
        for turn in turns:
            _take_in(log, size, [turn])
        return
    for turn in turns:
        turn.conclude(final)
