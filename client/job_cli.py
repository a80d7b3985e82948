"""`wardround job`: make, check, submit, watch, cancel a training job, and fetch its result. Parses, calls, prints."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from client import job_check, job_display, job_folder, job_result, job_templates, member
from client.errors import JobFileError, JobStateError, UnreachableError
from client.job_story import SHORT, Story
from client.researcher import Researcher
from ledger import report

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Propose a training job to the hospitals, follow it, fetch its result. Example: wardround job new my-job",
)
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The job's folder, with job.toml.")]
Which = Annotated[
    str, typer.Argument(metavar="DIR|DIGEST", help="A submitted job's folder, or its digest's beginning.")
]
Member = Annotated[
    Path, typer.Option("--member", metavar="FOLDER", help="Your folder, with member.toml and keys/.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


@app.command()
def new(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    template: Annotated[
        str, typer.Option(help=f"What to begin with: {', '.join(sorted(job_templates.DRAFTS))}.")
    ] = "breast-cancer",
) -> None:
    """Make a job's folder: a job.toml that explains every line, with what else the job needs.

    Example: wardround job new my-job --template heart-disease
    """
    folder = job_folder.new(directory, template)
    files = ", ".join(sorted(p.name for p in folder.path.iterdir()))
    typer.echo(
        f"{directory} holds {files}: change job.toml, then try it with: wardround job check {directory}"
    )


@app.command()
def check(
    directory: Folder,
    membership: Annotated[
        Path | None,
        typer.Option("--member", metavar="FOLDER", help="Your folder: prices the consortium's own datasets."),
    ] = None,
    dry: Annotated[bool, typer.Option(help="Try the job on made-up patients.")] = True,
    as_json: AsJson = False,
) -> None:
    """Name every problem of a job, its price for the patients, and try it on made-up patients.

    Example: wardround job check my-job --member researcher
    """
    folder = job_folder.load(directory)
    if membership is None:
        found = job_check.check(folder, dry=dry)
    else:
        with Researcher(member.load(membership)) as me:
            found = job_check.check(folder, sight=me.log.pull(), researcher=me.membership.name, dry=dry)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        for line in job_check.lines(found):
            typer.echo(line)
    if found.problems:
        count = len(found.problems)
        raise JobFileError(f"{directory} has {count} problem{'s' if count > 1 else ''}: correct job.toml")


@app.command()
def submit(directory: Folder, membership: Member, as_json: AsJson = False) -> None:
    """Sign a job and propose it to the hospitals; the same folder again finds its job.

    Example: wardround job submit my-job --member researcher
    """
    with Researcher(member.load(membership)) as me:
        made = me.submit(job_folder.load(directory))
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "job": made.digest,
                    "status": made.status,
                    "new": made.new,
                    "hospitals": list(made.hospitals),
                    "min_participants": made.job.min_participants,
                    "expires_at": made.job.expires_at,
                }
            )
        )
        return
    typer.echo(f"job {made.digest} is {made.status}" + ("" if made.new else " (it was submitted before)"))
    typer.echo(
        f"asked: {', '.join(made.hospitals)}; at least {made.job.min_participants} must approve, and it ends at "
        f"{report.when(made.job.expires_at)}"
    )
    typer.echo(f"follow it with: wardround job watch {directory} --member {membership}")


@app.command()
def watch(job: Which, membership: Member, as_json: AsJson = False) -> None:
    """Follow a job until it has ended, by your own verified copy of the log. Exit status 0: finished.

    Example: wardround job watch my-job --member researcher
    """
    with _job(job, membership) as (me, digest):
        try:
            status = _follow_as_json(me, digest) if as_json else _follow(me, digest)
        except KeyboardInterrupt:
            typer.echo(f"stopped watching; job {digest[:SHORT]} goes on without you", err=True)
            raise typer.Exit(130) from None
    if status != "finished":
        raise typer.Exit(1)
    if not as_json:
        short = digest[:SHORT]
        typer.echo(f"fetch it with: wardround job result {short} --member {membership} --out result-{short}")


@app.command()
def cancel(job: Which, membership: Member, as_json: AsJson = False) -> None:
    """End a job of yours, at whatever stage it is; what hospitals have spent stays spent.

    Example: wardround job cancel my-job --member researcher
    """
    with _job(job, membership) as (me, digest):
        status = me.cancel(digest)
    typer.echo(json.dumps({"job": digest, "status": status}) if as_json else f"job {digest} is {status}")


@app.command()
def result(
    job: Which,
    membership: Member,
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder that does not exist yet.")],
    as_json: AsJson = False,
) -> None:
    """Fetch a finished job's model, card and evidence; interrupted, it goes on where it was.

    Example: wardround job result my-job --member researcher --out result
    """
    with _job(job, membership) as (me, digest):
        found = job_result.fetch(me, digest, out)
        charter = me.membership.charter
    if as_json:
        told = {"job": digest, "folder": str(out), "model": str(found.model), "files": found.files}
        typer.echo(json.dumps(told))
        return
    typer.echo(f"{out} holds {job_result.MODEL} and {job_result.CARD} as the release on the log names them,")
    typer.echo(f"and the evidence, {found.files} files. Compute every round again, offline, with:")
    typer.echo(f"wardround evidence verify {found.evidence} --charter {charter}")


@contextmanager
def _job(job: str, membership: Path) -> Iterator[tuple[Researcher, str]]:
    """Find the job that a person means: a submitted folder's, or the one whose digest begins so."""
    with Researcher(member.load(membership)) as me:
        if not Path(job).is_dir():
            yield me, me.find(job)
            return
        if (kept := job_folder.submitted(Path(job))) is None:
            raise JobStateError(f"{job} was not submitted: wardround job submit {job} --member {membership}")
        yield me, kept.job.digest()


def _follow_as_json(me: Researcher, digest: str) -> str:
    def waiting(reason: str) -> None:
        typer.echo(json.dumps({"event": "waiting", "reason": reason}))

    for event in me.watch(digest, waiting=waiting):
        typer.echo(json.dumps(event.to_json()))
    return me.log.sight.state.jobs[digest].status


def _follow(me: Researcher, digest: str) -> str:
    story, measured, asked = Story(digest=digest), "", 0.0
    with job_display.Display() as display:
        for event in me.watch(digest, story=story, waiting=display.say):
            if event.kind == "round" and time.monotonic() - asked > 1:
                asked = time.monotonic()
                with suppress(UnreachableError):
                    measured = job_display.figures(me.door.status(), digest)
            display.event(event, story, measured)
    return me.log.sight.state.jobs[digest].status
