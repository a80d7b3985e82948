"""The product's training code on both demonstrations, in seeded mode: what privacy costs in AUC.

Run: `python -m tests.benchmarks.heart_disease [--source DIR] [--seeds 20]`. Settings are those of
`client.demo_data`, fixed beforehand; each hospital's file, snapshot, noise and rounds are the product's own code,
and updates are averaged by size class. AUC is exact, over all held-out rows of all hospitals, computed here; the
product never sees it. Epsilon is for adding or removing one patient, at the delta stated. Exits with 1 below the
targets.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from client.accounting import Lifetime, filter_order
from client.data import Snapshot, size_class, snapshot
from client.demo_data import (
    BREAST_CANCER,
    HEART_DISEASE,
    DemoSettings,
    write_breast_cancer,
    write_heart_disease,
)
from client.models import ModelSettings, build, initial_parameters
from client.plan import choose_noise
from client.randomness import seeded_for_tests
from client.training import train_round
from client.training_plan import TrainingPlan, decode_update

SOURCE = Path(__file__).parents[2].parent / "shared" / "data" / "heart_disease"
SECRET = bytes(range(32))  # decides who is held out where no split is published
ROOMY = 1000.0  # lifetime epsilon: here only the job's target decides
INFINITY = float("inf")

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of the table."""

    demo: DemoSettings
    epsilon: float
    delta: float
    least: float  # AUC that must be reached


LINES = (
    Line(demo=HEART_DISEASE, epsilon=INFINITY, delta=1e-3, least=0.875),
    Line(demo=HEART_DISEASE, epsilon=8, delta=1e-3, least=0.875),
    Line(demo=HEART_DISEASE, epsilon=3, delta=1e-3, least=0.875),
    Line(demo=HEART_DISEASE, epsilon=1, delta=1e-3, least=0.87),
    Line(demo=BREAST_CANCER, epsilon=INFINITY, delta=1e-4, least=0.98),
    Line(demo=BREAST_CANCER, epsilon=3, delta=1e-4, least=0.98),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospital:
    """What one hospital brings: its snapshot and its public plan."""

    rows: Snapshot
    plan: TrainingPlan


def hospitals(files: Mapping[str, Path], line: Line) -> list[Hospital]:
    """Read the files and fix every hospital's plan, as before a job's start."""
    demo = line.demo
    noise = "0"
    if line.epsilon < INFINITY:
        lifetime = Lifetime(epsilon=ROOMY, delta=line.delta, order=filter_order(ROOMY, line.delta))
        noise = choose_noise(
            target_epsilon=line.epsilon,
            delta=line.delta,
            sample_rate=float(demo.sample_rate),
            steps=demo.rounds * demo.local_steps,
            lifetime=lifetime,
        )
    found = []
    for hospital in sorted(files):
        rows = snapshot(files[hospital], demo.dictionary, secret=SECRET)
        plan = TrainingPlan(
            learning_rate=float(demo.learning_rate),
            max_grad_norm=float(demo.max_grad_norm),
            noise_multiplier=float(noise),
            size_class=size_class(len(rows.labels)),
            loss=demo.loss,
            local_steps=demo.local_steps,
        )
        found.append(Hospital(rows=rows, plan=plan))
    return found


def train(demo: DemoSettings, members: list[Hospital], seed: int) -> NDArray[np.float32]:
    """Train a whole job and return the released parameters."""
    settings = ModelSettings(name=demo.model, input_shape=(len(demo.dictionary.feature_names),))
    module = build(settings)
    parameters = initial_parameters(module, settings, seed=0)
    total = sum(h.plan.size_class for h in members)
    data = [tuple(map(torch.from_numpy, h.rows.training)) for h in members]
    streams = [seeded_for_tests(1000 * seed + i) for i in range(len(members))]
    for _ in range(demo.rounds):
        mean = np.zeros(len(parameters))
        for hospital, (features, labels), stream in zip(members, data, streams, strict=True):
            update = train_round(module, parameters, features, labels, hospital.plan, stream)
            mean += hospital.plan.size_class / total * decode_update(update, hospital.plan)
        parameters = (parameters + mean).astype(np.float32)
    return parameters


def exact_auc(members: list[Hospital], parameters: NDArray[np.float32]) -> float:
    """Return the AUC of a logistic regression over all hospitals' held-out rows."""
    features = np.concatenate([h.rows.evaluation[0] for h in members])
    labels = np.concatenate([h.rows.evaluation[1] for h in members])
    return float(roc_auc_score(labels, features @ parameters[:-1] + parameters[-1]))


def one_seed(members: list[Hospital], demo: DemoSettings, seed: int) -> float:
    """Train with one seed and return the exact AUC."""
    torch.set_num_threads(1)
    return exact_auc(members, train(demo, members, seed))


def table(source: Path, seeds: int, directory: Path) -> list[tuple[Line, Array]]:
    """Return the AUCs of every line over the seeds; without noise one seed is all of them."""
    files = {
        HEART_DISEASE.data: write_heart_disease(source, directory / "heart"),
        BREAST_CANCER.data: write_breast_cancer(directory / "breast"),
    }
    results = []
    with ProcessPoolExecutor(max_workers=2) as workers:
        for line in LINES:
            members = hospitals(files[line.demo.data], line)
            numbers = range(seeds if line.epsilon < INFINITY else 1)
            found = workers.map(partial(one_seed, members, line.demo), numbers)
            results.append((line, np.array(list(found))))
    return results


def main() -> None:
    """Print the table; exit with 1 when a line is below its target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, default=SOURCE, help="directory of UCI's processed.*.data")
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        results = table(arguments.source, arguments.seeds, Path(directory))
    print("| data | epsilon | delta | seeds | exact AUC, mean | deviation | least | must reach |")
    print("|---|---|---|---|---|---|---|---|")
    for line, found in results:
        epsilon = "infinity" if line.epsilon == INFINITY else f"{line.epsilon:g}"
        print(
            f"| {line.demo.data} | {epsilon} | {line.delta:g} | {len(found)} | {found.mean():.4f} "
            f"| {found.std():.4f} | {found.min():.4f} | {line.least:g} |"
        )
    print(f"\n{time.perf_counter() - begun:.0f} s; epsilon is for adding or removing one patient.")
    if missed := [line for line, found in results if found.mean() < line.least]:
        raise SystemExit(f"{len(missed)} lines are below their target")


if __name__ == "__main__":
    main()
