"""What releases cost: events in, epsilons out, for the relation "add or remove one patient".

Follows the accounting part of PRIVACY.md. An account keeps events (mechanism, sampling, count), never an
epsilon. Two questions have two answers:

- `job_epsilon`: what a plan fixed in advance costs. The privacy loss distribution of dp-accounting, rounded
  pessimistically (Doroshenko et al. 2022); where nothing is sampled, the closed form of the Gaussian
  mechanism (Balle & Wang 2018).
- `fits`: whether one more release is allowed when each job was chosen after seeing the answers of earlier
  ones. An epsilon computed afterwards is not a proof then, and neither is the best of many Rényi orders
  chosen afterwards: another history would choose another order, so a bound holds for each order but not for
  the choice. (The PLD of what was released is invalid as a stopping rule for the same reason: Rogers et al.
  2016; natural filters are not free.) So the order is fixed when the dataset is registered, from its budget
  alone. At one fixed order, stopping before the sum of Rényi divergences exceeds its limit makes the whole
  history (order, limit)-RDP, however it was chosen (Feldman & Zrnic 2021; Lécuyer 2021), and any
  conversion of that to (epsilon, delta) is valid, the tight one too (Canonne, Kamath & Steinke 2020,
  proposition 12). `filter_order` takes the order that admits most Gaussian releases.

`filter_epsilon` is what is shown of an account: its Rényi composition, at the best order. It is never below
the PLD, and never above the lifetime epsilon in an account stopped by `fits`; what is proved for adaptively
chosen jobs is the lifetime budget itself.

Noise is the discrete Gaussian of `client.noise`. Its Rényi divergences are at most the Gaussian's (Canonne et al.
2020, theorem 4), but not its epsilon: on a coarse grid that lies up to 0.1 above the closed form at epsilon 3 (1.2
at 15). So the norm bound must be at least `MIN_GRID_UNITS` grid units, where the two differ by 1e-6 (1e-4); counts
get noise from such a grid and are rounded afterwards, which costs no privacy.

Divergences are `client.renyi`'s, choosing noise is `client.plan`'s, keeping the account is `client.budget`'s.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache, reduce

from client.errors import BudgetError
from client.renyi import ORDERS, gaussian_divergence, sampled_divergence
from ledger.values import Mechanism

MIN_NOISE_MULTIPLIER = 0.1  # below it there is no privacy to account for, and the loss grids grow without use
MAX_NOISE_MULTIPLIER = 1e6
MIN_GRID_UNITS = 256  # how many units of the noise's grid the norm bound must hold; see above


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Event:
    """`count` releases of one mechanism to which a patient adds a vector of norm at most 1.

    Attributes:
        noise_multiplier: Standard deviation of the noise over the norm bound.
        sample_rate: Probability that a patient takes part, Poisson; 1 is the full batch.
        count: How many releases, >= 1.
    """

    noise_multiplier: float
    sample_rate: float
    count: int

    def __post_init__(self) -> None:
        if not MIN_NOISE_MULTIPLIER <= self.noise_multiplier <= MAX_NOISE_MULTIPLIER:  # NaN fails too
            raise BudgetError(
                f"a noise multiplier must be from {MIN_NOISE_MULTIPLIER} to 1000000, not {self.noise_multiplier}"
            )
        if not 0 < self.sample_rate <= 1:
            raise BudgetError(f"a sample rate must be above 0 and at most 1, not {self.sample_rate}")
        if type(self.count) is not int or self.count < 1:
            raise BudgetError(f"a count of releases must be a whole number from 1, not {self.count!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """What a dataset may ever spend: (epsilon, delta) and the Rényi order at which the filter counts."""

    epsilon: float
    delta: float
    order: float

    def __post_init__(self) -> None:
        if not (0 < self.epsilon < math.inf and 0 < self.delta < 1 and 1 < self.order < math.inf):
            raise BudgetError(f"({self.epsilon}, {self.delta}) at order {self.order} is no privacy budget")

    @property
    def limit(self) -> float:
        """The Rényi divergence that all releases together may reach; 0 or less admits none."""
        return self.epsilon - _conversion(self.order, self.delta)


def event_of(mechanism: Mechanism) -> Event:
    """Return what one message's mechanism, as it stands on the record, costs."""
    return Event(
        noise_multiplier=float(mechanism.noise_multiplier),
        sample_rate=float(mechanism.sample_rate),
        count=mechanism.steps,
    )


def compose(event: Event, times: int) -> Event:
    """Return the event of `times` repetitions; costs exactly what that many single events cost."""
    return Event(
        noise_multiplier=event.noise_multiplier, sample_rate=event.sample_rate, count=event.count * times
    )


def merge(events: Iterable[Event]) -> tuple[Event, ...]:
    """Return the events with equal mechanisms joined, sorted.

    Every epsilon is computed from this form: it depends neither on the order of events nor on how they were
    counted.
    """
    counts: Counter[tuple[float, float]] = Counter()
    for event in events:
        counts[event.noise_multiplier, event.sample_rate] += event.count
    return tuple(
        Event(noise_multiplier=noise, sample_rate=rate, count=count)
        for (noise, rate), count in sorted(counts.items())
    )


def round_up(epsilon: float) -> str:
    """Return the smallest multiple of 0.01 not below `epsilon`, as records spell decimals (no spare zeros)."""
    return spell(Decimal(epsilon).quantize(Decimal("0.01"), ROUND_CEILING))


