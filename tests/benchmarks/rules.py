"""How fast a log is read: parse, signatures and fold, of 20 hospitals and 1,000 rounds.

    python -m tests.benchmarks.rules [--rounds 1000] [--hospitals 20]

Prints entries per second of each phase, the time of the fold for each 1,000 entries (flat: the fold is amortised O(1)
an entry), and how long a restart from a snapshot takes compared with a replay. One core; nothing is asserted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from ledger.envelope import Entry, check_signatures, parse_entry
from ledger.view import NOTHING, View
from tests.ledger.consortium import Consortium

_Result = TypeVar("_Result")
CHUNK = 1_000


def write_log(hospitals: int, rounds: int) -> list[bytes]:
    """Return the entries of a job of many hospitals and rounds."""
    names = [f"hospital-{i:03}" for i in range(hospitals)]
    c = Consortium.founded()
    c.append(c.amendment(add=tuple(c.member(name) for name in names)))
    c.offer(*names)
    job = c.run(*names, rounds=rounds, evaluate=(), heldout_epsilon="0", min_participants=hospitals // 2)
    for _ in range(rounds):
        c.play(job)
    c.append(c.release(job))
    return [entry.data for entry in c.entries]


def timed(what: str, count: int, work: Callable[[], _Result]) -> _Result:
    """Run a phase once and print its rate."""
    began = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - began
    print(f"{what:<22}{count / seconds:>12,.0f} entries/s{1e6 * seconds / count:>10.1f} us an entry")
    return result


def fold(entries: Sequence[Entry]) -> tuple[View, list[float]]:
    """Return the view of all entries, and the microseconds an entry took in each chunk."""
    view, times = NOTHING, []
    for start in range(0, len(entries), CHUNK):
        chunk = entries[start : start + CHUNK]
        began = time.perf_counter()
        view = view.extend(chunk)
        times.append(1e6 * (time.perf_counter() - began) / len(chunk))
    return view, times


def main() -> None:
    """Run every phase over one log."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--hospitals", type=int, default=20)
    options.add_argument("--rounds", type=int, default=1_000)
    given = options.parse_args()
    log = write_log(given.hospitals, given.rounds)
    count = len(log)
    print(
        f"{given.hospitals} hospitals, {given.rounds} rounds: {count:,} entries, {sum(map(len, log)):,} bytes"
    )

    entries = timed("parse", count, lambda: [parse_entry(data) for data in log])
    some = entries[-min(count, 4_000) :]
    timed("check signatures", len(some), lambda: list(map(check_signatures, some)))
    view, times = timed("fold (View.extend)", count, lambda: fold(entries))
    print(f"fold of each {CHUNK:,}: " + " ".join(f"{t:.0f}" for t in times) + " us an entry")
    third = max(1, len(times) // 3)
    print(f"last third to first: {statistics.mean(times[-third:]) / statistics.mean(times[:third]):.2f}")

    snapshot = view.to_bytes()
    began = time.perf_counter()
    again = View.from_bytes(snapshot)
    milliseconds = 1e3 * (time.perf_counter() - began)
    print(
        f"restart from a snapshot of {len(snapshot):,} bytes: {milliseconds:.1f} ms; equal: {again == view}"
    )


if __name__ == "__main__":
    main()
