"""Admission: every kind of bad reply has its code, and no honest update is ever refused."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.training_plan import TrainingPlan, decode_update
from coordinator.admission import Expected, Reason, Reply, judge, judge_numbers
from coordinator.errors import IntegrityError, SettingError
from coordinator.updates import MAX_INTEGER, Plan, plan_of
from ledger.rules_rounds import ABSENT_CODES, ADMISSION_CODES, KNOWN_CODES
from ledger.values import Mechanism, Setting, Training
from tests.coordinator.rounds import packed, plan

JOB, MODEL = "aa" * 32, "bb" * 32
FLOATS = plan(7)
INTEGERS = plan(7, local_steps=1)


def expected(of: Plan) -> Expected:
    return Expected(job=JOB, round=3, model=MODEL, deadline=1000, plans={"basel": of})


def reply(data: bytes, of: Plan, **changes: Any) -> Reply:
    digest = hashlib.sha256(data).hexdigest()
    honest = Reply(
        hospital="basel", arrived_at=1000, job=JOB, round=3, model=MODEL, receipt_update=digest,
        receipt_metrics="", digest=digest, arrays=("update",), dtype=of.dtype.name,
        shape=(of.parameters,), size=len(data),
    )  # fmt: skip
    return replace(honest, **changes)


def verdict(values: NDArray[Any], of: Plan, answered: tuple[str, ...] = (), **changes: Any) -> Reason | None:
    data = packed(values, of)
    return judge(reply(data, of, **changes), expected(of), answered, lambda: io.BytesIO(data))


# -- one thing wrong at a time ----------------------------------------------------------------------------


@pytest.mark.parametrize("of", [FLOATS, INTEGERS], ids=["float32", "int64"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"hospital": "mallory"}, Reason.STRANGER),
        ({"arrived_at": 1001}, Reason.LATE),
        ({"job": "cc" * 32}, Reason.JOB),
        ({"round": 2}, Reason.ROUND),
        ({"round": 4}, Reason.ROUND),
        ({"model": "cc" * 32}, Reason.MODEL),
        ({"receipt_update": "cc" * 32}, Reason.DIGEST),
        ({"receipt_update": ""}, Reason.DIGEST),
        ({"arrays": ("weights",)}, Reason.NAME),
        ({"arrays": ()}, Reason.NAME),
        ({"arrays": ("update", "update")}, Reason.NAME),
        ({"dtype": "float64"}, Reason.DTYPE),
        ({"dtype": "uint64"}, Reason.DTYPE),
        ({"shape": (8,)}, Reason.SHAPE),
        ({"shape": (7, 1)}, Reason.SHAPE),
        ({"shape": ()}, Reason.SHAPE),
        ({"size": 27}, Reason.SHAPE),
    ],
    ids=str,
)
def test_each_fault_of_a_reply_has_its_code(of: Plan, changes: dict[str, Any], reason: Reason | None) -> None:
    assert verdict(np.zeros(7), of, **changes) == reason


def test_second_reply_of_one_hospital_is_a_duplicate_whatever_it_holds() -> None:
    assert verdict(np.zeros(7), FLOATS, answered=("basel",)) == Reason.DUPLICATE
    assert verdict(np.full(7, np.nan), FLOATS, answered=("basel",)) == Reason.DUPLICATE


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 3, 6])
def test_one_non_finite_number_poisoning_the_average(value: float, position: int) -> None:
    values = np.zeros(7)
    values[position] = value
    assert verdict(values, FLOATS) == Reason.NON_FINITE


def test_signalling_nan_is_a_code_not_a_warning() -> None:
    data = np.full(7, 0x7F800001, dtype="<u4").tobytes()
    assert judge(reply(data, FLOATS), expected(FLOATS), (), lambda: io.BytesIO(data)) == Reason.NON_FINITE


@pytest.mark.parametrize("value", [-(2**63), 2**63 - 1, 2**53, -(2**53)])
def test_integers_that_would_overflow_when_decoded(value: int) -> None:
    values = np.zeros(7, dtype=np.int64)
    values[2] = value
    assert verdict(values, INTEGERS) == Reason.NORM


def test_huge_float32_numbers_do_not_overflow_the_norm() -> None:
    assert verdict(np.full(7, 3.4e38), FLOATS) == Reason.NORM


@pytest.mark.parametrize("of", [plan(100_000), plan(100_000, local_steps=1)], ids=["float32", "int64"])
def test_norm_limit_is_exact_to_a_thousandth_across_blocks(of: Plan) -> None:
    unit = of.norm_limit / math.sqrt(of.parameters) / (abs(of.scale) if of.local_steps == 1 else 1.0)
    assert verdict(np.full(of.parameters, 0.999 * unit), of) is None
    assert verdict(np.full(of.parameters, 1.001 * unit), of) == Reason.NORM


def test_damage_on_our_own_disk_is_not_held_against_the_hospital() -> None:
    data = packed(np.zeros(7), FLOATS)
    spooled = b"\1" + data[1:]
    with pytest.raises(IntegrityError, match="a spooled update"):
        judge(reply(data, FLOATS), expected(FLOATS), (), lambda: io.BytesIO(spooled))


@settings(deadline=None)
@given(
    data=st.binary(max_size=64),
    changes=st.fixed_dictionaries(
        {},
        optional={
            "arrays": st.lists(st.text(max_size=9), max_size=3).map(tuple),
            "dtype": st.text(max_size=9),
            "shape": st.lists(st.integers(), max_size=3).map(tuple),
            "size": st.integers(),
            "round": st.integers(),
            "model": st.text(),
            "hospital": st.text(),
        },
    ),
)
def test_arbitrary_replies_get_a_code_and_raise_nothing(data: bytes, changes: dict[str, Any]) -> None:
    for of in (FLOATS, INTEGERS):
        given_reply = reply(data, of, **changes)
        assert judge(given_reply, expected(of), (), lambda: io.BytesIO(data)) in {None, *Reason}


# -- honest noise -----------------------------------------------------------------------------------------


def normal_cdf(x: float) -> float:
    return math.erfc(-x / math.sqrt(2.0)) / 2.0


def sigma_for(epsilon: float, delta: float, releases: int) -> float:
    """The noise that full-batch releases need: the Gaussian mechanism's closed form (Balle and Wang 2018)."""

    def spent(sigma: float) -> float:
        mu = math.sqrt(releases) / sigma
        return normal_cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * normal_cdf(-mu / 2 - epsilon / mu)

    low, high = 0.1, 10_000.0
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return high


