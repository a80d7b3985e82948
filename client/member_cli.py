"""`wardround member`: join a consortium, and decide with the others. Parses, calls one function, prints."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from client import datasets_cli, join_command, log_sight, member, proposals, rotation
from client.config import read_file
from client.consortium import Consortium
from client.errors import ProposalError
from client.member import Membership
from client.proposals import Proposal
from client.rotation import Wanted
from ledger import envelope
from ledger.encoding import encode_base64

MAX_TEXT = 64 << 20  # bytes of an agreement
LOOK_SECONDS = 1.0
WITHOUT_LOOKING = 16  # hex digits of a proposal that is signed without being looked at

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Join a consortium, and decide with its other members.\n\n"
    "The member's own copy of the log is DIR/mirror: `wardround ledger policy` makes a trust file of it and "
    "`wardround ledger verify` checks it, offline.\n\n"
    "Example: wardround member proposals DIR",
)
app.command("join")(join_command.member)
app.command("datasets")(datasets_cli.datasets)

Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="The member's folder; a hospital's is one too.")
]
Named = Annotated[str, typer.Argument(metavar="PROPOSAL", help="Its digest, or enough of its beginning.")]
Text = Annotated[Path | None, typer.Option("--text", help="An agreement's text, to compare its digest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
Wait = Annotated[bool, typer.Option(help="Wait until the log has it.")]


@app.command("proposals")
def list_proposals(directory: Directory, as_json: AsJson = False) -> None:
    """List what waits for signatures, and what was decided lately.

    Example: wardround member proposals hospitals/northgate
    """
    with _member(directory) as (_, door):
        found = proposals.listing(door)
    if as_json:
        typer.echo(json.dumps([_as_json(p) for p in found], indent=2))
        return
    for proposal in found:
        state = proposal.ended or f"{len(proposal.signed)} of {proposal.needed} signatures"
        typer.echo(f"{proposal.digest[:16]}  {proposal.record.TYPE} by {proposal.by}: {state}")
    if not found:
        typer.echo("nothing is proposed")


@app.command()
def show(directory: Directory, proposal: Named, text: Text = None, as_json: AsJson = False) -> None:
    """Say in plain words what a proposal does, and who has signed it.

    Example: wardround member show hospitals/northgate 5f0c3a --text agreement.pdf
    """
    with _member(directory) as (_, door):
        found = proposals.fetch(door, proposal)
    if as_json:
        typer.echo(json.dumps(_as_json(found), indent=2))
        return
    for line in proposals.words(found, _text(text)):
        typer.echo(line)


@app.command()
def sign(
    directory: Directory,
    proposal: Named,
    text: Text = None,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sign a proposal, after showing what it does; with the last signature it goes on the log.

    Example: wardround member sign hospitals/northgate 5f0c3a
    """
    with _member(directory) as (mine, door):
        if yes and len(proposal) < WITHOUT_LOOKING:
            raise ProposalError(
                f"with --yes give {WITHOUT_LOOKING} digits or more: another proposal can be made to begin with fewer"
            )
        found = proposals.fetch(door, proposal)
        shown = list(proposals.words(found, _text(text)))
        if found.ended:
            raise ProposalError(f"this proposal is closed: {found.ended}")
        if not as_json:
            for line in shown:
                typer.echo(line)
        if not yes and not typer.confirm("Sign it?"):
            raise ProposalError("nothing was signed")
        after = proposals.sign(door, found, mine.read_identity_key())
    typer.echo(json.dumps(_as_json(after), indent=2) if as_json else f"signed; {_standing(after)}")


@app.command()
def decline(directory: Directory, proposal: Named) -> None:
    """Tell the others that this member will not sign a proposal; the proposal stays open.

    Example: wardround member decline hospitals/northgate 5f0c3a
    """
    with _member(directory) as (_, door):
        found = proposals.decline(door, proposals.fetch(door, proposal).digest)
    typer.echo(f"declined; {_standing(found)}")


