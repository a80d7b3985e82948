"""`wardround member`: join a consortium, and decide with the others. Parses, calls, prints."""

from __future__ import annotations

import typer

from client import join_command

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Join a consortium, and decide with its other members. Example: wardround member join DIR INVITATION",
)
app.command("join")(join_command.member)


@app.callback()
def _root() -> None:
    pass
