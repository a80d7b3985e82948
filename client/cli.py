"""`wardround hospital`: run a hospital's agent, check its file, see its budget and its log. Parses, calls, prints."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from client import config, standing_cli, succession_cli
from client.agent import Agent
from client.budget import Account
from client.charges import Statement
from client.data import SECRET_SIZE, check_file
from client.errors import ConfigError
from client.premises import read_dictionary
from client.private_file import read_private
from ledger import desk, report
from ledger.source import open_source

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run a hospital's agent, and see what it knows. Everything is read from the hospital's own folder.",
)
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The hospital's folder, with hospital.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


@app.command()
def run(directory: Directory, as_json: AsJson = False) -> None:
    """Follow the log, cosign, answer jobs by policy and train, until stopped. Outbound connections only.

    Example: wardround hospital run hospitals/northgate
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every request
    hospital = config.load(directory)
    with Agent(hospital, tell=_print_json if as_json else _print_words) as agent:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: agent.stop())
        agent.run()


@app.command()
def check(directory: Directory) -> None:
    """Compare the data file with the data dictionary; exact numbers, for the hospital's own screen only.

    Example: wardround hospital check hospitals/northgate
    """
    hospital = config.load(directory)
    secret = read_private(hospital.secret_file, 4096)
    if secret is None or len(secret) != SECRET_SIZE:
        raise ConfigError(f"{hospital.secret_file} must hold {SECRET_SIZE} bytes: restore it from a backup")
    found = check_file(
        hospital.place,
        read_dictionary(hospital),
        secret=secret,
        one_row_per_patient=hospital.dataset.one_row_per_patient,
    )
    for line in found.lines():
        typer.echo(line)
    found.require_usable()
    if found.size_class != hospital.dataset.size_class:
        raise ConfigError(
            f"dataset.size_class in {directory / config.FILE} is {hospital.dataset.size_class}: "
            f"the power of two nearest to the number of patients is {found.size_class}"
        )


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


def _print_json(event: dict[str, Any]) -> None:
    typer.echo(json.dumps(event))


def _print_words(event: dict[str, Any]) -> None:
    name = event["event"]
    if name == "round":
        kind = f"{event['kind']} ({event['code']})" if event["code"] else event["kind"]
        typer.echo(f"round {event['round']} of job {event['job'][:12]}: {kind}, {event['seconds']:.2f} s")
    else:
        rest = ", ".join(f"{k} {str(v)[:40]}" for k, v in event.items() if k != "event")
        typer.echo(f"{name}: {rest}" if rest else name)


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
