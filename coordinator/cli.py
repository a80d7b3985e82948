"""`wardround coordinator`: run the consortium's service, and see how it stands. Parses, calls, prints."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from coordinator import (
    backup_cli,
    config,
    journal,
    members_cli,
    service,
    status_page,
    succession_cli,
    unit_cli,
)
from coordinator.errors import CoordinatorError
from ledger.errors import LedgerError
from ledger.unit import TEMPORARY, notify

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run the consortium's service. Example: wardround coordinator up /srv/wardround",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
for command in (members_cli.init, members_cli.invite, members_cli.members):
    app.command()(command)


@app.command()
def up(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")],
    as_json: AsJson = False,
) -> None:
    """Serve the log, run the jobs on it, until it is interrupted.

    Exit status: 0 stopped, 1 it cannot start until a person repairs what the line says, 2 wrong usage, 75 it had to
    end and may be started again at once.

    Example: wardround coordinator up /srv/wardround
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = config.load(directory)
    journal.begin(settings)
    served = list[object]()
    try:
        service.run(settings, _printer(as_json, served))
    except (CoordinatorError, LedgerError) as error:
        if not served:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(TEMPORARY) from None  # what a restart does not repair is found before it serves


app.command()(unit_cli.unit)


@app.command()
def status(
    where: Annotated[
        str, typer.Argument(metavar="DIR|URL", help="The coordinator's folder, or its address.")
    ],
    authority: Annotated[
        Path | None, typer.Option(help="Certificate of the authority that the address is checked against.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Any member's key, which signs the request.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the jobs, who takes part, what was spent and measured, and the log.

    Example: wardround coordinator status https://w.example.org:8443 --authority ca.pem --key keys/identity.key
    """
    found = status_page.fetch(where, authority, key)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for line in status_page.lines(found):
        typer.echo(line)


app.command()(backup_cli.backup)
app.command()(backup_cli.restore)
app.command()(succession_cli.succeed)


def _printer(as_json: bool, served: list[object]) -> service.Announce:
    """Return what prints events, tells systemd, and notes in `served` that there were any; for any thread."""
    lock = threading.Lock()

    def announce(event: Mapping[str, object]) -> None:
        with lock:
            sentence = status_page.sentence(event)
            typer.echo(json.dumps(dict(event)) if as_json else sentence)
            state = "STOPPING=1" if event.get("event") == "stopped" else "" if served else "READY=1"
            served[:] = [event]
            notify(f"{state}\nSTATUS={sentence}".lstrip())

    return announce
