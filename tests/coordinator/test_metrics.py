"""Metrics from noised histograms: near the exact figure, and intervals that hold as often as they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coordinator.errors import MetricsError
from coordinator.metrics import BINS, FIRST_EDGES, Estimate, evaluate, next_edges, noise_variance

SIGMA_ONE_FINAL = 1.04  # one Gaussian release at epsilon 3, delta 1e-3
SIGMA_HALF_FINAL = 1.47  # half of the budget, in mu^2
SIGMA_LIVE = 2.94  # one of four that share the other half

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Cohort:
    """A model's scores: logits of both classes are normal, `separation` apart, times `confidence`."""

    negatives: int
    positives: int
    separation: float
    confidence: float

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        labels = np.repeat([0, 1], [self.negatives, self.positives])
        logits = rng.normal((labels - 0.5) * self.separation, 1.0) * self.confidence
        return 1 / (1 + np.exp(-logits)), labels


def exact(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    negatives, positives = scores[labels == 0], scores[labels == 1]
    likelihood = np.where(labels == 1, scores, 1 - scores)
    return {
        "auroc": float((positives[:, None] > negatives[None]).mean()),
        "brier": float(((scores - labels) ** 2).mean()),
        "log_loss": float(-np.log(likelihood).mean()),
    }


def counted(
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    edges: tuple[float, ...],
    sd: float,
    rng: np.random.Generator,
) -> Counts:
    cells = np.searchsorted(edges, scores, side="right") + BINS * labels
    counts = np.bincount(cells, minlength=2 * BINS).reshape(2, BINS)
    return (counts + np.rint(rng.normal(0, sd, (2, BINS)))).astype(np.int64)


HEART = Cohort(115, 139, 1.7, 1.0)  # AUROC .885, 254 test rows, as Fed-Heart-Disease
CONFIDENT = Cohort(115, 139, 1.7, 1.7)
BREAST = Cohort(120, 70, 3.3, 1.5)  # AUROC .99
SHY = Cohort(115, 139, 0.8, 0.3)  # scores all near one half
USELESS = Cohort(115, 139, 0.0, 1.0)


def simulate(
    cohort: Cohort, sigma: float, repetitions: int, settled: bool, seed: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return, by metric, the errors against the exact figure and whether the population's is in the interval."""
    rng = np.random.default_rng(seed)
    sd = sigma * 2  # four hospitals
    larger = replace(cohort, negatives=4000, positives=4000 * cohort.positives // cohort.negatives)
    truth = exact(*larger.draw(rng))
    edges = FIRST_EDGES
    for _ in range(2 if settled else 0):
        edges = next_edges(counted(*cohort.draw(rng), edges, sd, rng), sd**2, edges)
    errors: dict[str, list[float]] = {name: [] for name in truth}
    inside: dict[str, list[float]] = {name: [] for name in truth}
    for _ in range(repetitions):
        scores, labels = cohort.draw(rng)
        here = exact(scores, labels)
        result = evaluate(counted(scores, labels, edges, sd, rng), sd**2 + 4 / 12, edges)
        for name in truth:
            estimate: Estimate | None = getattr(result, name)
            if estimate is None:
                continue
            assert estimate.low <= estimate.value <= estimate.high
            errors[name].append(estimate.value - here[name])
            inside[name].append(estimate.low <= truth[name] <= estimate.high)
    assert len(errors["auroc"]) >= 0.9 * repetitions  # nearly always measurable
    return errors, inside


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("sigma", [0.01, SIGMA_ONE_FINAL, SIGMA_LIVE])
@pytest.mark.parametrize("cohort", [HEART, CONFIDENT, BREAST, SHY, USELESS])
def test_intervals_hold_at_least_nine_times_in_ten(cohort: Cohort, sigma: float, settled: bool) -> None:
    _, inside = simulate(cohort, sigma, 150, settled, seed=11)
    coverage = {name: float(np.mean(hits)) for name, hits in inside.items()}
    assert coverage["auroc"] >= 0.90
    # Brier score and loss also depend on where scores lie inside a bin, which no histogram tells.
    assert min(coverage.values()) >= 0.85


PUBLISHED = [(SIGMA_ONE_FINAL, 0.025), (SIGMA_HALF_FINAL, 0.032), (SIGMA_LIVE, 0.056)]  # PRIVACY.md


@pytest.mark.parametrize(("sigma", "published"), PUBLISHED)
def test_the_error_is_near_the_published_one_at_254_patients(sigma: float, published: float) -> None:
    errors, _ = simulate(HEART, sigma, 300, settled=False, seed=7)
    rmse = math.sqrt(float(np.mean(np.square(errors["auroc"]))))
    assert rmse < 1.25 * published


def test_without_noise_the_bins_cost_little() -> None:
    errors, _ = simulate(HEART, 0.0, 200, settled=True, seed=3)
    assert np.abs(errors["auroc"]).mean() < 0.008
    assert abs(np.mean(errors["auroc"])) < 0.004


def test_an_interval_that_ignored_the_noise_would_fail() -> None:
    rng = np.random.default_rng(5)
    sd = 2 * SIGMA_LIVE
    draws = [counted(*HEART.draw(rng), FIRST_EDGES, sd, rng) for _ in range(300)]
    told = [evaluate(c, sd**2, FIRST_EDGES).auroc for c in draws]
    untold = [evaluate(c, 0.0, FIRST_EDGES).auroc for c in draws]

    def coverage(estimates: list[Estimate | None]) -> float:
        return float(np.mean([e is not None and e.low <= 0.885 <= e.high for e in estimates]))

    assert coverage(told) > 0.92
    assert coverage(untold) < 0.88


def test_perfect_and_reversed_models() -> None:
    perfect = np.zeros((2, BINS), dtype=np.int64)
    perfect[0, 0] = perfect[1, -1] = 100
    result = evaluate(perfect, 0.0, FIRST_EDGES).auroc
    assert result is not None
    assert result.value == result.high == 1.0
    assert 0.95 < result.low < 1.0  # never certain
    reverse = evaluate(perfect[::-1].copy(), 0.0, FIRST_EDGES).auroc
    assert reverse is not None
    assert reverse.value == reverse.low == 0.0


def test_an_empty_class_is_not_measurable_and_the_rest_is() -> None:
    one_class = np.zeros((2, BINS), dtype=np.int64)
    one_class[1] = 30
    result = evaluate(one_class, 1.0, FIRST_EDGES)
    assert result.auroc is None
    assert result.brier is not None
    assert [m.name for m in result.to_metrics()] == ["brier", "log-loss"]
    nobody = evaluate(np.zeros((2, BINS), dtype=np.int64), 4.0, FIRST_EDGES)
    assert nobody.to_metrics() == ()


def test_noise_as_large_as_the_counts_is_not_measurable() -> None:
    counts = np.full((2, BINS), 5, dtype=np.int64)
    assert evaluate(counts, 1.0, FIRST_EDGES).auroc is not None
    assert evaluate(counts, 100.0, FIRST_EDGES).auroc is None


@given(
    st.lists(st.integers(-(2**40), 2**40), min_size=2 * BINS, max_size=2 * BINS),
    st.floats(0, 1e12),
    st.lists(st.integers(1, 999_999), min_size=BINS - 1, max_size=BINS - 1, unique=True),
)
def test_any_histogram_gives_sensible_figures_and_edges(
    cells: list[int], variance: float, cuts: list[int]
) -> None:
    counts = np.array(cells, dtype=np.int64).reshape(2, BINS)
    edges = tuple(c / 1e6 for c in sorted(cuts))
    result = evaluate(counts, variance, edges)
    for estimate, most in ((result.auroc, 1.0), (result.brier, 1.0), (result.log_loss, math.inf)):
        if estimate is not None:
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= most
            assert math.isfinite(estimate.high)
    result.to_metrics()
    following = next_edges(counts, variance, edges)
    evaluate(counts, variance, following)  # they are edges
    assert all(f"{e:.6f}" == f"{float(f'{e:.6f}'):.6f}" and float(f"{e:.6f}") == e for e in following)


def test_edges_move_to_where_the_classes_overlap() -> None:
    rng = np.random.default_rng(2)
    edges = FIRST_EDGES
    for _ in range(3):
        edges = next_edges(
            counted(*SHY.draw(rng), edges, 2 * SIGMA_HALF_FINAL, rng), 4 * SIGMA_HALF_FINAL**2, edges
        )
    assert 0.36 < edges[0] < edges[-1] < 0.65
    pure_noise = next_edges(np.zeros((2, BINS), dtype=np.int64), 100.0, FIRST_EDGES)
    assert np.allclose(pure_noise, FIRST_EDGES, atol=1e-5)


def test_published_intervals_are_rounded_outwards() -> None:
    metric = Estimate(value=0.88125, low=0.80009, high=0.99991).to_metric("auroc")
    assert (metric.value, metric.low, metric.high) == ("0.8812", "0.8", "1")
    tiny = Estimate(value=1e-9, low=0.0, high=1e-9).to_metric("brier")
    assert (tiny.value, tiny.low, tiny.high) == ("0", "0", "0.0001")


def test_the_noise_of_hospitals_adds_up_with_its_rounding() -> None:
    assert noise_variance(["2", "3"]) == pytest.approx(13 + 2 / 12)
    assert noise_variance([]) == 0.0


WRONG: list[Callable[[], object]] = [
    lambda: evaluate(np.zeros((2, 5), dtype=np.int64), 1.0, FIRST_EDGES),
    lambda: evaluate(np.zeros((2, BINS)), 1.0, FIRST_EDGES),  # type: ignore[arg-type]
    lambda: evaluate(np.zeros((2, BINS), dtype=np.int64), -1.0, FIRST_EDGES),
    lambda: evaluate(np.zeros((2, BINS), dtype=np.int64), math.nan, FIRST_EDGES),
    lambda: evaluate(np.zeros((2, BINS), dtype=np.int64), 1.0, FIRST_EDGES[:-1]),
    lambda: evaluate(np.zeros((2, BINS), dtype=np.int64), 1.0, (0.0, 0.2, 0.4, 0.6, 0.8)),
    lambda: evaluate(np.zeros((2, BINS), dtype=np.int64), 1.0, (0.1, math.nan, 0.4, 0.6, 0.8)),
    lambda: next_edges(np.zeros((2, BINS), dtype=np.int64), 1.0, (0.1, 0.2, 0.2, 0.6, 0.8)),
    lambda: next_edges(np.zeros((2, BINS), dtype=np.int64), -1.0, FIRST_EDGES),
]


@pytest.mark.parametrize("call", WRONG)
def test_what_does_not_fit_together_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(MetricsError):
        call()
