"""Faults put into a running job, one after another, and what each has cost: the table of FAULTS.md.

    python -m tests.end_to_end.fault_table [NAME ...] [--rounds 12] [--repeat 1] [--seed N] [--keep DIR]

Needs root, `ip` and `nft` (each process gets a host of its own) and, for the two clocks, libfaketime. The moment of a
fault within its round is random. About a minute each on an idle machine. With --keep, the folders and all that the
processes printed (`*.screen`) stay in DIR.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from client.demo_data import BREAST_CANCER
from tests.end_to_end import hosts
from tests.end_to_end.fault_costs import Outcome
from tests.end_to_end.fault_kinds import FAULTS
from tests.end_to_end.ward_under_fault import COORDINATOR, PORT, Ward


def run(name: str, rounds: int, seed: int, folder: Path) -> Outcome:
    """Run one job with one fault in an empty folder; return what it cost."""
    fault = FAULTS[name]
    names = [COORDINATOR, *BREAST_CANCER.hospitals, "spare"]
    with hosts.separate(names, serving=COORDINATOR, port=PORT) as found:
        ward = Ward(folder, found, rounds)
        fault.prepare(ward)
        try:
            with ward.running():
                ward.propose()
                fault.inflict(ward, random.Random(seed))
                return ward.finish()
        finally:
            for mounted in {s.folder for s in ward.services.values()}:
                subprocess.run(["umount", "-l", str(mounted)], capture_output=True)


def row(name: str, outcome: Outcome) -> str:
    """Return a line of the table."""
    cells = (
        FAULTS[name].what,
        f"{outcome.status}: {outcome.rounds} of {outcome.rounds + outcome.aborted} rounds gave a model",
        f"{outcome.lost} ({outcome.aborted} aborted, {outcome.without} without a hospital"
        f"{_counted(outcome.reasons, '; ', '')})",
        str(outcome.in_vain),
        f"{outcome.double} twice, {outcome.uncharged} not, {len(outcome.below)} below the log",
        str(outcome.approved_again),
        _counted(outcome.ended, "", "none"),
        ", ".join(f"`{command}`" for command in dict.fromkeys(outcome.typed)) or "nothing",
        ", ".join(outcome.incidents) or "none",
        outcome.verified,
    )
    return f"| {' | '.join(cells)} |"


def _counted(found: Mapping[str, int], before: str, none: str) -> str:
    listed = ", ".join(
        f"{what} ({count} times)" if count > 1 else what for what, count in sorted(found.items())
    )
    return f"{before}{listed}" if listed else none


HEAD = (
    "| fault | the job | rounds lost | charged in vain | charged wrongly | approved again | processes that ended |"
    " a person typed | incidents | audit |\n|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Print the table; exit with 1 where a promise did not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[*FAULTS, []], default=list(FAULTS))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=1, help="how often each fault is tried")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--keep", type=Path, help="where folders and screens stay")
    options = parser.parse_args()
    if reason := hosts.obstacle():
        sys.exit(f"error: {reason}")
    print(f"seed {options.seed}\n\n{HEAD}", flush=True)
    broken = list[str]()
    for name, number in product(options.names, range(options.repeat)):
        if reason := FAULTS[name].needs():
            print(f"| {FAULTS[name].what} | not tried: {reason} |{' |' * 8}", flush=True)
            continue
        with _folder(options.keep, f"{name}-{number}") as folder:
            outcome = run(name, options.rounds, options.seed + number, folder)
        print(row(name, outcome), flush=True)
        broken += [f"{name}: {promise}" for promise in outcome.broken()]
    if broken:
        sys.exit(f"error: {'; '.join(broken)}")


@contextmanager
def _folder(keep: Path | None, name: str) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        (keep / name).mkdir(parents=True)
        yield keep / name


if __name__ == "__main__":
    main()
