"""Median, trimmed mean and Krum: Flower's results, and what one wild hospital can do to them."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.aggregation import aggregate
from coordinator.robust import median, trimmed_mean
from coordinator.strategies import FedMedian, FedTrimmedAvg, Krum, Strategy, parse_strategy
from coordinator.updates import Floats
from tests.coordinator.rounds import MemoryBlobs, changes_of, flower_replies, numbers, packed, round_inputs

HOSPITALS = [f"h{i:02}" for i in range(11)]
VALUES = [-3.5, -1.0, -0.1, -0.0, 0.0, 0.1, 1.0, 1e-300, 1e15]
tables = st.integers(1, 9).flatmap(
    lambda rows: st.lists(
        st.lists(st.sampled_from(VALUES), min_size=rows, max_size=rows), min_size=1, max_size=6
    )
)


def columns(table: list[list[float]]) -> Floats:
    return np.array(table, dtype=np.float64).T.copy()


@given(table=tables)
def test_median_is_that_of_the_standard_library(table: list[list[float]]) -> None:
    assert median(columns(table)).tolist() == [statistics.median(column) for column in table]


@given(table=tables, beta=st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.49]))
def test_trimmed_mean_adds_what_is_left_in_sorted_order(table: list[list[float]], beta: float) -> None:
    wanted = []
    for column in table:
        cut = int(beta * len(column))
        kept = sorted(column)[cut : len(column) - cut]
        total = kept[0]
        for value in kept[1:]:
            total += value
        wanted.append(total / len(kept))
    assert trimmed_mean(columns(table), beta).tolist() == wanted


@settings(deadline=None)
@given(table=tables, seed=st.integers(0, 99))
def test_negative_zero_ties_leave_no_choice_to_the_sort(table: list[list[float]], seed: int) -> None:
    rows = columns(table)
    shuffled = rows[np.random.default_rng(seed).permutation(len(rows))]
    assert median(rows).tobytes() == median(shuffled).tobytes()
    assert trimmed_mean(rows, 0.2).tobytes() == trimmed_mean(shuffled, 0.2).tobytes()
    assert not np.signbit(median(np.array([[-0.0], [-0.0]]))).any()


@pytest.mark.parametrize("hospitals", [1, 2, 3, 10, 11])
@pytest.mark.parametrize("strategy", [FedMedian(), FedTrimmedAvg(), FedTrimmedAvg(beta=0.4)], ids=repr)
def test_robust_rounds_agree_with_flower(strategy: Strategy, hospitals: int) -> None:
    blobs = MemoryBlobs()
    inputs = round_inputs(blobs, strategy=strategy, hospitals=HOSPITALS[:hospitals], parameters=200)
    before = np.frombuffer(blobs.data[inputs.model_before], "<f4").astype(np.float64)
    options = {"beta": strategy.beta} if isinstance(strategy, FedTrimmedAvg) else {}
    theirs: Any = getattr(flower, type(strategy).__name__)(**options)
    news = [before + change for change in changes_of(inputs, blobs)]
    arrays, _ = theirs.aggregate_train(1, flower_replies(news, [u.weight for u in inputs.updates]))
    result = aggregate(inputs, blobs.open, block=64).model
    assert np.abs(result - arrays["w"].numpy()).max() <= 1e-6


@pytest.mark.parametrize("malicious", [0, 1, 4])
def test_krum_chooses_as_flower_does_on_whole_weights(malicious: int) -> None:
    blobs = MemoryBlobs()
    strategy = Krum(num_malicious_nodes=malicious)
    inputs = round_inputs(blobs, strategy=strategy, hospitals=HOSPITALS, parameters=200)
    before = np.frombuffer(blobs.data[inputs.model_before], "<f4").astype(np.float64)
    changes = changes_of(inputs, blobs)
    theirs = flower.Krum(num_malicious_nodes=malicious)
    replies = flower_replies([before + change for change in changes], [u.weight for u in inputs.updates])
    arrays, _ = theirs.aggregate_train(1, replies)
    result = aggregate(inputs, blobs.open, block=7).model  # Krum sees whole updates whatever the block
    assert arrays is not None
    assert np.abs(result - arrays["w"].numpy()).max() <= 1e-6
    assert any((result == (before + change).astype("<f4")).all() for change in changes)  # one, and unchanged


def test_only_krum_restricts_the_promise_of_recomputation() -> None:
    codes = ("fedavg", "fedavgm", "fedadam", "fedyogi", "fedmedian", "fedtrimmedavg")
    assert {parse_strategy(code, {}).recomputation for code in codes} == {"bit-exact"}
    assert Krum().recomputation == "pinned-versions"


@pytest.mark.parametrize(
    "strategy", [FedMedian(), FedTrimmedAvg(), Krum(num_malicious_nodes=1)], ids=lambda s: s.code
)
def test_one_hospital_sending_huge_updates_cannot_move_a_robust_average(strategy: Strategy) -> None:
    blobs = MemoryBlobs()
    inputs = round_inputs(blobs, strategy=strategy, hospitals=HOSPITALS, parameters=50)
    before = np.frombuffer(blobs.data[inputs.model_before], "<f4")
    wild = blobs.put(packed(1e6 * (1.5 + numbers("wild", 50)), inputs.updates[4].plan))
    updates = tuple(replace(u, digest=wild) if u.hospital == "h04" else u for u in inputs.updates)
    moved = aggregate(replace(inputs, updates=updates), blobs.open).model - before
    honest = [
        c for u, c in zip(inputs.updates, changes_of(inputs, blobs), strict=True) if u.hospital != "h04"
    ]
    assert (moved <= np.max(honest, axis=0) + 1e-6).all()
    assert (moved >= np.min(honest, axis=0) - 1e-6).all()
