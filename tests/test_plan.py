"""A plan before anybody is asked: its prices, its curve, its suggestions, and what newcomers get wrong."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pandas
import pytest
import torch
from matplotlib import pyplot

import wardround_plan
from client import accounting, job_match
from client.errors import DataError, JobFileError, PlanError
from client.job_folder import JobFolder
from client.job_templates import DRAFTS
from client.job_toml import JobDraft
from client.notebook import plan_costs
from client.synthetic import rows
from tests.plans import folder_of
from wardround_planned import Plan
from wardround_rehearsal import Rehearsal
from wardround_suggest import FRESH, Suggestion, suggest
from wardround_trial import Outcome

SIZES = {"alpha": 60, "bravo": 120}


def job(**changes: Any) -> JobFolder:
    return folder_of(
        replace(
            DRAFTS["breast-cancer"], **{"min_participants": 2, "rounds": 2, "live_evaluations": 1, **changes}
        )
    )


def planned(given: JobFolder | None = None, sizes: Mapping[str, int] = SIZES, **more: Any) -> Plan:
    usual = {"seeds": 2, "epsilons": [], "progress": False}
    return wardround_plan.plan(given or job(), sizes, **{**usual, **more})


def frames(sizes: Mapping[str, int]) -> dict[str, pandas.DataFrame]:
    dictionary = job().dictionary
    return {
        name: pandas.DataFrame(rows(dictionary, size, seed), columns=list(dictionary.columns))
        for seed, (name, size) in enumerate(sizes.items())
    }


# --- prices ---


def test_a_plan_states_the_epsilon_that_the_whole_job_composes_to() -> None:
    found = planned(budgets=8.0)
    for row in found.hospitals.to_dict("records"):
        event = accounting.Event(noise_multiplier=row["noise_multiplier"], sample_rate=1.0, count=2)
        assert row["epsilon"] == float(accounting.round_up(accounting.job_epsilon([event], 1e-4)))
        assert 2.9 < row["epsilon"] <= 3
        assert 4 < row["left"] < 8 - row["epsilon"] + 0.5
        assert row["answer"] == "could take part"


def test_a_hospital_with_a_limit_of_its_own_adds_more_noise() -> None:
    found = planned(limits={"alpha": 1.0}).hospitals.set_index("hospital")
    assert found.loc["alpha", "epsilon"] <= 1 < found.loc["bravo", "epsilon"]
    assert found.loc["alpha", "noise_multiplier"] > found.loc["bravo", "noise_multiplier"]


def test_a_hospital_that_would_refuse_is_shown_and_plays_no_part() -> None:
    found = planned(job(min_participants=1), {"alpha": 60, "huge": 5000})  # delta is too large for so many
    shown = found.hospitals.set_index("hospital")
    assert shown.loc["huge", "answer"].startswith("would refuse: delta")
    assert math.isnan(shown.loc["huge", "epsilon"])
    assert found.bytes_in_all == plan_costs.traffic(found._job)[2]


def test_bytes_are_those_of_the_model() -> None:
    found = planned()
    assert found.bytes_per_round == (4 * 31, 8 * 31 + 1300)
    assert found.bytes_in_all == 2 * (2 * sum(found.bytes_per_round) + 2 * 96)
    assert found.minutes > 0


# --- the curve ---


def test_the_curve_has_a_row_for_each_epsilon_and_seed() -> None:
    found = planned(epsilons=[1, math.inf])
    assert list(found.curve.columns) == ["epsilon", "seed", "auroc", "loss"]
    assert sorted(set(found.curve["epsilon"])) == [1.0, 3.0, math.inf]
    assert len(found.curve) == 6
    assert found.curve["auroc"].between(0, 1).all()
    found.plot()
    pyplot.close("all")


def test_made_up_rows_are_called_so_and_given_ones_are_not() -> None:
    text = repr(planned())
    assert "made-up patients" in text
    assert "says nothing about how well real patients" in text
    assert "used made-up rows" in text
    given = repr(planned(data=frames(SIZES), seeds=1))
    assert "made-up" not in given
    assert "rows that you hold" in given
    assert "trying several settings on them would cost a budget for each" in given
    assert "<table" in planned(seeds=1)._repr_html_()


def test_data_smaller_than_the_hospital_are_named() -> None:
    found = planned(data=frames({"alpha": 60, "bravo": 30}), seeds=1)
    assert "bravo has about 128 patients and is measured with data of about 32" in repr(found)


def test_a_plan_that_runs_out_of_time_says_what_it_measured() -> None:
    found = planned(job(rounds=500), seconds=0.001)
    assert found.points == ()
    assert "with 0 of 2 trials done" in repr(found)
    assert "expected utility is not known" in repr(found)


def test_an_interrupt_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    honest, calls = Rehearsal.outcome, 0

    def interrupted(
        self: Rehearsal, draft: JobDraft, seed: int, in_time: Callable[[], bool]
    ) -> Outcome | None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise KeyboardInterrupt
        return honest(self, draft, seed, in_time)

    monkeypatch.setattr(Rehearsal, "outcome", interrupted)
    found = planned()
    assert len(found.points) == 1
    assert "measuring was interrupted, with 1 of 2 trials done" in repr(found)


# --- suggestions, with outcomes that are known ---


class Known(Rehearsal):
    """Measures what a test says: a loss of 0.5 and some noise of the seed, plus `effect` of the variant."""

    def __init__(self, effect: Callable[[JobDraft, int], float], auroc: Callable[[JobDraft], float]) -> None:
        given = job()
        super().__init__(given, plan_costs.of_sizes(given, SIZES, None, None, 3.0), None, gpu=False)
        self._effect, self._area = effect, auroc

    def outcome(self, draft: JobDraft, seed: int, in_time: Callable[[], bool]) -> Outcome | None:
        ripple = zlib.crc32(f"{draft} {seed}".encode()) % 1000 / 1e5
        return Outcome(auroc=self._area(draft) + ripple, loss=0.5 + ripple + self._effect(draft, seed))


def suggested(
    effect: Callable[[JobDraft, int], float],
    auroc: Callable[[JobDraft], float] = lambda draft: 0.8,
    **more: Any,
) -> Suggestion:
    usual = {"seeds": 3, "seconds": 60.0, "progress": False}
    return suggest(job().draft, Known(effect, auroc), **{**usual, **more})


def test_a_setting_that_is_better_is_suggested_with_what_was_measured() -> None:
    found = suggested(lambda draft, seed: -0.1 if draft.local_steps == 4 else 0.0)
    assert found.changes == {"local_steps": 4}
    assert found.sentences[0].startswith(
        "Change local steps 1 to 4: at the same epsilon the loss changes by -0."
    )
    assert "5 fresh seeds" in found.sentences[0]
    assert found.table["suggested"].sum() == 1


def test_the_best_of_the_choosing_seeds_is_not_suggested_if_fresh_ones_do_not_confirm_it() -> None:
    found = suggested(lambda draft, seed: -0.1 if draft.local_steps == 4 and seed < FRESH else 0.0)
    assert found.changes == {}
    assert "makes no difference that the noise does not explain" in found.sentences[0]
    assert found.sentences[-1].startswith("No change is suggested")


def test_a_lower_loss_that_costs_auroc_is_not_suggested() -> None:
    found = suggested(
        lambda draft, seed: -0.1 if draft.rounds == 4 else 0.0,
        lambda draft: 0.7 if draft.rounds == 4 else 0.8,
    )
    assert "rounds" not in found.changes


def test_two_settings_are_changed_one_after_the_other() -> None:
    found = suggested(
        lambda draft, seed: -0.1 * (draft.local_steps == 4) - 0.1 * (draft.max_grad_norm == "1")
    )
    assert {"local_steps": 4, "max_grad_norm": "1"}.items() <= found.changes.items()


def test_time_that_runs_out_is_said_and_confirms_nothing() -> None:
    ticks = iter(range(10_000))
    found = suggested(
        lambda draft, seed: -0.1 if draft.local_steps == 4 else 0.0,
        seconds=5,
        clock=lambda: float(next(ticks)),
    )
    assert found.changes == {}
    assert any("Not everything was tried within 5 s" in line for line in found.sentences)


def test_the_planned_job_has_the_suggestion_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    found = planned(seeds=1)
    found._suggestion = Suggestion(changes={"local_steps": 4}, tried=(), sentences=())
    assert found.job.draft == replace(job().draft, local_steps=4)
    found._suggestion = Suggestion(changes={}, tried=(), sentences=())
    assert found.job is found._given


def test_a_real_search_measures_and_says_something() -> None:
    found = planned(seeds=2, seconds=3.0).suggest(seconds=3.0)
    assert len(found.tried) > 0
    assert found.sentences


# --- newcomers ---


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"seeds": 0}, "seeds is 0: give a whole number from 1 to 50"),
        ({"seconds": 0}, "seconds is 0: give the time"),
        ({"epsilons": [1, 0]}, "epsilons names 0: each must be above 0"),
        ({"sizes": {}}, "sizes must name each hospital's patients"),
        ({"sizes": {"alpha": 0, "bravo": 5}}, "alpha has 0 patients: give a whole number"),
        ({"sizes": {"Alpha Clinic": 50, "bravo": 50}}, "hospital 'Alpha Clinic'"),
        ({"sizes": {"alpha": 50}}, "min_participants is 2, and 1 of 1 hospitals could take part"),
        ({"budgets": {"alpha": 0}}, "the budget of alpha is 0: give an epsilon above 0"),
        ({"limits": -1.0}, "the limit of alpha is -1.0"),
        ({"data": {"alpha": None}}, "data and sizes must name the same hospitals, and differ in bravo"),
    ],
)
def test_a_call_that_cannot_be_is_one_sentence(more: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError) as found:
        planned(**more)
    assert said in str(found.value)
    assert "\n" not in str(found.value)


def test_a_gpu_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PlanError, match=r"no graphics processor here: leave gpu out"):
        planned(gpu=True)


def test_epsilon_0_is_one_sentence() -> None:
    with pytest.raises(JobFileError, match=r"privacy\.epsilon must be above 0"):
        planned(job(epsilon="0"))


def test_a_wrong_column_is_named_with_its_hospital() -> None:
    given = frames(SIZES)
    given["bravo"] = given["bravo"].rename(columns={given["bravo"].columns[0]: "radius"})
    with pytest.raises(DataError, match=r"^bravo: column"):
        planned(data=given)


def test_a_spent_budget_makes_a_hospital_refuse() -> None:
    given = job()
    [alpha] = plan_costs.of_sizes(given, {"alpha": 64}, 8.0, None, 3.0)
    rehearsal = Rehearsal(given, [replace(alpha, spent="8")], None, gpu=False)
    [price] = rehearsal.priced(given.draft).prices
    assert price.terms is None
    found = plan_costs.cost(replace(alpha, spent="8"), price, rehearsal.priced(given.draft).job)
    assert (found.left, found.refusal) == (0.0, price.refusal)
    assert job_match.price(rehearsal.priced(given.draft).job, alpha.dataset).terms is not None
