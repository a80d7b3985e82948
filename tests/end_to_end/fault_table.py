"""Faults put into a running job, one after another, and what each has cost: the table of FAULTS.md.

    python -m tests.end_to_end.fault_table [NAME ...] [--rounds 12] [--seed N]

Needs root, `ip` and `nft` (each process gets a host of its own) and, for the two clocks, libfaketime. The moment of a
fault within its round is random. About a minute each.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client.demo_data import BREAST_CANCER
from tests.end_to_end import hosts
from tests.end_to_end.ward_under_fault import COORDINATOR, PORT, Outcome, Ward

VICTIM = BREAST_CANCER.hospitals[1]
AT = 3  # the round after which a fault comes
CUT_SECONDS = 20.0
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
Dice = random.Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row."""

    what: str
    inflict: Callable[[Ward, Dice], None]
    prepare: Callable[[Ward], None] = lambda ward: None
    needs: Callable[[], str] = lambda: ""  # why it cannot be tried here


def _moment(dice: Dice) -> None:
    time.sleep(dice.uniform(0.0, 1.0))


def kill_coordinator(ward: Ward, dice: Dice) -> None:
    ward.after_round(AT)
    _moment(dice)
    ward.services[COORDINATOR].kill()


def kill_superlink(ward: Ward, dice: Dice) -> None:
    ward.after_round(AT)
    _moment(dice)
    ward.services[COORDINATOR].child("run_superlink").kill()


def kill_server_app(ward: Ward, dice: Dice) -> None:
    ward.after_round(AT)
    _moment(dice)
    ward.services[COORDINATOR].child("run_host").kill()


def kill_agent(ward: Ward, dice: Dice) -> None:
    ward.after_round(AT)
    _moment(dice)
    ward.services[VICTIM].kill()


def kill_worker(ward: Ward, dice: Dice) -> None:
    ward.after_round(AT)
    _moment(dice)
    ward.services[VICTIM].child("worker_main").kill()


def power_cut(ward: Ward, dice: Dice) -> None:
    ward.after_round(AT)
    _moment(dice)
    for service in ward.services.values():
        service.kill()


def cut_hospital(ward: Ward, dice: Dice) -> None:
    ward.after_round(AT)
    _moment(dice)
    _unplug(ward, VICTIM)


def cut_coordinator(ward: Ward, dice: Dice) -> None:
    ward.after_round(AT)
    _moment(dice)
    _unplug(ward, COORDINATOR)


def _unplug(ward: Ward, name: str) -> None:
    hosts.cut(ward.hosts[name])
    until = time.monotonic() + CUT_SECONDS
    ward.wait(lambda: time.monotonic() >= until, "the end of the cut")
    hosts.mend(ward.hosts[name])


def small_disk(name: str) -> Callable[[Ward], None]:
    """Put a member's folder on a small disk of its own."""

    def prepare(ward: Ward) -> None:
        folder = ward.services[name].folder
        aside = folder.with_name(f"{folder.name}-aside")
        folder.rename(aside)
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], check=True)
        shutil.copytree(aside, folder, dirs_exist_ok=True)

    return prepare


def fill_disk(name: str) -> Callable[[Ward, Dice], None]:
    """Fill that disk, and free it after a while."""

    def inflict(ward: Ward, dice: Dice) -> None:
        ward.after_round(AT)
        _moment(dice)
        filler = ward.services[name].folder / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            except OSError:
                pass
        until = time.monotonic() + CUT_SECONDS
        ward.wait(lambda: time.monotonic() >= until, "the end of the full disk")
        filler.unlink()

    return inflict


