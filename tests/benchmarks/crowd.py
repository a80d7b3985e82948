"""500 simulated hospitals, 10 rounds: time and peak memory against Flower's own simulation of the same job.

    python -m tests.benchmarks.crowd [--hospitals 500] [--repeats 2] [--only ray flower ...]

Each variant is a process of its own, from its start to its end, Ray's start and every import included; all run one
after the other, in turn. Ours starts from raw rows, prepares them, prices the job, trains under differential privacy
and measures; Flower's gets the prepared rows as arrays, and neither of its variants measures anything. Memory is the
sum of the proportional set sizes (PSS) of the process and all that it started, the highest of samples taken each
second; CPU seconds are the sum over the same processes, and say more than seconds where others work too. Asserts
nothing: times depend on the machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from client import dictionary as dictionaries
from client import job_folder, job_templates, job_toml
from client.synthetic import rows
from tests.benchmarks.crowd_flower import CLIENTS, DATA, ROUNDS

OURS = ("inline", "ray")
VARIANTS = (*OURS, *CLIENTS)
PROCESSES = os.cpu_count() or 1
SMALLEST, LARGEST = 20, 100  # patients


def make(folder: Path, hospitals: int) -> None:
    """Write the job, raw rows for ours, and the same rows prepared for Flower."""
    from client.data import take
    from client.notebook.in_memory import from_arrays

    draft = replace(
        job_templates.DRAFTS["breast-cancer"], rounds=ROUNDS, model="mlp", hidden=(16,), live_evaluations=1
    )
    (folder / job_toml.FILE).write_text(job_toml.to_toml(draft))
    dictionary = dictionaries.shipped("breast-cancer")
    columns = dictionary.columns
    inputs = [columns.index(name) for name in dictionary.inputs]
    label = columns.index(dictionary.label.name)
    counts = np.random.default_rng(0).integers(SMALLEST, LARGEST + 1, hospitals)
    made = [rows(dictionary, int(count), seed) for seed, count in enumerate(counts)]
    raw = [np.array([[float(row[i]) for i in inputs] for row in some]) for some in made]
    labels = [np.array([row[label] for row in some]) for some in made]
    np.savez(folder / "raw.npz", x=np.concatenate(raw), y=np.concatenate(labels), n=counts)
    ready = [
        take(from_arrays(x, y, dictionary), dictionary, bytes(32))[0]
        for x, y in zip(raw, labels, strict=True)
    ]
    training = [snapshot.training for snapshot in ready]
    np.save(folder / "features.npy", np.concatenate([x for x, _ in training]))
    np.save(folder / "labels.npy", np.concatenate([y for _, y in training]))
    np.save(folder / "ends.npy", np.cumsum([0, *(len(y) for _, y in training)]))


def ours(folder: Path, engine: str) -> None:
    """Simulate the job; prints how long the rounds took, Ray's start included."""
    from wardround_crowd import crowd

    with np.load(folder / "raw.npz") as data:
        ends = np.cumsum([0, *data["n"]])
        x, y = data["x"], data["y"]
    datasets = {f"hospital-{i:03d}": (x[a:b], y[a:b]) for i, (a, b) in enumerate(pairwise(ends))}
    found = crowd(job_folder.load(folder), datasets, engine=engine, processes=PROCESSES)
    last = found.figures.spent[-1]
    assert found.figures.status == "finished"
    print(f"{found.seconds:.1f} s from the first exchange to the last, epsilon {last.epsilon}")


def look(process: psutil.Process, worked: dict[int, float]) -> float:
    """Return the proportional set size in MiB of a process and all that descend from it; Linux only.

    Each one's CPU seconds so far go into `worked`, by its id.
    """
    kib = 0
    for one in (process, *process.children(recursive=True)):
        try:
            text = Path(f"/proc/{one.pid}/smaps_rollup").read_text()
            times = one.cpu_times()
        except (OSError, psutil.Error):
            continue  # it ended meanwhile
        worked[one.pid] = times.user + times.system
        kib += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return kib / 1024


def measure(variant: str, folder: Path, hospitals: int) -> tuple[float, float, float, str]:
    """Run one variant; return its seconds, its CPU seconds, its peak memory in MiB, and its last line."""
    worked: dict[int, float] = {}
    environment = {
        **os.environ,
        DATA: str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, "-m", "tests.benchmarks.crowd", "--run", variant, "--folder", str(folder)]
    began, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile() as out:
        child = psutil.Popen(
            [*command, "--hospitals", str(hospitals)], env=environment, stdout=out, stderr=subprocess.STDOUT
        )
        while child.poll() is None:
            try:
                peak = max(peak, look(child, worked))
            except psutil.NoSuchProcess:
                break
            time.sleep(1.0)
        status, seconds = child.wait(), time.perf_counter() - began
        out.seek(0)
        said = out.read().decode(errors="replace").strip()
    if status:
        raise SystemExit(f"{variant} failed:\n{said[-2000:]}")
    return seconds, sum(worked.values()), peak, said.splitlines()[-1] if said else ""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hospitals", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=VARIANTS[:-1], choices=VARIANTS)
    parser.add_argument("--run", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run in OURS:
        ours(arguments.folder, arguments.run)
        return
    if arguments.run:
        from tests.benchmarks.crowd_flower import simulate

        simulate(arguments.run, arguments.hospitals, PROCESSES)
        return
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), arguments.hospitals)
        found: dict[str, list[tuple[float, ...]]] = {variant: [] for variant in arguments.only}
        for _ in range(arguments.repeats):
            for variant in arguments.only:
                *figures, said = measure(variant, Path(name), arguments.hospitals)
                found[variant].append(tuple(map(float, figures)))
                words = f"{figures[0]:.1f} s, {figures[1]:.1f} CPU s, {figures[2]:.0f} MiB"
                print(f"{variant}: {words}  {said[:100] if variant in OURS else ''}", flush=True)
    print(
        f"\n{arguments.hospitals} hospitals, {ROUNDS} rounds, {PROCESSES} processors; median of {arguments.repeats}"
    )
    print("| variant | seconds | CPU seconds | peak MiB | ratios to Flower |\n|---|---|---|---|---|")
    middle = {v: [median(one) for one in zip(*runs, strict=True)] for v, runs in found.items()}
    base = middle.get("flower")
    for variant, figures in middle.items():
        ratios = " / ".join(f"{a / b:.2f}" for a, b in zip(figures, base, strict=True)) if base else ""
        print(f"| {variant} | {figures[0]:.1f} | {figures[1]:.1f} | {figures[2]:.0f} | {ratios} |")


if __name__ == "__main__":
    main()
