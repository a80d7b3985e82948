"""How a round's updates pulled at the model: each one's length, and its direction against the weighted mean. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from client.notebook.figures import Pull


def pulls(
    number: int, hospitals: Sequence[str], weights: Sequence[float], changes: Sequence[NDArray[np.float64]]
) -> list[Pull]:
    """Return one pull for each update.

    Args:
        number: The round.
        hospitals: Whose updates they are, at least one.
        weights: Of each in the mean.
        changes: In the weights, each of shape (d,).
    """
    stacked, shares = np.stack(changes), np.array(weights, dtype=np.float64)
    mean = shares @ stacked / shares.sum()
    norms, length = np.linalg.norm(stacked, axis=1), np.linalg.norm(mean)
    cosines = np.clip(stacked @ mean / np.maximum(norms * length, 1e-300), -1, 1)
    return [
        Pull(round=number, hospital=h, norm=float(n), cosine=float(c))
        for h, n, c in zip(hospitals, norms, cosines, strict=True)
    ]
