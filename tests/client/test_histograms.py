"""Score histograms: one shape whatever the scores are, and one patient moves one count by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.histograms import BINS, SENSITIVITY, count_noise, score_histogram
from client.randomness import seeded_for_tests

EDGES = (0.1, 0.3, 0.5, 0.7, 0.9)
SCORES = st.floats(0, 1) | st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30, -1.0])


def silence(count: int) -> NDArray[np.int64]:
    return np.zeros(count, dtype=np.int64)


def histogram(scores: list[float], labels: list[int]) -> NDArray[np.int64]:
    return score_histogram(
        np.array(scores, dtype=np.float32), np.array(labels, dtype=np.int64), EDGES, silence
    )


def test_counts_by_class_and_bin() -> None:
    counted = histogram([0.0, 0.05, 0.1, 0.6, 0.95, 1.0], [0, 1, 0, 1, 1, 1])
    assert counted.dtype == np.int64
    assert counted.tolist() == [[1, 1, 0, 0, 0, 0], [1, 0, 0, 1, 0, 2]]


@pytest.mark.parametrize(("scores", "labels"), [([], []), ([0.4], [1]), ([float("nan")] * 3, [0, 0, 0])])
def test_an_empty_side_or_one_class_is_a_message_like_any_other(
    scores: list[float], labels: list[int]
) -> None:
    counted = histogram(scores, labels)
    assert counted.shape == (2, BINS)
    assert counted.dtype == np.int64
    assert counted.sum() == len(scores)


@given(st.lists(st.tuples(SCORES, st.integers(0, 1)), max_size=20), SCORES, st.integers(0, 1))
def test_one_patient_moves_the_noiseless_counts_by_the_sensitivity(
    others: list[tuple[float, int]], score: float, label: int
) -> None:
    scores, labels = [s for s, _ in others], [y for _, y in others]
    difference = histogram([*scores, score], [*labels, label]) - histogram(scores, labels)
    assert np.sqrt((difference**2).sum()) == SENSITIVITY


def test_every_cell_gets_its_own_noise_of_the_stated_size() -> None:
    noise = count_noise("3.5", seeded_for_tests(1))
    empty = np.array([], dtype=np.float64)
    drawn = np.stack([score_histogram(empty, empty.astype(np.int64), EDGES, noise) for _ in range(2000)])
    assert np.allclose(drawn.var(axis=0), 3.5**2 + 1 / 12, rtol=0.2)
    assert np.abs(drawn.mean(axis=0)).max() < 4 * 3.5 / np.sqrt(2000)
    correlation = np.corrcoef(drawn.reshape(2000, -1).T)
    assert np.abs(correlation - np.eye(2 * BINS)).max() < 0.12


NOT_EDGES = [
    (0.5,),
    (0.1, 0.3, 0.3, 0.7, 0.9),
    (0.9, 0.7, 0.5, 0.3, 0.1),
    (0.1, 0.3, float("nan"), 0.7, 0.9),
]


@pytest.mark.parametrize("edges", NOT_EDGES)
def test_edges_that_are_no_edges_are_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="5 increasing edges"):
        score_histogram(np.array([0.5]), np.array([1]), edges, silence)
