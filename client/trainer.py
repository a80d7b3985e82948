"""One job inside the worker: its rows, its model, and the two things that are computed of them.

Nothing here can fail because of a row: features were made by rules on one row alone (`data`), training zeroes what
is not finite, a score that is no number counts as 0. Both results have a size that is public.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client import graph_model, models
from client.data import Snapshot
from client.errors import TrainingRefusedError
from client.histograms import count_noise, score_histogram
from client.job_spec import JobSpec
from client.model_check import check_model
from client.models import ModelSettings
from client.randomness import Randomness, system_randomness
from client.reviewed import CUSTOM
from client.software import models_digest
from client.training import chunk_size_for, train_round
from client.training_plan import TrainingPlan

_SCORED = 1024  # examples at a time


class Trainer:
    """A job's model and rows, ready for its rounds.

    Attributes:
        parameters: How many float32 numbers the model has.
    """

    def __init__(
        self,
        spec: JobSpec,
        rows: Snapshot,
        *,
        check: bool,
        graph: bytes = b"",
        gpu: bool = False,
        threads: int = 1,
        randomness: Randomness | None = None,
    ) -> None:
        """Build the model and, with `check`, try whether it may be trained privately.

        Args:
            spec: What the job and this hospital's approval say.
            rows: The job's one snapshot.
            check: Whether the model is new here.
            graph: What the builder made of the job's own model.py; empty for a built-in model.
            gpu: Whether a graphics processor may train, if there is one.
            threads: Torch's, while it trains.
            randomness: The operating system's, unless a test says otherwise.

        Raises:
            TrainingRefusedError: the model or the plan is not offered, or not the one that the job names.
        """
        shape = rows.features.shape[1:]
        self._module = _build(spec, shape, graph)
        self.parameters = sum(p.numel() for p in self._module.parameters())
        if self.parameters != spec.parameters:
            raise TrainingRefusedError(
                f"the model has {self.parameters} parameters for this data dictionary, the job says {spec.parameters}"
            )
        self._plan = spec.plan(chunk_size_for(self._module, shape))
        self._plan.clip_limit(self.parameters)
        if check:
            check_model(self._module, example_shape=shape, loss=spec.loss, outputs=spec.outputs)
        features, labels = rows.training
        self._features, self._labels = torch.from_numpy(features), torch.from_numpy(labels)
        held_out, self._held_out_labels = rows.evaluation
        self._held_out = torch.from_numpy(held_out)
        self._device, self._threads = "cuda" if gpu and torch.cuda.is_available() else "cpu", threads
        self._randomness = randomness or system_randomness()

    def train(self, parameters: NDArray[np.float32]) -> tuple[NDArray[np.int64] | NDArray[np.float32], bool]:
        """Train one round; return the packed update, and whether its noise is fit for production."""
        update = train_round(
            self._module,
            parameters,
            self._features,
            self._labels,
            self._plan,
            self._randomness,
            device=self._device,
            threads=self._threads,
        )
        return update, self._randomness.production

    def histogram(
        self, parameters: NDArray[np.float32], edges: list[float], noise_multiplier: str
    ) -> tuple[NDArray[np.int64], bool]:
        """Return the noised score histogram of the held-out patients, and whether its noise is fit for production."""
        noise = count_noise(noise_multiplier, self._randomness)
        counts = score_histogram(self.scores(parameters), self._held_out_labels, edges, noise)
        return counts, self._randomness.production

    def scores(self, parameters: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return each held-out patient's probability of the positive class: for histograms and for simulations."""
        module = copy.deepcopy(self._module).eval()
        models.unpack(parameters, module)
        scores = np.zeros(len(self._held_out))
        with torch.no_grad():
            for start in range(0, len(scores), _SCORED):
                outputs = module(self._held_out[start : start + _SCORED]).double()
                if outputs.shape[-1] == 1:
                    chances = torch.sigmoid(outputs.reshape(-1))
                else:
                    chances = torch.softmax(outputs, dim=1)[:, 1]
                scores[start : start + _SCORED] = chances.numpy()
        return scores


def _build(spec: JobSpec, shape: tuple[int, ...], graph: bytes) -> nn.Module:
    if spec.model == CUSTOM:
        if not graph:
            raise TrainingRefusedError("the graph of the job's model.py is not here: have it built first")
        return graph_model.from_bytes(graph, shape)
    settings = ModelSettings(name=spec.model, input_shape=shape, outputs=spec.outputs, hidden=spec.hidden)
    if spec.model_code != models_digest():
        raise TrainingRefusedError("the job names another version of the built-in models: install that one")
    return models.build(settings)


def try_graph(spec: JobSpec, graph: bytes, shape: tuple[int, ...]) -> None:
    """Try whether a job's own model may be trained privately, and whether one chunk of it fits into memory.

    Args:
        spec: The job's.
        graph: What its builder wrote.
        shape: Of one example, by the data dictionary.

    Raises:
        GraphError: the graph is refused.
        TrainingRefusedError: the model is not the one that the job names, or not to be trained privately.
    """
    module = graph_model.from_bytes(graph, shape)
    found = sum(p.numel() for p in module.parameters())
    if found != spec.parameters:
        raise TrainingRefusedError(
            f"the job's model.py has {found} parameters, the job says {spec.parameters}"
        )
    check_model(module, example_shape=shape, loss=spec.loss, outputs=spec.outputs)
    size = spec.plan(chunk_size_for(module, shape)).chunk_size
    module.leave_gradients(spec.loss, torch.zeros((size, *shape)), torch.zeros(size))


def warm_up() -> None:
    """Use each library once, on made-up numbers: torch's first optimizer alone imports for seconds."""
    torch.set_num_threads(1)
    settings = ModelSettings(name="logistic-regression", input_shape=(2,))
    module = models.build(settings)
    check_model(module, example_shape=(2,), loss="bce-with-logits")
    plan = TrainingPlan(
        learning_rate=1.0, max_grad_norm=1.0, noise_multiplier=1.0, size_class=4, loss="bce-with-logits"
    )
    start = np.zeros(3, dtype=np.float32)
    train_round(module, start, torch.zeros(4, 2), torch.zeros(4), plan, system_randomness())
