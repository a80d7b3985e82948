"""A member's next keys: made beside the old ones, brought onto the log by an amendment, and put in force by the log.

    keys/identity.key.next, keys/witness.key.next   wait until the log names them; then they replace the old ones
    keys/identity.key.previous, ...                 what they replaced: in force again where that log comes to nothing
    keys/node.pem.next                              waits until the coordinator has taken it
Which keys are in force is what the log says, never what a file's name says: a crash anywhere leaves files that the
next look puts right. A running agent looks too, and goes on with what is in force.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from client.config import read_file, read_key
from client.consortium import Consortium
from client.errors import ConfigError, LocalStateError, ProposalError
from client.private_file import read_private, remove_private, write_private
from ledger import envelope, joining
from ledger.errors import MalformedError
from ledger.joining import NodeChange
from ledger.policy import quorum_size
from ledger.records import Amendment
from ledger.signature import SEED_SIZE, KeyType, SigningKey
from ledger.state import State
from ledger.values import KeyChange, Member

NEXT, PREVIOUS = ".next", ".previous"
MAX_SIZE = 4096  # bytes
_KINDS = {"identity.key": KeyType.ED25519, "witness.key": KeyType.COSIGNATURE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which keys are to be new."""

    identity: bool
    witness: bool
    stolen: bool  # the old identity key is in other hands


def amendment(
    folder: Path, state: State, name: str, wanted: Wanted
) -> tuple[Amendment, tuple[SigningKey, ...]]:
    """Make a member's next keys, or find them, and return the amendment that brings them in with who signs it.

    Raises:
        ConfigError, LocalStateError: the folder cannot be used.
        ProposalError: the keys in the folder are not those of the log, or there is nothing to change.
    """
    member = present(state, name)
    identity = read_key(folder / "keys" / "identity.key", KeyType.ED25519)
    if envelope.public_hex(identity) != member.key:
        raise ProposalError("keys/identity.key is not this member's key on the log: was it replaced already?")
    if wanted.witness and not member.witness:
        raise ProposalError(f"{name} is no witness: it has an identity key alone")
    change = KeyChange(
        member=name,
        key=envelope.public_hex(_next(folder, "identity.key", name)) if wanted.identity else "",
        witness=_next(folder, "witness.key", joining.witness_name(state.origin, name)).verifier.to_text()
        if wanted.witness
        else "",
    )
    record = _amendment(state, rotate=(change,), revoke=(member.key,) if wanted.stolen else ())
    signers = [identity]
    if wanted.identity:
        signers.append(_next(folder, "identity.key", name))
    return record, tuple(signers)


def departure(state: State, name: str) -> Amendment:
    """Return the amendment by which a member leaves.

    Raises:
        ProposalError: it is no member, the coordinator, or the others would be too few to decide.
    """
    member = present(state, name)
    if member.role == "coordinator":
        raise ProposalError("the coordinator cannot leave: the consortium goes on with a successor log")
    return _amendment(state, remove=(name,), witnesses=-bool(member.witness))


def settle(folder: Path, state: State, name: str) -> bool:
    """Put in force what the log names; tell whether a file changed.

    Raises:
        ConfigError, LocalStateError: a key's file cannot be read or written.
    """
    member = state.member(name)
    in_force = {member.key, member.witness} if member is not None else set()
    changed = [_settle(folder / "keys" / file, kind, in_force) for file, kind in _KINDS.items()]
    return any(changed)


def _settle(path: Path, kind: KeyType, in_force: set[str]) -> bool:
    """Have one file hold the key in force, if there is one; a checkpoint that is not final yet can be undone."""
    new, old = (path.with_name(path.name + suffix) for suffix in (NEXT, PREVIOUS))
    if not (new.exists() or old.exists()):
        return False
    now = read_key(path, kind)
    if _is(now, in_force):
        if new.exists() and read_key(new, kind) == now:  # a crash came before the last step
            remove_private(new)
            return True
        return False
    for found, kept in ((new, old), (old, new)):
        if found.exists() and _is(read_key(found, kind), in_force):
            write_private(kept, read_file(path))
            replace_private(found, path)
            return True
    return False


