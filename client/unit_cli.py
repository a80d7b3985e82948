"""`wardround hospital unit`: write a hardened systemd unit for the agent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client import config, unit
from ledger.unit import choose_user, put, render


def write(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The hospital's folder, with hospital.toml.")
    ],
    user: Annotated[
        str, typer.Option(help="Whom the agent runs as; without it, the folder's owner. Never root.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it there, instead of to the screen.")
    ] = None,
) -> None:
    """Write a systemd unit for `wardround hospital run`: no root, one folder to write in, nothing inbound.

    Exit statuses of the agent: 0 stopped, 1 a person must repair something, 2 wrong usage, 75 try again.

    Example: wardround hospital unit /srv/wardround --out /etc/systemd/system/wardround.service
    """
    hospital = config.load(directory)
    text = render(unit.service(hospital, choose_user(hospital.folder, user)))
    if out is None:
        typer.echo(text, nl=False)
        return
    put(text, out)
    typer.echo(f"written: {out}; then `systemctl daemon-reload` and `systemctl enable --now {out.name}`")
