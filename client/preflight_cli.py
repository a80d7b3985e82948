"""`wardround hospital check`: a preflight that says in plain words what is wrong and how to repair it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from client import preflight
from client.preflight import Skipped
from client.preflight_codes import OK, WARNING, WRONG, Finding


def check(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The hospital's folder, with hospital.toml.")
    ],
    offline: Annotated[bool, typer.Option("--offline", help="Leave the network out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Find what would keep the agent from working, on this machine and on the way to the coordinator.

    Exact numbers of the data are for this screen only. Exit status 1 if anything is wrong.

    Example: wardround hospital check hospitals/northgate
    """
    show = None if as_json or not sys.stderr.isatty() else _progress
    found = []
    for item in preflight.run(directory, offline=offline, progress=show or (lambda line: None)):
        found.append(item)
        if not as_json:
            typer.echo(_line(item))
    if as_json:
        typer.echo(json.dumps(_as_json(found), indent=2, ensure_ascii=False))
    else:
        typer.echo(_summary(found))
    if any(map(preflight.is_wrong, found)):
        raise typer.Exit(1)


def _progress(line: str) -> None:
    typer.echo(f"         ... {line}", err=True)


def _line(item: Finding | Skipped) -> str:
    if isinstance(item, Finding):
        return item.line()
    return f"{'-':<8} {item.part}: not checked, {item.reason}"


def _summary(found: list[Finding | Skipped]) -> str:
    levels = [item.level for item in found if isinstance(item, Finding)]
    wrong, warnings = levels.count(WRONG), levels.count(WARNING)
    verdict = "the agent can run" if not wrong else "repair what is wrong, then check again"
    return f"{wrong} wrong, {warnings} warnings, {levels.count(OK)} ok: {verdict}"


def _as_json(found: list[Finding | Skipped]) -> dict[str, Any]:
    return {
        "wrong": any(map(preflight.is_wrong, found)),
        "findings": [
            {"level": f.level, "code": f.code, "sentence": f.sentence, "remedy": f.remedy}
            for f in found
            if isinstance(f, Finding)
        ],
        "not_checked": [{"part": s.part, "reason": s.reason} for s in found if isinstance(s, Skipped)],
    }
