"""Epsilons against independent accountants, the filter's rule, and the choice of noise."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from fractions import Fraction
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from dp_accounting import gaussian_mechanism
from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant
from scipy import integrate, stats

from client import accounting, renyi
from client.accounting import (
    Event,
    Lifetime,
    compose,
    event_of,
    filter_epsilon,
    filter_order,
    fits,
    gaussian_delta,
    gaussian_epsilon,
    job_epsilon,
    round_up,
)
from client.errors import BudgetError
from client.plan import LARGEST_NOISE, choose_noise, evaluation_noise, gaussian_mu_for
from client.renyi import ORDERS
from ledger.values import Mechanism


def event(noise: float, rate: float = 1.0, count: int = 1) -> Event:
    return Event(noise_multiplier=noise, sample_rate=rate, count=count)


def budget(epsilon: float, delta: float) -> Lifetime:
    return Lifetime(epsilon=epsilon, delta=delta, order=filter_order(epsilon, delta))


def random_plans(count: int) -> list[tuple[tuple[Event, ...], float]]:
    """Plans of one or two mechanisms, from one release to some hundreds, with epsilon from .1 to about 10."""
    draw = random.Random(20240607)
    plans: list[tuple[tuple[Event, ...], float]] = []
    while len(plans) < count:
        events = tuple(
            event(
                round(math.exp(draw.uniform(math.log(0.6), math.log(8))), 3),
                draw.choice([1.0, round(math.exp(draw.uniform(math.log(0.003), 0)), 4)]),
                draw.choice([1, 5, 20, 30, 30, 60]),
            )
            for _ in range(draw.choice([1, 1, 1, 2]))
        )
        delta = draw.choice([1e-3, 1e-4, 1e-5])
        if any(e.sample_rate < 1 for e in events) and 0.1 <= filter_epsilon(events, delta) <= 12:
            plans.append((events, delta))
    return plans


PLANS = random_plans(32)


def finer(events: tuple[Event, ...], delta: float) -> float:
    """The PLD on a grid twice as fine as the product's."""
    step = accounting._loss_grid(tuple(e for e in events if e.sample_rate < 1)) / 2
    parts = [
        pld.from_gaussian_mechanism(
            e.noise_multiplier, sampling_prob=e.sample_rate, value_discretization_interval=step
        ).self_compose(e.count)
        for e in events
    ]
    return float(reduce(lambda left, right: left.compose(right), parts).get_epsilon_for_delta(delta))


@pytest.mark.filterwarnings("ignore:Optimal order:UserWarning")  # Opacus, when it bounds its own grid
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # Opacus, at the edge of a full batch
@pytest.mark.parametrize(("events", "delta"), PLANS)
def test_job_epsilon_is_the_truth_by_opacus_prv_and_the_filter_is_not_below_it(
    events: tuple[Event, ...], delta: float
) -> None:
    checker = PRVAccountant()
    checker.history = [(e.noise_multiplier, e.sample_rate, e.count) for e in events]
    prv = float(checker.get_epsilon(delta))  # from above: at most .02 above the truth
    ours = job_epsilon(events, delta)
    assert prv - 0.02 <= ours <= max(1.01 * prv, prv + 0.02)
    truth = finer(events, delta)
    assert truth - 1e-5 <= ours <= max(1.01 * truth, truth + 0.02)
    assert filter_epsilon(events, delta) >= ours


@pytest.mark.parametrize(
    ("patients", "batch", "noise", "steps", "rdp", "truth"),
    [
        (200, 20, 2, 200, 3.68, 3.36),
        (1000, 64, 1, 300, 8.39, 7.57),
        (5000, 64, 0.7, 500, 5.27, 4.44),
        (20000, 64, 0.6, 2000, 4.67, 3.76),
    ],
)
def test_table_of_the_privacy_notes(
    patients: int, batch: int, noise: float, steps: int, rdp: float, truth: float
) -> None:
    events = [event(noise, batch / patients, steps)]
    assert job_epsilon(events, 1e-5) == pytest.approx(truth, abs=0.006)
    assert filter_epsilon(events, 1e-5) == pytest.approx(
        rdp, abs=0.04
    )  # our orders are fewer than dp-accounting's