def honest_sums(
    of: Plan, count: int, rng: np.random.Generator, patients: int | None = None
) -> NDArray[np.int64]:
    """Noised gradient sums; the patients (by default as many as can be) are all clipped and point the same way."""
    direction = np.zeros(of.parameters)
    direction[0] = of.max_grad_norm * (of.most_patients if patients is None else patients)
    noise = rng.normal(0.0, of.noise_multiplier * of.max_grad_norm, size=(count, of.parameters))
    return np.rint((direction + noise) / of.grid).astype(np.int64)


@pytest.mark.parametrize("patients", [None, 0], ids=["every gradient aligned", "noise alone"])
def test_ten_thousand_honest_updates_at_epsilon_1_are_all_admitted(patients: int | None) -> None:
    rng = np.random.default_rng(7)
    judged = 0
    for size_class in (4, 8, 16, 32, 64):
        sigma = sigma_for(1.0, 1.0 / (10 * size_class), releases=20)
        for parameters in (1, 14, 31, 300):
            of = plan(
                parameters,
                local_steps=1,
                noise_multiplier=sigma,
                size_class=size_class,
                divisor=float(size_class),
            )
            for sums in honest_sums(of, 500, rng, patients):
                data = packed(sums, of)
                assert judge_numbers(io.BytesIO(data), hashlib.sha256(data).hexdigest(), of) is None
                judged += 1
    assert judged == 10_000


@pytest.mark.parametrize("size_class", [4, 16, 64])
def test_update_scaled_a_hundredfold_is_left_out(size_class: int) -> None:
    rng = np.random.default_rng(8)
    sigma = sigma_for(1.0, 1.0 / (10 * size_class), releases=20)
    for parameters in (14, 300):
        of = plan(parameters, local_steps=1, noise_multiplier=sigma, size_class=size_class, divisor=64.0)
        for sums in honest_sums(of, 100, rng):
            assert verdict(sums * 100, of) == Reason.NORM


