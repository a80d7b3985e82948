"""The built-in models, and the packed form in which a model travels.

Built-in models give one output per example for a binary label. Their normalisation is GroupNorm:
BatchNorm lets a patient change what the model computes for the others. First weights are a pure
function of public settings, made by SHAKE-256 and arithmetic that every machine does alike, so that
all sides begin with the same bytes. A model is packed as one float32 array: the parameters in
`named_parameters()` order, each flattened in C order. Whether a model may be trained under
differential privacy is decided by `client.model_check`. A job's own `model.py` becomes a module in
`client.graph_model`: its code runs in a builder, never here.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.errors import TrainingRefusedError

BUILT_IN = ("logistic-regression", "mlp", "small-cnn")
IMAGE_SHAPE = (1, 28, 28)  # channels, height, width: what small-cnn takes
# What building or trying a model may raise; anything else stops the process.
JOB_CODE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The public settings of a model."""

    name: str  # one of BUILT_IN, or "model.py"
    input_shape: tuple[int, ...]  # of one example: (features,) or IMAGE_SHAPE
    outputs: int = 1  # 1 for a binary label or a number, else the number of classes
    hidden: tuple[int, ...] = (64, 32)  # widths of the mlp's hidden layers; the others ignore it

    def __post_init__(self) -> None:
        """Raise TrainingRefusedError for settings no model can be built from."""
        if self.name not in (*BUILT_IN, "model.py"):
            offered = ", ".join(BUILT_IN)
            raise TrainingRefusedError(f"model {self.name!r} is not offered: use {offered} or model.py")
        if not self.input_shape or min((*self.input_shape, self.outputs, *self.hidden)) < 1:
            raise TrainingRefusedError("input_shape, outputs and hidden must be whole numbers of at least 1")
        if self.name == "small-cnn" and self.input_shape != IMAGE_SHAPE:
            raise TrainingRefusedError(
                f"small-cnn takes images of shape {IMAGE_SHAPE}, not {self.input_shape}"
            )
        if self.name in ("logistic-regression", "mlp") and len(self.input_shape) != 1:
            raise TrainingRefusedError(f"{self.name} takes a flat row of features, not {self.input_shape}")


def _mlp(settings: ModelSettings) -> nn.Module:
    widths = (settings.input_shape[0], *settings.hidden)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], settings.outputs))


def _small_cnn(settings: ModelSettings) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1),  # 16 x 14 x 14
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1),  # 32 x 7 x 7
        nn.GroupNorm(8, 32),
        nn.ReLU(),
        nn.AvgPool2d(2),  # 32 x 3 x 3: noise grows with the number of weights, so few of them
        nn.Flatten(),
        nn.Linear(288, 32),
        nn.ReLU(),
        nn.Linear(32, settings.outputs),
    )


def build(settings: ModelSettings) -> nn.Module:
    """Build a built-in model, in training mode; its weights are whatever torch gives: use `initial_parameters`.

    Raises:
        TrainingRefusedError: settings name a job's `model.py`; that is rebuilt by `client.graph_model`.
    """
    if settings.name == "logistic-regression":
        return nn.Linear(settings.input_shape[0], settings.outputs)
    if settings.name == "mlp":
        return _mlp(settings)
    if settings.name == "small-cnn":
        return _small_cnn(settings)
    raise TrainingRefusedError("model.py is no built-in model: it is rebuilt from its graph")


def pack(module: nn.Module) -> NDArray[np.float32]:
    """Return all parameters as one float32 array, in `named_parameters()` order, each in C order."""
    parts = [p.detach().cpu().numpy().astype(np.float32, copy=False).ravel() for p in module.parameters()]
    return np.concatenate(parts)


def unpack(parameters: NDArray[np.float32], module: nn.Module) -> None:
    """Write packed parameters into a module.

    Raises:
        TrainingRefusedError: the array's dtype or length is not the module's.
    """
    size = sum(p.numel() for p in module.parameters())
    if parameters.dtype != np.float32 or parameters.shape != (size,):
        shape = f"{parameters.dtype} {parameters.shape}"
        raise TrainingRefusedError(f"the model has {size} float32 parameters, the array given is {shape}")
    position = 0
    with torch.no_grad():
        for p in module.parameters():
            part = parameters[position : position + p.numel()].reshape(tuple(p.shape))
            p.copy_(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32).copy()))
            position += p.numel()


def _uniform(name: str, seed: int, count: int) -> NDArray[np.float64]:
    """Return `count` public numbers uniform in [-1, 1), multiples of 2^-31: the same on every machine."""
    stream = hashlib.shake_256(f"wardround/initial-parameters/v1/{seed}/{name}".encode()).digest(4 * count)
    return np.frombuffer(stream, dtype="<i4").astype(np.float64) * 2.0**-31


def initial_parameters(
    module: nn.Module, settings: ModelSettings, *, seed: int, prevalence: float = 0.5
) -> NDArray[np.float32]:
    """Return the packed first parameters: a function of public settings, the same bytes everywhere.

    Weights are zero for logistic regression, else uniform within sqrt(6 / inputs of the unit) (He et
    al. 2015, equation 10; a third of it where no ReLU follows, the last layer); scales of norms are one,
    biases zero. With one output the last bias is the logit of the prevalence: at small epsilons the
    intercept is otherwise learnt too slowly.

    Args:
        module: The model, for its names and shapes only.
        settings: Its public settings.
        seed: A public number, on the record.
        prevalence: Public expectation of the share of positives, in (0, 1); used with one output.

    Raises:
        TrainingRefusedError: prevalence is not in (0, 1).
    """
    if not 0 < prevalence < 1:
        raise TrainingRefusedError(f"prevalence must lie between 0 and 1, not {prevalence}")
    named = list(module.named_parameters())
    matrices = [name for name, p in named if p.dim() > 1]
    parts: list[NDArray[np.float32]] = []
    for name, p in named:
        values = np.zeros(p.numel())
        if p.dim() > 1 and settings.name != "logistic-regression":
            last = name == matrices[-1]
            bound = math.sqrt(6 / (p.numel() // p.shape[0])) / (3 if last else 1)
            values = _uniform(name, seed, p.numel()) * bound
        elif p.dim() == 1 and name.endswith("weight"):
            values = np.ones(p.numel())
        parts.append(values.astype(np.float32))
    if settings.outputs == 1 and named[-1][0].endswith("bias"):
        parts[-1][:] = math.log(prevalence / (1 - prevalence))
    return np.concatenate(parts)
