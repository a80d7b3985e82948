"""Who listens to what the coordinator signs about the records that this hospital hands in."""

from __future__ import annotations

from typing import Protocol


class Ear(Protocol):
    """Who is told of records before they are handed in, and of what the coordinator signs about them."""

    def handing_in(self, entry: bytes) -> None:
        """Make a record durable that is about to be handed in."""

    def heard(self, entry: bytes, statement: bytes) -> None:
        """Take the coordinator's answer; empty where it signed nothing."""
