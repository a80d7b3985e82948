"""`wardround coordinator init|invite|members`: found a consortium and let members in. Parses, calls, prints."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from coordinator import config, member_list, setup
from ledger import desk
from ledger.joining import Invitation

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
Days = Annotated[int, typer.Option(help="How long an unused invitation is good, 1 to 90.")]


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that does not exist yet.")],
    name: Annotated[str, typer.Option(help="The consortium's name, such as heart-study.")],
    origin: Annotated[
        str,
        typer.Option(help="The log's name for ever: an address without https://, such as w.example/heart."),
    ],
    public_name: Annotated[
        str, typer.Option(help="How hospitals call this machine: a DNS name, or an address.")
    ],
    port: Annotated[int, typer.Option(help="The one public port.")],
    invite: Annotated[
        list[str],
        typer.Option(help="A founder, as role:name. Hospitals make up the quorum. Give it once for each."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 - it serves the public
    max_dishonest: Annotated[
        int, typer.Option(help="How many hospitals may be dishonest; needs 3 times as many and one.")
    ] = 0,
    recovery_key: Annotated[
        list[str] | None,
        typer.Option(
            help="An offline key: its public half in hex, its file, or a file to make and take away."
        ),
    ] = None,
    days: Days = 30,
    as_json: AsJson = False,
) -> None:
    """Make a coordinator's folder: keys, certificates, settings, a draft charter; and the founders' invitations.

    Example: wardround coordinator init /srv/heart --name heart-study --origin w.example/heart --public-name w.example
    --port 8443 --invite hospital:northgate --invite hospital:riverside --invite researcher:uni
    """
    plan = setup.Plan(
        name=name,
        origin=origin,
        public_name=public_name,
        port=port,
        host=host,
        max_dishonest=max_dishonest,
        invite=tuple(map(setup.parse_invite, invite)),
        recovery=tuple(recovery_key or ()),
        days=days,
    )
    made = setup.init(directory, plan, int(time.time()))
    if as_json:
        typer.echo(
            json.dumps({"directory": str(directory), "invitations": [_as_json(i) for i in made]}, indent=2)
        )
        return
    typer.echo(
        f"{directory} is ready. Pass each founder its own invitation; whoever has one can join in that name:"
    )
    for invitation in made:
        typer.echo(f"\n{invitation.role} {invitation.name}:\n{invitation.to_text()}")
    typer.echo(f"\nNow run `wardround coordinator up {directory}`: it waits for them.")
    for line in member_list.precautions(directory):
        typer.echo(line)


def invite(
    directory: Directory,
    name: Annotated[str, typer.Argument(help="The new member's name, for ever.")],
    role: Annotated[str, typer.Option(help="hospital, researcher, auditor or patient-representative.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write the invitation to, instead of the screen.")
    ] = None,
    days: Days = 14,
    as_json: AsJson = False,
) -> None:
    """Invite one more member. After founding, the hospitals vote when the keys have been deposited.

    Example: wardround coordinator invite /srv/heart southbank --role hospital --out southbank.invitation
    """
    made = setup.invite(directory, name, role, days, int(time.time()))
    if out is not None:
        desk.write_output(out, made.to_text().encode() + b"\n", mode=0o600)
    if as_json:
        typer.echo(json.dumps(_as_json(made), indent=2))
    elif out is not None:
        typer.echo(f"{out} written; whoever has it can join as {name}")
    else:
        typer.echo(made.to_text())


def members(
    directory: Directory,
    revoke: Annotated[
        str, typer.Option(help="Take back an invitation; before founding, drop the founder.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show who is invited, who has joined and signed, and how old every key is.

    Example: wardround coordinator members /srv/heart --revoke eastfield
    """
    settings = config.load(directory)
    if revoke:
        member_list.revoke(directory, revoke)
    found = member_list.read(settings, int(time.time()))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for line in member_list.lines(found):
        typer.echo(line)


def _as_json(invitation: Invitation) -> dict[str, object]:
    return {
        "name": invitation.name,
        "role": invitation.role,
        "expires_at": invitation.expires_at,
        "invitation": invitation.to_text(),
    }
