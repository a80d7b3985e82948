"""The front door: the `wardround` command, and the names of the Python API. It composes, and holds no logic.

    import wardround as wr

Every name of the API is imported when it is first used, so that neither this line nor `wardround ledger` loads
torch, numpy or pandas.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
import typer
from typer.core import TyperGroup

import client.errors
import coordinator.errors
import ledger.errors

if TYPE_CHECKING:
    from client.dictionary import Dictionary as Dictionary
    from client.notebook.datasets import example as example
    from client.notebook.datasets import partition as partition
    from client.notebook.datasets import sketch as sketch
    from client.notebook.job import Job as Job
    from client.notebook.tracking import JsonLinesTracker as JsonLinesTracker
    from client.notebook.tracking import MLflowTracker as MLflowTracker
    from client.notebook.tracking import TensorBoardTracker as TensorBoardTracker
    from wardround_connect import connect as connect
    from wardround_local import local as local
    from wardround_plan import plan as plan
    from wardround_run import Run as Run
    from wardround_simulated import simulate as simulate

_PLACES = {  # name -> module; imported when first used
    "Dictionary": "client.dictionary",
    "Job": "client.notebook.job",
    "JsonLinesTracker": "client.notebook.tracking",
    "MLflowTracker": "client.notebook.tracking",
    "Run": "wardround_run",
    "TensorBoardTracker": "client.notebook.tracking",
    "connect": "wardround_connect",
    "example": "client.notebook.datasets",
    "local": "wardround_local",
    "partition": "client.notebook.datasets",
    "plan": "wardround_plan",
    "simulate": "wardround_simulated",
    "sketch": "client.notebook.datasets",
}
__all__ = [  # noqa: RUF022 - in the order in which they are met
    "Job", "simulate", "Run", "plan", "connect", "local", "example", "partition", "sketch", "Dictionary",
    "JsonLinesTracker", "MLflowTracker", "TensorBoardTracker",
]  # fmt: skip

# noun -> (module, typer app, line of help); imported when used, so that `ledger` needs neither torch nor flwr
NOUNS = {
    "agreement": (
        "client.agreement_cli",
        "app",
        "Make data use agreements, and propose them to their parties.",
    ),
    "coordinator": ("coordinator.cli", "app", "Run the consortium's service."),
    "demo": ("wardround_demo", "app", "Watch four hospitals train one model under differential privacy."),
    "evidence": ("coordinator.evidence_cli", "app", "Check a finished run, recomputing every round."),
    "hospital": ("client.cli", "app", "Run a hospital's agent, and see its budget."),
    "job": ("client.job_cli", "app", "Propose a training job, follow it, and fetch its result."),
    "ledger": ("ledger.cli", "app", "Verify, read and write the consortium's log."),
    "member": ("client.member_cli", "app", "Join a consortium, and decide with its other members."),
    "predict": ("client.predict_cli", "app", "Score new patients with a released model."),
}
ERRORS = (ledger.errors.LedgerError, client.errors.ClientError, coordinator.errors.CoordinatorError)


def __getattr__(name: str) -> Any:
    """Import a name of the API; in IPython, our errors are one line from then on."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from client.notebook import one_line

    found = getattr(importlib.import_module(_PLACES[name]), name)
    one_line.install(ERRORS)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Nouns(TyperGroup):
    """Imports a noun's command only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the nouns that are installed."""
        return sorted(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return what the help lists of a noun."""
        return click.Command(cmd_name, help=NOUNS[cmd_name][2]) if cmd_name in NOUNS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import a noun's command to run it."""
        if args and args[0] in NOUNS:
            module, attribute, _ = NOUNS[args[0]]
            return (
                args[0],
                typer.main.get_command(getattr(importlib.import_module(module), attribute)),
                args[1:],
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Nouns,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Federated learning among hospitals that nobody has to be believed for. Example: wardround demo",
)


@app.callback()
def _root() -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command; an error of ours is one line on standard error and exit status 1."""
    sys.exit(_run(lambda: app(arguments, prog_name="wardround", standalone_mode=True)))


def _run(command: Callable[[], object]) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        command()
    except ERRORS as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one line
        return 1
    return 0


if __name__ == "__main__":
    main()