def wrong_clock(name: str) -> Callable[[Ward, Dice], None]:
    """Restart a member with a clock three hours ahead, and set it right after a while."""

    def inflict(ward: Ward, dice: Dice) -> None:
        ward.after_round(AT)
        service = ward.services[name]
        service.environment = {
            "LD_PRELOAD": str(FAKETIME), "FAKETIME": "+3h", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
        service.kill()
        until = time.monotonic() + CUT_SECONDS
        ward.wait(lambda: time.monotonic() >= until, "the end of the wrong clock")
        service.environment = {}
        service.kill()

    return inflict


def lose_superlink_database(ward: Ward, dice: Dice) -> None:
    ward.after_round(AT)
    superlink = ward.services[COORDINATOR].child("run_superlink")
    shutil.rmtree(ward.setup.coordinator / "flower")
    _moment(dice)
    superlink.kill()


def restore_agent(ward: Ward, dice: Dice) -> None:
    """Restore a hospital's folder as it was two rounds before."""
    service = ward.services[VICTIM]
    _restore(ward, service.folder, lambda: service.down(), service.start)


def restore_coordinator(ward: Ward, dice: Dice) -> None:
    """Restore the coordinator's folder as it was two rounds before."""
    service = ward.services[COORDINATOR]
    _restore(ward, service.folder, lambda: service.down(), service.start)


def _restore(ward: Ward, folder: Path, down: Callable[[], None], start: Callable[[], None]) -> None:
    backup = folder.with_name(f"{folder.name}-backup")
    ward.after_round(AT)
    down()
    shutil.copytree(folder, backup)
    start()
    ward.after_round(AT + 2)
    down()
    shutil.rmtree(folder)
    backup.rename(folder)
    start()


def duplicate_agent(ward: Ward, dice: Dice) -> None:
    """Start a copy of a hospital's folder, with its keys, on another host."""
    ward.after_round(AT)
    service = ward.services[VICTIM]
    service.down()
    copy = service.folder.with_name(f"{VICTIM}-copy")
    shutil.copytree(service.folder, copy)
    service.start()
    twin = type(service)(ward.hosts["spare"], copy, service.command)
    twin.start()
    ward.services["spare"] = twin
    ward.lent.append(copy / "account.sqlite")


def _faketime() -> str:
    return "" if FAKETIME else "libfaketime is not installed"


FAULTS = {
    "none": Fault(what="no fault", inflict=lambda ward, dice: None),
    "coordinator": Fault(what="kill -9 of the coordinator and its children", inflict=kill_coordinator),
    "superlink": Fault(what="kill -9 of the SuperLink", inflict=kill_superlink),
    "serverapp": Fault(what="kill -9 of the ServerApp", inflict=kill_server_app),
    "agent": Fault(what="kill -9 of a hospital's agent and worker", inflict=kill_agent),
    "worker": Fault(what="kill -9 of a hospital's worker", inflict=kill_worker),
    "power": Fault(what="kill -9 of every process at once", inflict=power_cut),
    "cut-hospital": Fault(what=f"a hospital's network cut for {CUT_SECONDS:.0f} s", inflict=cut_hospital),
    "cut-coordinator": Fault(
        what=f"the coordinator's network cut for {CUT_SECONDS:.0f} s", inflict=cut_coordinator
    ),
    "disk-hospital": Fault(
        what="a hospital's disk full for a while", inflict=fill_disk(VICTIM), prepare=small_disk(VICTIM)
    ),
    "disk-coordinator": Fault(
        what="the coordinator's disk full for a while",
        inflict=fill_disk(COORDINATOR),
        prepare=small_disk(COORDINATOR),
    ),
    "clock-hospital": Fault(
        what="a hospital's clock 3 hours ahead for a while", inflict=wrong_clock(VICTIM), needs=_faketime
    ),
    "clock-coordinator": Fault(
        what="the coordinator's clock 3 hours ahead for a while",
        inflict=wrong_clock(COORDINATOR),
        needs=_faketime,
    ),
    "database": Fault(what="the SuperLink's folder deleted, then killed", inflict=lose_superlink_database),
    "old-agent": Fault(what="a hospital restored from an old backup", inflict=restore_agent),
    "old-coordinator": Fault(what="the coordinator restored from an old backup", inflict=restore_coordinator),
    "duplicate": Fault(what="a second agent with the same keys", inflict=duplicate_agent),
}


def run(name: str, rounds: int, seed: int) -> Outcome:
    """Run one job with one fault; return what it cost."""
    fault = FAULTS[name]
    names = [COORDINATOR, *BREAST_CANCER.hospitals, "spare"]
    with (
        tempfile.TemporaryDirectory() as folder,
        hosts.separate(names, serving=COORDINATOR, port=PORT) as found,
    ):
        ward = Ward(Path(folder), found, rounds)
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
    restarts = ", ".join(f"{n} {c}" for n, c in sorted(outcome.restarts.items())) or "none"
    cells = (
        FAULTS[name].what,
        outcome.status,
        f"{outcome.rounds} done, {outcome.aborted} aborted, {outcome.left_out} receipts missing",
        restarts,
        str(outcome.double_charged),
        str(outcome.unaccounted),
        ", ".join(outcome.incidents) or "none",
        outcome.verified,
    )
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| fault | the job | rounds | restarts | charged twice | receipts without a charge | incidents | audit |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*FAULTS, []], default=list(FAULTS))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    if reason := hosts.obstacle():
        sys.exit(f"error: {reason}")
    print(f"seed {options.seed}\n\n{HEAD}", flush=True)
    for name in options.names:
        if reason := FAULTS[name].needs():
            print(f"| {FAULTS[name].what} | not tried: {reason} | | | | | | |", flush=True)
            continue
        print(row(name, run(name, options.rounds, options.seed)), flush=True)


if __name__ == "__main__":
    main()
