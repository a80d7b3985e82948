"""Everything Wardround takes from Opacus, with our guard rails: the only module that imports it.

Opacus gives the gradient of every example (hooks on each layer), the check of a module's layers, and
the optimizer that ours extends at the points it offers: `clip_and_accumulate`, `add_noise`,
`scale_grad`. What differs is what makes the sum private to the last bit: clipping in float64, a public
grid, integer sums, discrete Gaussian noise from a cipher, a public divisor, non-finite values zeroed.
Sampling and the loop over chunks are in `client.training`.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from client import bookkeeping
from client.errors import TrainingRefusedError
from client.graph_model import GraphModel
from client.losses import per_example_loss
from client.noise import discrete_gaussian
from client.randomness import Randomness
from client.training_plan import TrainingPlan


def _leave_gradients(module: nn.Module, loss: str, features: Tensor, labels: Tensor) -> None:
    """Leave each example's gradient on the parameters: by Opacus's hooks, or by the graph of a job's own model."""
    if isinstance(module, GraphModel):
        module.leave_gradients(loss, features, labels)
        return
    losses = per_example_loss(loss, module(features), labels)
    with warnings.catch_warnings():  # the first layer's input is data and needs no gradient: as intended
        warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
        torch.autograd.backward(losses.sum())


def _finite(gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Return gradients with non-finite entries zeroed, and each row's norm in float64.

    One NaN left in would make every weight NaN: a sign that the record is there (P6).
    """
    norms = torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64)
    if not bool(torch.isfinite(norms).all()):  # the finite entries of float32 never overflow a float64 norm
        gradients = torch.nan_to_num(gradients, 0.0, 0.0, 0.0)
        norms = torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64)
    return gradients, norms


class DiscreteGaussianOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus ships no types
    """Opacus's optimizer with integer sums: examples are added chunk by chunk, `step` adds noise and moves.

    Attributes:
        message: After `step`: the noised sum in grid units, int64 of shape (d,); the only thing of a
            step that may leave the hospital.
    """

    def __init__(self, module: nn.Module, plan: TrainingPlan, randomness: Randomness) -> None:
        """Args: a model with per-example gradients, the public plan, and where the noise comes from.

        Raises:
            TrainingRefusedError: no noise outside seeded mode, or a grid too coarse for the model.
        """
        if plan.noise_multiplier == 0 and randomness.production:
            raise TrainingRefusedError("noise_multiplier is 0: training without noise is for simulation only")
        super().__init__(
            torch.optim.SGD(module.parameters(), lr=plan.learning_rate),
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=plan.max_grad_norm,
            expected_batch_size=None,
            loss_reduction="sum",  # the divisor is ours and public (P11, P13)
        )
        self.message: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._plan = plan
        self._randomness = randomness
        self._size = sum(p.numel() for p in self.params)
        self._limit = plan.clip_limit(self._size)  # grid units
        self._sum: Tensor = torch.zeros(self._size, dtype=torch.int64, device=self.params[0].device)
        self._fine_sum = torch.zeros_like(self._sum)  # units of C / 2^FINE_BITS
        self._kept = 0

    def add_chunk(
        self, module: nn.Module, features: Tensor, labels: Tensor, kept: int, *, exact: bool
    ) -> None:
        """Add the clipped gradients of a chunk's first `kept` rows to the sum.

        Args:
            module: The model; wrapped by `with_example_gradients` unless `exact`.
            features: (B, ...) float32; always the same B, so that a row's gradient does not depend on
                how many others there are.
            labels: (B,).
            kept: How many rows are examples; the rest is padding.
            exact: Whether the model takes the exact path of `client.bookkeeping`.
        """
        if exact:
            relative = self._limit / 2**self._plan.grid_bits
            self._fine_sum += bookkeeping.clipped_sum(
                module,
                self._plan.loss,
                features,
                labels,
                kept,
                limit=relative,
                max_grad_norm=self.max_grad_norm,
            )
            return
        self._kept = kept
        _leave_gradients(module, self._plan.loss, features, labels)
        self.clip_and_accumulate()

    def clip_and_accumulate(self) -> None:
        """Clip each example's gradient in float64, round it to the grid and add it up; then forget it."""
        squared = torch.zeros(1, dtype=torch.float64, device=self._sum.device)
        gradients: list[Tensor] = []
        for (
            p
        ) in self.params:  # padding is worked on too: every chunk has the same shape, so a row the same bits
            gradient, norms = _finite(self._get_flat_grad_sample(p).reshape(-1, p.numel()))
            squared = squared + norms.square()
            gradients.append(gradient)
        # A norm of 0 gives inf, which the maximum removes.
        factor = (self._limit / squared.sqrt()).clamp(max=1 / self._plan.grid)[:, None]
        # float32 times float64 is float64; then whole numbers below 2^24, at most 2^9 of them: added without
        # error in any order.
        total = torch.cat([(g * factor)[: self._kept].round_().sum(0) for g in gradients])
        self._sum += total.long()
        self.zero_grad(set_to_none=True)

    def noiseless_sum(self) -> Tensor:
        """Return the integer sum so far, in grid units: private, for the noise and the sensitivity harness."""
        return self._sum + bookkeeping.to_grid(self._fine_sum, self._plan.grid_bits)

    def forget(self) -> None:
        """Set the sum back to nothing."""
        self._sum.zero_()
        self._fine_sum.zero_()

    def add_noise(self) -> None:
        """Make `message` from the sum, and the gradient from `message`."""
        noised = self.noiseless_sum().cpu().numpy()
        if self._plan.noise_multiplier > 0:
            noised = noised + discrete_gaussian(self._plan.sigma, self._size, self._randomness)
        self.forget()
        self.message = noised
        gradient = torch.from_numpy(noised * self._plan.grid)
        parts = torch.split(gradient, [p.numel() for p in self.params])
        for p, part in zip(self.params, parts, strict=True):
            p.grad = part.reshape(p.shape).to(p)

    def scale_grad(self) -> None:
        """Divide by the public divisor."""
        for p in self.params:
            p.grad /= self._plan.divisor

    def pre_step(self, closure: object = None) -> bool:
        """Noise and scale what the chunks added up, be it nothing at all: an empty batch sends pure noise (P12)."""
        self.add_noise()
        self.scale_grad()
        if self.step_hook:
            self.step_hook(self)
        return True


def with_example_gradients(module: nn.Module) -> nn.Module:
    """Wrap a model so that a backward pass of a sum of losses leaves each example's gradient (hooks).

    A `GraphModel` gives them itself: each example is computed alone, so there is no layer to hang a hook on.
    """
    if isinstance(module, GraphModel):
        return module
    wrapped: nn.Module = GradSampleModule(module, batch_first=True, loss_reduction="sum", strict=True)
    return wrapped


def layer_objections(module: nn.Module) -> list[str]:
    """Return what Opacus's own validation finds wrong with a model's layers, one line each."""
    if isinstance(module, GraphModel):
        return []  # it has none
    found = [
        *ModuleValidator.validate(module, strict=False),
        *GradSampleModule.validate(module, strict=False),
    ]
    return [" ".join(str(error).split()) for error in found]


def example_gradients(wrapped: nn.Module, loss: str, features: Tensor, labels: Tensor) -> Tensor:
    """Return each example's gradient, shape (B, d), from a model of `with_example_gradients`.

    Raises:
        TrainingRefusedError: some parameter got no per-example gradient.
    """
    _leave_gradients(wrapped, loss, features, labels)
    parts: list[Tensor] = []
    for name, p in wrapped.named_parameters():
        sample = getattr(p, "grad_sample", None)
        if not isinstance(sample, Tensor) or len(sample) != len(features):
            name = name.removeprefix("_module.")
            raise TrainingRefusedError(
                f"parameter {name} gets no gradient per example: use it through its layer only"
            )
        parts.append(sample.reshape(len(features), -1))
    wrapped.zero_grad(set_to_none=True)
    return torch.cat(parts, dim=1)
