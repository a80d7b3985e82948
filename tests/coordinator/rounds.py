"""Rounds for the tests: blobs in memory, numbers that no generator's version changes, and Flower's own replies."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, Message, Metadata, MetricRecord, RecordDict
from numpy.typing import NDArray

from coordinator.aggregation import RoundInputs
from coordinator.strategies import FedAvg, Strategy
from coordinator.updates import Floats, Plan, Update


class MemoryBlobs:
    """A blob store without a disk."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.data[digest] = bytes(data)
        return digest

    def open(self, digest: str) -> io.BytesIO:
        return io.BytesIO(self.data[digest])


def plan(parameters: int, **changes: Any) -> Plan:
    """A plan of several local steps, so of float32 updates; `local_steps=1` makes it one of integers."""
    standard = Plan(
        parameters=parameters, local_steps=2, learning_rate=0.3, max_grad_norm=0.5, noise_multiplier=5.0,
        size_class=64, divisor=48.0, grid=2.0**-12,
    )  # fmt: skip
    return replace(standard, **changes)


def numbers(label: str, count: int) -> Floats:
    """Return `count` numbers in [-1, 1) that are the same in every release of every library."""
    stream = hashlib.shake_256(label.encode()).digest(4 * count)
    return np.frombuffer(stream, dtype="<i4").astype(np.float64) / 2.0**31


def packed(values: NDArray[Any], of: Plan) -> bytes:
    """Return an update's bytes."""
    return values.astype(of.dtype).tobytes()


def round_inputs(
    blobs: MemoryBlobs,
    *,
    strategy: Strategy | None = None,
    hospitals: Sequence[str] = ("aachen", "basel", "cork"),
    parameters: int = 7,
    local_steps: int = 2,
    label: str = "round 1",
    before: bytes | None = None,
    state: str = "",
) -> RoundInputs:
    """Store a model and one update a hospital; weights are 1, 2, 4, 8, 1 ..."""
    how = plan(parameters, local_steps=local_steps)
    model = numbers("model", parameters).astype("<f4").tobytes() if before is None else before
    updates = []
    for position, hospital in enumerate(hospitals):
        values = numbers(f"{label} {hospital}", parameters) * (0.1 if local_steps > 1 else 2.0**16)
        digest = blobs.put(packed(np.rint(values) if local_steps == 1 else values, how))
        updates.append(Update(hospital=hospital, digest=digest, weight=2 ** (position % 4), plan=how))
    return RoundInputs(
        strategy=strategy or FedAvg(),
        parameters=parameters,
        model_before=blobs.put(model),
        server_state_before=state,
        updates=tuple(updates),
    )


def changes_of(inputs: RoundInputs, blobs: MemoryBlobs) -> list[Floats]:
    """Return each update's change in the weights, in the fixed order."""
    return [u.plan.decode(np.frombuffer(blobs.data[u.digest], dtype=u.plan.dtype)) for u in inputs.updates]


def flower_replies(weights: Iterable[NDArray[Any]], counts: Sequence[int]) -> list[Message]:
    """Return what Flower's strategies aggregate: each hospital's new weights, and its number of examples."""
    make = cast(Callable[..., Message], Message)
    return [
        make(
            RecordDict(
                {
                    "arrays": ArrayRecord({"w": Array(values)}),
                    "metrics": MetricRecord({"num-examples": counts[i]}),
                }
            ),
            metadata=Metadata(0, "", i, 0, "", "", 0.0, 0.0, "train"),
        )
        for i, values in enumerate(weights)
    ]
