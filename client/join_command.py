"""`wardround hospital join`, `wardround member join`: one command for two kinds of folder. Parses, asks, prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from client import charter_check
from client.config import require_address
from client.errors import JoiningError
from client.joining import Joining
from ledger.errors import MalformedError
from ledger.joining import PREFIX, Invitation
from ledger.records import Charter

MAX_FILE = 16 << 10  # bytes

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Folder for this member's keys and settings.")]
Invited = Annotated[
    str,
    typer.Argument(metavar="INVITATION", help="The invitation, or a file that holds it, or - to paste it."),
]
Proxy = Annotated[str, typer.Option(help="http://host:port that every connection goes through.")]
Yes = Annotated[
    str,
    typer.Option(help="The charter's digest, at least 40 digits, if it was compared already: asks nothing."),
]


def hospital(directory: Directory, invitation: Invited, proxy: Proxy = "", yes: Yes = "") -> None:
    """Join a consortium with an invitation; interrupted, the same command goes on. Private keys stay in DIR.

    Example: wardround hospital join /srv/wardround northgate.invitation --proxy http://proxy.example:3128
    """
    _join(directory, invitation, proxy, yes, hospital=True)


def member(directory: Directory, invitation: Invited, proxy: Proxy = "", yes: Yes = "") -> None:
    """Join a consortium as a researcher, an auditor or a patient representative.

    Example: wardround member join ~/wardround uni.invitation
    """
    _join(directory, invitation, proxy, yes, hospital=False)


def _join(directory: Path, given: str, proxy: str, yes: str, *, hospital: bool) -> None:
    invitation = _read(given)
    if hospital != (invitation.role == "hospital"):
        right = "hospital" if invitation.role == "hospital" else "member"
        raise JoiningError(f"this invites a {invitation.role}: use `wardround {right} join`")
    try:
        require_address(invitation.address, proxy)
    except MalformedError as error:
        raise JoiningError(str(error)) from None
    try:
        settings = Joining(directory, typer.echo, lambda charter: _confirm(charter, yes)).run(
            invitation, proxy
        )
    except KeyboardInterrupt:
        raise JoiningError("interrupted: the same command goes on where this one stopped") from None
    typer.echo(f"{invitation.name} has joined; {settings} explains every setting.")
    if hospital:
        typer.echo(
            f"Put the patients' file and the data dictionary into {directory} and edit hospital.toml, then: "
            f"wardround hospital check {directory}"
        )
    else:
        typer.echo(f"What the hospitals offer: wardround member datasets {directory}")


def _read(given: str) -> Invitation:
    """Read an invitation from the command line, a file or standard input. Raises JoiningError."""
    text = given
    if given == "-":
        text = sys.stdin.readline(MAX_FILE)
    elif not given.startswith(PREFIX):
        try:
            with Path(given).expanduser().open("rb") as file:
                text = file.read(MAX_FILE).decode("ascii", "replace")
        except OSError as error:
            raise JoiningError(
                f"{given[:80]!r} is neither an invitation, which begins with {PREFIX}, nor a file ({error.strerror})"
            ) from None
    try:
        return Invitation.from_text(text)
    except MalformedError as error:
        raise JoiningError(str(error)) from None


def _confirm(charter: Charter, yes: str) -> bool:
    """Show a charter and have it compared. Raises JoiningError: the digest given beforehand is another one."""
    digest = charter.digest()
    for line in charter_check.describe(charter):
        typer.echo(line)
    if yes:
        if not charter_check.agrees(digest, yes):
            raise JoiningError(
                f"--yes does not give this digest, or fewer than {charter_check.COMPARED} digits of it: nothing was "
                "signed. If others compared the same, somebody shows you another charter than them"
            )
        return True
    typer.echo("Call another founder at a number that you knew before, and compare all sixteen groups.")
    typer.echo("If one differs, stop: somebody shows the two of you different charters.")
    typed = typer.prompt(
        f"When all agree, type the last {charter_check.LAST} groups to sign", default="", show_default=False
    )
    return "".join(typed.split()).lower() == charter_check.last_groups(digest)
