"""Built-in models, their packed form and first bytes, a job's model.py, and every refusal of `check_model`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.errors import TrainingRefusedError
from client.losses import per_example_loss
from client.model_check import check_model
from client.models import ModelSettings, build, initial_parameters, pack, unpack
from client.software import models_digest

torch.set_num_threads(1)  # two busy threads on two busy cores are many times slower

LOGISTIC = ModelSettings(name="logistic-regression", input_shape=(20,))
MLP = ModelSettings(name="mlp", input_shape=(12,), hidden=(16, 8))
CNN = ModelSettings(name="small-cnn", input_shape=(1, 28, 28))
MLP_THREE = ModelSettings(name="mlp", input_shape=(12,), outputs=3)
# SHA-256 of the little-endian bytes of the first parameters, seed 1, prevalence 0.3: never regenerated.
FIRST_BYTES = {
    LOGISTIC: "e422efac31f3a7b9b88ccd205ac4eee1485356cd286693bc28e858738578458c",
    MLP: "ee12a703bc7db28cf4a3baf28376cf4ed5ce019023e0c6667f18c542e93cb147",
    CNN: "2b364c2ecab4739db2370a301a4e28a2aa67a78f0dfa4e1d9c8728602dfb4af1",
    MLP_THREE: "d664b2912ef2f3944ebfb9592ef143880a43df845eebc4978369c693c72fc602",
}


@pytest.mark.parametrize("settings", FIRST_BYTES, ids=lambda s: f"{s.name}-{s.outputs}")
def test_first_parameters_are_the_same_bytes_for_ever(settings: ModelSettings) -> None:
    parameters = initial_parameters(build(settings), settings, seed=1, prevalence=0.3)
    assert hashlib.sha256(parameters.astype("<f4").tobytes()).hexdigest() == FIRST_BYTES[settings]
    assert (parameters == initial_parameters(build(settings), settings, seed=1, prevalence=0.3)).all()


def test_first_parameters_start_at_the_public_prevalence() -> None:
    for settings in (LOGISTIC, MLP, CNN):
        model = build(settings)
        unpack(initial_parameters(model, settings, seed=3, prevalence=0.2), model)
        blank = torch.zeros((1, *settings.input_shape))
        assert torch.sigmoid(model(blank)).item() == pytest.approx(0.2, abs=1e-6)
    assert not initial_parameters(build(LOGISTIC), LOGISTIC, seed=3)[:20].any()
    with pytest.raises(TrainingRefusedError, match="prevalence"):
        initial_parameters(build(LOGISTIC), LOGISTIC, seed=1, prevalence=1.0)


def test_first_weights_have_the_spread_of_he_and_follow_the_seed() -> None:
    settings = ModelSettings(name="mlp", input_shape=(100,), hidden=(256, 128))
    first = initial_parameters(build(settings), settings, seed=1)
    weights = first[: 100 * 256]
    assert np.abs(weights).max() <= np.float32(np.sqrt(6 / 100))
    assert float(weights.std()) == pytest.approx(np.sqrt(2 / 100), rel=0.02)
    assert not (first == initial_parameters(build(settings), settings, seed=2)).all()


@pytest.mark.parametrize("settings", FIRST_BYTES, ids=lambda s: f"{s.name}-{s.outputs}")
def test_packed_parameters_come_back(settings: ModelSettings) -> None:
    model, other = build(settings), build(settings)
    unpack(pack(model), other)
    assert (pack(model) == pack(other)).all()
    assert pack(model).dtype == np.float32
    assert len(model(torch.zeros((5, *settings.input_shape)))) == 5
    first = next(model.parameters()).detach().numpy().ravel()
    assert (pack(model)[: len(first)] == first).all()


@pytest.mark.parametrize("bad", [np.zeros(20, np.float32), np.zeros(21), np.zeros((1, 21), np.float32)])
def test_packed_parameters_of_another_model_are_refused(
    bad: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> None:
    with pytest.raises(TrainingRefusedError, match="21 float32"):
        unpack(bad, build(LOGISTIC))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": "resnet", "input_shape": (3,)}, "not offered"),
        ({"name": "mlp", "input_shape": ()}, "at least 1"),
        ({"name": "mlp", "input_shape": (0,)}, "at least 1"),
        ({"name": "mlp", "input_shape": (3,), "hidden": (0,)}, "at least 1"),
        ({"name": "mlp", "input_shape": (3, 3)}, "flat row"),
        ({"name": "small-cnn", "input_shape": (3, 28, 28)}, "takes images"),
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(TrainingRefusedError, match=reason):
        ModelSettings(**fields)  # type: ignore[arg-type]


def test_source_digest_names_the_file() -> None:
    source = Path(__file__).parents[2] / "client" / "models.py"
    assert models_digest() == hashlib.sha256(source.read_bytes()).hexdigest()


def test_a_jobs_own_model_is_not_built_here() -> None:
    with pytest.raises(TrainingRefusedError, match="no built-in"):
        build(ModelSettings(name="model.py", input_shape=(5,)))


@pytest.mark.parametrize("settings", FIRST_BYTES, ids=lambda s: f"{s.name}-{s.outputs}")
def test_built_in_models_are_accepted_with_every_loss_they_fit(settings: ModelSettings) -> None:
    losses = ["cross-entropy"] if settings.outputs > 1 else ["bce-with-logits", "mse"]
    for loss in losses:
        check_model(build(settings), example_shape=settings.input_shape, loss=loss, outputs=settings.outputs)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 1)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.b(torch.relu(self.a(x))))
        return out


class Forward(nn.Module):
    """A Linear(5, 5) and a Linear(5, 1) put together by a given function."""

    def __init__(self, function: Callable[[Forward, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(5, 5), nn.Linear(5, 1)
        self.memory = torch.zeros(5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(1), persistent=False)
        self.out = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        out: Tensor = self.out(x)
        return out


def remember(model: Forward, x: Tensor) -> Tensor:
    value: Tensor = model.out(model.a(x) + model.memory)
    model.memory = x[-1].detach()
    return value


def with_layer(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), layer, nn.Linear(8, 1))


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 1))
    model[0].bias.requires_grad_(False)
    return model


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "BatchNorm": (with_layer(nn.BatchNorm1d(8)), "replace BatchNorm by GroupNorm"),
    "BatchNorm without weights": (
        with_layer(nn.BatchNorm1d(8, affine=False)),
        "replace BatchNorm by GroupNorm",
    ),
    "BatchNorm frozen": (
        with_layer(nn.BatchNorm1d(8).requires_grad_(False)),
        "replace BatchNorm by GroupNorm",
    ),
    "BatchNorm without statistics": (with_layer(nn.BatchNorm1d(8, track_running_stats=False)), "GroupNorm"),
    "BatchNorm lazy": (with_layer(nn.LazyBatchNorm1d()), "GroupNorm"),
    "SyncBatchNorm": (with_layer(nn.SyncBatchNorm(8)), "GroupNorm"),
    "InstanceNorm with statistics": (
        nn.Sequential(nn.InstanceNorm1d(1, track_running_stats=True), nn.Linear(5, 1)),
        "track_running_stats=False",
    ),
    "hand-made BatchNorm": (Forward(lambda m, x: m.out(m.a(x) - m.a(x).mean(0))), "depends on the other"),
    "mean over the batch": (Forward(lambda m, x: m.out(m.a(x)) - x.sum()), "depends on the other"),
    "a buffer that counts": (Counter(), "changes the model's own state"),
    "a memory outside the buffers": (Forward(remember), "not repeatable"),
    "dropout": (with_layer(nn.Dropout(0.5)), "not repeatable"),
    "tied weights": (Tied(), "share one parameter"),
    "a weight used functionally": (Forward(lambda m, x: m.out(m.a(x) @ m.a.weight)), "through its layer"),
    "a weight used functionally only": (
        Forward(lambda m, x: m.out(x @ m.a.weight + m.a.bias)),
        "through its layer",
    ),
    "a weight in the loss's way": (
        Forward(lambda m, x: m.out(m.a(x)) + m.a.weight.sum()),
        "through its layer",
    ),
    "an unused layer": (Forward(lambda m, x: m.out(x)), "never used"),
    "frozen weights": (frozen(), "frozen"),
    "double precision": (nn.Linear(5, 1).double(), "torch.float32"),
    "no parameters": (nn.Identity(), "no parameters"),
    "another width": (nn.Linear(6, 1), "fails on rows of shape"),
    "two logits": (nn.Linear(5, 2), "one output per example"),
    "a scalar": (Forward(lambda m, x: m.out(m.a(x)).sum()), "one row per example|fails on rows"),
    "in-place change of an output": (with_layer(nn.ReLU(inplace=True)), "fails on rows|in-place"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_model_that_would_break_privacy_is_refused_in_one_line(name: str) -> None:
    model, reason = REFUSED[name]
    with pytest.raises(TrainingRefusedError, match=reason) as caught:
        check_model(model, example_shape=(5,), loss="bce-with-logits")
    assert "\n" not in str(caught.value)


def test_models_beyond_the_built_in_ones_are_accepted() -> None:
    layers = [nn.LayerNorm(8), nn.GroupNorm(2, 8), nn.Tanh(), nn.Dropout(0.0)]
    for layer in layers:
        check_model(with_layer(layer), example_shape=(5,), loss="bce-with-logits")
    resting = build(MLP).eval()
    check_model(resting, example_shape=(12,), loss="mse")
    assert not resting.training  # a copy was tried, not the model
    residual = Forward(lambda m, x: m.out(x + torch.relu(m.a(x))).squeeze(1))
    check_model(residual, example_shape=(5,), loss="mse")


def test_loss_of_wrong_shapes_is_refused() -> None:
    for outputs, labels in [((4, 1), (3,)), ((4,), (4, 2)), ((4, 2), (4,)), ((2, 2), (4,)), ((), (1,))]:
        with pytest.raises(TrainingRefusedError):
            per_example_loss("bce-with-logits", torch.zeros(outputs), torch.zeros(labels))
    with pytest.raises(TrainingRefusedError, match="classes"):
        per_example_loss("cross-entropy", torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(TrainingRefusedError, match="not offered"):
        per_example_loss("hinge", torch.zeros(4), torch.zeros(4))


@pytest.mark.parametrize("label", [-1.0, 2.0, 7.5, 1e30, float("nan"), float("inf")])
def test_label_that_is_no_class_raises_nothing(label: float) -> None:
    losses = per_example_loss("cross-entropy", torch.zeros(2, 2), torch.tensor([0.0, label]))
    assert losses.shape == (2,)
    assert torch.isfinite(losses[0])
