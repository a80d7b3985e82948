"""Whether one setting of a job is better than another: paired differences over seeds, and what is said of them. Pure.

A candidate is chosen by some seeds and judged by others: the best of several by the same seeds looks better than it
is. The interval is Student's, of the mean of the pairs' differences; for few seeds it is wide, as it must be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

# 97.5 % quantiles of Student's t by degrees of freedom; beyond these the normal one's neighbourhood
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131)
_T_BEYOND = 2.131  # from above


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """By how much a candidate's values differ from the base's, and its 95 % interval over seeds."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def below(self) -> bool:
        """Whether the candidate is lower by more than the seeds explain."""
        return self.high < 0


def difference(candidate: Sequence[float], base: Sequence[float]) -> Difference:
    """Compare values of the same seeds, pair by pair.

    Args:
        candidate: One for each seed.
        base: The base's for the same seeds, as many.
    """
    pairs = [c - b for c, b in zip(candidate, base, strict=True)]
    if not pairs or any(math.isnan(p) for p in pairs):
        return Difference(mean=math.nan, low=-math.inf, high=math.inf, seeds=len(pairs))
    mean = fmean(pairs)
    if len(pairs) < 2:
        return Difference(mean=mean, low=-math.inf, high=math.inf, seeds=len(pairs))
    freedom = len(pairs) - 1
    quantile = _T[freedom - 1] if freedom <= len(_T) else _T_BEYOND
    half = quantile * stdev(pairs) / math.sqrt(len(pairs))
    return Difference(mean=mean, low=mean - half, high=mean + half, seeds=len(pairs))
