"""What the runner asks of Flower: runs of ServerApps, and that the register of nodes is of now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """How far a run is."""

    status: str  # pending, starting, running or finished
    outcome: str  # completed, failed or stopped; "" until finished
    details: str


class Flower(Protocol):
    """Runs of ServerApps, as `coordinator.superlink.SuperLink` offers them."""

    def alive(self) -> bool:
        """Whether it can run anything."""

    def start_run(self, content: bytes) -> int:
        """Start a run of a bundle and return its id."""

    def run_state(self, run_id: int) -> RunState:
        """Return how far a run is."""

    def stop_run(self, run_id: int) -> None:
        """Stop a run."""


class Register(Protocol):
    """Which hospital has which node, as `coordinator.nodes.DepositedNodes` keeps it."""

    def scan(self) -> None:
        """Follow what was deposited or taken away."""
