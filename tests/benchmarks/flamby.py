"""Fed-Heart-Disease by FLamby's own protocol, outside the product: do we have the data that the papers have?

Run: `python -m tests.benchmarks.flamby [--source DIR]`. Linear(13, 1), binary cross-entropy, SGD 0.001, batches of
4 shuffled, 15 rounds of 100 updates, weights by number of rows, features scaled by each client's own mean and
deviation, the pooled test by those of all training rows; seeds 42 to 46. FLamby's results for FedAvg are accuracy
.685 (mean over clients) and .748 (pooled test); ours must be within .005. Exits with 1 otherwise.

Source: du Terrail et al. 2022, "FLamby" (NeurIPS datasets and benchmarks), and its repository owkin/FLamby.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

SOURCE = Path(__file__).parents[2].parent / "shared" / "data" / "heart_disease"
CLIENTS = ("cleveland", "hungarian", "switzerland", "va")
SEEDS = range(42, 47)
ROUNDS, UPDATES, BATCH, LEARNING_RATE = 15, 100, 4, 0.001
PUBLISHED = {"client mean": 0.685, "pooled test": 0.748}
TOLERANCE = 0.005

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One hospital's rows, unscaled: features (n, 13), labels (n,)."""

    train: tuple[Array, Array]
    test: tuple[Array, Array]


def read(path: Path) -> Client:
    """Read a UCI file as FLamby does: columns 10-12 dropped, then rows with `?`; cp and restecg one-hot."""
    rows = [[c for i, c in enumerate(row) if i not in (10, 11, 12)] for row in csv.reader(path.open()) if row]
    table = np.array([row for row in rows if "?" not in row], dtype=np.float64)
    labels = (table[:, -1] > 0).astype(np.float64)
    numeric = np.delete(table[:, :-1], (2, 6), axis=1)
    pain = table[:, [2]] == np.array([2.0, 3.0, 4.0])
    ecg = table[:, [6]] == np.array([1.0, 2.0])
    features = np.concatenate([numeric, pain, ecg], axis=1)
    smallest = min(labels.sum(), len(labels) - labels.sum())
    train, test = train_test_split(
        np.arange(len(labels)),
        test_size=1.0 - 0.66,
        train_size=0.66,
        random_state=43,
        stratify=labels if smallest > 2 else None,
    )
    return Client(train=(features[train], labels[train]), test=(features[test], labels[test]))


def scaled(rows: tuple[Array, Array], by: Array) -> tuple[Tensor, Tensor]:
    """Scale features by the mean and deviation of `by`, in float32 as FLamby."""
    reference, x = torch.tensor(by, dtype=torch.float32), torch.tensor(rows[0], dtype=torch.float32)
    x = (x - reference.mean(dim=0)) / (reference.std(dim=0) + 1e-9)
    return x, torch.tensor(rows[1], dtype=torch.float32)[:, None]


def batches(rows: tuple[Tensor, Tensor]) -> Iterator[list[Tensor]]:
    """Yield shuffled batches for ever; an epoch goes on where the last round left it."""
    loader = DataLoader(TensorDataset(*rows), batch_size=BATCH, shuffle=True)
    while True:
        yield from loader


def federated_average(clients: list[tuple[Tensor, Tensor]], seed: int) -> nn.Linear:
    """Train one model by FedAvg and return it."""
    torch.manual_seed(seed)
    model = nn.Linear(13, 1)
    loss = nn.BCEWithLogitsLoss()
    torch.manual_seed(seed)
    streams = [batches(rows) for rows in clients]
    sizes = torch.tensor([float(len(y)) for _, y in clients])
    for _ in range(ROUNDS):
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        change = torch.zeros_like(before)
        for stream, weight in zip(streams, sizes / sizes.sum(), strict=True):
            nn.utils.vector_to_parameters(before.clone(), model.parameters())
            optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
            for _ in range(UPDATES):
                x, y = next(stream)
                optimizer.zero_grad()
                torch.autograd.backward(loss(model(x), y))
                optimizer.step()
            change += weight * (nn.utils.parameters_to_vector(model.parameters()).detach() - before)
        nn.utils.vector_to_parameters(before + change, model.parameters())
    return model


def accuracy(model: nn.Linear, rows: tuple[Tensor, Tensor]) -> float:
    """Return the share of rows on the right side of one half."""
    with torch.no_grad():
        return float(((model(rows[0]) > 0) == (rows[1] > 0)).float().mean())


def run(source: Path) -> dict[str, float]:
    """Return both accuracies, means over the seeds."""
    clients = [read(source / f"processed.{name}.data") for name in CLIENTS]
    train = [scaled(c.train, c.train[0]) for c in clients]
    tests = [scaled(c.test, c.train[0]) for c in clients]
    every = (np.concatenate([c.test[0] for c in clients]), np.concatenate([c.test[1] for c in clients]))
    pooled = scaled(every, np.concatenate([c.train[0] for c in clients]))
    models = [federated_average(train, seed) for seed in SEEDS]
    return {
        "client mean": float(np.mean([[accuracy(m, rows) for rows in tests] for m in models])),
        "pooled test": float(np.mean([accuracy(m, pooled) for m in models])),
    }


def main() -> None:
    """Print the table; exit with 1 when a figure is out of tolerance."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, default=SOURCE, help="directory of UCI's processed.*.data")
    torch.set_num_threads(1)
    ours = run(parser.parse_args().source)
    print("| FedAvg, accuracy | FLamby | ours |\n|---|---|---|")
    for name, value in ours.items():
        print(f"| {name} | {PUBLISHED[name]:.3f} | {value:.4f} |")
    if any(abs(value - PUBLISHED[name]) > TOLERANCE for name, value in ours.items()):
        raise SystemExit(f"not within {TOLERANCE} of FLamby's results")


if __name__ == "__main__":
    main()
