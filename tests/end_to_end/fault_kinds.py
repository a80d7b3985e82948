"""The faults that are put into a running consortium: what each does, and what a person does about it.

Each waits for a round, takes a random moment after it, and returns when the fault is over; the job goes on meanwhile.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client.demo_data import BREAST_CANCER
from tests.end_to_end import hosts
from tests.end_to_end.ward_under_fault import COORDINATOR, Ward

VICTIM = BREAST_CANCER.hospitals[1]
AT = 3  # the round after which a fault comes
CUT_SECONDS = 20.0
REBOOT_SECONDS = 5.0
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
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


def kill(name: str, part: str = "", after: int = AT) -> Callable[[Ward, Dice], None]:
    """Kill a member's service with all its children, or the one child whose command line holds `part`."""

    def inflict(ward: Ward, dice: Dice) -> None:
        ward.after_round(after)
        _moment(dice)
        service = ward.services[name]
        service.child(part).kill() if part else service.kill()

    return inflict


def kill_each(ward: Ward, dice: Dice) -> None:
    """Kill one process after another, each in a round of its own."""
    victims = ((COORDINATOR, "run_superlink"), (COORDINATOR, "run_host"), (VICTIM, ""), (COORDINATOR, ""))
    for number, (name, part) in enumerate(victims, start=1):
        kill(name, part, number)(ward, dice)


def power_cut(ward: Ward, dice: Dice) -> None:
    ward.after_round(AT)
    _moment(dice)
    for service in ward.services.values():
        service.kill()


def cut(name: str) -> Callable[[Ward, Dice], None]:
    """Unplug a host's network for a while."""

    def inflict(ward: Ward, dice: Dice) -> None:
        ward.after_round(AT)
        _moment(dice)
        hosts.cut(ward.hosts[name])
        _pass(ward, CUT_SECONDS)
        hosts.mend(ward.hosts[name])

    return inflict


def _pass(ward: Ward, seconds: float) -> None:
    """Let time go by."""
    until = time.monotonic() + seconds
    ward.wait(lambda: time.monotonic() >= until, f"{seconds:.0f} s")


def kill_agent_often(ward: Ward, dice: Dice) -> None:
    """Kill a hospital in every other round: between its charge and its reply, sooner or later."""
    for number in range(AT, ward.rounds, 2):
        ward.after_round(number)
        _moment(dice)
        ward.services[VICTIM].kill()


def reboot(ward: Ward, dice: Dice) -> None:
    """End everything on the coordinator's host, as a reboot does; nothing of the temporary files is left."""
    ward.after_round(AT)
    _moment(dice)
    ward.services[COORDINATOR].down()
    shutil.rmtree(_temporary(ward), ignore_errors=True)
    _temporary(ward).mkdir()
    _pass(ward, REBOOT_SECONDS)
    ward.services[COORDINATOR].start()


def own_temporary_files(ward: Ward) -> None:
    _temporary(ward).mkdir()
    ward.services[COORDINATOR].environment = {"TMPDIR": str(_temporary(ward))}


def _temporary(ward: Ward) -> Path:
    return ward.setup.directory / "tmp"


def stop_coordinator(ward: Ward, dice: Dice) -> None:
    """Stop it in the middle of a round, as an upgrade does, and start it again."""
    ward.after_round(AT)
    _moment(dice)
    service = ward.services[COORDINATOR]
    assert service.process is not None
    service.wanted = False
    service.ended.append(hosts.stop(service.process))
    service.start()


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
        _pass(ward, CUT_SECONDS)
        filler.unlink()
        if not ward.services[name].wanted:  # it said that a person must see to the disk, then start it
            ward.typed.append(f"systemctl start ({name})")
            ward.services[name].start()

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
        _pass(ward, CUT_SECONDS)
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
    """Restore a hospital's folder as it was two rounds before; then a person does what the screen says."""
    _restore(ward, VICTIM)
    ward.wait(lambda: ward.said(VICTIM, "waiting for a person"), "the word that a person must look")
    ward.person(VICTIM, "hospital", "standing", again=False)
    ward.person(VICTIM, "member", "rotate", "--witness", "--no-wait", again=False)
    for name in ward.hospitals:
        if name != VICTIM:
            listed = json.loads(ward.person(name, "member", "proposals", "--json", again=False))
            if waiting := [found["digest"][:16] for found in listed if not found["ended"]]:
                ward.person(name, "member", "sign", waiting[0], "--yes", again=False)
    ward.person(VICTIM, "hospital", "resume")


def restore_coordinator(ward: Ward, dice: Dice) -> None:
    """Lose the coordinator's folder, and restore it as it was two rounds before."""
    service = ward.services[COORDINATOR]
    backup = service.folder.with_name("backup.tar")
    ward.after_round(AT)
    ward.person(COORDINATOR, "coordinator", "backup", "--out", str(backup), again=False)
    ward.after_round(AT + 2)
    service.down()
    shutil.rmtree(service.folder)
    said = service.host.wardround("coordinator", "restore", backup, service.folder)
    ward.show(COORDINATOR, "coordinator restore", said)
    service.start()


def _restore(ward: Ward, name: str) -> None:
    service = ward.services[name]
    backup = service.folder.with_name(f"{service.folder.name}-backup")
    ward.after_round(AT)
    service.down()
    shutil.copytree(service.folder, backup)
    service.start()
    ward.after_round(AT + 2)
    service.down()
    shutil.rmtree(service.folder)
    backup.rename(service.folder)
    service.start()


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
    "coordinator": Fault(what="kill -9 of the coordinator and its children", inflict=kill(COORDINATOR)),
    "superlink": Fault(what="kill -9 of the SuperLink", inflict=kill(COORDINATOR, "run_superlink")),
    "serverapp": Fault(what="kill -9 of the ServerApp", inflict=kill(COORDINATOR, "run_host")),
    "agent": Fault(what="kill -9 of a hospital's agent and worker", inflict=kill(VICTIM)),
    "agent-often": Fault(what="kill -9 of a hospital's agent in every other round", inflict=kill_agent_often),
    "worker": Fault(what="kill -9 of a hospital's worker", inflict=kill(VICTIM, "worker_main")),
    "each": Fault(
        what="kill -9 of the SuperLink, the ServerApp, an agent, the coordinator, one after another",
        inflict=kill_each,
    ),
    "reboot": Fault(
        what="the coordinator's host rebooted: every process gone, temporary files too",
        inflict=reboot,
        prepare=own_temporary_files,
    ),
    "stop": Fault(
        what="the coordinator stopped (SIGTERM) in a round, and started again", inflict=stop_coordinator
    ),
    "power": Fault(what="kill -9 of every process at once", inflict=power_cut),
    "cut-hospital": Fault(what=f"a hospital's network cut for {CUT_SECONDS:.0f} s", inflict=cut(VICTIM)),
    "cut-coordinator": Fault(
        what=f"the coordinator's network cut for {CUT_SECONDS:.0f} s", inflict=cut(COORDINATOR)
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
