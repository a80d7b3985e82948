"""What the ServerApp and the part of the coordinator that decides about rounds say to each other; no Flower in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Value = str | bytes | int
Packed = NDArray[np.float32] | NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One message to each of some hospitals, and how long their replies are waited for."""

    round: int
    model: NDArray[np.float32]  # shape (d,)
    configs: Mapping[int, Mapping[str, Value]]  # by node id, in sending order; equal ones are uploaded once
    deadline: float  # Unix seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What came back from one node: arrays exactly as sent, nothing admitted yet.

    Attributes:
        failure: "" for a reply; otherwise "unreachable", "late" or "malformed", and everything else is empty.
    """

    node_id: int
    config: Mapping[str, Value] = field(default_factory=dict)
    update: Packed | None = None  # shape (d,) if the hospital is honest; read-only
    metrics: Packed | None = None
    failure: str = ""


class Rounds(Protocol):
    """Who decides about a job; the ServerApp is its hands."""

    def next_exchange(self) -> Exchange | None:
        """Close the exchange before, if any, and return the next one, or None when the job is over. May block."""

    def sent(self) -> None:
        """Take note that the exchange's messages can be pulled now; called once an exchange, before their replies."""

    def receive(self, arrival: Arrival) -> None:
        """Take one node's reply or its failure; called exactly once a node and exchange, in order of arrival."""

    def close(self) -> None:
        """Release what is held; called once, after the end or a failure."""


RoundsFactory = Callable[[str], Rounds]  # from the SHA-256 of the bundle's job.json, lowercase hex
