"""Averages that a few wild updates cannot move: coordinate-wise median and trimmed mean (Yin et al. 2018).

Both are pure functions of one block of coordinates, so memory is bounded by the block, and both give the same
bits everywhere: sorting only moves values, and what is added is added in sorted order. Ties are harmless,
since equal values are the same bits once negative zero has become zero. Weights play no part. Source: Yin, Chen,
Ramchandran and Bartlett 2018, Definitions 1 and 2; the number trimmed is Flower's int(beta n).
"""

from __future__ import annotations

import numpy as np

from coordinator.updates import Floats


def median(changes: Floats) -> Floats:
    """Return the median of each column; for an even count, half the sum of the two in the middle.

    Args:
        changes: Finite, shape (updates, coordinates).
    """
    ordered, count = _ordered(changes), len(changes)
    low, high = ordered[(count - 1) // 2], ordered[count // 2]
    middle: Floats = low.copy() if count % 2 else (low + high) / 2.0
    return middle


def trimmed_mean(changes: Floats, beta: float) -> Floats:
    """Return the mean of each column without its int(beta n) smallest and as many largest values.

    Args:
        changes: Finite, shape (updates, coordinates).
        beta: Share cut off at each end, 0 <= beta < 0.5, so that at least one value is left.
    """
    ordered, count = _ordered(changes), len(changes)
    cut = int(beta * count)
    total: Floats = ordered[cut].copy()
    for row in ordered[cut + 1 : count - cut]:
        np.add(total, row, out=total)
    return np.divide(total, float(count - 2 * cut), out=total)


def _ordered(changes: Floats) -> Floats:
    """Sort each column, ascending. Adding 0.0 turns -0.0, which sorts as equal, into 0.0."""
    ordered: Floats = np.sort(changes + 0.0, axis=0)
    return ordered
