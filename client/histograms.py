"""A hospital's score histogram: held-out patients per score bin and class, with integer noise.

Each held-out patient is counted once, in one of 2 x 6 cells, so adding or removing a patient moves the counts by
exactly 1 in L2: the noise's scale in patients is its noise multiplier. Whatever the scores are (NaN, one class,
nobody held out) the message has the same shape. What is learnt from the sum over hospitals is the coordinator's
`metrics`; the edges come from there too, and are public.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from client.noise import discrete_gaussian
from client.randomness import Randomness

BINS = 6  # a class
SENSITIVITY = 1  # L2 distance between the counts with and without one patient

_GRID_BITS = 20  # noise is drawn on a grid of 2^-20 patients, where it costs what `accounting` says

Noise = Callable[[int], NDArray[np.int64]]  # draws that many integers


def count_noise(noise_multiplier: str, randomness: Randomness) -> Noise:
    """Return noise for counts: discrete Gaussian on a fine grid, rounded to whole patients afterwards.

    Rounding is post-processing and costs no privacy; it adds 1/12 to the variance. On the grid of whole numbers
    the discrete Gaussian would cost more than its closed form.

    Args:
        noise_multiplier: As the record spells it; its standard deviation in patients.
        randomness: Where the bits come from.
    """
    sigma = Fraction(noise_multiplier) * (1 << _GRID_BITS)

    def draw(count: int) -> NDArray[np.int64]:
        fine = discrete_gaussian(sigma, count, randomness)
        rounded: NDArray[np.int64] = (fine + (1 << (_GRID_BITS - 1))) >> _GRID_BITS
        return rounded

    return draw


def score_histogram(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    edges: Sequence[float],
    noise: Noise,
) -> NDArray[np.int64]:
    """Count held-out patients by class and score, and add noise to every cell.

    Args:
        scores: Predicted probabilities of the positive class, shape (n,), n >= 0. A score that is not a number
            counts as 0.
        labels: Classes 0 or 1, shape (n,).
        edges: The inner edges, increasing, BINS - 1 of them; a score equal to an edge lies above it.
        noise: Draws that many integers of the planned noise.

    Returns:
        int64 array of shape (2, BINS); row 0 counts negatives. Cells may be negative.

    Raises:
        ValueError: the edges are not BINS - 1 increasing numbers; never because of scores or labels.
    """
    inner = np.asarray(edges, dtype=np.float64)
    if inner.shape != (BINS - 1,) or not (np.diff(inner) > 0).all():
        raise ValueError(f"a score histogram needs {BINS - 1} increasing edges")
    known = np.where(np.isnan(scores), 0.0, scores).astype(np.float64)
    cells = np.searchsorted(inner, known, side="right") + BINS * (labels > 0)
    counts = np.bincount(cells, minlength=2 * BINS).astype(np.int64)
    return (counts + noise(2 * BINS)).reshape(2, BINS)
