"""From a sum of noised score histograms to the bars of a calibration curve, each with its interval. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from client.notebook.figures import Bin

_NORMAL = 1.959964  # standard deviations either side, for 95 %


def bars(counts: Sequence[Sequence[float]], edges: Sequence[float], noise_variance: float) -> tuple[Bin, ...]:
    """Return one bar for each bin in which the noise has left more than nobody.

    The interval is that of a ratio of two noised counts to first order: the patients' own chance, for a share drawn
    a little towards a half so that it is never 0, and the noise of both counts.

    Args:
        counts: Patients by class and score, shape (2, bins), negatives first; may be negative.
        edges: The inner edges of the bins, increasing, in [0, 1].
        noise_variance: Of one count, in patients squared; the sum over the hospitals.
    """
    bounds = (0.0, *edges, 1.0)
    found = []
    for low, high, negative, positive in zip(bounds[:-1], bounds[1:], *counts, strict=True):
        patients = float(negative + positive)
        if patients <= 0:
            continue
        share = min(1.0, max(0.0, positive / patients))
        drawn = (share * patients + 1) / (patients + 2)
        noise = noise_variance * (share**2 + (1 - share) ** 2) / patients**2
        half = _NORMAL * math.sqrt(drawn * (1 - drawn) / patients + noise)
        found.append(
            Bin(
                predicted=(low + high) / 2,
                observed=share,
                patients=patients,
                low=max(0.0, share - half),
                high=min(1.0, share + half),
            )
        )
    return tuple(found)
