"""What noised score histograms say about a model: AUROC, Brier score and log loss, each with its interval.

The input is the sum over hospitals of counts (class x score bin) with discrete Gaussian noise of known variance
(PRIVACY.md, "Score histograms"). Every interval covers 95% of: who happened to be held out, the noise, and what
the bins hide. Counts are used as they are, negative ones too, because clamping them would bias the AUROC. What
cannot be measured (an empty class, noise as large as the counts) is None. Adding the noise is the hospitals' work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

import numpy as np
from numpy.typing import NDArray

from coordinator.errors import MetricsError
from ledger.values import Metric

BINS = 6  # a class
FIRST_EDGES = tuple(round(i / BINS, 6) for i in range(1, BINS))
EDGE_STEP = 1e-6  # edges are whole numbers of it, so that a decimal string holds them exactly

_Z = 1.959964  # standard normal quantile of 97.5%
_CLEAR_OF_NOISE = (
    3.0  # a class is measured if its count is this many standard deviations of its noise above 0
)
_LEAST = 4.0  # ... and at least this many patients
_NARROWEST = 1e-3  # width of a bin
_TIE_DOUBT = 0.1  # standard deviation of the share of a bin's pairs that are in order
_STEP = Decimal("0.0001")  # of published metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A metric with its 95% interval."""

    value: float
    low: float
    high: float

    def to_metric(self, name: str) -> Metric:
        """Return the public record, in steps of 0.0001, the interval rounded outwards."""
        return Metric(
            name=name,
            value=_decimal(self.value, ROUND_HALF_EVEN),
            low=_decimal(self.low, ROUND_FLOOR),
            high=_decimal(self.high, ROUND_CEILING),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What one set of histograms says; None: not measurable."""

    auroc: Estimate | None
    brier: Estimate | None
    log_loss: Estimate | None

    def to_metrics(self) -> tuple[Metric, ...]:
        """Return the measured ones as public records, sorted by name."""
        named = (("auroc", self.auroc), ("brier", self.brier), ("log-loss", self.log_loss))
        return tuple(estimate.to_metric(name) for name, estimate in named if estimate is not None)


def noise_variance(noise_multipliers: Iterable[str]) -> float:
    """Return the variance of one cell of a sum, from the hospitals' mechanisms on the record.

    Each hospital's noise is drawn on a fine grid and rounded to whole patients, which adds 1/12.
    """
    return math.fsum(float(multiplier) ** 2 + 1 / 12 for multiplier in noise_multipliers)


def evaluate(counts: NDArray[np.int64], noise_variance: float, edges: Sequence[float]) -> Evaluation:
    """Estimate the metrics of a model.

    Args:
        counts: Sum of the hospitals' histograms, shape (2, BINS); row 0 counts negatives.
        noise_variance: Of one cell of the sum: the sum of the hospitals' noise variances, >= 0.
        edges: The BINS - 1 inner edges that the hospitals used.

    Raises:
        MetricsError: wrong shape or edges, or a negative variance.
    """
    bounds = _bounds(counts, noise_variance, edges)
    table = counts.astype(np.float64)
    measurable = all(_measurable(float(row.sum()), noise_variance, BINS) for row in table)
    both = _measurable(float(table.sum()), noise_variance, 2 * BINS)
    return Evaluation(
        auroc=_auroc(table, noise_variance) if measurable else None,
        brier=_mean_loss(table, noise_variance, _brier_moments(bounds), 1.0) if both else None,
        log_loss=_mean_loss(table, noise_variance, _log_loss_moments(bounds), math.inf) if both else None,
    )


def next_edges(counts: NDArray[np.int64], noise_variance: float, edges: Sequence[float]) -> tuple[float, ...]:
    """Return edges that would have put equal shares of where the classes overlap in every bin.

    A bin weighs as the geometric mean of its shares of both classes: cuts among patients of one class only
    would add noise and tell nothing. The edges depend on the published histogram alone. Each cell counts for
    one standard deviation of its noise more than it shows: the noisier the histogram, the closer the answer to
    edges that divide the old bins evenly.

    Args:
        counts: The last published sum, shape (2, BINS).
        noise_variance: Of one of its cells.
        edges: The edges it was made with.

    Raises:
        MetricsError: see `evaluate`.
    """
    bounds = _bounds(counts, noise_variance, edges)
    weights = np.maximum(counts.astype(np.float64), 0.0) + math.sqrt(noise_variance) + 1.0
    overlap = np.sqrt(weights[0] * weights[1])
    below = np.concatenate([[0.0], np.cumsum(overlap / overlap.sum())])
    wanted = np.interp(np.arange(1, BINS) / BINS, below, bounds)
    placed: list[float] = []
    for i, edge in enumerate(wanted):
        lowest = (placed[-1] if placed else 0.0) + _NARROWEST
        highest = 1.0 - _NARROWEST * (BINS - 1 - i)
        placed.append(min(max(float(edge), lowest), highest))
    return tuple(round(edge / EDGE_STEP) / round(1 / EDGE_STEP) for edge in placed)


def _bounds(counts: NDArray[np.int64], noise_variance: float, edges: Sequence[float]) -> NDArray[np.float64]:
    """Return the BINS + 1 ends of the bins; refuse what does not fit together."""
    bounds = np.array([0.0, *edges, 1.0], dtype=np.float64)
    if counts.shape != (2, BINS) or counts.dtype != np.int64:
        raise MetricsError(f"a score histogram must be an int64 array of shape (2, {BINS})")
    if bounds.shape != (BINS + 1,) or not (np.diff(bounds) > 0).all():
        raise MetricsError(f"a score histogram needs {BINS - 1} increasing edges between 0 and 1")
    if not 0 <= noise_variance < math.inf:
        raise MetricsError("the noise variance of a histogram must be a number of at least 0")
    return bounds


def _measurable(total: float, noise_variance: float, cells: int) -> bool:
    return total >= max(_LEAST, _CLEAR_OF_NOISE * math.sqrt(cells * noise_variance))


def _auroc(table: NDArray[np.float64], noise_variance: float) -> Estimate:
    """Estimate the probability that a positive patient scores above a negative one.

    The noise enters by the delta method: a cell's derivative is the share of the other class that its patients
    win against, less the AUROC. Sampling variance: Hanley and McNeil 1982 (Radiology 143:29-36), equation 1.
    """
    negatives, positives = table
    n, p = float(negatives.sum()), float(positives.sum())
    negatives_below = (np.cumsum(negatives) - negatives / 2) / n
    positives_above = (p - np.cumsum(positives) + positives / 2) / p
    raw = float(positives @ negatives_below) / p
    shares = np.maximum(table, 0.0)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1.0)
    ties = float(shares[0] @ shares[1])  # pairs of a negative and a positive patient in one bin
    area = min(max(raw + ties * _tie_excess(table, noise_variance), 0.0), 1.0)
    slopes = np.concatenate([(positives_above - raw) / n, (negatives_below - raw) / p])
    variance = (
        noise_variance * float(slopes @ slopes) + _sampling_variance(area, n, p) + (ties * _TIE_DOUBT) ** 2
    )
    half = _Z * math.sqrt(variance)
    return Estimate(value=area, low=max(area - half, 0.0), high=min(area + half, 1.0))


def _tie_excess(table: NDArray[np.float64], noise_variance: float) -> float:
    """Return by how much a positive patient beats a negative one of the same bin more often than a tie.

    If the log of the likelihood ratio rises by b across a bin, it does so with probability
    1 / (1 - exp(-b)) - 1 / b. b is the slope of log(positives / negatives) over the bins, by weighted least
    squares on counts shrunk by their noise.
    """
    counts = np.maximum(table, 0.0) + math.sqrt(noise_variance) + 0.5
    ratio = np.log(counts[1] / counts[0])
    weight = counts[0] * counts[1] / counts.sum(axis=0)
    weight /= weight.sum()
    place = np.arange(BINS) - float(weight @ np.arange(BINS))
    b = float(weight @ (place * ratio)) / float(weight @ place**2)
    return b / 12 if abs(b) < 1e-3 else 1 / -math.expm1(-b) - 1 / b - 0.5


def _sampling_variance(area: float, n: float, p: float) -> float:
    """Return the variance of an AUROC of n negative and p positive patients (Hanley and McNeil 1982).

    An area of exactly 0 or 1 would claim certainty: it is moved inwards by half a patient of the smaller class.
    """
    margin = min(0.5 / min(n, p), 0.5)
    a = min(max(area, margin), 1 - margin)
    a = max(a, 1 - a)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    return (a * (1 - a) + (p - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (n * p)


def _mean_loss(
    table: NDArray[np.float64],
    noise_variance: float,
    moments: tuple[NDArray[np.float64], NDArray[np.float64]],
    most: float,
) -> Estimate:
    """Estimate the mean of a loss from its first two moments in each cell, both of shape (2, BINS).

    Scores are taken as uniform within a bin. A cell's true mean may be off by half of the loss's standard
    deviation there; that widens the interval, and in the four outermost cells, where the scores of a confident
    model crowd towards 0 and 1, in one direction.
    """
    first, second = moments
    total = float(table.sum())
    mean = float((table * first).sum()) / total
    shares = np.maximum(table, 0.0)
    shares /= max(float(shares.sum()), 1.0)
    sampling = float((shares * (second - 2 * mean * first + mean * mean)).sum()) / total
    noise = noise_variance * float(((first - mean) ** 2).sum()) / total**2
    doubt = shares * np.sqrt(np.maximum(second - first**2, 0.0)) / 2
    hidden = float((doubt[:, 1:-1] ** 2).sum() + doubt[:, [0, -1]].sum() ** 2)
    value = min(max(mean, 0.0), most)
    half = _Z * math.sqrt(max(sampling, 0.0) + noise + hidden)
    return Estimate(value=value, low=max(value - half, 0.0), high=min(value + half, most))


def _brier_moments(bounds: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means of (score - label)^2 and of its square for scores uniform in each bin."""

    def mean_power(low: NDArray[np.float64], high: NDArray[np.float64], power: int) -> NDArray[np.float64]:
        moment: NDArray[np.float64] = (high ** (power + 1) - low ** (power + 1)) / (
            (power + 1) * (high - low)
        )
        return moment

    low, high = bounds[:-1], bounds[1:]
    return (
        np.stack([mean_power(low, high, 2), mean_power(1 - high, 1 - low, 2)]),
        np.stack([mean_power(low, high, 4), mean_power(1 - high, 1 - low, 4)]),
    )


def _log_loss_moments(bounds: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means of -log(probability of the true class) and of its square, scores uniform in each bin."""

    def integrals(u: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        log = np.log(np.maximum(u, 1e-300))  # u log u -> 0 at 0
        return u - u * log, u * log**2 - 2 * u * log + 2 * u

    low, high = bounds[:-1], bounds[1:]
    width = high - low
    negatives = [(b - a) / width for a, b in zip(integrals(1 - high), integrals(1 - low), strict=True)]
    positives = [(b - a) / width for a, b in zip(integrals(low), integrals(high), strict=True)]
    return np.stack([negatives[0], positives[0]]), np.stack([negatives[1], positives[1]])


def _decimal(value: float, rounding: str) -> str:
    text = format(Decimal(repr(value)).quantize(_STEP, rounding=rounding), "f")
    text = text.rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text
