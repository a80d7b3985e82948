"""`wardround coordinator backup` and `restore`. Parses, calls, prints."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from coordinator import backup as backups
from coordinator.backup import Backup
from ledger.report import when

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


def backup(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The backup, a tar file; it must be new.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write the whole coordinator to one private file; it may run meanwhile. The file holds its keys: encrypt it.

    Example: wardround coordinator backup /srv/wardround --out wardround.tar
    """
    made = backups.write(directory, out, int(time.time()))
    _show(made, as_json, f"{out} holds")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    as_json: AsJson = False,
) -> None:
    """Make a coordinator's folder of a backup, once all of it was checked. Never run it beside the old one.

    Example: wardround coordinator restore wardround.tar /srv/wardround
    """
    made = backups.restore(file, directory)
    _show(made, as_json, f"{directory} holds")
    if not as_json:
        typer.echo(
            "Start it with `wardround coordinator up`: it writes nothing before a quorum of its witnesses has "
            "reported, and takes back from them what came after the backup."
        )


def _show(made: Backup, as_json: bool, begin: str) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(made), indent=2))
        return
    typer.echo(
        f"{begin} {made.origin} with {made.size} entries, root {made.root[:12]}, as of {when(made.made_at)}: "
        f"{made.files} files, {made.bytes} bytes"
    )