def test_gaussian_delta_by_quadrature_free_formula() -> None:
    for mu in (1e-3, 0.05, 0.5, 1.0, 3.0, 12.0):
        for epsilon in (0.0, 0.01, 0.5, 2.0, 10.0, 90.0):
            exact = stats.norm.sf(epsilon / mu - mu / 2) - math.exp(epsilon) * stats.norm.sf(
                epsilon / mu + mu / 2
            )
            assert gaussian_delta(epsilon, mu) == pytest.approx(exact, rel=1e-9, abs=1e-13)


@given(
    mu=st.floats(0.003, 20),
    delta=st.sampled_from([1e-2, 1e-3, 1e-5, 1e-8]),
)
def test_closed_form_of_the_full_batch_against_dp_accounting(mu: float, delta: float) -> None:
    theirs = gaussian_mechanism.get_epsilon_gaussian(1 / mu, delta, tol=1e-12)
    assert gaussian_epsilon(mu, delta) == pytest.approx(theirs, abs=1e-9)


def test_full_batches_compose_by_the_closed_form_and_agree_with_pld() -> None:
    events = [event(3.0, 1.0, 20), event(5.0, 1.0, 10)]
    mu = math.sqrt(20 / 9 + 10 / 25)
    theirs = pld.from_gaussian_mechanism(1 / mu, value_discretization_interval=1e-4).get_epsilon_for_delta(
        1e-3
    )
    assert job_epsilon(events, 1e-3) == gaussian_epsilon(mu, 1e-3)
    assert job_epsilon(events, 1e-3) == pytest.approx(theirs, abs=1e-6)


@given(
    noise=st.floats(0.3, 30),
    rate=st.floats(1e-4, 0.999),
    count=st.integers(1, 5000),
    order=st.sampled_from([2, 3, 5, 8, 16, 64]),
)
@settings(deadline=None)
def test_divergence_at_integer_orders_against_dp_accounting(
    noise: float, rate: float, count: int, order: int
) -> None:
    theirs = RdpAccountant([order])
    theirs.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), count)
    ours = accounting.divergence(event(noise, rate, count), float(order))
    # dp-accounting subtracts from 1 what is tiny; its absolute error grows with the count
    assert ours == pytest.approx(float(theirs._rdp[0]), rel=1e-7, abs=1e-12 * count)


@pytest.mark.parametrize(("noise", "rate"), [(0.3, 0.001), (0.7, 0.01), (1.0, 0.1), (3.0, 0.5), (40.0, 0.9)])
@pytest.mark.parametrize("order", [1.1, 1.5, 2.5, 3.7, 5.9])
def test_divergence_between_integer_orders_against_adaptive_quadrature(
    noise: float, rate: float, order: float
) -> None:
    def excess(x: float) -> float:
        ratio = rate * math.expm1((2 * x - 1) / (2 * noise**2))
        return float(stats.norm.pdf(x, scale=noise) * ((1 + ratio) ** order - 1 - order * ratio))

    edges = np.linspace(-10 * noise, order + 10 * noise, 40)
    moment = sum(integrate.quad(excess, a, b, epsabs=0, epsrel=1e-10)[0] for a, b in pairwise(edges))
    theirs = math.log1p(moment) / (order - 1)
    assert accounting.divergence(event(noise, rate), order) == pytest.approx(theirs, rel=1e-7)


@pytest.mark.parametrize(("noise", "rate"), [(0.2, 0.01), (1.0, 0.1), (30.0, 0.7)])
def test_integral_and_sum_agree_at_integer_orders(noise: float, rate: float) -> None:
    for order in (2, 3, 4):
        whole, parts = (
            math.fsum(math.exp(x) for x in terms)
            for terms in (renyi._integral(noise, rate, order), renyi._binomial(noise, rate, order))
        )
        assert whole == pytest.approx(parts, rel=1e-9)


