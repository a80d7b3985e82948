"""One round of training: sums, clipping, noise, chunks, divisor, FedProx, and messages no row can change in kind."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from client.dp_sgd import DiscreteGaussianOptimizer
from client.errors import TrainingRefusedError
from client.losses import per_example_loss
from client.models import ModelSettings, build, initial_parameters, unpack
from client.randomness import seeded_for_tests, system_randomness
from client.training import RoundTraining, chunk_size_for, train_round
from client.training_plan import TrainingPlan, decode_update

torch.set_num_threads(1)  # two busy threads on two busy cores are many times slower

LOGISTIC = ModelSettings(name="logistic-regression", input_shape=(9,))
MLP = ModelSettings(name="mlp", input_shape=(9,), hidden=(16, 8))
CNN = ModelSettings(name="small-cnn", input_shape=(1, 28, 28))
MODELS = [LOGISTIC, MLP, CNN]
HOOKS_SIZE_CLASS = 2**19  # above what the exact path takes
PLAN = TrainingPlan(
    learning_rate=0.1,
    max_grad_norm=0.5,
    noise_multiplier=1.0,
    size_class=32,
    loss="bce-with-logits",
    chunk_size=16,
)
QUIET = replace(PLAN, noise_multiplier=0.0)


def table(settings: ModelSettings, rows: int = 37) -> tuple[nn.Module, NDArray[np.float32], Tensor, Tensor]:
    model = build(settings)
    generator = torch.Generator().manual_seed(3)
    features = torch.randn((rows, *settings.input_shape), generator=generator)
    labels = torch.randint(0, 2, (rows,), generator=generator)
    return model, initial_parameters(model, settings, seed=4, prevalence=0.3), features, labels


def clipped_by_autograd(
    model: nn.Module, parameters: NDArray[np.float32], features: Tensor, labels: Tensor, plan: TrainingPlan
) -> NDArray[np.float64]:
    """The sum one would write down: each example alone, autograd, clip, add, in float64."""
    unpack(parameters, model)
    total = np.zeros(len(parameters))
    for x, y in zip(features, labels, strict=True):
        loss = per_example_loss(plan.loss, model(x[None]), y[None]).sum()
        parts = torch.autograd.grad(loss, list(model.parameters()))
        gradient = torch.cat([part.reshape(-1) for part in parts]).double().numpy()
        total += gradient * min(1.0, plan.max_grad_norm / float(np.linalg.norm(gradient)))
    return total


@pytest.mark.parametrize("size_class", [32, HOOKS_SIZE_CLASS], ids=["exact", "hooks"])
@pytest.mark.parametrize("settings", MODELS, ids=lambda s: s.name)
@pytest.mark.parametrize("max_grad_norm", [0.05, 1e3], ids=["clipped", "whole"])
def test_sum_is_that_of_clipped_gradients_of_single_examples(
    settings: ModelSettings, size_class: int, max_grad_norm: float
) -> None:
    model, parameters, features, labels = table(settings)
    plan = replace(QUIET, size_class=size_class, max_grad_norm=max_grad_norm, grid_bits=24)
    update = train_round(model, parameters, features, labels, plan, seeded_for_tests(1))
    expected = clipped_by_autograd(model, parameters, features, labels, plan)
    assert update.dtype == np.int64
    slack = 37 * max_grad_norm * 2 * math.sqrt(len(parameters)) / 2**24
    assert np.linalg.norm(update * plan.grid - expected) < slack + 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("settings", [LOGISTIC, MLP], ids=lambda s: s.name)
@pytest.mark.parametrize("loss", ["bce-with-logits", "mse", "cross-entropy"])
def test_exact_path_equals_opacus_hooks(settings: ModelSettings, loss: str) -> None:
    settings = replace(settings, outputs=2 if loss == "cross-entropy" else 1)
    model, parameters, features, labels = table(settings)
    plan = replace(QUIET, loss=loss, grid_bits=24)
    exact = train_round(model, parameters, features, labels, plan, seeded_for_tests(1))
    hooks_plan = replace(plan, size_class=HOOKS_SIZE_CLASS)
    hooks = train_round(model, parameters, features, labels, hooks_plan, seeded_for_tests(1))
    assert np.linalg.norm((exact - hooks) * plan.grid) < 1e-6 * 37 * plan.max_grad_norm
    assert (exact != 0).any()


def test_which_path_a_model_takes() -> None:
    for settings, exact in ((LOGISTIC, True), (MLP, True), (CNN, False)):
        model, parameters, _, _ = table(settings)
        training = RoundTraining(
            model, parameters, PLAN, seeded_for_tests(1), example_shape=settings.input_shape
        )
        assert training.exact == exact


@pytest.mark.parametrize("size_class", [32, HOOKS_SIZE_CLASS], ids=["exact", "hooks"])
@pytest.mark.parametrize("settings", MODELS, ids=lambda s: s.name)
def test_chunked_and_unchunked_sums_are_equal(settings: ModelSettings, size_class: int) -> None:
    if settings is CNN and size_class == 32:
        size_class = 64  # the CNN has one path; another public size must not change its sum
    model, parameters, features, labels = table(settings)
    sums = []
    for chunk_size in (16, 32, 64):
        plan = replace(QUIET, chunk_size=chunk_size, size_class=size_class)
        sums.append(train_round(model, parameters, features, labels, plan, seeded_for_tests(1)))
    # float32 products of another shape may round their last bits otherwise: a grid unit here and there
    assert np.abs(sums[0] - sums[2]).max() <= 2
    assert np.abs(sums[1] - sums[2]).max() <= 2


@pytest.mark.parametrize("size_class", [32, HOOKS_SIZE_CLASS], ids=["exact", "hooks"])
def test_chunked_and_unchunked_sums_are_equal_bit_for_bit_where_float32_is_exact(size_class: int) -> None:
    """Small whole numbers: no arithmetic rounds, so not one unit may differ, whatever chunks and order are."""
    model, parameters, _, _ = table(LOGISTIC)
    generator = torch.Generator().manual_seed(6)
    features = torch.randint(-8, 9, (100, 9), generator=generator)
    labels = torch.randint(-4, 5, (100,), generator=generator)
    sums = [
        train_round(
            model,
            np.zeros_like(parameters),
            features,
            labels,
            replace(QUIET, loss="mse", chunk_size=chunk_size, size_class=size_class),
            seeded_for_tests(seed),
        )
        for chunk_size, seed in ((16, 1), (32, 2), (128, 3))
    ]
    assert (sums[0] == sums[1]).all()
    assert (sums[0] == sums[2]).all()
    assert (sums[0] != 0).any()


def test_noise_is_the_plans_on_every_coordinate() -> None:
    model, parameters, features, labels = table(MLP)
    quiet = train_round(model, parameters, features, labels, QUIET, seeded_for_tests(1))
    for multiplier in (0.5, 3.0):
        plan = replace(PLAN, noise_multiplier=multiplier)
        runs = [
            train_round(model, parameters, features, labels, plan, seeded_for_tests(seed)) - quiet
            for seed in range(20)
        ]
        noise = np.stack(runs) / float(plan.sigma)
        assert abs(noise.mean()) < 4 / math.sqrt(noise.size)
        assert abs(noise.var() - 1) < 4 * math.sqrt(2 / noise.size)
        per_coordinate = noise.var(axis=0)
        assert per_coordinate.min() > 0.15
        assert per_coordinate.max() < 3.0


def test_training_without_noise_is_refused_with_production_randomness() -> None:
    model, parameters, features, labels = table(LOGISTIC)
    with pytest.raises(TrainingRefusedError, match="simulation only"):
        train_round(model, parameters, features, labels, QUIET, system_randomness())


def test_decoded_update_is_the_formula_on_the_record() -> None:
    update = np.array([3, -5, 2**40], dtype=np.int64)
    plan = replace(PLAN, sampling="poisson", sample_rate=0.25)
    expected = [-(0.1 * (0.5 / 2**20) / 8.0 * float(x)) for x in update.tolist()]
    assert decode_update(update, plan).tolist() == expected
    change = np.array([0.5], dtype=np.float32)
    assert decode_update(change, replace(PLAN, local_steps=2)).tolist() == [0.5]


def test_several_steps_send_the_change_in_weights() -> None:
    model, parameters, features, labels = table(MLP)
    plan = replace(QUIET, local_steps=3)
    change = train_round(model, parameters, features, labels, plan, seeded_for_tests(1))
    weights = parameters.astype(np.float64)
    for _ in range(3):
        start = weights.astype(np.float32)
        weights -= 0.1 * clipped_by_autograd(model, start, features, labels, plan) / 32
    assert change.dtype == np.float32
    assert np.abs(change - (weights - parameters)).max() < 1e-5
    assert np.abs(change).max() > 1e-3


def test_several_noised_steps_differ_from_one_and_keep_the_caller_untouched() -> None:
    model, parameters, features, labels = table(MLP)
    before = parameters.copy()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for steps in (1, 2):
        train_round(
            model, parameters, features, labels, replace(PLAN, local_steps=steps), system_randomness()
        )
    assert (parameters == before).all()
    assert all((state[name] == value).all() for name, value in model.state_dict().items())
    assert not any(hasattr(p, "grad_sample") for p in model.parameters())


def test_fedprox_pulls_back_after_clipping_and_is_inert_in_one_step() -> None:
    model, parameters, features, labels = table(LOGISTIC)
    plan = replace(QUIET, local_steps=2, fedprox_mu=0.5)
    change = train_round(model, parameters, features, labels, plan, seeded_for_tests(1))
    first = -0.1 * clipped_by_autograd(model, parameters, features, labels, plan) / 32
    second = clipped_by_autograd(model, (parameters + first).astype(np.float32), features, labels, plan) / 32
    assert np.allclose(change, first - 0.1 * (second + 0.5 * first), atol=1e-6)
    assert not plan.fedprox_inert
    assert replace(plan, local_steps=1).fedprox_inert
    one = [
        train_round(
            model,
            parameters,
            features,
            labels,
            replace(plan, local_steps=1, fedprox_mu=mu),
            seeded_for_tests(1),
        )
        for mu in (0.0, 9.0)
    ]
    assert (one[0] == one[1]).all()


HOSTILE = [float("nan"), float("inf"), -float("inf"), 1e30, 3e38, 1e-40]


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("settings", MODELS, ids=lambda s: s.name)
def test_hostile_row_leaves_a_message_of_the_same_kind_and_size(settings: ModelSettings, steps: int) -> None:
    model, parameters, features, labels = table(settings, rows=18)
    plan = replace(PLAN, local_steps=steps)
    usual = train_round(model, parameters, features, labels, plan, seeded_for_tests(1))
    for value in HOSTILE:
        for target in (features.clone(), labels.double()):
            target[3] = value
            x, y = (target, labels) if target.shape == features.shape else (features, target)
            update = train_round(model, parameters, x, y, plan, seeded_for_tests(1))
            assert (update.dtype, update.shape) == (usual.dtype, usual.shape)
            assert np.isfinite(update).all()
            assert np.abs(decode_update(update, plan)).max() < 1.0


def test_table_without_rows_sends_pure_noise() -> None:
    model, parameters, features, labels = table(LOGISTIC)
    update = train_round(model, parameters, features[:0], labels[:0], PLAN, seeded_for_tests(1))
    assert update.shape == parameters.shape
    assert 0.3 < (update / float(PLAN.sigma)).std() < 2


def test_patients_with_several_rows_weigh_as_one() -> None:
    model, parameters, features, labels = table(LOGISTIC)
    owners = np.arange(37)
    once = train_round(model, parameters, features, labels, QUIET, seeded_for_tests(1), patients=owners)
    copies = torch.arange(37).repeat_interleave(4)
    many = train_round(
        model,
        parameters,
        features[copies],
        labels[copies],
        QUIET,
        seeded_for_tests(2),
        patients=owners.repeat(4),
    )
    assert np.abs(once - many).max() <= 2
    with pytest.raises(TrainingRefusedError, match="one patient per row"):
        train_round(model, parameters, features, labels, QUIET, seeded_for_tests(1), patients=owners[1:])


def test_labels_of_shape_b_1_are_the_same_labels() -> None:
    model, parameters, features, labels = table(LOGISTIC)
    flat, column = (
        train_round(model, parameters, features, y, QUIET, seeded_for_tests(1))
        for y in (labels, labels[:, None])
    )
    assert (flat == column).all()
    with pytest.raises(TrainingRefusedError, match="one row per example"):
        train_round(model, parameters, features, labels[:-1], QUIET, seeded_for_tests(1))


def test_optimizer_is_opacus_own_with_our_rails() -> None:
    model = build(LOGISTIC)
    optimizer = DiscreteGaussianOptimizer(model, PLAN, seeded_for_tests(1))
    assert isinstance(optimizer, DPOptimizer)
    optimizer.step()
    assert optimizer.message.shape == (10,)
    assert not optimizer.noiseless_sum().any()


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    model, parameters, features, labels = table(LOGISTIC)
    train_round(model, parameters, features, labels, PLAN, seeded_for_tests(1), threads=before + 1)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("clipping", "ghost", "ghost clipping is not offered"),
        ("clipping", "adaptive", "adaptive clipping is not offered"),
        ("clipping", "per-layer", "per-layer clipping is not offered"),
        ("clipping", "automatic", "automatic clipping is not offered"),
        ("sampling", "shuffle", "shuffle sampling is not offered"),
        ("sampling", "drop-last", "drop-last sampling is not offered"),
        ("sampling", "poisson", "below 1 with poisson"),
        ("sample_rate", 0.5, "must be 1 with full"),
        ("sample_rate", 0.0, "sample_rate must lie between"),
        ("local_steps", 0, "local_steps must lie between"),
        ("learning_rate", math.inf, "learning_rate must lie between"),
        ("learning_rate", math.nan, "learning_rate must lie between"),
        ("max_grad_norm", 0.0, "max_grad_norm must lie between"),
        ("noise_multiplier", -1.0, "noise_multiplier must lie between"),
        ("size_class", 0, "size_class must lie between"),
        ("chunk_size", 48, "power of two"),
        ("chunk_size", 1024, "chunk_size must lie between"),
        ("fedprox_mu", -0.1, "fedprox_mu must lie between"),
    ],
)
def test_plan_that_is_not_offered_is_refused_by_name(field: str, value: object, reason: str) -> None:
    with pytest.raises(TrainingRefusedError, match=reason):
        replace(PLAN, **{field: value})  # type: ignore[arg-type]


def test_grid_too_coarse_for_the_model_is_refused() -> None:
    assert PLAN.clip_limit(60_000) > 0.999 * 2**20
    with pytest.raises(TrainingRefusedError, match="too coarse"):
        replace(PLAN, grid_bits=16).clip_limit(10**8)


def test_noise_scale_is_the_decimal_on_the_record() -> None:
    assert replace(PLAN, noise_multiplier=1.1).sigma * 10 == 11 * 2**20


def test_chunk_size_keeps_memory_flat() -> None:
    wide = ModelSettings(name="mlp", input_shape=(100,), hidden=(256, 128))
    assert chunk_size_for(build(wide), (100,)) == 256  # no gradients per example
    assert chunk_size_for(build(CNN), (1, 28, 28)) == 128
    for width, expected in ((8, 256), (400, 16)):
        normed = nn.Sequential(
            nn.Linear(4, width), nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, 1)
        )
        assert chunk_size_for(normed, (4,)) == expected
