"""The bars of a calibration curve: the share's interval holds the truth as often as it says."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from client.notebook.calibration import bars


def test_counts_without_noise_give_plain_shares() -> None:
    low, high = bars([[30, 20], [10, 60]], [0.4], 0.0)
    assert (low.predicted, low.observed, low.patients) == (0.2, 0.25, 40)
    assert (high.predicted, high.observed, high.patients) == (0.7, 0.75, 80)
    assert low.low is not None
    assert low.high is not None
    assert round(low.high - low.low, 2) == round(2 * 1.96 * (0.25 * 0.75 / 40) ** 0.5, 2)


def test_a_bin_that_the_noise_has_emptied_has_no_bar() -> None:
    (bar,) = bars([[-3, 5], [2, -4]], [0.5], 9.0)
    assert (bar.observed, bar.low, bar.high) == (0.0, 0.0, 1.0)


@given(st.lists(st.integers(-50, 500), min_size=12, max_size=12), st.floats(0, 1e4))
def test_shares_and_intervals_are_shares(counts: list[int], variance: float) -> None:
    for bar in bars([counts[:6], counts[6:]], [0.1, 0.2, 0.4, 0.6, 0.8], variance):
        assert bar.low is not None
        assert bar.high is not None
        assert 0 <= bar.low <= bar.observed <= bar.high <= 1
        assert bar.patients > 0


def test_the_interval_holds_the_true_share_about_as_often_as_it_says() -> None:
    draw, held, trials = random.Random(7), 0, 2000
    for _ in range(trials):
        share = draw.uniform(0.05, 0.95)
        positive = sum(draw.random() < share for _ in range(80))
        counts = [[80 - positive + draw.gauss(0, 4)], [positive + draw.gauss(0, 4)]]
        (bar,) = bars(counts, [], 16.0)
        assert bar.low is not None
        assert bar.high is not None
        held += bar.low <= share <= bar.high
    assert 0.93 <= held / trials <= 0.98
