"""`wardround hospital standing` and `resume`: what keeps a hospital from training, and a person's word to go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from client import config
from client.custody import Custody
from client.errors import ConfigError
from client.owed import FINDINGS
from client.standing import RESTORED, Standing

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The hospital's folder, with hospital.toml.")]
REASONS: dict[str, str] = {
    **FINDINGS,
    RESTORED: "the privacy account is older than the log: this folder came from a backup, or a copy of it runs "
    "elsewhere: then let one of them run alone. Every job was charged whole and is withdrawn from, nothing is "
    "cosigned; first take a new witness key: `wardround member rotate DIR --witness`",
    "receipt-missing": "a receipt of this hospital is neither on the log nor left out with a reason: if this folder "
    "was copied, another agent with the same key may have answered; run one agent alone",
}


def standing(
    directory: Directory,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Show what keeps this hospital from training until a person has looked, and the evidence that is kept.

    Example: wardround hospital standing hospitals/northgate
    """
    folder = config.load(directory).folder
    found, evidence = Standing(folder), Custody(folder).evidence()
    if as_json:
        shown = {"person": found.person, "stopped": dict(found.stops), "evidence": [e.code for e in evidence]}
        typer.echo(json.dumps(shown, indent=2))
        return
    if not found.person and not found.stops:
        typer.echo("nothing keeps this hospital from training")
    if found.person:
        typer.echo(f"no job is trained ({found.person}): {_reason(found.person)}")
    for job, code in sorted(found.stops.items()):
        typer.echo(f"job {job} is not trained ({code}): {_reason(code)}")
    if evidence:
        typer.echo(f"the evidence, {len(evidence)} files, is in {folder / 'owed' / 'evidence'}: keep it")
    if found.person or found.stops:
        typer.echo("once a person has looked: `wardround hospital resume`, for one job with --job JOB")


def resume(
    directory: Directory,
    job: Annotated[
        str, typer.Option(metavar="JOB", help="Digest of a stopped job that may train again.")
    ] = "",
) -> None:
    """Let the agent go on, once a person has looked; stop the agent first, and start it again afterwards.

    Example: wardround hospital resume hospitals/northgate
    """
    found = Standing(config.load(directory).folder)
    if job:
        if not found.stopped(job):
            raise ConfigError(f"job {job[:64]} is not stopped here: see `wardround hospital standing`")
        code = found.stops[job]
        found.allow(job)
        typer.echo(f"confirmed (job {job[:12]}: {code}): start the agent again")
        return
    if not (reason := found.person):
        typer.echo("nothing waits for a person")
        return
    found.resume()
    typer.echo(f"confirmed ({reason}): start the agent again")


def _reason(code: str) -> str:
    return REASONS.get(code, "see the agent's log")
