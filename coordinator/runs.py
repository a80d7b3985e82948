"""What the runner asks of Flower: runs of ServerApps."""

from __future__ import annotations

from typing import Protocol

from coordinator.superlink import RunState


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
