"""`wardround hospital approve|refuse|withdraw|pause|unpause|offer`: a person decides. Parses, calls, prints.

A decision is a file that the running agent acts on within seconds, and a stopped one when it starts again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from client import approval, config, dataset_record, job_code, job_facts, show
from client.budget import Account
from client.config import Hospital
from client.dataset_record import next_version, record_of
from client.decisions import FOR_GOOD, Decisions, NewOffer
from client.errors import DecisionError
from client.job_facts import OVER
from client.local_log import LocalLog, concerns, read_log
from client.premises import read_dictionary
from client.show_cli import Directory, JobName, fetch_code
from ledger.state import JobState

ACT_SECONDS = 6.0  # how long a command waits for the agent to act
_LOOK_SECONDS = 0.5
Wait = Annotated[
    float, typer.Option("--wait", min=0, max=600, help="Seconds to wait for the running agent to act.")
]


def approve(directory: Directory, job: JobName, wait: Wait = ACT_SECONDS) -> None:
    """Approve exactly this job; its own model.py, if it brings one, may then run here, byte for byte as shown.

    Example: wardround hospital approve hospitals/northgate 3f9a0c71
    """
    hospital, log = _load(directory)
    digest, found = _find(log, hospital, job)
    if hospital.name in found.approved:
        _refuse_if(
            _is_withdrawing(hospital, digest),
            f"the withdrawal from {found.record.name} is under way: try again",
        )
        typer.echo(f"job {found.record.name} ({digest[:12]}) is approved already")
        return
    _refuse_if(
        found.status != "proposed", f"job {found.record.name} is {found.status}: it is too late to approve it"
    )
    _require_offered(hospital, log)
    with closing(Account.open(hospital.account, read_only=True)) as account:
        cost = job_facts.cost_of(log, hospital, account, digest)  # or why the job cannot be approved
    if job_code.brings_code(found.record):
        path = job_code.approve_code(hospital, found.record, fetch_code(hospital, digest, found))
        typer.echo(f"its model.py may run here: {path or 'it is among models/ already'}")
    Decisions(hospital.folder).decide(digest, "approve", log.size)
    typer.echo(
        f"approved by you: job {found.record.name} ({digest[:12]}), epsilon {cost.epsilon_training} for training and "
        f"{cost.epsilon_heldout} for held-out patients at delta {cost.delta} (add/remove one patient)"
    )
    _follow(hospital, digest, log.size, wait)


def refuse(directory: Directory, job: JobName, wait: Wait = ACT_SECONDS) -> None:
    """Refuse a job; the record says "person" and nothing more. It may still be approved later.

    Example: wardround hospital refuse hospitals/northgate 3f9a0c71
    """
    hospital, log = _load(directory)
    digest, found = _find(log, hospital, job)
    name = found.record.name
    _refuse_if(
        hospital.name in found.approved,
        f"job {name} is approved: `wardround hospital withdraw` takes that back",
    )
    _refuse_if(found.status != "proposed", f"job {name} is {found.status}: there is nothing to refuse")
    Decisions(hospital.folder).decide(digest, "refuse", log.size)
    typer.echo(f"refused by you: job {name} ({digest[:12]})")
    _follow(hospital, digest, log.size, wait)


def withdraw(directory: Directory, job: JobName, wait: Wait = ACT_SECONDS) -> None:
    """Take an approval back: this hospital trains no more for the job from this moment, whoever knows of it.

    Example: wardround hospital withdraw hospitals/northgate 3f9a0c71
    """
    hospital, log = _load(directory)
    digest, found = _find(log, hospital, job)
    decisions, name = Decisions(hospital.folder), found.record.name
    decision = decisions.of(digest)
    pending = decision is not None and decision.verdict == "approve" and found.status == "proposed"
    _refuse_if(found.status in OVER, f"job {name} is {found.status}: there is nothing to withdraw from")
    _refuse_if(
        hospital.name not in found.approved and not pending, f"job {name} is not approved by this hospital"
    )
    decisions.decide(digest, "withdraw", log.size)
    typer.echo(
        f"withdrawn by you: job {name} ({digest[:12]}) gets no more training here; what was charged stays spent"
    )
    if hospital.name in found.approved:
        _follow(hospital, digest, log.size, wait)


def pause(
    directory: Directory,
    until: Annotated[
        str, typer.Option(help='End: "06:00" (the next one) or "2026-12-01 06:00", local time.')
    ] = "",
    off: Annotated[bool, typer.Option("--off", help="End the pause now.")] = False,
) -> None:
    """Train nothing for a while: rounds are answered with a signed "paused". Jobs are still followed and answered.

    Example: wardround hospital pause hospitals/northgate --until 06:00
    """
    hospital = config.load(directory)
    if off:
        _refuse_if(bool(until), "--off ends the pause now: leave --until out")
        unpause(directory)
        return
    end = _end_of(until, datetime.now().astimezone()) if until else FOR_GOOD
    Decisions(hospital.folder).pause(end)
    typer.echo(f"training is paused {show.pause_in_words(end)}; a round that has begun is finished")


def unpause(directory: Directory) -> None:
    """Train again.

    Example: wardround hospital unpause hospitals/northgate
    """
    Decisions(config.load(directory).folder).pause(0)
    typer.echo("training is not paused")


def offer(
    directory: Directory,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Wait = ACT_SECONDS,
) -> None:
    """Put the dataset on the record as hospital.toml has it now, after showing what changes. Budgets never rise.

    Example: wardround hospital offer hospitals/northgate
    """
    hospital, log = _load(directory)
    found = log.state.datasets.get(hospital.ref)
    if found is None:
        typer.echo(f"{hospital.ref} is not on the record yet: the agent registers it by itself")
        return
    new = next_version(hospital, read_dictionary(hospital).digest, found.record)
    changes = dataset_record.changes(found.record, new)
    if not changes:
        typer.echo(
            f"the record of {hospital.ref} (version {found.record.version}) says what hospital.toml says"
        )
        return
    typer.echo(f"version {new.version} of the record of {hospital.ref} would change:")
    for name, before, after in changes:
        typer.echo(f"  {name:<12}{before}  ->  {after}")
    if not yes:
        typer.confirm("Register it? Everybody will see it, and a budget never rises again.", abort=True)
    Decisions(hospital.folder).make_offer(NewOffer.of(new))
    busy = f" once job {found.job[:12]} has ended" if found.job else ""
    typer.echo(f"the agent reads hospital.toml again and registers it{busy}")
    _await(wait, lambda: _registered(hospital, new.version), f"version {new.version} is on the record")


def _load(directory: Path) -> tuple[Hospital, LocalLog]:
    hospital = config.load(directory)
    return hospital, read_log(hospital)


def _find(log: LocalLog, hospital: Hospital, job: str) -> tuple[str, JobState]:
    digest, found = log.find(job)
    _refuse_if(
        not concerns(hospital, found.record), f"job {found.record.name} does not ask for {hospital.ref}"
    )
    return digest, found


def _refuse_if(holds: bool, line: str) -> None:
    if holds:
        raise DecisionError(line)


def _require_offered(hospital: Hospital, log: LocalLog) -> None:
    """Refuse while settings and record differ: the agent approves nothing then."""
    old = log.state.datasets[hospital.ref].record
    new = record_of(
        hospital, read_dictionary(hospital).digest, origin=old.origin, version=old.version, cohort=old.cohort
    )
    names = ", ".join(name for name, _, _ in dataset_record.changes(old, new))
    _refuse_if(
        bool(names), f"hospital.toml and the record differ ({names}): run `wardround hospital offer` first"
    )


def _is_withdrawing(hospital: Hospital, digest: str) -> bool:
    decision = Decisions(hospital.folder).of(digest)
    return decision is not None and decision.forbids


def _registered(hospital: Hospital, version: int) -> str:
    found = read_log(hospital).state.datasets.get(hospital.ref)
    return "registered" if found is not None and found.record.version >= version else ""


def _follow(hospital: Hospital, digest: str, size: int, wait: float) -> None:
    """Say what the agent makes of a decision, as soon as its own copy of the log shows it."""

    def outcome() -> str:
        log = read_log(hospital)
        answer = log.history.answer(digest, hospital.name)
        if answer is None or answer.index < size:
            return ""
        code = f" ({answer.code}: {approval.REFUSALS.get(answer.code, '')})" if answer.code else ""
        return f"on the record: {answer.kind}{code}"

    _await(wait, outcome, "")


def _await(wait: float, outcome: Callable[[], str], words: str) -> None:
    until = time.monotonic() + wait
    while True:
        if found := outcome():
            typer.echo(words or found)
            return
        if time.monotonic() >= until:
            break
        time.sleep(_LOOK_SECONDS)
    typer.echo(
        "not on the record yet: the agent puts it there when it runs and reaches the coordinator; see `wardround "
        "hospital jobs`"
    )


def _end_of(text: str, now: datetime) -> int:
    """Return when a pause ends. Raises DecisionError: the text is no time, or over."""
    for form in ("%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"):
        try:
            read = datetime.strptime(text, form)  # local time: its zone comes below
        except ValueError:
            continue
        if form == "%H:%M":
            read = datetime.combine(now.date(), read.time())
            if read <= now.replace(tzinfo=None):
                read += timedelta(days=1)
        end = int(read.astimezone().timestamp())
        _refuse_if(end <= now.timestamp(), f"--until {text} is over")
        return end
    raise DecisionError(f'--until must be like "06:00" or "2026-12-01 06:00", not {text[:40]!r}')