def test_one_and_a_half_root_d_alone_would_refuse_honest_noise() -> None:
    """Why the limit has a tail term: for small models 1.5 sigma sqrt(d) is an everyday value."""
    rng = np.random.default_rng(9)
    of = plan(
        1, local_steps=1, noise_multiplier=sigma_for(1.0, 1 / 40, releases=20), size_class=4, divisor=4.0
    )
    without_tail = of.max_grad_norm * (of.most_patients + 1.5 * of.noise_multiplier)
    norms = np.abs(honest_sums(of, 10_000, rng)[:, 0] * of.grid)
    assert (norms > without_tail).sum() > 100
    assert (norms <= of.sum_limit).all()


@pytest.mark.parametrize("steps", [2, 5])
def test_honest_changes_of_several_local_steps_are_admitted(steps: int) -> None:
    rng = np.random.default_rng(10)
    of = plan(31, local_steps=steps, noise_multiplier=12.0, size_class=16, divisor=16.0)
    for _ in range(500):
        sums = honest_sums(of, steps, rng) * of.grid
        change = -(of.learning_rate / of.divisor) * sums.sum(axis=0)
        assert verdict(change, of) is None


def test_noiseless_update_of_the_largest_hospital_of_its_class_is_admitted() -> None:
    of = plan(14, local_steps=1, noise_multiplier=0.0, size_class=1024, divisor=1024.0, grid=1e-5)
    sums = np.zeros(14)
    sums[3] = 1536 * of.max_grad_norm / of.grid
    assert verdict(np.rint(sums), of) is None


@given(st.integers(1, 10**6))
def test_no_hospital_has_more_patients_than_its_class_allows(patients: int) -> None:
    below = 2 ** (patients.bit_length() - 1)
    distances = {c: abs(c - patients) for c in (below, 2 * below)}
    for nearest in (
        c for c, far in distances.items() if far == min(distances.values())
    ):  # two where it is a tie
        assert patients <= plan(1, size_class=nearest).most_patients


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": 1e-18, "local_steps": 1}, "grid is too fine"),
        ({"divisor": 0.0}, "divisor must be"),
        ({"learning_rate": math.nan}, "learning_rate must be"),
        ({"max_grad_norm": math.inf}, "max_grad_norm must be"),
        ({"noise_multiplier": -1.0}, "noise_multiplier must be"),
        ({"noise_multiplier": math.nan}, "noise_multiplier must be"),
        ({"parameters": 0}, "parameters must be"),
        ({"size_class": 0}, "size_class must be"),
    ],
    ids=str,
)
def test_impossible_plan(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        replace(FLOATS, **changes)


def test_decoding_never_rounds_an_admitted_integer() -> None:
    of = plan(1, local_steps=1, noise_multiplier=0.0, size_class=2, grid=2.0**-50, divisor=1.0)
    assert of.integer_limit <= MAX_INTEGER
    decoded = of.decode(np.array([of.integer_limit, -of.integer_limit], dtype="<i8"))
    assert (decoded / of.scale).tolist() == [of.integer_limit, -of.integer_limit]


# -- histograms -------------------------------------------------------------------------------------------


def evaluation(counts: Any, *, trains: bool = True, **changes: Any) -> Reason | None:
    due = replace(expected(FLOATS), trains=trains, histogram_noise={"basel": 10.0})
    data = packed(np.zeros(7), FLOATS)
    digest = hashlib.sha256(counts.tobytes()).hexdigest()
    sent = reply(
        data,
        FLOATS,
        histogram=counts,
        histogram_digest=digest,
        receipt_metrics=digest,
        arrays=("metrics", "update"),
    )
    if not trains:
        sent = replace(sent, arrays=("metrics",), digest="", receipt_update="", dtype="", shape=(), size=0)
    return judge(replace(sent, **changes), due, (), lambda: io.BytesIO(data))


COUNTS = np.arange(-6, 6, dtype=np.int64).reshape(2, 6)


@pytest.mark.parametrize("trains", [True, False], ids=["with an update", "evaluation only"])
@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (COUNTS, None),
        (COUNTS + 96 + 120 - 10, None),
        (COUNTS.astype(np.float32), Reason.METRICS),
        (COUNTS.T, Reason.METRICS),
        (COUNTS[:1], Reason.METRICS),
        (COUNTS + 1000, Reason.METRICS),
        (np.full((2, 6), -(2**63)), Reason.METRICS),
    ],
    ids=[
        "honest",
        "at the limit",
        "float32",
        "transposed",
        "one class",
        "too many patients",
        "int64's least",
    ],
)
def test_histogram_that_no_honest_hospital_sends(counts: Any, reason: Reason | None, trains: bool) -> None:
    assert evaluation(counts, trains=trains) == reason


