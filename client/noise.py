"""Exact discrete Gaussian noise on the integers: P(x) proportional to exp(-x^2 / (2 sigma^2)).

Rejection from the discrete Laplace law, as in Canonne, Kamath and Steinke, "The Discrete Gaussian
for Differential Privacy" (NeurIPS 2020, arXiv 2004.00010), Algorithms 2 and 3; its section 2 shows
that noise of scale sigma on integer sums of L2 sensitivity s is (s/sigma)^2/2-concentrated private,
as the continuous Gaussian is.

Precision: none is lost. Every coin of probability exp(-g), with g rational, is tossed by comparing
a uniform real number with exp(-g), of which 52 bits are drawn at first. Float64 decides only where
the comparison is further than `_MARGIN` = 2^-30 from a tie, while the float error of g, exp and log
is below 2^-40; nearer than that the same number is extended by 64 bits at a time and compared with
exact rational bounds of exp(-g) (`decimal`, correctly rounded). So no sample depends on a rounding
error or on the platform's exp, and sigma^2 is a fraction throughout.
"""

from __future__ import annotations

import decimal
import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from client.randomness import Randomness

MAX_SIGMA = 2**44  # far above: |x| < 2^53 keeps float64 integers exact, and sums stay inside int64
_PREFIX_BITS = 52
_MARGIN = 2.0**-30  # distance from a tie below which float64 does not decide
_BLOCK = 2**14  # candidates at a time: the arrays stay in the processor's cache
_SMALL = 2.0**-20  # below this a 52-bit prefix says too little about its logarithm


class _LazyUniform:
    """A uniform real in [0, 1) of which the first bits are known and further ones drawn when needed."""

    def __init__(self, prefix: int, randomness: Randomness) -> None:
        self._prefix = prefix
        self._bits = _PREFIX_BITS
        self._randomness = randomness

    def below_exp(self, gamma: Fraction) -> bool:
        """Tell whether the number is below exp(-gamma), gamma >= 0, exactly."""
        if gamma == 0:
            return True
        while True:
            low, high = _exp_bounds(gamma, self._bits // 3 + 20)
            if Fraction(self._prefix + 1, 1 << self._bits) <= low:
                return True
            if Fraction(self._prefix, 1 << self._bits) >= high:
                return False
            self._prefix = (self._prefix << 64) | self._randomness.word()
            self._bits += 64


def _exp_bounds(gamma: Fraction, digits: int) -> tuple[Fraction, Fraction]:
    """Return rationals low < exp(-gamma) < high, about 10^-digits apart; `Decimal.exp` is correctly rounded."""
    context = decimal.Context(prec=digits + 10)
    scale = 10 ** (digits + 5)
    floor = gamma.numerator * scale // gamma.denominator
    smallest = context.divide(decimal.Decimal(-floor - 1), decimal.Decimal(scale))
    largest = context.divide(decimal.Decimal(-floor), decimal.Decimal(scale))
    low = context.next_minus(context.exp(context.next_minus(smallest)))
    high = context.next_plus(context.exp(context.next_plus(largest)))
    return Fraction(low), Fraction(high)


def _prefixes(count: int, randomness: Randomness) -> NDArray[np.uint64]:
    return randomness.words(count) >> np.uint64(64 - _PREFIX_BITS)


def _geometric(count: int, randomness: Randomness) -> NDArray[np.int64]:
    """Return v with P(v >= k) = exp(-k), shape (count,): the whole part of a discrete Laplace number."""
    prefix = _prefixes(count, randomness)
    # The number lies in [u, u + 2^-52); the half step centres it and keeps the logarithm finite.
    exponent = -np.log((prefix.astype(np.float64) + 0.5) * 2.0**-_PREFIX_BITS)
    value = np.floor(exponent)
    fraction = exponent - value
    unsure = (fraction < _MARGIN) | (fraction > 1 - _MARGIN) | (exponent > -math.log(_SMALL))
    for i in np.flatnonzero(unsure):
        uniform, k = _LazyUniform(int(prefix[i]), randomness), 0
        while uniform.below_exp(Fraction(k + 1)):
            k += 1
        value[i] = k
    return value.astype(np.int64)


def _accepted(
    part: NDArray[np.int64], size: NDArray[np.int64], scale: int, variance: Fraction, randomness: Randomness
) -> NDArray[np.bool_]:
    """Toss, for each candidate, the coin of probability exp(-part/scale - (size - variance/scale)^2/(2 variance)).

    The first term finishes the discrete Laplace number (Algorithm 2), the second turns it into a
    discrete Gaussian one (Algorithm 3): two coins in a row are one coin of the product.
    """
    centre, sigma = float(variance / scale), math.sqrt(variance)
    gamma = part / scale + ((size - centre) / sigma) ** 2 / 2
    prefix = _prefixes(len(part), randomness)
    gap = np.exp(-gamma) - prefix.astype(np.float64) * 2.0**-_PREFIX_BITS
    accepted: NDArray[np.bool_] = gap > 0
    for i in np.flatnonzero(np.abs(gap) < _MARGIN):
        exact = Fraction(int(part[i]), scale) + (int(size[i]) - variance / scale) ** 2 / (2 * variance)
        accepted[i] = _LazyUniform(int(prefix[i]), randomness).below_exp(exact)
    return accepted


def _candidates(count: int, variance: Fraction, randomness: Randomness) -> NDArray[np.int64]:
    """Return the accepted ones among `count` candidates."""
    # Any scale gives the right law; a power of two near sigma draws the part of a number without bias
    # by masking, and keeps about half of the candidates.
    scale = 1 << max(0, round(math.log2(math.sqrt(variance))))
    words = randomness.words(count)
    part = (words & np.uint64(scale - 1)).astype(np.int64)
    negative = (words >> np.uint64(63)).astype(np.bool_)
    size = part + scale * _geometric(count, randomness)
    keep = _accepted(part, size, scale, variance, randomness)
    keep &= ~(negative & (size == 0))  # zero has one sign, or it would count twice
    signed: NDArray[np.int64] = np.where(negative, -size, size)[keep]
    return signed


def discrete_gaussian(sigma: Fraction, count: int, randomness: Randomness) -> NDArray[np.int64]:
    """Draw independent discrete Gaussian integers.

    Args:
        sigma: Scale in units of the grid, 0 < sigma <= MAX_SIGMA; close to the standard deviation
            from 1 upwards, and above it below.
        count: How many, >= 0.
        randomness: Where the bits come from.

    Returns:
        int64 array of shape (count,).

    Raises:
        ValueError: sigma is out of range.
    """
    if not 0 < sigma <= MAX_SIGMA:
        raise ValueError(f"sigma must be above 0 and at most {MAX_SIGMA}, not {float(sigma):g}")
    variance = sigma * sigma
    drawn = np.empty(count, dtype=np.int64)
    filled = 0
    while filled < count:
        wanted = (count - filled) * 9 // 4 + 64  # a little under half of the candidates are kept
        found = _candidates(min(wanted, _BLOCK), variance, randomness)[: count - filled]
        drawn[filled : filled + len(found)] = found
        filled += len(found)
    return drawn
