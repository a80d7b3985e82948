"""`wardround coordinator succeed`: first without signatures, which drafts; then with them. Parses, calls, prints."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from coordinator import succession
from coordinator.errors import SuccessionError
from ledger import envelope

MAX_SIGNED = 1 << 17  # bytes of a file


def succeed(
    old: Annotated[Path, typer.Argument(metavar="OLD_DIR", help="The folder of the log that died.")],
    new: Annotated[Path, typer.Argument(metavar="NEW_DIR", help="The new coordinator's folder.")],
    origin: Annotated[
        str, typer.Option(help="The new log's origin; without it the files signed decide.")
    ] = "",
    draft: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the draft goes.")] = None,
    signed: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="The draft as one member signed it; repeat.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Begin the log that follows a dead one: draft it, let a quorum sign it, then make its folder.

    Example: wardround coordinator succeed /srv/old /srv/new --origin heart.example/2 --draft succession.json
    then: wardround coordinator succeed /srv/old /srv/new --signed a.entry --signed b.entry --signed c.entry
    """
    now = int(time.time())
    if signed:
        first = envelope.open_entry(succession.make(old, new, [_read(path) for path in signed], now))
        found = {"origin": first.record.origin, "charter": first.digest, "entry": str(new / succession.ENTRY)}
        words = (
            f"{new} holds the log {first.record.origin}, charter digest {first.digest}.\n"
            f"Give every member {new / succession.ENTRY}, for `wardround hospital succeed DIR FILE --follow`"
        )
    elif origin and draft is not None:
        record = succession.draft(old, new, origin, now)
        _write(draft, record.to_bytes())
        found = {"origin": origin, "digest": record.digest(), "draft": str(draft)}
        words = (
            f"{draft}: {origin} is to follow {record.previous.origin} at size {record.previous.size}, "
            f"digest {record.digest()}.\nHave a quorum of its witnesses sign it: "
            f"`wardround hospital succeed DIR {draft.name} --sign-out FILE`"
        )
    else:
        raise SuccessionError(
            "state --origin and --draft to begin, or --signed for every signed file to finish"
        )
    typer.echo(json.dumps(found, indent=2) if as_json else words)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SIGNED)
    except OSError as error:
        raise SuccessionError(f"cannot read {path}: {error.strerror}") from None


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise SuccessionError(f"cannot write {path}: {error.strerror}") from None
