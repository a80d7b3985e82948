"""`wardround hospital jobs|show`: what waits for a person, and what to know about it. Parses, calls, prints."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from client import config, hours, job_code, job_facts, member, proposals, show
from client.budget import Account
from client.config import Hospital
from client.decisions import Decisions
from client.errors import DeclinedError, PostRefusedError, ProposalError, UnreachableError
from client.job_facts import OVER, Own
from client.local_log import LocalLog, concerns, read_log
from client.premises import read_dictionary
from client.show import Code, Shown
from client.standing import Standing
from ledger.state import JobState

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The hospital's folder, with hospital.toml.")]
JobName = Annotated[
    str, typer.Argument(metavar="JOB", help="The job's name, or 4 or more digits of its digest.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
ASK_SECONDS = 2.0  # how long `jobs` waits for the coordinator, which it needs only for proposals
_ORDER = ("waits", "answering", "approved", "refused", "withdrawn", "over")


def jobs(directory: Directory, as_json: AsJson = False) -> None:
    """List the jobs that ask for this hospital's dataset, those that wait for a person first.

    Proposals that wait for this hospital's signature are named, too, when the coordinator can be reached.

    Example: wardround hospital jobs hospitals/northgate
    """
    hospital = config.load(directory)
    log, decisions = read_log(hospital), Decisions(hospital.folder)
    rows = [
        (job_facts.own_of(log, hospital, decisions.of(digest), digest), digest, found)
        for digest, found in log.state.jobs.items()
        if concerns(hospital, found.record)
    ]
    rows.sort(key=lambda row: (_ORDER.index(row[0].word), -row[2].last_index))
    if as_json:
        typer.echo(json.dumps([_row_json(log, hospital, *row) for row in rows], indent=2))
        return
    if reason := Standing(hospital.folder).person:
        typer.echo(f"everything waits for a person ({reason}): `wardround hospital resume` lets it go on")
    if (until := decisions.paused_until) > time.time():
        typer.echo(f"training is paused {show.pause_in_words(until)}")
    if not hours.is_open(hospital.policy.hours, hours.local(time.time())):
        typer.echo(
            f"outside the hours of hospital.toml ({', '.join(hospital.policy.hours)}): rounds are skipped now"
        )
    for line in _proposals(hospital, str(directory)):
        typer.echo(line)
    if not rows:
        typer.echo("no job asks for this hospital's dataset")
    for own, digest, found in rows:
        job, epsilon = found.record, _epsilon(log, hospital, digest)
        rounds = f"round {min(found.next_round, job.last_exchange)} of {job.last_exchange}"
        rounds = rounds if found.status == "running" else f"{job.rounds} rounds"
        typer.echo(
            f"{digest[:12]}  {own.word:<10} {job.name}: {job.researcher}, {job.purpose}, {found.status}, {rounds}, "
            f"epsilon {epsilon} at delta {job.delta}"
        )
        typer.echo(f"{'':14}{own.why}")


def _proposals(hospital: Hospital, folder: str) -> list[str]:
    """Say what waits for this hospital's signature; nothing where the coordinator does not answer at once."""
    try:
        with closing(member.load(hospital.folder).connect()) as door:
            found = proposals.awaiting(door, hospital.name, ASK_SECONDS)
    except (UnreachableError, PostRefusedError, ProposalError):
        return []
    return [
        f"{p.digest[:12]}  waits for this hospital's signature: {p.record.TYPE} by {p.by}; read it with "
        f"`wardround member show {folder} {p.digest[:12]}`, then `sign` or `decline`"
        for p in found
    ]


def show_job(directory: Directory, job: JobName, as_json: AsJson = False) -> None:
    """Show a job to the person who decides: data, code, privacy cost, what is left, who else approved.

    Example: wardround hospital show hospitals/northgate 3f9a0c71
    """
    hospital = config.load(directory)
    log = read_log(hospital)
    shown = gather(log, hospital, log.find(job)[0], now=int(time.time()))
    if as_json:
        typer.echo(json.dumps(show.as_json(shown), indent=2))
        return
    for line in show.lines_of(shown, str(directory), shutil.get_terminal_size().columns):
        typer.echo(line)


def gather(log: LocalLog, hospital: Hospital, digest: str, now: int) -> Shown:
    """Return everything that is shown of a job; the agent may run meanwhile.

    Raises:
        ClientError, LedgerError: the hospital's own files cannot be read.
    """
    found, dictionary = log.state.jobs[digest], read_dictionary(hospital)
    cost, declined = None, ""
    with closing(Account.open(hospital.account, read_only=True)) as account:
        try:
            if found.status not in OVER:
                cost = job_facts.cost_of(log, hospital, account, digest)
            else:
                declined = f"the job is {found.status}"
        except DeclinedError as error:
            declined = str(error)
    return Shown(
        digest=digest,
        job=found.record,
        status=found.status,
        next_round=found.next_round,
        own=job_facts.own_of(log, hospital, Decisions(hospital.folder).of(digest), digest),
        answers=log.history.answers(digest),
        agreements=job_facts.agreements_of(log, hospital, found),
        dictionary=dictionary,
        same_dictionary=found.record.dictionary == dictionary.digest,
        cost=cost,
        declined=declined,
        code=_code(log, hospital, digest, found),
        now=now,
    )


def fetch_code(hospital: Hospital, digest: str, found: JobState) -> bytes:
    """Return a job's own model.py, from the disk or from the coordinator. Raises UnreachableError, ConfigError."""
    with closing(member.load(hospital.folder).connect()) as door:
        return job_code.read_code(hospital, digest, found.record, door.blob)


def _code(log: LocalLog, hospital: Hospital, digest: str, found: JobState) -> Code | None:
    if not job_code.brings_code(found.record):
        return None
    text, problem = None, ""
    try:
        text = fetch_code(hospital, digest, found)
    except UnreachableError as error:
        problem = str(error)
    before_digest = job_facts.earlier_model(log, hospital, digest)
    before = job_code.earlier_code(hospital, before_digest) if before_digest else None
    return Code(text=text, problem=problem, before=before, before_digest=before_digest)


def _epsilon(log: LocalLog, hospital: Hospital, digest: str) -> str:
    """Return the most that the job may cost here: the approval's limit, or the job's own target."""
    found = log.state.jobs[digest]
    given = log.state.approvals.get(found.approved.get(hospital.name, ""))
    return given.epsilon if given is not None else found.record.epsilon


def _row_json(log: LocalLog, hospital: Hospital, own: Own, digest: str, found: JobState) -> dict[str, Any]:
    job = found.record
    return {
        "job": digest,
        "name": job.name,
        "researcher": job.researcher,
        "purpose": job.purpose,
        "status": found.status,
        "next_round": found.next_round,
        "rounds": job.last_exchange,
        "epsilon": _epsilon(log, hospital, digest),
        "delta": job.delta,
        "expires_at": job.expires_at,
        "own": own.word,
        "why": own.why,
        "waits_for_person": own.waits,
    }
