"""The next model: Flower's result to 1e-6, one scalar reference to the bit, and nothing but what the digests name."""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import json
import math
import platform
import random
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coordinator.aggregation import RoundInputs, _power, aggregate, recompute
from coordinator.blobs import BlobStore
from coordinator.errors import AggregationError, IntegrityError, SettingError
from coordinator.strategies import (
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    Krum,
    Strategy,
    parse_strategy,
    strategy_of,
)
from ledger.values import Aggregation, Setting
from tests.coordinator.rounds import MemoryBlobs, changes_of, flower_replies, numbers, round_inputs

AVERAGES: tuple[Strategy, ...] = (
    FedAvg(),
    FedAvgM(server_learning_rate=0.7, server_momentum=0.9),
    FedAvgM(server_learning_rate=1.3, server_momentum=0.0),
    FedAdam(),
    FedAdam(eta=0.03, beta_1=0.0, beta_2=0.0),
    FedYogi(),
)
ALL = tuple(
    parse_strategy(code, {})
    for code in ("fedavg", "fedavgm", "fedadam", "fedyogi", "fedmedian", "fedtrimmedavg")
)


def run(
    strategy: Strategy, rounds: int, local_steps: int = 2, **options: Any
) -> list[tuple[RoundInputs, Any]]:
    """Run rounds one after another; return each round's inputs and result."""
    blobs, history = options.pop("blobs", None) or MemoryBlobs(), []
    before, state = None, ""
    for number in range(1, rounds + 1):
        inputs = round_inputs(
            blobs, strategy=strategy, local_steps=local_steps, label=f"round {number}", before=before, state=state,
            **options,
        )  # fmt: skip
        result = aggregate(inputs, blobs.open)
        before, state = result.model.tobytes(), result.outcome.server_state_after
        assert blobs.put(before) == result.outcome.model_after
        assert not state or blobs.put(result.server_state) == state
        history.append((inputs, result))
    return history


# -- against Flower ---------------------------------------------------------------------------------------


def flower_strategy(ours: Strategy) -> Any:
    names = [f.name for f in fields(ours)]
    return getattr(flower, type(ours).__name__)(**{n: getattr(ours, n) for n in names})


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("local_steps", [1, 2])
@pytest.mark.parametrize("strategy", AVERAGES, ids=repr)
def test_eight_rounds_agree_with_flower(strategy: Strategy, local_steps: int, dtype: type) -> None:
    blobs = MemoryBlobs()
    theirs = flower_strategy(strategy)
    weights: NDArray[Any] = numbers("model", 50).astype(np.float32).astype(dtype)
    for number, (inputs, result) in enumerate(run(strategy, 8, local_steps, parameters=50, blobs=blobs), 1):
        if isinstance(strategy, FedAvgM):
            theirs.current_arrays = ArrayRecord({"w": Array(weights)})
        else:
            theirs.current_arrays = {"w": weights}
        news: list[NDArray[Any]] = [(weights + change).astype(dtype) for change in changes_of(inputs, blobs)]
        arrays, _ = theirs.aggregate_train(number, flower_replies(news, [u.weight for u in inputs.updates]))
        weights = arrays["w"].numpy()
        assert np.abs(result.model - weights).max() <= 1e-6
        if dtype is np.float32:  # Flower then rounds every hospital's weights: do not add up its errors
            weights = result.model
    assert np.abs(weights - numbers("model", 50)).max() > 0.01  # the rounds did move the model


@pytest.mark.parametrize("code", ["fedavgm", "fedadam", "fedyogi", "fedtrimmedavg", "krum"])
def test_defaults_are_those_of_flower(code: str) -> None:
    ours = parse_strategy(code, {})
    theirs = inspect.signature(getattr(flower, type(ours).__name__)).parameters
    for name in (f.name for f in fields(ours)):
        assert getattr(ours, name) == theirs[name].default


# -- to the bit -------------------------------------------------------------------------------------------


