"""What the exchanges of every job share: the log, the store, who is connected, and how long anybody is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from coordinator.acknowledgements import Acknowledgements
from coordinator.blobs import BlobStore
from coordinator.phases import Phases
from coordinator.sendings import Sendings
from coordinator.sequencer import Sequencer
from coordinator.waiting import Waits
from ledger.signature import SigningKey


class Nodes(Protocol):
    """Which Flower node is whose, and who is there."""

    def ids(self) -> Mapping[str, int]:
        """Return hospital -> node id of every registered node."""

    def online(self) -> frozenset[str]:
        """Return the hospitals whose node is connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the exchanges of every job share."""

    sequencer: Sequencer
    blobs: BlobStore
    nodes: Nodes
    key: SigningKey  # signs the coordinator's records
    phases: Phases
    round_seconds: float
    patience_seconds: float
    clock: Callable[[], float] = time.time
    acknowledgements: Acknowledgements | None = None  # None: replies are not acknowledged
    waits: Waits = field(default_factory=Waits)  # for displays
    sendings: Sendings = field(default_factory=Sendings)
