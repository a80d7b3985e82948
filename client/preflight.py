"""`wardround hospital check`: every check, in the order in which a person would repair things.

All checks are made, also after one that is wrong; only what cannot be known without another answer is left out, and
named. What each one finds is `client.preflight_codes`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from client import config, member
from client.config import Hospital
from client.errors import ConfigError
from client.preflight_codes import WRONG, Finding
from client.preflight_data import (
    judge_data,
    judge_dictionary,
    observe_data,
    observe_data_mode,
    observe_dictionary,
)
from client.preflight_files import (
    judge_account,
    judge_agent,
    judge_copy,
    judge_folder,
    judge_person,
    judge_samples,
    judge_settings,
    observe_agent,
    observe_copy,
    observe_folder,
    observe_person,
    observe_settings,
)
from client.preflight_keys import judge_authority, judge_keys, observe_keys
from client.preflight_log import judge_log, observe_log
from client.preflight_machine import (
    judge_disk,
    judge_memory,
    judge_processors,
    judge_sandbox,
    judge_software,
    judge_torch,
    needed_mib,
    observe_disk,
    observe_memory,
    observe_processors,
    observe_sandbox,
    observe_software,
    observe_torch,
)
from client.preflight_network import Target, look

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A part of the check that was not made, and why."""

    part: str
    reason: str


def run(
    directory: Path,
    *,
    offline: bool = False,
    progress: Progress = lambda line: None,
    clock: Callable[[], float] = time.time,
) -> Iterator[Finding | Skipped]:
    """Make all checks, and give back each finding as soon as it is there.

    Args:
        directory: The hospital's folder.
        offline: Leave the network out.
        progress: Told what is being looked at, where that takes seconds.
        clock: Unix seconds.

    Raises:
        ConfigError: there is no such folder.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory} is no folder: name the hospital's folder, with {config.FILE}")
    directory = directory.resolve()
    settings = observe_settings(directory)
    yield judge_settings(settings)
    hospital = settings if isinstance(settings, Hospital) else None
    if hospital is not None:
        yield from judge_samples(hospital)
    database = hospital is not None and hospital.dataset.kind == "sql"
    folder = observe_folder(directory)
    yield from judge_folder(folder)
    yield from judge_keys(observe_keys(directory, database=database), folder.owner)
    yield judge_person(observe_person(directory))
    if hospital is None:
        yield from _machine(directory, None, progress)
        yield Skipped(part="network, log, account and data", reason=f"they need {config.FILE}")
        return
    yield judge_agent(observe_agent(hospital.account))
    yield from judge_copy(observe_copy(hospital), hospital.name, hospital.charter)
    yield judge_account(hospital.account)
    yield from _network(hospital, offline, progress, clock)
    yield from _machine(directory, hospital, progress)
    yield from _data(hospital, progress)


def _network(
    hospital: Hospital, offline: bool, progress: Progress, clock: Callable[[], float]
) -> Iterator[Finding | Skipped]:
    path = hospital.folder / hospital.authority
    authority: bytes | str
    try:
        authority = hospital.read_authority()
    except ConfigError as error:
        authority = str(error)
    found = judge_authority(authority, path, datetime.fromtimestamp(clock(), UTC))
    yield found
    if offline or isinstance(authority, str) or found.code == "authority.wrong":
        reason = "--offline was given" if offline else f"it needs {path}"
        yield Skipped(part="network", reason=reason)
        return
    progress(f"looking for the coordinator at {hospital.coordinator}")
    target = Target(address=hospital.coordinator, proxy=hospital.proxy, authority=authority)
    last = None
    for last in look(target, clock):
        yield last
    if last is None or not last.code.startswith("clock"):
        yield Skipped(part="log", reason="the coordinator was not reached")
        return
    progress("reading the log's newest checkpoint")
    yield from judge_log(observe_log(member.load(hospital.folder).connect), hospital.charter, clock())


def _machine(directory: Path, hospital: Hospital | None, progress: Progress) -> Iterator[Finding]:
    yield from judge_disk(observe_disk(directory), needed_mib(hospital))
    if hospital is not None:
        yield judge_memory(observe_memory(), hospital.limits)
        yield judge_processors(observe_processors(), hospital.limits)
    packages = observe_software()
    yield from judge_software(packages)
    if any(package.name == "torch" and package.found for package in packages):
        progress("importing torch")
        yield judge_torch(observe_torch(), gpu=hospital is not None and hospital.limits.gpu)
    lacks = observe_sandbox()
    if lacks is not None:
        yield from judge_sandbox(lacks)


def _data(hospital: Hospital, progress: Progress) -> Iterator[Finding | Skipped]:
    dictionary = observe_dictionary(hospital)
    yield judge_dictionary(dictionary)
    if isinstance(dictionary, ConfigError):
        yield Skipped(part="data", reason="it needs the data dictionary")
        return
    progress("reading the data")
    yield from judge_data(observe_data(hospital, dictionary), hospital, observe_data_mode(hospital))


def is_wrong(found: Finding | Skipped) -> bool:
    """Whether the agent would not work with this."""
    return isinstance(found, Finding) and found.level == WRONG