def _is(key: SigningKey, in_force: set[str]) -> bool:
    return not in_force.isdisjoint((envelope.public_hex(key), key.verifier.to_text()))


def waiting(folder: Path) -> bool:
    """Whether keys are there that no log has named yet."""
    return any((folder / "keys" / f"{file}{NEXT}").exists() for file in _KINDS)


def candidates(folder: Path) -> tuple[SigningKey, ...]:
    """Return what may be the identity key of now: that in force on the disk, the next one, and the one before."""
    found = []
    for file in ("identity.key", f"identity.key{NEXT}", f"identity.key{PREVIOUS}"):
        with suppress(ConfigError):  # there is none, mostly
            found.append(read_key(folder / "keys" / file, KeyType.ED25519))
    return tuple(found)


def change_node(folder: Path, state: State, name: str, door: Consortium) -> None:
    """Replace the Flower node's key: made, deposited, then in force; again after a crash, it goes on.

    Raises:
        PostRefusedError, UnreachableError: the coordinator did not take it; the old key is in force.
        ConfigError, LocalStateError: the folder cannot be used.
    """
    from client.flower_connection import new_node_key, public_half

    path = folder / "keys" / f"node.pem{NEXT}"
    if read_private(path, MAX_SIZE) is None:
        write_private(path, new_node_key()[0])
    private = read_file(path)
    identity = read_key(folder / "keys" / "identity.key", KeyType.ED25519)
    change = NodeChange(
        origin=state.origin,
        hospital=name,
        replaces=joining.node_digest(public_half(read_file(folder / "keys" / "node.pem")).decode()),
        key=envelope.public_hex(identity),
        node=public_half(private).decode(),
    )
    try:
        signed = joining.sign_node_change(change, identity, private)
    except MalformedError as error:
        raise ConfigError(f"{path}: {error}") from None
    door.post("/api/nodes", signed)
    # Taken: a crash on this line leads here again, where the coordinator finds it done.
    replace_private(path, folder / "keys" / "node.pem")


def present(state: State, name: str) -> Member:
    """Return a member of now. Raises ProposalError."""
    member = state.member(name)
    if member is None:
        raise ProposalError(f"{name} is no member of {state.origin} any more, or not yet")
    return member


def replace_private(new: Path, old: Path) -> None:
    """Put a file in another's place; on the disk when this returns. Raises LocalStateError."""
    data = read_private(new, MAX_SIZE)
    if data is None:
        raise LocalStateError(f"{new} has vanished: give the command again")
    write_private(old, data)
    remove_private(new)


def _next(folder: Path, file: str, name: str) -> SigningKey:
    """Return the next key of one use, made where there is none."""
    path = folder / "keys" / f"{file}{NEXT}"
    if read_private(path, MAX_SIZE) is None:
        made = SigningKey(name=name, type=_KINDS[file], seed=secrets.token_bytes(SEED_SIZE))
        write_private(path, made.to_text().encode() + b"\n")
    return read_key(path, _KINDS[file])


def _amendment(
    state: State,
    *,
    remove: tuple[str, ...] = (),
    rotate: tuple[KeyChange, ...] = (),
    revoke: tuple[str, ...] = (),
    witnesses: int = 0,
) -> Amendment:
    current = state.witness_sets[-1]
    try:
        quorum = quorum_size(len(current.witnesses) + witnesses, current.max_dishonest)
    except MalformedError as error:
        raise ProposalError(f"the others would be too few: {error}") from None
    return Amendment(
        origin=state.origin, replaces=state.version, add=(), remove=remove, rotate=rotate, revoke=revoke,
        max_dishonest=current.max_dishonest, quorum=quorum, log="", rules=state.rules,
    )  # fmt: skip