def coarse_epsilon(noise: float, grid_units: int, delta: float) -> float:
    """Epsilon of a discrete Gaussian on a grid where one patient moves one coordinate by `grid_units`."""
    sigma = noise * grid_units
    y = np.arange(-math.ceil(12 * sigma), math.ceil(12 * sigma) + 1, dtype=float)
    p = np.exp(-(y**2) / (2 * sigma**2))
    p /= p.sum()
    loss = (grid_units**2 - 2 * grid_units * y) / (2 * sigma**2)
    low, high = 0.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        inside = (p * np.maximum(0, -np.expm1(middle - loss))).sum() <= delta
        low, high = (low, middle) if inside else (middle, high)
    return high


@pytest.mark.parametrize(("epsilon", "delta"), [(1, 1e-3), (3, 1e-3), (3, 1e-5), (8, 1e-5), (15, 1e-3)])
def test_noise_on_a_fine_grid_costs_what_the_closed_form_says(epsilon: float, delta: float) -> None:
    noise = 1 / gaussian_mu_for(epsilon, delta)
    assert coarse_epsilon(noise, accounting.MIN_GRID_UNITS, delta) <= epsilon + 1.5e-4


def test_noise_on_whole_counts_would_cost_more_than_the_closed_form_says() -> None:
    assert coarse_epsilon(1 / gaussian_mu_for(3, 1e-3), 1, 1e-3) > 3.09


# Events


noises = st.sampled_from([0.5, 0.7, 1.0, 1.4142, 2.0, 3.1, 10.0, 50.0])
events_st = st.builds(event, noises, st.sampled_from([1.0, 0.5, 0.1, 0.01]), st.integers(1, 500))


@given(e=events_st, n=st.integers(1, 40), delta=st.sampled_from([1e-3, 1e-5]))
@settings(deadline=None)
def test_compose_equals_single_composes_exactly(e: Event, n: int, delta: float) -> None:
    assert filter_epsilon([compose(e, n)], delta) == filter_epsilon([e] * n, delta)
    full = event(e.noise_multiplier, 1.0, e.count)
    assert job_epsilon([compose(full, n)], delta) == job_epsilon([full] * n, delta)


def test_compose_equals_single_composes_exactly_when_sampled() -> None:
    accounting._pld_epsilon.cache_clear()
    whole = job_epsilon([event(1.1, 0.05, 30), event(2.0)], 1e-5)
    accounting._pld_epsilon.cache_clear()
    assert job_epsilon([event(1.1, 0.05)] * 15 + [event(2.0)] + [event(1.1, 0.05)] * 15, 1e-5) == whole


@given(spent=st.lists(events_st, max_size=4), more=events_st, delta=st.sampled_from([1e-3, 1e-5]))
@settings(deadline=None)
def test_one_more_release_never_lowers_an_epsilon(spent: list[Event], more: Event, delta: float) -> None:
    assert filter_epsilon([*spent, more], delta) >= filter_epsilon(spent, delta)
    full = [event(e.noise_multiplier, 1.0, e.count) for e in [*spent, more]]
    assert job_epsilon(full, delta) >= job_epsilon(full[:-1], delta)


