"""`wardround evidence`: check a finished run, recomputing every round, and hand it on. Parses, calls, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from coordinator import config, evidence, evidence_check
from coordinator.errors import EvidenceError
from ledger import desk, report
from ledger.policy import Policy

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Check a finished run, recomputing every round. Example: wardround evidence verify run/evidence",
)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An evidence bundle.")],
    policy: Annotated[
        Path | None,
        typer.Option(help="A trust file that you have from elsewhere; by default the bundle's own."),
    ] = None,
    charter: Annotated[str, typer.Option(help="Charter digest that you compared by telephone.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Audit the log and compute every round again from the hospitals' updates, offline, bit for bit.

    Example: wardround evidence verify run/evidence --charter 3f5a...
    """
    trusted = Policy.from_bytes(desk.read_input(policy)) if policy is not None else None
    found = evidence_check.verify(folder, policy=trusted, charter=charter)
    shown, unknown = list(found.established()), list(found.not_established())
    if as_json:
        result = {
            "job": found.history.digest,
            "model": found.history.release.model if found.history.release is not None else "",
            "rounds": found.rounds,
            "updates": found.updates,
            "recomputation": found.recomputation,
            "size": found.audit.checkpoint.size,
            "root": found.audit.checkpoint.root.hex(),
            "charter": found.audit.charter,
            "established": shown,
            "not_established": unknown,
        }
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    for line in report.verdict(shown, unknown):
        typer.echo(line)


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder that does not exist yet.")],
    job: Annotated[str, typer.Option(help="The job's digest, or its beginning.")] = "",
) -> None:
    """Copy a finished job's evidence bundle, to hand it on.

    Example: wardround evidence export /srv/wardround --job 5d41 -o evidence-5d41
    """
    runs = config.load(directory).runs
    found = (
        sorted(path for path in runs.glob(f"{job}*") if (path / evidence.FOLDER).is_dir())
        if job.isalnum() or not job
        else []
    )
    if len(found) != 1:
        names = ", ".join(path.name[:12] for path in found) or "none"
        raise EvidenceError(f"{len(found)} finished jobs of that name ({names}): name one with --job")
    evidence.export(found[0], out)
    typer.echo(
        f"{out} holds the evidence of job {found[0].name}; check it with: wardround evidence verify {out}"
    )
