"""How a hospital decides about a job, and how much noise it takes."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from client import accounting, approval, job_spec
from client.accounting import Event, Lifetime, event_of
from client.approval import Offer, Terms
from client.errors import DeclinedError
from client.settings import Policy
from ledger.records import Dataset, Job
from ledger.values import Setting, Software
from tests.client.fake_coordinator import training_of_the_test
from tests.ledger.consortium import Consortium, digest

TORCH = Software(name="torch", version="2.13.0", digest="")
PURPOSE = "cardiology-research"


def lifetime(epsilon: float = 8.0) -> Lifetime:
    return Lifetime(epsilon=epsilon, delta=1e-4, order=accounting.filter_order(epsilon, 1e-4))


def dataset() -> Dataset:
    return replace(Consortium.founded().dataset("alpha"), schema=digest("dictionary"))


def job(**changes: Any) -> Job:
    consortium = Consortium.founded()
    consortium.offer("alpha", "bravo")
    standard: dict[str, Any] = {
        "dictionary": digest("dictionary"),
        "software": (TORCH,),
        "training": training_of_the_test(),
        "rounds": 30,
        "evaluate": (7, 13, 19, 25, 31),
    }
    return consortium.job("alpha", "bravo", **{**standard, **changes})


def policy(**changes: Any) -> Policy:
    standard: dict[str, Any] = {
        "approve": "built-in", "researchers": (), "purposes": (PURPOSE,), "max_epsilon_per_job": "8",
        "min_participants": 1, "smallest_cohort": 1, "hours": (),
    }  # fmt: skip
    return Policy(**{**standard, **changes})


def offer(**changes: Any) -> Offer:
    standard: dict[str, Any] = {
        "dataset": dataset(),
        "policy": policy(),
        "software": (TORCH,),
        "lifetime": lifetime(),
        "training": (),
        "heldout": (),
    }
    return Offer(**{**standard, **changes})


def costs(terms: Terms, of: Job) -> tuple[float, float]:
    """Epsilon of the whole plan at the job's delta, by side."""
    training, heldout = approval.remaining(of, approval_of(terms), 1)
    delta = float(of.delta)
    return accounting.job_epsilon(training, delta), accounting.job_epsilon(heldout, delta)


def approval_of(terms: Terms) -> Any:
    return approval.record(
        terms, origin="a.example", hospital="alpha", number=1, ref="alpha/heart", cohort=digest("cohort")
    )


def test_the_whole_plan_meets_the_target_on_both_sides_and_hardly_more() -> None:
    terms = approval.decide(job(), offer())
    for epsilon in costs(terms, job()):
        assert 2.95 < epsilon <= 3


def test_the_released_model_gets_half_of_the_held_out_side() -> None:
    terms = approval.decide(job(), offer())
    *live, final = (float(m.noise_multiplier) for m in terms.evaluation)
    assert len(live) == 4
    assert len(set(live)) == 1
    assert sum(1 / x**2 for x in live) == pytest.approx(1 / final**2, rel=1e-3)


def test_without_an_evaluation_of_the_released_model_the_others_share_everything() -> None:
    asked = job(evaluate=(10, 20))
    terms = approval.decide(asked, offer())
    assert len({m.noise_multiplier for m in terms.evaluation}) == 1
    assert 2.9 < costs(terms, asked)[1] <= 3


def test_no_evaluation_at_all() -> None:
    assert approval.decide(job(evaluate=(), heldout_epsilon="0"), offer()).evaluation == ()


def test_what_is_left_of_the_account_asks_for_more_noise() -> None:
    fresh = approval.decide(job(), offer())
    spent = (Event(noise_multiplier=10.0, sample_rate=1.0, count=250),)
    later = approval.decide(job(), offer(training=spent))
    assert float(later.training.noise_multiplier) > float(fresh.training.noise_multiplier)
    plan = accounting.compose(event_of(later.training), 30)
    assert accounting.fits([*spent, plan], lifetime())
    assert later.evaluation == fresh.evaluation  # the other side has spent nothing


def test_the_hospitals_own_limit_asks_for_more_noise() -> None:
    terms = approval.decide(job(), offer(policy=policy(max_epsilon_per_job="1.5")))
    assert terms.epsilon == "1.5"
    assert max(costs(terms, job())) <= 1.5


def test_the_limit_is_what_receipts_round_up_to() -> None:
    asked = job(epsilon="2.987", heldout_epsilon="1")
    terms = approval.decide(asked, offer())
    assert terms.epsilon == "2.99"
    assert Decimal(accounting.round_up(costs(terms, asked)[0])) <= Decimal(terms.epsilon)


def test_an_empty_account_declines() -> None:
    spent = (Event(noise_multiplier=1.0, sample_rate=1.0, count=1000),)
    with pytest.raises(DeclinedError, match="lifetime budget") as caught:
        approval.decide(job(), offer(training=spent))
    assert caught.value.code == "budget"


