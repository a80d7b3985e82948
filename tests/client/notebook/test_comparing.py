"""Whether a setting is better: paired differences over seeds, and which neighbours of a job are tried."""

from __future__ import annotations

import math
import random

import pytest

from client.job_templates import DRAFTS
from client.notebook.comparing import difference
from client.notebook.variants import variants


def test_the_interval_is_students() -> None:  # R: t.test(c(-1, -2, -3))
    found = difference([0.0, 1.0, 2.0], [1.0, 3.0, 5.0])
    assert found.mean == pytest.approx(-2.0)
    assert found.low == pytest.approx(-4.484, abs=1e-3)
    assert found.high == pytest.approx(0.484, abs=1e-3)
    assert not found.below


def test_a_difference_beyond_the_spread_is_told() -> None:
    assert difference([0.1, 0.21, 0.3], [0.2, 0.3, 0.41]).below


@pytest.mark.parametrize("values", [[], [1.0], [math.nan, 1.0]])
def test_too_few_values_decide_nothing(values: list[float]) -> None:
    found = difference(values, [2.0] * len(values))
    assert not found.below
    assert found.high == math.inf


def test_noise_alone_is_rarely_taken_for_a_difference() -> None:
    draw = random.Random(1)
    told = sum(
        difference([draw.gauss(0, 1) for _ in range(5)], [draw.gauss(0, 1) for _ in range(5)]).below
        for _ in range(2000)
    )
    assert told / 2000 < 0.04  # 2.5 % of one side


def test_variants_change_one_setting_each_and_never_the_price() -> None:
    draft = DRAFTS["breast-cancer"]
    found = list(variants(draft))
    assert {v.field for v in found} == {
        "learning_rate",
        "max_grad_norm",
        "rounds",
        "sample_rate",
        "local_steps",
    }
    for variant in found:
        changed = {
            name
            for name in type(draft).__dataclass_fields__
            if getattr(variant.draft, name) != getattr(draft, name)
        }
        assert changed == {variant.field}
    assert len({v.draft for v in found}) == len(found)
