"""What accounting costs: `python tests/benchmarks/accounting.py` prints one table. Nothing is asserted.

Run it with one thread (OMP_NUM_THREADS=1) on a machine that does nothing else.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from client import accounting, plan
from client.accounting import Event, Lifetime
from client.budget import Account
from client.renyi import sampled_divergence

DELTA = 1e-5


def event(noise: float, rate: float, count: int) -> Event:
    return Event(noise_multiplier=noise, sample_rate=rate, count=count)


def lifetime(epsilon: float, delta: float = DELTA) -> Lifetime:
    return Lifetime(epsilon=epsilon, delta=delta, order=accounting.filter_order(epsilon, delta))


def milliseconds(call: Callable[[], object], repeats: int = 5, fresh: bool = False) -> float:
    """Median time of a call; `fresh` empties every cache before each."""
    times = []
    for _ in range(repeats):
        if fresh:
            accounting._pld_epsilon.cache_clear()
            sampled_divergence.cache_clear()
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def durable(repeats: int = 200) -> tuple[float, float]:
    """Median time of a charge and of storing a reply of 64 KiB, on this disk, in an account of that many rounds."""
    charges, replies = [], []
    with tempfile.TemporaryDirectory() as folder:
        account = Account.open(Path(folder) / "account.sqlite")
        account.register("a/b", 500.0, 1e-3)
        for number in range(1, repeats + 1):
            start = time.perf_counter()
            made = account.charge(
                dataset="a/b",
                job=f"job {number // 30}",
                round_number=number,
                model_digest="m",
                training=[event(5.0, 1.0, 1)],
                heldout=[],
                delta=1e-3,
                production=True,
            )
            middle = time.perf_counter()
            account.store_reply(made, update=bytes(65536), receipt=b"r", metrics=b"", production=True)
            charges.append((middle - start) * 1e3)
            replies.append((time.perf_counter() - middle) * 1e3)
        account.close()
    return statistics.median(charges), statistics.median(replies)


def calculations() -> list[tuple[str, float]]:
    """Time every pure calculation."""
    history = [event(1 + i / 10, 0.05, 30) for i in range(20)]
    accounting.job_epsilon(history[:1], DELTA)  # imports dp-accounting
    account = lifetime(1000.0)
    one = [event(1.3, 0.07, 30)]
    rows = [
        (name, milliseconds(partial(accounting.job_epsilon, events, DELTA), 3, fresh=True))
        for name, events in (
            ("PLD, 30 rounds, q .1", [event(1.2, 0.1, 30)]),
            ("PLD, 300 steps, q .02", [event(1.0, 0.02, 300)]),
            ("PLD, 2000 steps, q .0032", [event(0.6, 0.0032, 2000)]),
            ("PLD, 20 mechanisms, 600 steps", history),
            ("closed form, 30 full batches", [event(5.0, 1.0, 30)]),
        )
    ]
    return [
        *rows,
        ("filter, new mechanism", milliseconds(partial(accounting.fits, one, account), fresh=True)),
        ("filter, 20 known mechanisms", milliseconds(partial(accounting.fits, history, account), 50)),
        (
            "shown epsilon, new mechanism",
            milliseconds(partial(accounting.filter_epsilon, one, DELTA), fresh=True),
        ),
        (
            "shown epsilon, 20 known mechanisms",
            milliseconds(partial(accounting.filter_epsilon, history, DELTA), 50),
        ),
    ]


def choices() -> list[tuple[str, float]]:
    """Time the choice of noise for whole jobs."""
    return [
        (
            f"choosing noise, q {rate:g}, {steps} steps",
            milliseconds(
                partial(
                    plan.choose_noise,
                    target_epsilon=3.0,
                    delta=DELTA,
                    sample_rate=rate,
                    steps=steps,
                    lifetime=lifetime(8.0),
                ),
                3,
                fresh=True,
            ),
        )
        for rate, steps in ((1.0, 30), (0.1, 30), (0.02, 300))
    ]


def main() -> None:
    """Print the table."""
    charge, reply = durable()
    stored = [("durable charge, full batch", charge), ("durable reply, 64 KiB", reply)]
    for name, value in [*calculations(), *choices(), *stored]:
        print(f"{name:38} {value:10.2f} ms")


if __name__ == "__main__":
    main()
