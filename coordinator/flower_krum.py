"""Krum, run by Flower's own class (Blanchard et al. 2017), so that its choice is the one users of Flower know.

It needs all updates in memory, and its distances are a matrix product whose last bits depend on the BLAS in
use: the record promises recomputation for the pinned versions only. It is given changes instead of weights:
distances are the same, and less is lost by Flower's formula |x|^2 + |y|^2 - 2 x.y. Flower is imported on the
first call, so that nothing else pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from coordinator.errors import AggregationError
from coordinator.updates import Floats


def krum(changes: Floats, weights: Sequence[int], num_malicious_nodes: int) -> Floats:
    """Return the change that Flower's Krum selects.

    Args:
        changes: Finite, shape (updates, parameters), in the fixed order: Flower breaks ties by position.
        weights: One for each update; Flower asks for them, the choice does not depend on them.
        num_malicious_nodes: f; needs at least 2 f + 3 updates.

    Raises:
        AggregationError: Flower gave no result.
    """
    from flwr.app import Array, ArrayRecord, Message, Metadata, MetricRecord, RecordDict
    from flwr.serverapp.strategy import Krum

    def message(position: int) -> Message:
        content = RecordDict(
            {
                "arrays": ArrayRecord({"change": Array(changes[position])}),
                "metrics": MetricRecord({"num-examples": weights[position]}),
            }
        )
        metadata = Metadata(0, "", position, 0, "", "", 0.0, 0.0, "train")  # none of it is read
        make = cast(Callable[..., Message], Message)  # its published overloads are for use inside a run only
        return make(content, metadata=metadata)

    strategy = Krum(num_malicious_nodes=num_malicious_nodes)
    arrays, _ = strategy.aggregate_train(0, [message(i) for i in range(len(changes))])
    if arrays is None:
        raise AggregationError("Flower's Krum chose no update: abort the round")
    return np.asarray(arrays["change"].numpy(), dtype=np.float64)