def float32(x: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", x))[0])


def power(base: float, exponent: int) -> float:
    return math.prod([base] * exponent, start=1.0)


def scalar_step(s: Strategy, change: float, memory: list[float], number: int) -> float:
    """One coordinate's server step in Python's own floats, which are IEEE 754 doubles."""
    if isinstance(s, FedAvgM):
        memory[0] = s.server_momentum * memory[0] + change
        return s.server_learning_rate * memory[0]
    if isinstance(s, FedAdam):
        square = change * change
        memory[0] = s.beta_1 * memory[0] + (1.0 - s.beta_1) * change
        if isinstance(s, FedYogi):
            sign = float((memory[1] > square) - (memory[1] < square))
            memory[1] = memory[1] - (1.0 - s.beta_2) * square * sign
            return s.eta * memory[0] / (math.sqrt(memory[1]) + s.tau)
        memory[1] = s.beta_2 * memory[1] + (1.0 - s.beta_2) * square
        rate = s.eta * math.sqrt(1.0 - power(s.beta_2, number + 1)) / (1.0 - power(s.beta_1, number + 1))
        return rate * memory[0] / (math.sqrt(memory[1]) + s.tau)
    return change


@pytest.mark.parametrize("local_steps", [1, 2])
@pytest.mark.parametrize("strategy", AVERAGES, ids=repr)
def test_every_bit_equals_a_scalar_reference(strategy: Strategy, local_steps: int) -> None:
    blobs = MemoryBlobs()
    history = run(strategy, 4, local_steps, blobs=blobs)
    weights = [float32(x) for x in numbers("model", 7)]
    memory = [[0.0, 0.0] for _ in weights]
    for number, (inputs, result) in enumerate(history, 1):
        scale = -((0.3 * 2.0**-12) / 48.0)
        for i in range(7):
            total = 0.0
            for u in inputs.updates:
                kind, size = ("<q", 8) if local_steps == 1 else ("<f", 4)
                (value,) = struct.unpack_from(kind, blobs.data[u.digest], i * size)
                total += (float(value) * scale if local_steps == 1 else value) * float(u.weight)
            change = total / float(sum(u.weight for u in inputs.updates))
            weights[i] = float32(weights[i] + scalar_step(strategy, change, memory[i], number))
        assert result.model.tolist() == weights


# What this code gave when it was first released: a record made then must recompute for ever.
RELEASED = {
    "fedavg": "e361fa6d3c89d2de",
    "fedavgm": "6e7e351cafbecc25",
    "fedadam": "837124ca60dc233b",
    "fedyogi": "d7db8aa030685b0c",
    "fedmedian": "bb077da021d73bb3",
    "fedtrimmedavg": "fbffa826d23ce56a",
}


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: s.code)
def test_results_never_change_between_releases(strategy: Strategy) -> None:
    hospitals = ("aachen", "basel", "cork", "delft", "espoo")
    _, last = run(strategy, 3, 1, parameters=1000, hospitals=hospitals)[-1]
    joined = last.outcome.model_after + last.outcome.server_state_after
    assert hashlib.sha256(joined.encode()).hexdigest()[:16] == RELEASED[strategy.code]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), block=st.integers(1, 40), which=st.sampled_from(ALL))
def test_order_of_arrival_and_block_size_change_nothing(seed: int, block: int, which: Strategy) -> None:
    blobs = MemoryBlobs()
    inputs = round_inputs(blobs, strategy=which, hospitals=[f"h{i:02}" for i in range(9)], parameters=33)
    shuffled = list(inputs.updates)
    random.Random(seed).shuffle(shuffled)
    again = replace(inputs, updates=tuple(shuffled))
    assert aggregate(again, blobs.open, block=block).outcome == aggregate(inputs, blobs.open).outcome


def test_bias_correction_multiplies_from_left_to_right() -> None:
    exact = [_power(0.9, n) == power(0.9, n) for n in range(200)]
    assert all(exact)
    assert any(_power(0.9, n) != 0.9**n for n in range(200))  # which the C library rounds in its own way


def test_subnormal_numbers_survive() -> None:
    blobs = MemoryBlobs()
    tiny = np.full(7, 2.0**-149, dtype="<f4").tobytes()
    inputs = round_inputs(blobs, before=tiny, hospitals=["aachen"])
    zero = replace(inputs.updates[0], digest=blobs.put(bytes(28)))
    assert aggregate(replace(inputs, updates=(zero,)), blobs.open).model.tobytes() == tiny


LIBM = ctypes.CDLL("libm.dylib" if sys.platform == "darwin" else "libm.so.6")
UPWARD = {"x86_64": 0x800, "aarch64": 0x400000, "arm64": 0x400000}[platform.machine()]
MODES: dict[str, Callable[[], object]] = {"rounds upwards": lambda: LIBM.fesetround(UPWARD)}


