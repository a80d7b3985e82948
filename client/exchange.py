"""What the node that speaks Flower and the agent that decides say to each other; no Flower in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Value = str | bytes | int
Packed = NDArray[np.float32] | NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One message from the coordinator, as it claims to be: nothing of it is checked but its layout."""

    run_id: int
    expires_at: float  # Unix seconds by the SuperLink's clock; no reply is taken after it
    model: NDArray[np.float32]  # shape (d,), read-only; its bytes are what was sent
    config: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer. A refusal is a reply too: arrays absent, the reason in `config`."""

    config: Mapping[str, Value] = field(default_factory=dict)
    update: Packed | None = None
    metrics: Packed | None = None


Handle = Callable[[Request], Reply]  # the agent's gate, then its worker; may take minutes