@given(st.lists(events_st, max_size=5), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_epsilon_does_not_depend_on_the_order_of_events(events: list[Event], draw: random.Random) -> None:
    shuffled = draw.sample(events, len(events))
    assert filter_epsilon(events, 1e-3) == filter_epsilon(shuffled, 1e-3)


@given(st.floats(0, 1e4))
def test_round_up_is_the_next_hundredth_as_records_spell_it(epsilon: float) -> None:
    text = round_up(epsilon)
    assert Fraction(epsilon) <= Fraction(text) < Fraction(epsilon) + Fraction(1, 100)
    Mechanism(
        name="x", noise_multiplier=text, sample_rate="1", steps=1, max_grad_norm="1"
    )  # a record's decimal


def test_round_up_spells_whole_numbers_without_zeros() -> None:
    assert [round_up(x) for x in (0.0, 2.9999, 3.0, 3.0000001, 100.0, 2.101)] == [
        "0",
        "3",
        "3",
        "3.01",
        "100",
        "2.11",
    ]


def test_nothing_released_costs_nothing() -> None:
    assert (job_epsilon([], 1e-3), filter_epsilon([], 1e-3)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("noise", "rate", "count"),
    [
        *[
            (0.0, 1, 1),
            (math.nan, 1, 1),
            (math.inf, 1, 1),
            (-1, 1, 1),
            (1, 0, 1),
            (1, 1.01, 1),
            (1, math.nan, 1),
        ],
        *[(1, 1, 0), (1, 1, -1), (1, 1, True), (1, 1, 1.0)],
    ],
)
def test_impossible_events_are_refused(noise: float, rate: float, count: int) -> None:
    with pytest.raises(BudgetError):
        event(noise, rate, count)


def test_event_of_a_mechanism_on_the_record() -> None:
    mechanism = Mechanism(
        name="dp-sgd", noise_multiplier="1.2345", sample_rate="0.05", steps=4, max_grad_norm="0.5"
    )
    assert event_of(mechanism) == event(1.2345, 0.05, 4)


def test_accounting_is_light_until_a_sampled_plan_needs_more() -> None:
    code = (
        "import sys; from client.accounting import *; from client.plan import *\n"
        "L = Lifetime(epsilon=8.0, delta=1e-3, order=filter_order(8.0, 1e-3))\n"
        "choose_noise(target_epsilon=3.0, delta=1e-3, sample_rate=1, steps=30, lifetime=L)\n"
        "filter_epsilon([Event(noise_multiplier=1.0, sample_rate=.1, count=9)], 1e-3)\n"
        "print([m for m in ('numpy', 'scipy', 'dp_accounting', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


# The filter


def test_filter_is_exhausted_at_one_order_fixed_in_advance() -> None:
    lifetime = budget(3, 1e-3)
    assert lifetime.order == 4.7  # from the budget alone
    mu2 = 2 * lifetime.limit / lifetime.order
    assert fits([event(1 / math.sqrt(mu2) + 1e-9)], lifetime)
    assert not fits([event(1 / math.sqrt(mu2) - 1e-9)], lifetime)
    assert all(mu2 >= 2 * Lifetime(epsilon=3, delta=1e-3, order=o).limit / o for o in ORDERS)


def test_choosing_the_order_after_the_answers_is_refused() -> None:
    """A history that is within budget at some order, but not at the one fixed in advance, has no proof."""
    lifetime = budget(3, 1e-5)
    history = [event(0.7, 0.003, 100)]
    assert filter_epsilon(history, lifetime.delta) < lifetime.epsilon
    assert not fits(history, lifetime)


@given(
    events=st.lists(events_st, max_size=4),
    epsilon=st.floats(0.2, 20),
    delta=st.sampled_from([1e-3, 1e-5]),
)
@settings(deadline=None)
def test_what_is_shown_never_exceeds_the_lifetime_of_an_account_the_filter_admits(
    events: list[Event], epsilon: float, delta: float
) -> None:
    lifetime = budget(epsilon, delta)
    if fits(events, lifetime):
        assert filter_epsilon(events, delta) <= epsilon


def test_a_hopelessly_small_budget_admits_nothing() -> None:
    lifetime = budget(0.001, 1e-9)
    assert fits([], lifetime)
    assert not fits([event(1e6)], lifetime)


# Choosing noise


@given(
    target=st.floats(0.1, 10),
    steps=st.integers(1, 200),
    spent=st.lists(st.builds(event, st.floats(20, 200)), max_size=3),
    lifetime_epsilon=st.floats(1, 20),
)
@settings(deadline=None, max_examples=60)
def test_chosen_noise_reaches_its_target_and_is_minimal(
    target: float, steps: int, spent: list[Event], lifetime_epsilon: float
) -> None:
    lifetime = budget(lifetime_epsilon, 1e-3)
    text = choose_noise(
        target_epsilon=target, delta=1e-3, sample_rate=1, steps=steps, lifetime=lifetime, spent=spent
    )

    def meets(noise: float) -> bool:
        plan = event(noise, 1.0, steps)
        return job_epsilon([plan], 1e-3) <= target and fits([*spent, plan], lifetime)

    assert len(text.partition(".")[2]) <= 4
    assert meets(float(text))
    assert float(text) == accounting.MIN_NOISE_MULTIPLIER or not meets(float(text) / 1.001)


@pytest.mark.parametrize(
    ("target", "rate", "steps", "lifetime_epsilon"),
    [(3.0, 0.1, 30, 20.0), (1.0, 0.02, 60, 20.0), (3.0, 0.1, 30, 2.0)],
)
def test_chosen_noise_for_sampled_plans(
    target: float, rate: float, steps: int, lifetime_epsilon: float
) -> None:
    lifetime = budget(lifetime_epsilon, 1e-5)
    text = choose_noise(target_epsilon=target, delta=1e-5, sample_rate=rate, steps=steps, lifetime=lifetime)

    def meets(noise: float) -> bool:
        plan = event(noise, rate, steps)
        return job_epsilon([plan], 1e-5) <= target and fits([plan], lifetime)

    assert meets(float(text))
    assert not meets(float(text) / 1.001)


def test_what_is_left_of_the_account_can_ask_for_more_noise_than_the_target() -> None:
    lifetime = budget(4, 1e-3)
    fresh = choose_noise(target_epsilon=3, delta=1e-3, sample_rate=1, steps=30, lifetime=lifetime)
    used = event(float(fresh), 1.0, 30)
    second = choose_noise(
        target_epsilon=3, delta=1e-3, sample_rate=1, steps=30, lifetime=lifetime, spent=[used]
    )
    assert float(second) > 1.2 * float(fresh)
    assert fits([used, event(float(second), 1.0, 30)], lifetime)


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_target_epsilon_that_cannot_be_reached(rate: float) -> None:
    with pytest.raises(
        BudgetError, match=r"cannot be reached by 100000 steps .* the best is [0-9.]+ at delta"
    ) as e:
        choose_noise(
            target_epsilon=0.05, delta=1e-5, sample_rate=rate, steps=100000, lifetime=budget(8, 1e-5)
        )
    best = job_epsilon([event(LARGEST_NOISE, rate, 100000)], 1e-5)
    assert f"the best is {round_up(best)} at" in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan])
