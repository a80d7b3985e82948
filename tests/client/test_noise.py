"""The discrete Gaussian: its law against exact probabilities, its tails, and its exact path near ties."""

from __future__ import annotations

import decimal
import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from client import noise
from client.noise import discrete_gaussian
from client.randomness import seeded_for_tests

SMALL = [Fraction(1, 3), Fraction(1, 2), Fraction(1), Fraction("1.37"), Fraction(37, 10), Fraction(50)]


def law(sigma: Fraction, reach: int) -> NDArray[np.float64]:
    """Probabilities of -reach..reach."""
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * float(sigma) ** 2))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def chi_square(sample: NDArray[np.int64], sigma: Fraction) -> float:
    reach = math.ceil(12 * sigma) + 3
    expected = law(sigma, reach) * len(sample)
    observed = np.bincount(sample + reach, minlength=2 * reach + 1)
    usual = expected >= 10
    expected = np.append(expected[usual], expected[~usual].sum())
    observed = np.append(observed[usual], observed[~usual].sum())
    if expected[-1] < 5:
        expected, observed = expected[:-1], observed[:-1]
        expected *= observed.sum() / expected.sum()
    assert len(expected) > 1, "too few numbers to compare"
    return float(stats.chisquare(observed, expected).pvalue)


@pytest.mark.parametrize("sigma", SMALL)
def test_small_sigma_follows_the_exact_probabilities(sigma: Fraction) -> None:
    assert chi_square(discrete_gaussian(sigma, 200_000, seeded_for_tests(11)), sigma) > 1e-3


@pytest.mark.parametrize("sigma", SMALL[:-1])
def test_exact_path_alone_follows_the_same_law(sigma: Fraction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_MARGIN", 2.0)  # every comparison is "near a tie": float64 decides nothing
    assert chi_square(discrete_gaussian(sigma, 500, seeded_for_tests(12)), sigma) > 1e-3


@pytest.mark.parametrize("sigma", [Fraction(1000), Fraction(2**20), Fraction(2**40) + Fraction(1, 7)])
def test_large_sigma_is_the_rounded_normal_law(sigma: Fraction) -> None:
    sample = discrete_gaussian(sigma, 200_000, seeded_for_tests(13)) / float(sigma)
    assert stats.kstest(sample, "norm").pvalue > 1e-3
    assert abs(sample.mean()) < 4 / math.sqrt(200_000)
    assert abs(sample.var() - 1) < 4 * math.sqrt(2 / 200_000)
    assert abs(stats.kurtosis(sample)) < 4 * math.sqrt(24 / 200_000)


def test_low_bits_are_uniform_so_no_grid_shows_through() -> None:
    sample = discrete_gaussian(Fraction(2**40), 100_000, seeded_for_tests(14))
    assert stats.chisquare(np.bincount(sample & 15)).pvalue > 1e-3


def test_tails_beyond_three_and_four_sigma() -> None:
    sample = np.abs(discrete_gaussian(Fraction(2**20), 1_000_000, seeded_for_tests(15)))
    for distance in (3, 4):
        expected = 1_000_000 * math.erfc(distance / math.sqrt(2))
        assert abs(int((sample > distance * 2**20).sum()) - expected) < 4 * math.sqrt(expected)
    assert sample.max() < 7 * 2**20


def test_neighbours_are_independent() -> None:
    sample = discrete_gaussian(Fraction(2**20), 100_000, seeded_for_tests(16)) / 2**20
    for lag in (1, 2, 7):
        assert abs(float((sample[:-lag] * sample[lag:]).mean())) < 4 / math.sqrt(100_000)


def test_geometric_part_crosses_the_exact_path_in_its_tail() -> None:
    sample = noise._geometric(1_000_000, seeded_for_tests(17))
    for k in (1, 5, 10, 12):
        expected = 1_000_000 * math.exp(-k)
        assert abs(int((sample >= k).sum()) - expected) < 4 * math.sqrt(expected)


@pytest.mark.parametrize("gamma", [Fraction(1, 10**9), Fraction(1, 3), Fraction(1), Fraction(700, 9)])
def test_bounds_enclose_the_exponential_and_are_tight(gamma: Fraction) -> None:
    low, high = noise._exp_bounds(gamma, 40)
    with decimal.localcontext(decimal.Context(prec=120)):
        exact = Fraction((decimal.Decimal(-gamma.numerator) / gamma.denominator).exp())
    assert low < exact < high
    assert high - low < Fraction(1, 10**39)


def test_tie_in_the_known_bits_is_settled_by_further_bits() -> None:
    gamma = Fraction(1, 3)
    low, _ = noise._exp_bounds(gamma, 60)
    prefix = math.floor(low * 2**52)  # the 52 known bits are those of exp(-1/3): further ones decide
    assert Fraction(1, 5) < low * 2**52 - prefix < Fraction(4, 5)
    answers = {noise._LazyUniform(prefix, seeded_for_tests(seed)).below_exp(gamma) for seed in range(40)}
    assert answers == {True, False}
    assert noise._LazyUniform(prefix - 1, seeded_for_tests(0)).below_exp(gamma)
    assert not noise._LazyUniform(prefix + 1, seeded_for_tests(0)).below_exp(gamma)


def test_any_count_and_repeatable_from_a_seed() -> None:
    for count in (0, 1, 21, 40_000):
        sample = discrete_gaussian(Fraction(3), count, seeded_for_tests(1))
        assert sample.dtype == np.int64
        assert sample.shape == (count,)
        assert (sample == discrete_gaussian(Fraction(3), count, seeded_for_tests(1))).all()


@pytest.mark.parametrize("sigma", [Fraction(0), Fraction(-1), Fraction(2**44 + 1)])
def test_impossible_sigma_is_refused(sigma: Fraction) -> None:
    with pytest.raises(ValueError, match="sigma"):
        discrete_gaussian(sigma, 1, seeded_for_tests(1))
