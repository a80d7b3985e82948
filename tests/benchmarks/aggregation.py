"""Aggregating 20 hospitals' updates of a million parameters: time and memory beside numpy's own mean.

Run: `python -m tests.benchmarks.aggregation [--hospitals 20] [--parameters 1000000]`. Two references: numpy's
weighted mean of arrays that lie in memory, and the same after reading each update from disk and verifying its
digest. Ours reads, verifies, averages in float64 in a fixed order, and hashes the result.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.admission import judge_numbers
from coordinator.aggregation import RoundInputs, aggregate
from coordinator.blobs import BlobStore
from coordinator.strategies import parse_strategy
from coordinator.updates import Floats, Plan, Update

STRATEGIES = ("fedavg", "fedavgm", "fedadam", "fedyogi", "fedmedian", "fedtrimmedavg", "krum")


def best(action: Callable[[], object], repeat: int) -> float:
    """Return the shortest wall time of several runs, in seconds."""
    times = []
    for _ in range(repeat):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return min(times)


def prepare(store: BlobStore, hospitals: int, parameters: int, local_steps: int) -> RoundInputs:
    """Store a model and honest updates of pure noise."""
    rng = np.random.default_rng(1)
    plan = Plan(
        parameters=parameters, local_steps=local_steps, learning_rate=0.3, max_grad_norm=0.5, noise_multiplier=5.0,
        size_class=256, divisor=256.0, grid=2.0**-12,
    )  # fmt: skip
    deviation = plan.noise_multiplier * plan.max_grad_norm / plan.grid
    updates = []
    for i in range(hospitals):
        sums = np.rint(rng.normal(0.0, deviation, parameters))
        data = (sums if local_steps == 1 else sums * plan.scale).astype(plan.dtype).tobytes()
        updates.append(Update(hospital=f"h{i:03}", digest=store.put(data), weight=1 + i % 4, plan=plan))
    model = store.put(rng.normal(size=parameters).astype("<f4").tobytes())
    return RoundInputs(
        strategy=parse_strategy("fedavg", {}),
        parameters=parameters,
        model_before=model,
        updates=tuple(updates),
    )


def peak_models(action: Callable[[], object], parameters: int) -> float:
    """Return the most memory allocated during an action, in float32 models."""
    tracemalloc.start()
    action()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / (4 * parameters)


def average(inputs: RoundInputs, arrays: list[NDArray[Any]]) -> Floats:
    """The reference: numpy's weighted mean of everything at once."""
    weights = [u.weight for u in inputs.updates]
    return np.asarray(np.average(np.stack(arrays), axis=0, weights=weights), dtype=np.float64)


def average_verified(inputs: RoundInputs, store: BlobStore) -> Floats:
    """The reference of a server that checks what it averages: read, hash, then numpy's weighted mean."""
    return average(inputs, [np.frombuffer(store.read(u.digest), u.plan.dtype) for u in inputs.updates])


def report(store: BlobStore, hospitals: int, parameters: int, repeat: int) -> None:
    """Print one line a strategy and kind of update."""
    print(f"{hospitals} hospitals x {parameters:,} parameters; best of {repeat}; memory in float32 models")
    for local_steps in (2, 1):
        inputs = prepare(store, hospitals, parameters, local_steps)
        size, dtype = sum(u.plan.size for u in inputs.updates), inputs.updates[0].plan.dtype
        arrays = [np.frombuffer(store.read(u.digest), u.plan.dtype) for u in inputs.updates]
        bare = best(partial(average, inputs, arrays), repeat)
        verified = best(partial(average_verified, inputs, store), repeat)
        held = peak_models(partial(average_verified, inputs, store), parameters)
        print(f"{dtype.name}: {size / 1e6:.0f} MB of updates")
        print(f"  numpy.average, in memory     {bare:6.3f} s")
        print(f"  read, verify, numpy.average  {verified:6.3f} s   memory {held:6.1f}")
        for code in STRATEGIES:
            action = partial(aggregate, replace(inputs, strategy=parse_strategy(code, {})), store.open)
            seconds = best(action, repeat)
            print(
                f"  {code:27}  {seconds:6.3f} s   memory {peak_models(action, parameters):6.1f}"
                f"   {seconds / bare:5.1f} x bare, {seconds / verified:4.2f} x verified"
            )
        judging = best(partial(judge_all, inputs, store), repeat)
        print(f"  admission of all             {judging:6.3f} s")


def judge_all(inputs: RoundInputs, store: BlobStore) -> None:
    """Judge the numbers of every update."""
    for update in inputs.updates:
        with store.open(update.digest) as stream:
            if judge_numbers(stream, update.digest, update.plan) is not None:
                raise SystemExit("an honest update was refused")


def main() -> None:
    """Parse the arguments and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hospitals", type=int, default=20)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        report(BlobStore(Path(directory)), arguments.hospitals, arguments.parameters, arguments.repeat)


if __name__ == "__main__":
    main()