def set_mxcsr(bits: int) -> None:
    environment = (ctypes.c_uint32 * 8)()
    LIBM.fegetenv(environment)
    environment[7] |= bits  # glibc keeps the vector unit's control word at byte 28
    LIBM.fesetenv(environment)


if platform.machine() == "x86_64" and sys.platform == "linux":
    MODES |= {"flushes to zero": lambda: set_mxcsr(0x8000), "reads as zero": lambda: set_mxcsr(0x0040)}


@pytest.mark.parametrize("mode", MODES)
def test_a_process_that_does_not_compute_as_others_do_is_refused(mode: str) -> None:
    blobs = MemoryBlobs()
    inputs = round_inputs(blobs)
    normal = (ctypes.c_uint32 * 8)()
    LIBM.fegetenv(normal)
    try:
        MODES[mode]()
        with pytest.raises(AggregationError, match="fresh process"):
            aggregate(inputs, blobs.open)
    finally:
        LIBM.fesetenv(normal)
    aggregate(inputs, blobs.open)


def test_memory_does_not_grow_with_the_number_of_hospitals(tmp_path: Path) -> None:
    store, parameters = BlobStore(tmp_path), 100_000

    def peak(hospitals: int, strategy: Strategy) -> float:
        names = [f"h{i:02}" for i in range(hospitals)]
        memory = MemoryBlobs()
        inputs = round_inputs(memory, strategy=strategy, hospitals=names, parameters=parameters)
        for data in memory.data.values():
            store.put(data)
        del memory
        tracemalloc.start()
        aggregate(inputs, store.open)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most / (4 * parameters)  # in models

    two, many = peak(2, FedAvg()), peak(16, FedAvg())
    assert many < two + 0.05
    assert many < 4
    assert peak(16, FedAdam()) < 14  # two float64 moments, once computed and once encoded


# -- what is on the record --------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: s.code)
def test_recomputing_from_the_stored_blobs_gives_the_recorded_outcome(
    strategy: Strategy, tmp_path: Path
) -> None:
    blobs = MemoryBlobs()
    history = run(strategy, 3, blobs=blobs)
    store = BlobStore(tmp_path)
    for data in blobs.data.values():
        store.put(data)
    for inputs, result in history:
        assert recompute(inputs, store.open) == result.outcome
        assert bool(result.outcome.server_state_after) == bool(strategy.columns)


def test_inputs_digest_is_that_of_the_written_format() -> None:
    inputs = round_inputs(MemoryBlobs(), hospitals=["basel", "aachen"])
    a, b = inputs.updates
    assert (a.hospital, b.hospital) == ("aachen", "basel")
    text = json.dumps(
        {
            "model_before": inputs.model_before,
            "server_state_before": "",
            "updates": [
                {"hospital": u.hospital, "metrics": "", "update": u.digest, "weight": u.weight}
                for u in (a, b)
            ],
        },
        sort_keys=True,
        separators=(",", ":"),
    )
    assert inputs.digest() == hashlib.sha256(text.encode()).hexdigest()


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("damage", ["flip", "cut", "append", "empty"])
@pytest.mark.parametrize("which", ["model", "update", "state"])
def test_bytes_other_than_recorded_are_never_averaged(which: str, damage: str) -> None:
    blobs = MemoryBlobs()
    inputs, _ = run(FedAdam(), 2, blobs=blobs)[-1]
    digest, named = {
        "model": (inputs.model_before, "the model before the round"),
        "update": (inputs.updates[1].digest, "the update of basel"),
        "state": (inputs.server_state_before, "server state"),
    }[which]
    good = blobs.data[digest]
    bad = {
        "flip": flip(good, 8 * 70 % (8 * len(good))),
        "cut": good[:-1],
        "append": good + b"\0",
        "empty": b"",
    }
    blobs.data[digest] = bad[damage]
    with pytest.raises(IntegrityError, match=named):
        aggregate(inputs, blobs.open)


@settings(max_examples=60, deadline=None)
@given(header=st.one_of(st.binary(max_size=200), st.sampled_from([b"9" * 64, b" " * 64, b"-1".rjust(64)])))
def test_hostile_server_state_header(header: bytes) -> None:
    blobs = MemoryBlobs()
    inputs = round_inputs(blobs, strategy=FedAdam(), state=blobs.put(header + bytes(7 * 16)))
    with pytest.raises(IntegrityError):
        aggregate(inputs, blobs.open)


