"""`wardround hospital succeed`: check, sign and follow the log after a dead one. Parses, calls, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from client import config, succession
from client.errors import ConfigError
from ledger import envelope
from ledger.records import MAX_RECORD_SIZE


def succeed(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The hospital's folder, with hospital.toml.")
    ],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The draft, or the new log's succession.entry.")
    ],
    sign_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Sign the draft, and write it here.")
    ] = None,
    follow: Annotated[
        bool, typer.Option(help="Follow the new log from now on; stop the agent first.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Compare the end of a dead log with this hospital's own copy; then sign it, or follow the log that comes after.

    Example: wardround hospital succeed hospitals/northgate succession.json --sign-out northgate.entry
    then: wardround hospital succeed hospitals/northgate succession.entry --follow
    """
    hospital = config.load(directory)
    if follow:
        entry = envelope.open_entry(config.read_file(file, MAX_RECORD_SIZE))
        succession.follow(hospital, entry)
        found: dict[str, object] = {"follows": entry.record.origin, "charter": entry.digest}
        words = [f"from now on this hospital follows {entry.record.origin}; start the agent again"]
    else:
        record = succession.read_draft(file)
        view, changes = succession.check(hospital, record)
        found = {
            "origin": record.origin,
            "digest": record.digest(),
            "previous": record.previous.origin,
            "size": view.size,
            "changes": changes,
        }
        words = [
            f"{record.origin} follows {record.previous.origin} at size {view.size}: this hospital has the same root",
            *(f"  it also changes the consortium: {line}" for line in changes),
            f"digest to compare by telephone: {record.digest()}",
        ]
        if sign_out is not None:
            try:
                sign_out.write_bytes(succession.sign(hospital, record))
            except OSError as error:
                raise ConfigError(f"cannot write {sign_out}: {error.strerror}") from None
            words.append(f"signed: send {sign_out} to the coordinator")
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(words))