@app.command()
def rotate(
    directory: Directory,
    identity: Annotated[bool, typer.Option("--identity", help="A new key to sign records with.")] = False,
    witness: Annotated[bool, typer.Option("--witness", help="A new key to cosign checkpoints with.")] = False,
    node: Annotated[
        bool, typer.Option("--node", help="A new key of the Flower node; needs no votes.")
    ] = False,
    stolen: Annotated[
        bool, typer.Option("--stolen", help="The old identity key is in other hands: revoke it, too.")
    ] = False,
    wait: Wait = True,
) -> None:
    """Replace this member's keys; the hospitals vote, and a running agent goes on with the new ones by itself.

    Without an option, all keys are replaced. Interrupted, the same command goes on.

    Example: wardround member rotate hospitals/northgate --identity --stolen
    """
    with _member(directory) as (mine, door):
        state = log_sight.read_state(door, mine.charter)
        hospital = rotation.present(state, mine.name).role == "hospital"
        every = not (identity or witness or node or stolen)
        wanted = Wanted(
            identity=identity or stolen or every, witness=witness or (every and hospital), stolen=stolen
        )
        settled = rotation.settle(mine.folder, state, mine.name)
        if node or (every and hospital):
            rotation.change_node(mine.folder, state, mine.name, door)
            typer.echo("the Flower node has a new key")
        if settled:
            typer.echo("the new keys are in force")
        elif wanted.identity or wanted.witness:
            record, signers = rotation.amendment(mine.folder, state, mine.name, wanted)
            digest = proposals.propose_entry(door, envelope.sign(record, *signers))
            typer.echo(
                f"proposed {digest[:16]}: the hospitals vote with `wardround member sign DIR {digest[:16]}`"
            )
            if wait:
                _wait_for(door, digest)
                while not rotation.settle(mine.folder, log_sight.read_state(door, mine.charter), mine.name):
                    if not rotation.waiting(mine.folder):
                        break  # a running agent was quicker
                    threading.Event().wait(LOOK_SECONDS)
                typer.echo("the new keys are in force")


@app.command()
def leave(directory: Directory) -> None:
    """Leave the consortium: propose to remove this member. What is on the record stays there.

    Example: wardround member leave hospitals/northgate
    """
    with _member(directory) as (mine, door):
        state = log_sight.read_state(door, mine.charter)
        record = rotation.departure(state, mine.name)
        digest = proposals.propose(door, record, mine.read_identity_key())
        typer.echo(
            f"proposed {digest[:16]}: the hospitals vote with `wardround member sign DIR {digest[:16]}`"
        )


@contextmanager
def _member(directory: Path) -> Iterator[tuple[Membership, Consortium]]:
    mine = member.load(directory)
    with closing(mine.connect()) as door:
        yield mine, door


def _wait_for(door: Consortium, digest: str) -> None:
    """Wait until a proposal is accepted. Raises ProposalError: it was closed otherwise."""
    typer.echo("waiting for the votes; Ctrl-C to stop, the same command goes on")
    while not (ended := proposals.fetch(door, digest).ended):
        threading.Event().wait(LOOK_SECONDS)
    if not ended.startswith("accepted"):
        raise ProposalError(f"the proposal was closed: {ended}")


def _text(path: Path | None) -> bytes | None:
    return read_file(path, MAX_TEXT) if path is not None else None


def _standing(proposal: Proposal) -> str:
    return proposal.ended or f"{len(proposal.signed)} of {proposal.needed} signatures are there"


def _as_json(proposal: Proposal) -> dict[str, Any]:
    return {
        "digest": proposal.digest,
        "type": proposal.record.TYPE,
        "record": encode_base64(proposal.record.to_bytes()),
        "by": proposal.by,
        "at": proposal.at,
        "expires_at": proposal.expires_at,
        "signed": proposal.signed,
        "may_sign": proposal.may_sign,
        "needed": proposal.needed,
        "declined": proposal.declined,
        "ended": proposal.ended,
    }
