"""Rényi divergences of one Gaussian release, sampled or not, for "add or remove one patient".

Follows Mironov, Talwar & Zhang 2019 ("Rényi differential privacy of the sampled Gaussian mechanism"): with
l(x) = (2x - 1) / 2 sigma^2, the moment E[(1 - q + q exp l(x))^order] over x ~ N(0, sigma^2) bounds both directions
(its theorem 5). Written in the standard library, so that an agent needs no numerical package to check its
account. Turning divergences into epsilons is left to `client.accounting`.
"""

from __future__ import annotations

import math
from functools import lru_cache

ORDERS = (
    *(1 + tenth / 10 for tenth in range(1, 50)),
    *(6.0, 6.5, 7.0, 7.5),
    *(float(order) for order in (*range(8, 33), 36, 40, 48, 56, 64, 80, 96, 128, 192, 256, 384, 512, 1024)),
)  # offered; a dataset's own order is written in its account, so this list may change


def gaussian_divergence(noise: float, order: float) -> float:
    """Return the Rényi divergence at `order` > 1 of one release without sampling (Mironov 2017, proposition 7)."""
    return order / (2 * noise * noise)


@lru_cache(maxsize=65536)
def sampled_divergence(noise: float, rate: float, order: float) -> float:
    """Return the Rényi divergence at `order` > 1 of one release with Poisson sampling, 0 < rate < 1."""
    terms = _binomial(noise, rate, int(order)) if order == int(order) else _integral(noise, rate, order)
    top = max(terms)
    if top == -math.inf:
        return 0.0
    excess = top + math.log(math.fsum(math.exp(x - top) for x in terms))  # ln(moment - 1)
    moment = excess + math.log1p(math.exp(-excess)) if excess > 0 else math.log1p(math.exp(excess))
    return moment / (order - 1)


def _binomial(noise: float, rate: float, order: int) -> list[float]:
    """Return logarithms of terms that sum to the moment less 1, exactly.

    The sum over k of C(order, k) (1-q)^(order-k) q^k (exp((k^2-k) / 2 sigma^2) - 1): the terms of k = 0 and 1
    vanish, and nothing cancels where the divergence is tiny.

    Source: Mironov, Talwar & Zhang 2019, section 3.3.
    """
    terms = []
    for k in range(2, order + 1):
        power = (k * k - k) / (2 * noise * noise)
        log_power = math.log(math.expm1(power)) if power < 30 else power + math.log1p(-math.exp(-power))
        choose = math.lgamma(order + 1) - math.lgamma(k + 1) - math.lgamma(order - k + 1)
        terms.append(choose + (order - k) * math.log1p(-rate) + k * math.log(rate) + log_power)
    return terms


def _integral(noise: float, rate: float, order: float) -> list[float]:
    """Return logarithms of terms that sum to the moment less 1, to about 12 digits, by the trapezoidal rule.

    The rule is exponentially accurate here: Gaussian decay, and no singularity within pi sigma^2 of the real
    line (Trefethen & Weideman 2014, theorem 5.1). E[exp l] = 1, so order q (exp l - 1) may be taken off inside
    the integral, which leaves positive terms only.
    """
    step = min(noise / 2.2, noise * noise / 2)
    low, high = math.floor(-12 * noise / step), math.ceil((order + 12 * noise) / step)
    scale = math.log(step / (noise * math.sqrt(2 * math.pi)))
    terms = []
    for i in range(low, high + 1):
        x = i * step
        log_part = _log_excess(rate, (2 * x - 1) / (2 * noise * noise), order)
        terms.append(scale - x * x / (2 * noise * noise) + log_part)
    return terms


def _log_excess(rate: float, loss: float, order: float) -> float:
    """Return ln((1 + u)^order - 1 - order u) with u = rate (exp(loss) - 1)."""
    if loss > 30:  # 1 + order u is left in, in favour of the patient
        return order * (math.log(rate) + loss + math.log1p((1 - rate) / rate * math.exp(-loss)))
    u = rate * math.expm1(loss)
    if abs(u) > 1e-3:
        part = math.expm1(order * math.log1p(u)) - order * u
    else:  # Taylor: the difference of nearly equal numbers
        part = u * u * order * (order - 1) / 2 * (1 + u * (order - 2) / 3 * (1 + u * (order - 3) / 4))
    return math.log(part) if part > 0 else -math.inf