def spell(number: Decimal) -> str:
    """Return a non-negative decimal as records spell it: no exponent, no spare zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# Gaussian mechanisms: many of them compose exactly into one, of mu = sqrt(sum 1/sigma^2).


def gaussian_mu(events: Iterable[Event]) -> float:
    """Return the mu (1/sigma) of the one Gaussian mechanism that unsampled `events` compose to."""
    return math.sqrt(math.fsum(e.count / e.noise_multiplier**2 for e in merge(events)))


def _log_upper_tail(x: float) -> float:
    """Return ln P(Z > x) of a standard normal Z; the asymptotic series where erfc would underflow."""
    if x < 30:
        return math.log(math.erfc(x / math.sqrt(2)) / 2)
    y = 1 / x**2
    return -x * x / 2 - math.log(x * math.sqrt(2 * math.pi)) + math.log1p(-y * (1 - 3 * y * (1 - 5 * y)))


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Return the smallest delta at which a Gaussian mechanism is (epsilon, delta)-DP.

    Args:
        epsilon: >= 0.
        mu: Sensitivity over standard deviation, > 0.
    Source: Balle & Wang 2018, theorem 8.
    """
    lower, upper = epsilon / mu - mu / 2, epsilon / mu + mu / 2
    return math.exp(_log_upper_tail(lower)) - math.exp(epsilon + _log_upper_tail(upper))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the epsilon of a Gaussian mechanism at `delta`, to 12 digits and from above."""
    if mu == 0 or gaussian_delta(0.0, mu) <= delta:
        return 0.0
    low, high = 0.0, mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta))  # above: zCDP's bound
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if gaussian_delta(middle, mu) <= delta else (middle, high)
    return high


# A job's epsilon: all of its plan was fixed before the first answer.


def job_epsilon(events: Iterable[Event], delta: float) -> float:
    """Return the epsilon at `delta` of releases that were all fixed in advance, from above."""
    if not 0 < delta < 1:
        raise BudgetError(f"delta must be above 0 and below 1, not {delta}")
    merged = merge(events)
    full = gaussian_mu(e for e in merged if e.sample_rate == 1)
    sampled = tuple(e for e in merged if e.sample_rate < 1)
    return _pld_epsilon(sampled, full, delta) if sampled else gaussian_epsilon(full, delta)


def _loss_grid(sampled: tuple[Event, ...]) -> float:
    """Return the step of the loss grid: rounding moves a sum of losses by about step * sqrt(count) / 2.

    That shall be below a tenth of the sum's own spread; measured, it then adds less than 0.006 to epsilon.
    """
    steps = sum(e.count for e in sampled)
    variance = sum(e.count * e.sample_rate**2 * math.expm1(e.noise_multiplier**-2) for e in sampled)
    return min(2e-3, min(max(0.1 * math.sqrt(variance), 0.01), 0.06) / math.sqrt(steps))


@lru_cache(maxsize=256)
def _pld_epsilon(sampled: tuple[Event, ...], full_mu: float, delta: float) -> float:
    from dp_accounting.pld import privacy_loss_distribution as pld  # 2 s to import: only where it is needed

    step = _loss_grid(sampled)
    parts = [
        pld.from_gaussian_mechanism(
            event.noise_multiplier, sampling_prob=event.sample_rate, value_discretization_interval=step
        ).self_compose(event.count)
        for event in sampled
    ]
    if full_mu:
        parts.append(pld.from_gaussian_mechanism(1 / full_mu, value_discretization_interval=step))
    whole = reduce(lambda left, right: left.compose(right), parts)
    return float(whole.get_epsilon_for_delta(delta))


# The lifetime account: later jobs are chosen after seeing earlier answers.


def divergence(event: Event, order: float) -> float:
    """Return the Rényi divergence of all the event's releases together at `order` > 1."""
    noise, rate = event.noise_multiplier, event.sample_rate
    one = gaussian_divergence(noise, order) if rate == 1 else sampled_divergence(noise, rate, order)
    return event.count * one


def _conversion(order: float, delta: float) -> float:
    """Return epsilon less the Rényi divergence (Canonne, Kamath & Steinke 2020, proposition 12)."""
    return math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def filter_order(epsilon: float, delta: float) -> float:
    """Return the order at which a budget admits most Gaussian releases; fixed before the first answer."""
    if not (0 < epsilon < math.inf and 0 < delta < 1):
        raise BudgetError(f"({epsilon}, {delta}) is no privacy budget")
    return max(ORDERS, key=lambda order: (epsilon - _conversion(order, delta)) / order)


def filter_spent(events: Iterable[Event], order: float) -> float:
    """Return the Rényi divergence at `order` of everything released."""
    return _sum(merge(events), order)


def _sum(merged: tuple[Event, ...], order: float) -> float:
    return math.fsum(divergence(event, order) for event in merged)


def fits(events: Iterable[Event], lifetime: Lifetime) -> bool:
    """Say whether an account may hold `events`: the privacy filter, asked before every release."""
    merged = merge(events)
    return not merged or _sum(merged, lifetime.order) <= lifetime.limit


def filter_epsilon(events: Iterable[Event], delta: float, orders: Iterable[float] = ORDERS) -> float:
    """Return what is shown as spent: the Rényi composition of `events` at its best order.

    Args:
        events: Everything released from one side of a dataset.
        delta: The dataset's lifetime delta.
        orders: Which orders to try; an account adds its own, so that the result never exceeds its lifetime.
    """
    merged = merge(events)
    if not merged:
        return 0.0
    return max(0.0, min(_sum(merged, order) + _conversion(order, delta) for order in orders))
