"""`wardround hospital run`: the agent, its screen, its journal, its signals and its exit statuses."""

from __future__ import annotations

import json
import logging
import signal
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from client import config, screen
from client.agent import Agent
from client.errors import ClientError
from client.journal import JournalFile, open_journal
from ledger.errors import LedgerError
from ledger.unit import TEMPORARY, notify

_STATES = {"following": "READY=1\n", "stopped": "STOPPING=1\n"}  # what systemd is told at these events


def run(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The hospital's folder, with hospital.toml.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Follow the log, cosign, answer jobs by policy and train, until stopped. Outbound connections only.

    SIGTERM and SIGINT stop it. SIGHUP makes it read hospital.toml again (policy, hours, limits and what the dataset
    offers take effect at once) and open its journal's file again. Exit status: 0 stopped, 1 it cannot start until a
    person repairs what the line says, 2 wrong usage, 75 it had to end and may be started again at once.

    Example: wardround hospital run hospitals/northgate
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every request
    hospital = config.load(directory)
    journal = open_journal(hospital.folder, hospital.journal, as_json=as_json)
    with closing(journal) if journal else nullcontext():
        teller = _Teller(str(directory), journal, as_json=as_json)
        while _serve(hospital, teller):
            hospital = config.load(directory)  # this member's keys were replaced: on with the new ones


def _serve(hospital: config.Hospital, teller: _Teller) -> bool:
    """Run an agent until it stops; tell whether another one has to go on."""
    with Agent(hospital, tell=teller.tell) as agent:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: agent.stop())

        def hang_up(*_: object) -> None:
            teller.reopen()
            agent.reload()

        signal.signal(signal.SIGHUP, hang_up)
        try:
            agent.run()
        except (ClientError, LedgerError) as error:
            # What cannot be repaired by a restart is found again before the next start, and ends that with 1.
            typer.echo(f"error: {error}", err=True)
            teller.tell({"event": "ended", "reason": str(error)})
            raise typer.Exit(TEMPORARY) from None
    return agent.renewed


class _Teller:
    """Hands each event to the screen, the journal and systemd; any thread may call it."""

    def __init__(self, folder: str, journal: JournalFile | None, *, as_json: bool) -> None:
        self._folder = folder
        self._journal = journal
        self._as_json = as_json

    def tell(self, event: dict[str, Any]) -> None:
        """Show an event."""
        line = screen.words(event, self._folder)
        typer.echo(json.dumps(event) if self._as_json else line)
        if self._journal is not None:
            self._journal.tell(event)
        notify(f"{_STATES.get(event['event'], '')}STATUS={line}")

    def reopen(self) -> None:
        """Open the journal's file again."""
        if self._journal is not None:
            self._journal.reopen()
