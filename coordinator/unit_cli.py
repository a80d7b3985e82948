"""`wardround coordinator unit`: write a hardened systemd unit for the consortium's service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import coordinator
from coordinator import config
from coordinator.config import CoordinatorConfig
from ledger.unit import Service, choose_user, command, put, render

LOW_PORTS = 1024  # those below need a capability


def service(settings: CoordinatorConfig, user: str) -> Service:
    """Return what the coordinator's unit must allow: it listens, and starts Flower's SuperLink on loopback."""
    folder = settings.directory.resolve()
    code = (Path(place).resolve().parent for place in coordinator.__path__)
    return Service(
        description=f"Wardround coordinator at {settings.public_name}",
        written_by=f"wardround coordinator unit {folder}",
        command=command("coordinator", "up", str(folder), executable=Path(sys.executable)),
        user=user,
        folder=folder,
        reads=(Path(sys.prefix), Path(sys.base_prefix), *code),
        listens=True,
        low_port=settings.port < LOW_PORTS,
        tasks=2048,
    )


def unit(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")],
    user: Annotated[
        str, typer.Option(help="Whom the service runs as; without it, the folder's owner. Never root.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it there, instead of to the screen.")
    ] = None,
) -> None:
    """Write a systemd unit for `wardround coordinator up`: no root, one folder to write in, one public port.

    Example: wardround coordinator unit /srv/wardround --out /etc/systemd/system/wardround-coordinator.service
    """
    settings = config.load(directory)
    text = render(service(settings, choose_user(settings.directory.resolve(), user)))
    if out is None:
        typer.echo(text, nl=False)
        return
    put(text, out)
    typer.echo(f"written: {out}; then `systemctl daemon-reload` and `systemctl enable --now {out.name}`")
