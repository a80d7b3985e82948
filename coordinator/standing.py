"""The log as it stands at one moment: a value that any thread may read and keep."""

from __future__ import annotations

from dataclasses import dataclass

from immutables import Map

from coordinator.histories import Histories, History
from ledger.state import State
from ledger.view import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """Where a member's record is on the log."""

    index: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The log as it stands."""

    view: View
    histories: Histories
    final_size: int
    cosignatures: int  # of the newest checkpoint
    writable: bool
    obstacle: str  # why it is not, once that is known

    @property
    def state(self) -> State:
        """What the records amount to."""
        return self.view.state

    @property
    def jobs(self) -> Map[str, History]:
        """The jobs' histories, by digest."""
        return self.histories.jobs
