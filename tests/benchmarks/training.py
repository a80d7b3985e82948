"""What private training costs, as a ratio to plain SGD of the same model in the same run, and in memory.

    python -m tests.benchmarks.training

Prints a table; asserts nothing, because times depend on the machine. One torch thread. "step" is a whole
`train_round` of one full-batch step: copy of the model, sampling, sums, noise.
"""

from __future__ import annotations

import multiprocessing
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from client import graph_model
from client.losses import per_example_loss
from client.model_export import export
from client.models import ModelSettings, build, initial_parameters
from client.noise import discrete_gaussian
from client.randomness import system_randomness
from client.training import chunk_size_for, train_round
from client.training_plan import TrainingPlan

IMAGES = Path(__file__).parents[3] / "shared" / "data" / "pneumoniamnist" / "pneumoniamnist.npz"
CASES = [
    ("logistic regression, 20 features", ModelSettings(name="logistic-regression", input_shape=(20,)), 300),
    ("MLP 100-256-128-2", ModelSettings(name="mlp", input_shape=(100,), hidden=(256, 128), outputs=2), 256),
    ("small CNN, 1x28x28", ModelSettings(name="small-cnn", input_shape=(1, 28, 28)), 256),
]


def median_ms(work: Callable[[], object], repeats: int) -> float:
    """Return the median wall time of a call, in milliseconds, after two calls to warm up."""
    times: list[float] = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times[2:])[repeats // 2]


def plan_for(settings: ModelSettings, model: nn.Module) -> TrainingPlan:
    return TrainingPlan(
        learning_rate=0.1,
        max_grad_norm=1.0,
        noise_multiplier=1.0,
        size_class=256,
        loss="cross-entropy" if settings.outputs > 1 else "bce-with-logits",
        chunk_size=chunk_size_for(model, settings.input_shape),
    )


def plain_step(model: nn.Module, features: Tensor, labels: Tensor, loss: str) -> None:
    """One step of ordinary SGD over the whole batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    torch.autograd.backward(per_example_loss(loss, model(features), labels).mean())
    optimizer.step()


def compare(title: str, settings: ModelSettings, rows: int) -> None:
    """Print one line: plain SGD, our step, and our step with Opacus's hooks where another path exists."""
    model = build(settings)
    parameters = initial_parameters(model, settings, seed=1)
    features, labels = torch.randn((rows, *settings.input_shape)), torch.randint(0, 2, (rows,))
    plan = plan_for(settings, model)
    randomness = system_randomness()
    plain = median_ms(lambda: plain_step(model, features, labels, plan.loss), 15)
    ours = median_ms(lambda: train_round(model, parameters, features, labels, plan, randomness), 15)
    by_hooks = replace(plan, size_class=2**19)
    hooks = median_ms(lambda: train_round(model, parameters, features, labels, by_hooks, randomness), 7)
    noise = median_ms(lambda: discrete_gaussian(Fraction(2**20), len(parameters), randomness), 15)
    print(
        f"{title:34} d={len(parameters):6} n={rows}  plain {plain:7.2f} ms   ours {ours:7.2f} ms "
        f"({ours / plain:4.1f}x, noise {noise:5.2f} ms of it)   with hooks {hooks:7.2f} ms ({hooks / plain:4.1f}x)"
    )


def compare_graph(title: str, settings: ModelSettings, rows: int) -> None:
    """Print one line: our step as a job's own model takes it, by its graph, against the same by Opacus's hooks."""
    original = build(settings)
    graph = graph_model.from_bytes(export(build(settings), settings.input_shape), settings.input_shape)
    parameters = initial_parameters(original, settings, seed=1)
    features, labels = torch.randn((rows, *settings.input_shape)), torch.randint(0, 2, (rows,))
    by_hooks = replace(plan_for(settings, original), size_class=2**19)
    by_graph = replace(by_hooks, chunk_size=chunk_size_for(graph, settings.input_shape))
    randomness = system_randomness()
    hooks = median_ms(lambda: train_round(original, parameters, features, labels, by_hooks, randomness), 7)
    ours = median_ms(lambda: train_round(graph, parameters, features, labels, by_graph, randomness), 7)
    print(
        f"{title:34} by its graph {ours:7.2f} ms (chunks of {by_graph.chunk_size})   with hooks {hooks:7.2f} ms "
        f"(chunks of {by_hooks.chunk_size})   ratio {ours / hooks:4.2f}"
    )


def images() -> tuple[Tensor, Tensor]:
    """Return the training images and labels of PneumoniaMNIST, or as many synthetic ones."""
    if not IMAGES.exists():
        return torch.rand(4708, 1, 28, 28), torch.randint(0, 2, (4708,))
    with np.load(IMAGES) as data:
        pixels, labels = data["train_images"], data["train_labels"]
    return torch.from_numpy(pixels).unsqueeze(1).float() / 255, torch.from_numpy(
        labels.astype(np.int64)
    ).reshape(-1)


def resident_mib() -> float:
    """Return this process's resident memory now; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Give a list that holds, afterwards, the resident memory at the start and at its peak, in MiB."""
    done = threading.Event()
    found = [resident_mib()] * 2

    def watch() -> None:
        while not done.wait(0.002):
            found[1] = max(found[1], resident_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield found
    done.set()
    watcher.join()


def measure_memory() -> None:
    """Print the peak memory of one full-batch round of the CNN; run in a process of its own."""
    torch.set_num_threads(1)
    settings = CASES[2][1]
    model = build(settings)
    parameters = initial_parameters(model, settings, seed=1)
    features, labels = images()
    plan = replace(plan_for(settings, model), size_class=4096)
    start = time.perf_counter()
    with peak_memory() as memory:
        train_round(model, parameters, features, labels, plan, system_randomness())
    print(
        f"small CNN, one full-batch round on {len(features)} images: {time.perf_counter() - start:.2f} s, "
        f"peak {memory[1]:.0f} MiB, of which {memory[0]:.0f} MiB before training (Python, torch, Opacus, images); "
        f"chunks of {plan.chunk_size}"
    )


def main() -> None:
    """Print every comparison, then the memory."""
    torch.set_num_threads(1)
    for title, settings, rows in CASES:
        compare(title, settings, rows)
    for title, settings, rows in CASES:
        compare_graph(title, settings, rows)
    process = multiprocessing.get_context("spawn").Process(target=measure_memory)
    process.start()
    process.join()


if __name__ == "__main__":
    main()
