"""Choosing noise: the least that keeps a job within its target and a dataset within its lifetime budget.

A hospital's noise is fixed once, at its approval, and stands on the record as a decimal of four digits, rounded
up. The job's target is met by `accounting.job_epsilon`, what is left of the account by the filter
(`accounting.fits`); the larger noise wins. Sensitivities are 1: one patient moves a sum of clipped gradients by
at most the clip norm, and one count of a histogram by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, Decimal

from client.accounting import (
    MIN_NOISE_MULTIPLIER,
    Event,
    Lifetime,
    divergence,
    filter_spent,
    fits,
    gaussian_delta,
    job_epsilon,
    round_up,
    spell,
)
from client.errors import BudgetError

LARGEST_NOISE = 1000.0  # more than this leaves nothing to learn from: the plan is refused instead
_PRECISION = 2e-4  # relative, of a search; the record's four digits come on top


def choose_noise(
    *,
    target_epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    lifetime: Lifetime,
    spent: Sequence[Event] = (),
) -> str:
    """Return the smallest noise multiplier that a job may use, as a record spells it.

    Args:
        target_epsilon: The job's target at `delta`, > 0.
        delta: The job's delta.
        sample_rate: Probability that a patient takes part in a step; 1 is the full batch.
        steps: Releases in the whole job: rounds times local steps.
        lifetime: The dataset's budget.
        spent: What was released before from the same side of the dataset.

    Returns:
        A decimal with up to four digits after the point; `float` of it is what `Event` takes.

    Raises:
        BudgetError: the target or the account cannot be met; says the best epsilon that can be.
    """
    if not target_epsilon > 0:
        raise BudgetError(f"a target epsilon must be above 0, not {target_epsilon}")

    def plan(noise: float) -> Event:
        return Event(noise_multiplier=noise, sample_rate=sample_rate, count=steps)

    best = job_epsilon([plan(LARGEST_NOISE)], delta)
    if best > target_epsilon:
        raise _unreachable(target_epsilon, f"{steps} steps at sample rate {sample_rate}", best, delta)
    left = _left(lifetime, spent)
    noise = _least_noise(lambda x: divergence(plan(x), lifetime.order) <= left, MIN_NOISE_MULTIPLIER)
    if noise is None:
        raise _exhausted(lifetime)
    if sample_rate == 1:  # compose exactly: invert the closed form
        noise = max(noise, math.sqrt(steps) / gaussian_mu_for(target_epsilon, delta))
    elif job_epsilon([plan(noise)], delta) > target_epsilon:
        noise = (
            _least_noise(lambda x: job_epsilon([plan(x)], delta) <= target_epsilon, noise) or LARGEST_NOISE
        )
    return _settle(
        noise, lambda x: job_epsilon([plan(x)], delta) <= target_epsilon and fits([*spent, plan(x)], lifetime)
    )


def evaluation_noise(
    *, target_epsilon: float, delta: float, lifetime: Lifetime, spent: Sequence[Event] = (), live: int = 4
) -> tuple[str, str]:
    """Return the noise of each histogram during a job and of the released model's, as records spell them.

    Gaussian releases add up in mu^2 = 1/sigma^2: the final one gets half, `live` ones share the other half.

    Args:
        target_epsilon: The job's target for held-out patients at `delta`, > 0.
        delta: The job's delta.
        lifetime: The dataset's budget.
        spent: What was released before from the held-out side.
        live: Evaluations during the job; 0 leaves everything to the final one.

    Returns:
        (noise of each live one, noise of the final one); equal if `live` is 0.

    Raises:
        BudgetError: the target or the account cannot be met; says the best epsilon that can be.
    """
    if not target_epsilon > 0 or live < 0:
        raise BudgetError(f"{live} evaluations at epsilon {target_epsilon}: a target must be above 0")
    ratio = math.sqrt(live) if live else 1.0  # of a live one's noise to the final one's

    def plan(final: float) -> list[Event]:
        events = [Event(noise_multiplier=final, sample_rate=1.0, count=1)]
        if live:
            shared = Event(noise_multiplier=float(_four_digits(final * ratio)), sample_rate=1.0, count=live)
            events.append(shared)
        return events

    best = job_epsilon(plan(LARGEST_NOISE / ratio), delta)
    if best > target_epsilon:
        raise _unreachable(target_epsilon, f"{live + 1} evaluations", best, delta)
    left = _left(lifetime, spent)
    if left <= 0:
        raise _exhausted(lifetime)
    mu = min(gaussian_mu_for(target_epsilon, delta), math.sqrt(2 * left / lifetime.order))
    noise = max((math.sqrt(2) if live else 1.0) / mu, MIN_NOISE_MULTIPLIER)
    if noise * ratio > LARGEST_NOISE:
        raise _exhausted(lifetime)
    final = _settle(
        noise, lambda x: job_epsilon(plan(x), delta) <= target_epsilon and fits([*spent, *plan(x)], lifetime)
    )
    return spell(_four_digits(float(final) * ratio)), final


def gaussian_mu_for(epsilon: float, delta: float) -> float:
    """Return the largest mu (1/sigma) of a Gaussian mechanism that is (epsilon, delta)-DP, from below."""
    low, high = 0.0, 1.0
    while gaussian_delta(epsilon, high) <= delta:
        low, high = high, 2 * high
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(epsilon, middle) <= delta else (low, middle)
    return low


def _left(lifetime: Lifetime, spent: Sequence[Event]) -> float:
    """Return the Rényi divergence, at the filter's order, that may still be released; may be negative."""
    return lifetime.limit - filter_spent(spent, lifetime.order)


def _unreachable(target: float, plan: str, best: float, delta: float) -> BudgetError:
    return BudgetError(
        f"epsilon {target} cannot be reached by {plan}: the best is {round_up(best)} at delta {delta} (add/remove "
        "one patient); take fewer of them or a larger epsilon"
    )


def _exhausted(lifetime: Lifetime) -> BudgetError:
    return BudgetError(
        f"what is left of the lifetime budget of epsilon {lifetime.epsilon} at delta {lifetime.delta} (add/remove "
        "one patient) does not pay for this plan with any useful noise: take fewer steps, or none from this dataset"
    )


def _least_noise(holds: Callable[[float], bool], low: float) -> float | None:
    """Return the least noise from `low` on at which a condition holds, to `_PRECISION`, or None."""
    if holds(low):
        return low
    high = low
    while not holds(high):
        if high >= LARGEST_NOISE:
            return None
        low, high = high, min(1.5 * high, LARGEST_NOISE)
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _four_digits(noise: float) -> Decimal:
    return Decimal(noise).quantize(Decimal("0.0001"), ROUND_CEILING)


def _settle(noise: float, holds: Callable[[float], bool]) -> str:
    """Round up to four digits, and on while rounding errors leave the number on the record just short."""
    rounded = _four_digits(noise)
    while not holds(float(rounded)):
        rounded += Decimal("0.0001")
    return spell(rounded)
