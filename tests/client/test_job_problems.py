"""What is wrong with a job by itself: one change, one line, with field and remedy; agreed with who decides."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import job_problems, job_strategies, job_templates, models
from client.dictionary import shipped
from client.losses import LOSSES
from coordinator.errors import SettingError
from coordinator.strategies import parse_strategy
from ledger.values import Setting

DRAFT = job_templates.DRAFTS["breast-cancer"]
DICTIONARY = shipped("breast-cancer")
CODE = b"def build_model(*, input_shape, outputs): ...\n"


def problems(source: bytes | None = None, **changes: Any) -> list[str]:
    return job_problems.problems(replace(DRAFT, **changes), DICTIONARY, source)


def test_a_sound_job_has_none() -> None:
    assert problems() == []
    assert problems(CODE, model="custom") == []
    assert problems(model="mlp", hidden=(8,), local_steps=4, fedprox_mu="0.1", sample_rate="0.2") == []
    assert problems(live_evaluations=0, final_evaluation=False, heldout_epsilon="0") == []


CASES: list[tuple[dict[str, Any], str]] = [
    ({"expires_seconds": 10**9}, "expires must be at most 3650d"),
    ({"datasets": ("a/x", "a/y", "b/x")}, "datasets names two of a"),
    ({"datasets": ("a/x", "b/x")}, "min_participants is 3, datasets names 2"),
    ({"model": "resnet"}, "model.name 'resnet' is not built in"),
    ({"model": "custom"}, "the folder has no model.py"),
    ({"hidden": (4,)}, "model.hidden is for an mlp"),
    ({"model": "small-cnn"}, "small-cnn takes images of 28 by 28, the dictionary has 30 features"),
    ({"prevalence": "1"}, "model.prevalence must lie between 0 and 1"),
    ({"loss": "hinge"}, "training.loss 'hinge' is not offered"),
    ({"loss": "cross-entropy"}, "cross-entropy needs model.outputs of at least 2"),
    ({"outputs": 3}, "needs model.outputs = 1"),
    ({"sample_rate": "1.5"}, "training.sample_rate must be above 0 and at most 1"),
    ({"sample_rate": "0"}, "training.sample_rate must be above 0 and at most 1"),
    ({"fedprox_mu": "1"}, "training.fedprox_mu changes nothing with local_steps = 1"),
    ({"learning_rate": "0"}, "training: learning_rate must lie between"),
    ({"max_grad_norm": "0"}, "training: clip must lie between"),
    ({"chunk_size": 100}, "training: chunk_size must be a power of two"),
    ({"grid_bits": 30}, "training: grid_bits must lie between 16 and 24"),
    ({"rounds": 2, "live_evaluations": 3}, "evaluation.live is 3, the job has 2 rounds"),
    ({"heldout_epsilon": "0"}, "privacy.heldout_epsilon is 0 and the model is measured"),
    ({"live_evaluations": 0, "final_evaluation": False}, "privacy.heldout_epsilon is above 0 and nothing"),
    ({"epsilon": "0"}, "privacy.epsilon must be above 0"),
    ({"delta": "0"}, "privacy.delta must lie between 0 and 1"),
    ({"delta": "0.1"}, "privacy.delta is 0.1: it must be at most a tenth of one"),
    ({"epsilon": "0.001", "rounds": 10**6}, "privacy.epsilon: epsilon 0.001 cannot be reached"),
    ({"heldout_epsilon": "0.00001"}, "privacy.heldout_epsilon: "),
    ({"strategy": "fedsgd"}, "aggregation.strategy 'fedsgd' is not offered"),
    ({"strategy": "krum", "min_participants": 2}, "krum needs 3 hospitals in each round"),
    ({"weighting": "rows"}, "aggregation.weighting must be size-class or uniform"),
    (
        {"strategy_settings": (Setting(name="eta", value="0.1"),)},
        "aggregation.eta is no setting of fedavg",
    ),
    (
        {"strategy": "fedadam", "strategy_settings": (Setting(name="beta-1", value="1"),)},
        "aggregation.beta-1 must be at least 0 and below 1, not 1",
    ),
]


@pytest.mark.parametrize(("changes", "said"), CASES, ids=[said[:40] for _, said in CASES])
def test_each_mistake_is_named_alone(changes: dict[str, Any], said: str) -> None:
    found = problems(**changes)
    assert len(found) == 1, found
    assert said in found[0]
    assert "\n" not in found[0]


def test_model_code_is_there_if_and_only_if_it_is_meant() -> None:
    assert "say custom, or remove the file" in problems(CODE)[0]
    assert "larger than" in problems(b"#" * (1 << 21), model="custom")[0]


def test_several_mistakes_are_all_named() -> None:
    assert len(problems(expires_seconds=10**9, loss="hinge", epsilon="0", weighting="rows")) == 4


def test_losses_and_shapes_are_those_of_the_training_loop() -> None:
    assert job_problems.LOSSES == LOSSES
    assert job_problems.IMAGE_SHAPE == models.IMAGE_SHAPE


@given(
    code=st.sampled_from([*job_strategies.STRATEGIES, "fedsgd"]),
    name=st.sampled_from(sorted({n for s in job_strategies.STRATEGIES.values() for n in s})),
    value=st.sampled_from(["-1", "-0.001", "0", "0.001", "0.4999", "0.5", "0.999", "1", "1.5", "2", "10"]),
)
def test_strategies_and_bounds_are_the_coordinators(code: str, name: str, value: str) -> None:
    settings = [Setting(name=name, value=value)]
    try:
        theirs = parse_strategy(code, {name: value})
    except SettingError:
        assert job_strategies.problems(code, settings)
    else:
        assert job_strategies.problems(code, settings) == []
        assert job_strategies.minimum_updates(code, settings) == theirs.minimum_updates
        assert job_strategies.STRATEGIES[code][name].admits(Decimal(value))