def test_state_of_another_strategy_is_refused() -> None:
    blobs = MemoryBlobs()
    inputs, _ = run(FedAdam(), 2, blobs=blobs)[-1]
    with pytest.raises(IntegrityError, match="not one of fedyogi for 7 parameters"):
        aggregate(replace(inputs, strategy=FedYogi()), blobs.open)
    with pytest.raises(AggregationError, match="carries no state"):
        replace(inputs, strategy=FedAvg())


def test_a_diverged_model_is_an_error_not_a_model() -> None:
    blobs = MemoryBlobs()
    inputs = round_inputs(blobs, before=np.full(7, 3.4e38, dtype="<f4").tobytes())
    far = blobs.put(np.full(7, 3.4e38, dtype="<f4").tobytes())
    updates = tuple(replace(u, digest=far) for u in inputs.updates)
    with pytest.raises(AggregationError, match="not finite"):
        aggregate(replace(inputs, updates=updates), blobs.open)


@pytest.mark.parametrize("weight", [0, -1, True, 1.0, "1"])
def test_weight_that_is_no_positive_integer(weight: Any) -> None:
    inputs = round_inputs(MemoryBlobs())
    with pytest.raises(AggregationError, match="weight"):
        replace(inputs, updates=(replace(inputs.updates[0], weight=weight),))


def test_rounds_that_cannot_be_averaged() -> None:
    inputs = round_inputs(MemoryBlobs())
    with pytest.raises(AggregationError, match="needs 1 updates and has 0"):
        replace(inputs, updates=())
    with pytest.raises(AggregationError, match="two updates"):
        replace(inputs, updates=inputs.updates[:1] * 2)
    with pytest.raises(AggregationError, match="another size"):
        replace(inputs, parameters=8)
    with pytest.raises(AggregationError, match="needs 5 updates and has 3"):
        replace(inputs, strategy=Krum(num_malicious_nodes=1))


# -- settings ---------------------------------------------------------------------------------------------


def test_settings_are_read_as_the_record_spells_them() -> None:
    assert parse_strategy("fedadam", {"eta": "0.1", "beta-1": "0.9", "tau": "1e-9"}) == FedAdam(tau=1e-9)
    settings = (Setting(name="num-malicious-nodes", value="2"),)
    assert strategy_of(Aggregation(strategy="krum", weighting="uniform", settings=settings)) == Krum(
        num_malicious_nodes=2
    )


BAD: Sequence[tuple[str, dict[str, Any], str]] = (
    ("fedsgd", {}, "choose one of fedadam, fedavg"),
    ("fedavg", {"eta": "1"}, "its settings: none"),
    ("fedadam", {"beta_1": "0.9"}, "has no setting 'beta_1'"),
    ("fedadam", {"eta": "nan"}, "eta must be a decimal"),
    ("fedadam", {"eta": "0x1"}, "eta must be a decimal"),
    ("fedadam", {"eta": " 1"}, "eta must be a decimal"),
    ("fedadam", {"eta": math.inf}, "eta must be finite"),
    ("fedadam", {"eta": 10**400}, "eta must be finite"),
    ("fedadam", {"eta": "0"}, "eta must be above 0"),
    ("fedadam", {"beta-1": "1"}, "beta-1 must be"),
    ("fedyogi", {"beta-2": "-0.1"}, "beta-2 must be"),
    ("fedadam", {"tau": "0"}, "tau must be above 0"),
    ("fedavgm", {"server-momentum": "1"}, "server-momentum must be"),
    ("fedavgm", {"server-learning-rate": "0"}, "server-learning-rate must be"),
    ("fedtrimmedavg", {"beta": "0.5"}, "beta must be"),
    ("krum", {"num-malicious-nodes": "1.5"}, "whole number"),
    ("krum", {"num-malicious-nodes": "-1"}, "0 or more"),
)


@pytest.mark.parametrize(("code", "given_settings", "message"), BAD, ids=lambda v: str(v)[:30])
def test_a_job_with_impossible_settings(code: str, given_settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        parse_strategy(code, given_settings)
    assert "\n" not in str(caught.value)


def test_an_auditor_pays_for_no_heavy_import() -> None:
    code = "import sys, coordinator.aggregation; print([m for m in ('flwr', 'torch', 'opacus') if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