def test_histogram_other_than_its_receipt_names() -> None:
    assert evaluation(COUNTS, receipt_metrics="cc" * 32) == Reason.METRICS
    assert evaluation(COUNTS, histogram=None) == Reason.METRICS
    assert evaluation(COUNTS, arrays=("update",)) == Reason.NAME
    assert evaluation(COUNTS, trains=False, receipt_update="cc" * 32) == Reason.DIGEST
    assert evaluation(COUNTS, trains=False, arrays=("metrics", "update")) == Reason.NAME
    assert verdict(np.zeros(7), FLOATS, arrays=("metrics", "update")) == Reason.NAME  # none was asked for


# -- both ends agree --------------------------------------------------------------------------------------


@given(
    values=st.lists(st.integers(-(2**50), 2**50), min_size=1, max_size=20),
    rate=st.sampled_from(["1", "0.1", "0.37"]),
    norm=st.sampled_from(["0.5", "1", "0.3"]),
    learning_rate=st.sampled_from(["0.3", "0.001", "7"]),
    grid_bits=st.integers(16, 24),
    size_class=st.sampled_from([1, 8, 4096]),
)
def test_both_ends_read_the_same_change_out_of_an_update(
    values: list[int], rate: str, norm: str, learning_rate: str, grid_bits: int, size_class: int
) -> None:
    training = Training(
        model="logistic", model_code="aa" * 32, parameters=len(values), loss="bce", local_steps=1,
        learning_rate=learning_rate, max_grad_norm=norm, sample_rate=rate,
        settings=(Setting(name="grid-bits", value=str(grid_bits)),),
    )  # fmt: skip
    mechanism = Mechanism(
        name="dp-sgd", noise_multiplier="7.5", sample_rate=rate, steps=1, max_grad_norm=norm
    )
    theirs = TrainingPlan(
        learning_rate=float(learning_rate), max_grad_norm=float(norm), noise_multiplier=7.5, size_class=size_class,
        loss="bce", sampling="full" if rate == "1" else "poisson", sample_rate=float(rate), grid_bits=grid_bits,
    )  # fmt: skip
    ours = plan_of(training, mechanism, size_class)
    numbers = np.array(values, dtype="<i8")
    assert ours.decode(numbers).tobytes() == decode_update(numbers, theirs).tobytes()
    assert (ours.grid, ours.divisor, ours.noise_multiplier) == (theirs.grid, theirs.divisor, 7.5)


@pytest.mark.parametrize("bits", ["-1", "61", "20.5"])
def test_job_with_an_impossible_grid(bits: str) -> None:
    training = Training(
        model="logistic", model_code="aa" * 32, parameters=3, loss="bce", local_steps=1, learning_rate="1",
        max_grad_norm="1", sample_rate="1", settings=(Setting(name="grid-bits", value=bits),),
    )  # fmt: skip
    mechanism = Mechanism(name="dp-sgd", noise_multiplier="7.5", sample_rate="1", steps=1, max_grad_norm="1")
    with pytest.raises(SettingError, match="grid-bits must be a whole number"):
        plan_of(training, mechanism, 64)


def test_codes_are_those_of_the_ledger() -> None:
    judged_on_bytes = {"digest", "dtype", "metrics", "name", "non-finite", "norm", "shape"}
    assert judged_on_bytes == ADMISSION_CODES  # a reply left out for another reason has no logged receipt
    assert {
        reason.code for reason in set(Reason) - {Reason.STRANGER, Reason.DUPLICATE}
    } == ADMISSION_CODES | ABSENT_CODES | set(KNOWN_CODES)
    assert Reason.MODEL.code == Reason.ROUND.code == Reason.JOB.code == "receipt"