def test_a_target_that_cannot_be_reached_says_the_best_that_can() -> None:
    with pytest.raises(DeclinedError, match="the best is") as caught:
        approval.decide(job(epsilon="0.0001", rounds=1000, evaluate=(), heldout_epsilon="0"), offer())
    assert caught.value.code == "budget"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"purpose": "marketing"}, "purpose"),
        ({"dictionary": digest("another")}, "dictionary"),
        ({"delta": "0.001"}, "delta"),
        ({"software": (replace(TORCH, version="2.12.0"),)}, "software"),
        ({"software": (replace(TORCH, name="flwr"),)}, "software"),
        ({"training": replace(training_of_the_test(), model="custom")}, "model"),
        (
            {"training": replace(training_of_the_test(), settings=(Setting(name="warp", value="9"),))},
            "plan",
        ),
        (
            {"training": replace(training_of_the_test(), settings=(Setting(name="grid-bits", value="60"),))},
            "plan",
        ),
        (
            {"training": replace(training_of_the_test(), settings=(Setting(name="hidden-2", value="8"),))},
            "plan",
        ),
    ],
)
def test_a_job_is_declined_with_the_code_that_says_why(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(DeclinedError) as caught:
        approval.decide(job(**changes), offer())
    assert caught.value.code == code
    assert code in approval.REFUSALS


def test_built_in_is_what_the_models_say() -> None:
    from client import models  # torch: here alone

    assert job_spec.BUILT_IN == models.BUILT_IN


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"approve": "never"}, "policy"),
        ({"researchers": ("somebody-else",)}, "researcher"),
        ({"purposes": ("cancer-research",)}, "purpose"),
        ({"min_participants": 3}, "participants"),
        ({"smallest_cohort": 512}, "cohort"),
    ],
)
def test_each_field_of_the_policy_declines_alone(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(DeclinedError) as caught:
        approval.decide(job(), offer(policy=policy(**changes)))
    assert caught.value.code == code
    assert code in approval.REFUSALS


@pytest.mark.parametrize(
    "changes",
    [
        {"researchers": ("another", "researcher")},
        {"min_participants": 2},
        {"smallest_cohort": 128},
        {"hours": ("mon 03:00-04:00",)},  # of rounds, not of jobs
        {"approve": "ask"},  # a person decides within the policy
    ],
)
def test_at_its_bounds_the_policy_accepts(changes: dict[str, Any]) -> None:
    assert approval.decide(job(), offer(policy=policy(**changes))).epsilon == "3"


def test_the_smallest_cohort_is_compared_with_the_record_and_with_no_count_of_rows() -> None:
    # No argument of `decide` knows how many rows there are: the same record gives the same public code.
    small = replace(dataset(), size_class=128)
    with pytest.raises(DeclinedError, match="size class"):
        approval.decide(job(), offer(dataset=small, policy=policy(smallest_cohort=256)))
    assert approval.decide(job(), offer(dataset=small, policy=policy(smallest_cohort=128)))


@pytest.mark.parametrize(
    ("approve", "model", "why"),
    [
        ("built-in", "logistic-regression", ""),
        ("built-in", "custom", "own-model"),
        ("ask", "logistic-regression", "ask"),
        ("ask", "custom", "ask"),
    ],
)
def test_what_is_approved_by_rule_and_what_waits_for_a_person(approve: str, model: str, why: str) -> None:
    asked = job(training=replace(training_of_the_test(), model=model))
    assert approval.waits_for(asked, policy(approve=approve)) == why
    assert why in ("", *approval.WAITS)


def test_what_other_approved_jobs_may_still_release_counts_as_spent() -> None:
    consortium = Consortium.founded()
    consortium.offer("alpha", "bravo")
    assert approval.promised(consortium.state, "alpha", "alpha/heart") == ((), ())
    running = consortium.run("alpha", "bravo")
    consortium.play(running)
    consortium.propose("alpha", "bravo")
    training, heldout = approval.promised(consortium.state, "alpha", "alpha/heart")
    assert sorted(e.count for e in training) == [2, 3]  # of three rounds, one was played in the first job
    assert len(heldout) == 2
    consortium.finish(running)
    consortium.append(consortium.release(running))
    training, _ = approval.promised(consortium.state, "alpha", "alpha/heart")
    assert [e.count for e in training] == [3]


def test_remaining_is_exact_at_its_ends() -> None:
    of = job()
    given = approval_of(approval.decide(of, offer()))
    training, heldout = approval.remaining(of, given, 30)
    assert [e.count for e in training] == [1]
    assert len(heldout) == 1
    assert approval.remaining(of, given, 32) == ([], [])
    training, heldout = approval.remaining(of, given, 1, 7)
    assert [e.count for e in training] == [7]
    assert len(heldout) == 1
