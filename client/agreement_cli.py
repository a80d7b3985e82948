"""`wardround agreement`: make a data use agreement, propose it to its parties, list those in force. Parses, calls."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from client import agreement_file, member, proposals
from client.job_story import SHORT
from client.log_copy import LogCopy
from ledger import report
from ledger.consortium_records import Agreement

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make and propose data use agreements. Example: wardround agreement new my-agreement",
)
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The agreement's folder, with agreement.toml.")]
Member = Annotated[
    Path, typer.Option("--member", metavar="FOLDER", help="Your folder, with your name and keys/.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


@app.command()
def new(directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")]) -> None:
    """Make an agreement's folder: agreement.toml, which explains every line, and a file for the text.

    Example: wardround agreement new my-agreement
    """
    agreement_file.new(directory)
    typer.echo(
        f"{directory} holds {agreement_file.FILE} and {agreement_file.TEXT}: change both, then propose it with: "
        f"wardround agreement propose {directory} --member FOLDER"
    )


@app.command()
def propose(directory: Folder, membership: Member, as_json: AsJson = False) -> None:
    """Sign an agreement and propose it; it is in force once every party has signed. Again, it is the same one.

    Example: wardround agreement propose my-agreement --member researcher
    """
    me = member.load(membership)
    with closing(me.connect()) as door:
        sight = LogCopy(me, door).pull()
        made = agreement_file.record_of(
            directory, sight.state.origin, max(int(time.time()), sight.state.time)
        )
        digest = made.digest()
        there = digest in sight.state.agreements
        if not there:
            proposals.propose(door, made, me.read_identity_key())
    if as_json:
        typer.echo(json.dumps({"agreement": digest, "in_force": there, "parties": list(made.parties)}))
    elif there:
        typer.echo(f"agreement {digest} is in force")
    else:
        others = ", ".join(name for name in made.parties if name != me.name)
        typer.echo(f"agreement {digest} waits for the signatures of {others or 'nobody'}")
        typer.echo(
            f"send each of them the text; a party signs with: wardround member sign FOLDER {digest[:SHORT]}"
        )


@app.command("list")
def list_(membership: Member, as_json: AsJson = False) -> None:
    """List the agreements on your own verified copy of the log, and those that wait for signatures.

    Example: wardround agreement list --member researcher
    """
    me = member.load(membership)
    with closing(me.connect()) as door:
        sight = LogCopy(me, door).pull()
        waiting = [
            (p.digest, p.record, p.signed)
            for p in proposals.listing(door)
            if isinstance(p.record, Agreement) and not p.ended and p.digest not in sight.state.agreements
        ]
    now = max(int(time.time()), sight.state.time)
    found = [
        (digest, record, "in force" if record.expires_at > now else "expired")
        for digest, record in sorted(sight.state.agreements.items())
    ]
    found += [(d, r, f"signed by {', '.join(signed) or 'nobody'} so far") for d, r, signed in waiting]
    if as_json:
        typer.echo(
            json.dumps(
                [
                    {
                        "agreement": digest,
                        "standing": standing,
                        "parties": list(record.parties),
                        "datasets": list(record.datasets),
                        "purposes": list(record.purposes),
                        "expires_at": record.expires_at,
                    }
                    for digest, record, standing in found
                ],
                indent=2,
            )
        )
        return
    for digest, record, standing in found:
        typer.echo(
            f"{digest[:SHORT]}  {standing}, until {report.when(record.expires_at)}: {', '.join(record.purposes)} on "
            f"{', '.join(record.datasets)}; parties {', '.join(record.parties)}"
        )
    if not found:
        typer.echo("no agreement is on the log, and none was proposed")
