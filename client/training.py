"""One hospital's training in one round: draw patients, sum their gradients in chunks, return the message.

Every chunk has the same public shape, padded with zeros, and in each step the drawn rows are put into
places at random. So adding or removing one patient changes, besides that patient's own clipped
gradient, at most the place of one other: sums over rows that merely moved could otherwise differ in
their last bits and break the bound by more than one patient's share. No row can raise an error here
or change what kind of message is sent; what rows may hold is decided before, by rules on one row alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client import bookkeeping
from client.dp_sgd import DiscreteGaussianOptimizer, with_example_gradients
from client.errors import TrainingRefusedError
from client.graph_model import GraphModel
from client.models import pack, unpack
from client.randomness import Randomness
from client.training_plan import TrainingPlan


class PatientRows:
    """Which rows belong to which patient. Sensitive: lives for one round, inside the worker."""

    def __init__(self, patients: NDArray[np.int64]) -> None:
        self._rows = np.argsort(patients, kind="stable")
        _, self._first, self._count = np.unique(patients[self._rows], return_index=True, return_counts=True)

    def draw(self, plan: TrainingPlan, randomness: Randomness) -> NDArray[np.int64]:
        """Return one step's rows in random order: patients by the plan's rate, one row of each.

        Each patient's coin and choice of row are independent of all others: Poisson sampling.
        """
        drawn = np.flatnonzero(randomness.coins(plan.rate, len(self._count)))
        count = self._count[drawn]
        # High bits of a 32-bit word times count: a number below count. Any choice among one's own rows is private.
        choice = (randomness.words(len(drawn)) >> np.uint64(32)) * count.astype(np.uint64) >> np.uint64(32)
        rows = self._rows[self._first[drawn] + choice.astype(np.int64)]
        return rows[randomness.shuffled(len(rows))].astype(np.int64)


def chunk_size_for(module: nn.Module, example_shape: tuple[int, ...]) -> int:
    """Return a chunk size for a plan: 256, or less where per-example gradients would pass about 16 MiB.

    Depends on the model alone, so every hospital finds the same: a power of two from 16 to 256.
    """
    if bookkeeping.applies(module, torch.zeros((2, *example_shape))):
        return 256  # no per-example gradients are stored
    parameters = sum(p.numel() for p in module.parameters())
    if isinstance(module, GraphModel):
        parameters += 2 * module.graph.elements  # kept for the backward pass, for each example
    return int(min(256, max(16, 2 ** int(np.log2(max(1, 2**21 // parameters))))))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set torch's threads: two on two busy cores made small steps 20 times slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _chunks(
    features: Tensor, labels: Tensor, rows: NDArray[np.int64], size: int, device: str
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Yield (features, labels, examples) of `size` rows each, the last padded with zeros."""
    for start in range(0, len(rows), size):
        part = torch.from_numpy(rows[start : start + size])
        x = torch.zeros((size, *features.shape[1:]), dtype=torch.float32)
        y = torch.zeros(size, dtype=torch.float32)
        x[: len(part)] = features[part].float()
        y[: len(part)] = labels[part].float()
        yield x.to(device), y.to(device), len(part)


def _people(features: Tensor, labels: Tensor, patients: NDArray[np.int64] | None) -> PatientRows:
    """Return whose rows these are, or raise TrainingRefusedError if the arrays do not belong together."""
    if len(features) != len(labels) or labels.numel() != len(labels):
        raise TrainingRefusedError("features and labels must have one row per example")
    if patients is not None and patients.shape != (len(features),):
        raise TrainingRefusedError("patients must name one patient per row")
    return PatientRows(np.arange(len(features)) if patients is None else patients)


class RoundTraining:
    """A model made ready for one round's steps; `train_round` is the usual way to use it.

    Attributes:
        optimizer: Holds the noiseless sum until `step` has added noise.
        exact: Whether the model takes the path of `client.bookkeeping`; else Opacus's hooks.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: NDArray[np.float32],
        plan: TrainingPlan,
        randomness: Randomness,
        *,
        example_shape: tuple[int, ...],
        device: str = "cpu",
    ) -> None:
        """Args are those of `train_round`; `example_shape` is public, for example (20,) or (1, 28, 28)."""
        self._module = copy.deepcopy(module).to(device).train()  # a module is never wrapped twice
        unpack(parameters, self._module)
        probe = torch.zeros((2, *example_shape), device=device)
        self.exact = plan.size_class <= bookkeeping.MAX_SIZE_CLASS and bookkeeping.applies(
            self._module, probe
        )
        if not self.exact:
            self._module = with_example_gradients(self._module)
        self.optimizer = DiscreteGaussianOptimizer(self._module, plan, randomness)
        self._plan, self._device = plan, device
        if plan.fedprox_mu > 0:
            self._start = [p.detach().clone() for p in self._module.parameters()]
            self.optimizer.attach_step_hook(self._pull_back)

    def _pull_back(self, optimizer: DiscreteGaussianOptimizer) -> None:
        """FedProx: add mu (w - w_global) after noise; inside the loss it would be clipped or lost (P7)."""
        for p, start in zip(optimizer.params, self._start, strict=True):
            p.grad += self._plan.fedprox_mu * (p.detach() - start)

    def add_rows(self, features: Tensor, labels: Tensor, rows: NDArray[np.int64]) -> None:
        """Add the clipped gradients of these rows to the noiseless sum, chunk by chunk."""
        for x, y, kept in _chunks(features, labels, rows, self._plan.chunk_size, self._device):
            self.optimizer.add_chunk(self._module, x, y, kept, exact=self.exact)

    def step(self) -> None:
        """Add noise to the sum and move the weights."""
        self.optimizer.step()

    def weights(self) -> NDArray[np.float32]:
        """Return the packed weights."""
        return pack(self._module)


def train_round(
    module: nn.Module,
    parameters: NDArray[np.float32],
    features: Tensor,
    labels: Tensor,
    plan: TrainingPlan,
    randomness: Randomness,
    *,
    patients: NDArray[np.int64] | None = None,
    device: str = "cpu",
    threads: int = 1,
) -> NDArray[np.int64] | NDArray[np.float32]:
    """Train one round under differential privacy and return the packed update.

    Args:
        module: A model that `client.model_check` accepted; it is copied, not changed.
        parameters: The round's model, packed.
        features: (n, ...), any number type; rows may hold anything.
        labels: (n,) or (n, 1).
        plan: The public plan of the job's `start`.
        randomness: A production stream, unless this is a simulation.
        patients: (n,) the patient of each row; None where each row is one patient.
        device: Where torch computes.
        threads: Torch threads for this round.

    Returns:
        What `client.training_plan.decode_update` reads: int64 (d,), or float32 (d,) with several steps.

    Raises:
        TrainingRefusedError: plan, parameters and arrays do not fit together; no row's value is a reason.
    """
    people = _people(features, labels, patients)
    with _threads(threads):
        shape = tuple(features.shape[1:])
        training = RoundTraining(module, parameters, plan, randomness, example_shape=shape, device=device)
        for _ in range(plan.local_steps):
            training.add_rows(features, labels.reshape(-1), people.draw(plan, randomness))
            training.step()
        return training.optimizer.message if plan.local_steps == 1 else training.weights() - parameters
