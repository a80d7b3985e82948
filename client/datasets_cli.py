"""`wardround member datasets`: what the hospitals offer, and on which terms. Parses, calls one function, prints.

The whole log is read and checked for it, as for every decision: what is listed was signed by its hospital.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from client import log_sight, member
from client.dictionary import SHIPPED, shipped
from client.job_story import SHORT
from ledger.state import DatasetState, State

Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="The member's folder; a hospital's is one too.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


def datasets(directory: Directory, as_json: AsJson = False) -> None:
    """List the datasets that the hospitals have put on the record: what an agreement and a job can name.

    Example: wardround member datasets researcher
    """
    mine = member.load(directory)
    with closing(mine.connect()) as door:
        state = log_sight.read_state(door, mine.charter)
    found = [state.datasets[ref] for ref in sorted(state.datasets)]
    now = max(int(time.time()), state.time)
    if as_json:
        typer.echo(json.dumps([_as_json(item, state, now) for item in found], indent=2))
        return
    names = {shipped(name).digest: name for name in SHIPPED}
    for item in found:
        for line in _lines(item, names, _agreements(item, state, now)):
            typer.echo(line)
    if not found:
        typer.echo("no dataset is on the record yet: an agent puts its hospital's there when it first runs")


def _lines(item: DatasetState, names: dict[str, str], agreements: list[str]) -> Iterator[str]:
    record, schema = item.record, item.record.schema
    yield f"{record.ref}: about {record.size_class} patients, for {', '.join(record.purposes)}"
    known = (
        f"{names[schema]}, which comes with Wardround" if schema in names else "not one of Wardround's own"
    )
    yield f"  data dictionary {schema[:SHORT]}: {known}"
    used = f", in use by job {item.job[:SHORT]}" if item.job else ""
    yield (
        f"  lifetime budget: epsilon {item.epsilon} of {record.epsilon} is spent, at delta {record.delta} "
        f"(add/remove one patient){used}"
    )
    covered = ", ".join(digest[:SHORT] for digest in agreements)
    yield f"  agreements in force: {covered or 'none, so no job can use it yet'}"


def _as_json(item: DatasetState, state: State, now: int) -> dict[str, Any]:
    record = item.record
    return {
        "dataset": record.ref,
        "version": record.version,
        "dictionary": record.schema,
        "size_class": record.size_class,
        "purposes": list(record.purposes),
        "epsilon": record.epsilon,
        "spent": item.epsilon,
        "delta": record.delta,
        "job": item.job,
        "agreements": _agreements(item, state, now),
    }


def _agreements(item: DatasetState, state: State, now: int) -> list[str]:
    """Return the digests of the agreements that cover a dataset."""
    ref = item.record.ref
    return sorted(d for d, a in state.agreements.items() if ref in a.datasets and a.expires_at > now)