def test_a_target_that_is_none(target: float) -> None:
    with pytest.raises(BudgetError, match="above 0"):
        choose_noise(target_epsilon=target, delta=1e-3, sample_rate=1, steps=1, lifetime=budget(8, 1e-3))


def test_an_exhausted_account_pays_for_no_plan() -> None:
    lifetime = budget(1, 1e-3)
    spent = [event(math.sqrt(lifetime.order / (2 * lifetime.limit)))]
    with pytest.raises(BudgetError, match="what is left of the lifetime budget"):
        choose_noise(
            target_epsilon=3, delta=1e-3, sample_rate=1, steps=30, lifetime=lifetime, spent=spent * 2
        )
    with pytest.raises(BudgetError, match="what is left of the lifetime budget"):
        evaluation_noise(target_epsilon=3, delta=1e-3, lifetime=lifetime, spent=spent * 2)


@given(target=st.floats(0.2, 10), live=st.integers(0, 20), lifetime_epsilon=st.floats(1, 20))
@settings(deadline=None)
def test_final_evaluation_gets_half_of_the_held_out_budget(
    target: float, live: int, lifetime_epsilon: float
) -> None:
    lifetime = budget(lifetime_epsilon, 1e-3)
    during, final = evaluation_noise(target_epsilon=target, delta=1e-3, lifetime=lifetime, live=live)
    plan = [event(float(final)), *([event(float(during), 1.0, live)] if live else [])]
    assert job_epsilon(plan, 1e-3) <= target
    assert fits(plan, lifetime)
    less = [event(e.noise_multiplier / 1.002, 1.0, e.count) for e in plan]
    assert job_epsilon(less, 1e-3) > target or not fits(less, lifetime)
    if live:
        assert live / float(during) ** 2 == pytest.approx(1 / float(final) ** 2, rel=2e-3)


def test_evaluation_noise_of_the_privacy_notes() -> None:
    during, final = evaluation_noise(target_epsilon=3, delta=1e-3, lifetime=budget(8, 1e-3))
    assert (during, final) == ("2.9339", "1.4669")
    with pytest.raises(BudgetError, match="cannot be reached by 21 evaluations"):
        evaluation_noise(target_epsilon=1e-3, delta=1e-9, lifetime=budget(8, 1e-9), live=20)
