"""`wardround hospital`: run a hospital's agent, check its file, see its budget and its log. Parses, calls, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from client import (
    config,
    decisions_cli,
    join_command,
    preflight_cli,
    run_cli,
    show_cli,
    standing_cli,
    succession_cli,
    unit_cli,
)
from client.budget import Account
from client.charges import Statement
from ledger import desk, report
from ledger.source import open_source

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run a hospital's agent, and see what it knows. Everything is read from the hospital's own folder. "
    "Example: wardround hospital check hospitals/northgate",
)
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The hospital's folder, with hospital.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]

app.command("join")(join_command.hospital)


app.command()(run_cli.run)
app.command()(preflight_cli.check)
app.command(name="unit")(unit_cli.write)


@app.command()
def budget(directory: Directory, as_json: AsJson = False) -> None:
    """Show what every dataset has spent of its lifetime budget; the agent may run meanwhile.

    Example: wardround hospital budget hospitals/northgate
    """
    account = Account.open(config.load(directory).account, read_only=True)
    try:
        statements = account.history()
    finally:
        account.close()
    if as_json:
        typer.echo(json.dumps([_as_json(s) for s in statements], indent=2))
        return
    for statement in statements:
        for line in _lines(statement):
            typer.echo(line)


@app.command()
def log(
    directory: Directory,
    kind: Annotated[str, typer.Option("--type", help="Only records of this type, such as receipt.")] = "",
    everybody: Annotated[
        bool, typer.Option("--all", help="Records of all members, not only this one's.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List this hospital's records on its own copy of the log.

    Example: wardround hospital log hospitals/northgate --type receipt
    """
    hospital = config.load(directory)
    mine = "" if everybody else hospital.name
    chosen = desk.select(open_source(str(hospital.mirror)), hospital=mine, kind=kind)
    if as_json:
        typer.echo(json.dumps([report.as_json(index, entry) for index, entry in chosen], indent=2))
        return
    for line in report.table(chosen):
        typer.echo(line)


app.command()(standing_cli.standing)
app.command()(standing_cli.resume)
app.command()(succession_cli.succeed)


for name, command in (
    ("jobs", show_cli.jobs),
    ("show", show_cli.show_job),
    ("approve", decisions_cli.approve),
    ("refuse", decisions_cli.refuse),
    ("withdraw", decisions_cli.withdraw),
    ("pause", decisions_cli.pause),
    ("unpause", decisions_cli.unpause),
    ("offer", decisions_cli.offer),
):
    app.command(name)(command)


def _as_json(statement: Statement) -> dict[str, Any]:
    return {
        "dataset": statement.dataset,
        "relation": "add/remove one patient",
        "epsilon_spent": statement.epsilon_spent,
        "epsilon": statement.lifetime.epsilon,
        "delta": statement.lifetime.delta,
        "charges": [
            {
                "number": c.number,
                "job": c.job,
                "round": c.round,
                "epsilon_job": c.epsilon_job,
                "delta_job": c.delta,
                "epsilon_dataset": c.epsilon_dataset,
                "answered": c.answered,
            }
            for c in statement.charges
        ],
    }


def _lines(statement: Statement) -> list[str]:
    lifetime = statement.lifetime
    lines = [
        f"{statement.dataset}: epsilon {statement.epsilon_spent} of {lifetime.epsilon:g} spent at delta "
        f"{lifetime.delta:g} (add/remove one patient), {len(statement.charges)} charges"
    ]
    jobs: dict[str, list[str]] = {}
    for charge in statement.charges:
        jobs[charge.job] = [
            f"  job {charge.job[:12]}: epsilon {charge.epsilon_job} at delta {charge.delta:g} "
            f"(add/remove one patient), last charge {charge.number}"
        ]
    return [*lines, *(line for found in jobs.values() for line in found)]
