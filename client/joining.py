"""Joining a consortium, step by step: keys, deposit, the compared charter, a signature, and the member's folder.

Everything unfinished is in one file, `joining.json`, private keys included, written before the step that it is for;
it is removed when the folder is complete. So the same command goes on after any crash, with the same keys.

    authority checked -> joining.json -> deposit -> compare and sign -> the log begins as signed -> folder -> done
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from client import charter_check, settings_file
from client.config import FILE as HOSPITAL_FILE
from client.consortium import Consortium
from client.data import SECRET_SIZE
from client.doorstep import Doorstep, fetch_authority
from client.errors import JoiningError, LocalStateError, UnreachableError
from client.member import FILE as MEMBER_FILE
from client.private_file import read_private, remove_private, write_private
from client.visible import shown
from ledger import canonical, envelope, joining, records
from ledger.encoding import decode_base64, encode_base64
from ledger.errors import MalformedError
from ledger.joining import Deposit, Invitation
from ledger.records import Amendment, Charter
from ledger.signature import SEED_SIZE, KeyType, SigningKey
from ledger.values import MaybeDigest, Part

FILE = "joining.json"
AUTHORITY = "ca.pem"
MAX_SIZE = 64 << 10  # bytes
CONFLICT = 409  # HTTP
WAITS = (0.3, 3.0)  # seconds between looks, first and longest
_Answer = TypeVar("_Answer")
Say = Callable[[str], None]
Confirm = Callable[[Charter], bool]  # asks a person to compare; False: not now


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished(Part):
    """What `joining.json` holds."""

    invitation: str
    proxy: str
    authority: str  # PEM
    identity: str = field(repr=False)
    witness: str = field(repr=False)  # empty but for hospitals, as the next two
    node: str = field(repr=False)
    secret: str = field(repr=False)
    deposit: str  # base64, as it is sent
    signed: MaybeDigest  # charter that was compared and signed

    @property
    def invited(self) -> Invitation:
        """The invitation, read."""
        return Invitation.from_text(self.invitation)

    @property
    def identity_key(self) -> SigningKey:
        """The key that signs."""
        return SigningKey.from_text(self.identity)

    @property
    def deposited(self) -> Deposit:
        """What is or will be deposited."""
        return joining.open_deposit(decode_base64(self.deposit, "deposit"))


class Joining:
    """One person's joining into one folder."""

    def __init__(self, directory: Path, say: Say, confirm: Confirm) -> None:
        """Touch nothing yet.

        Args:
            directory: The member's folder.
            say: Told each step, one line.
            confirm: Shows a charter and returns whether a person compared its digest and wants to sign.
        """
        self._directory = directory
        self._path = directory / FILE
        self._say = say
        self._confirm = confirm

    def run(self, invitation: Invitation, proxy: str) -> Path:
        """Join, or go on joining, until the folder is complete; return its settings file.

        Raises:
            ClientError, LedgerError: one line; the same command goes on.
        """
        settings = self._directory / (HOSPITAL_FILE if invitation.role == "hospital" else MEMBER_FILE)
        state = self._read()
        if state is None:
            if settings.exists():
                raise JoiningError(f"{settings} is there: {self._directory} has joined already")
            if (self._directory / "keys").exists():
                raise JoiningError(f"{self._directory / 'keys'} is there: name another folder")
            state = self._begin(invitation, proxy)
        elif state.invited != invitation:
            raise JoiningError(
                f"{self._path} is of another invitation: go on with that one, or remove the file and its keys"
            )
        with closing(Doorstep(invitation, state.authority.encode(), state.proxy)) as door:
            state = self._follow(state, door)
        charter = self._verify(state)
        self._finish(state, settings, charter)
        return settings

    def _begin(self, invitation: Invitation, proxy: str) -> Unfinished:
        authority = fetch_authority(invitation, proxy)
        self._say(f"the coordinator at {invitation.address} is the one that the invitation names")
        state = new_keys(invitation, proxy, authority)
        self._write(state)
        return state

    def _follow(self, state: Unfinished, door: Doorstep) -> Unfinished:
        """Ask, and do what is due, until this member is on the log."""
        said, wait = "", WAITS[0]
        found = self._patiently(lambda: door.deposit(decode_base64(state.deposit, "deposit")))
        self._say("the public halves of the keys are deposited; the private ones stay in this folder")
        while (phase := str(found.get("phase"))) != "member":
            if phase == "removed":
                raise JoiningError("this member was removed from the consortium: nothing is left to join")
            if phase == "signing" and state.deposited.name not in list(found.get("signed", ())):
                state, answer = self._sign(state, door, str(found.get("record", "")))
                if answer is not None:
                    found, wait = answer, WAITS[0]
                    continue
            if (line := shown(_progress(found))) != said:
                self._say(line)
                said, wait = line, WAITS[0]
            threading.Event().wait(wait)
            wait = min(wait * 1.5, WAITS[1])
            found = self._patiently(door.standing)
        return state

    def _sign(
        self, state: Unfinished, door: Doorstep, asked: str
    ) -> tuple[Unfinished, Mapping[str, Any] | None]:
        """Sign what the coordinator shows, if it is what it must be and a person has compared it."""
        record = records.parse(decode_base64(asked, "record"))
        if isinstance(record, Charter):
            if state.invited.charter not in ("", record.digest()):
                raise JoiningError(
                    "the coordinator shows another charter than the one that the invitation names: tell the members, "
                    "sign nothing"
                )
            charter_check.require_mine(record, state.deposited)
            digest = record.digest()
            if state.signed != digest:
                if not self._confirm(record):
                    raise JoiningError(
                        "nothing was signed: compare the digest, then give the same command again"
                    )
                state = replace(state, signed=digest)
                self._write(state)  # from here on no other charter may be entry 0
        elif isinstance(record, Amendment):
            charter_check.require_admission(record, state.deposited)
        else:
            raise JoiningError(f"the coordinator wants a {record.TYPE} record signed: tell its operator")
        entry = envelope.sign(record, state.identity_key)
        try:
            answer = self._patiently(lambda: door.sign(entry))
        except JoiningError as error:
            if error.status != CONFLICT:
                raise
            self._say(str(error))  # it was changed meanwhile: look again
            return state, None
        self._say(f"signed the {record.TYPE} {' '.join(joining.groups(record.digest())[:4])} ...")
        return state, answer

    def _patiently(self, ask: Callable[[], _Answer]) -> _Answer:
        """Ask until there is an answer."""
        said, wait = "", WAITS[0]
        while True:
            try:
                return ask()
            except UnreachableError as error:
                if str(error) != said:
                    self._say(f"{error}; trying again, Ctrl-C to stop")
                    said = str(error)
            threading.Event().wait(wait)
            wait = min(wait * 1.5, WAITS[1])

    def _verify(self, state: Unfinished) -> str:
        """Check that the log is the one that was agreed on; return the digest of its charter."""
        invitation = state.invited
        door = Consortium(
            invitation.address, state.authority.encode(), key=state.identity_key, proxy=state.proxy
        )
        with closing(door):
            return self._patiently(
                lambda: charter_check.verify_log(
                    door.read, state.deposited, charter=state.signed or invitation.charter,
                    size=invitation.size, root=invitation.root,
                )
            )  # fmt: skip

    def _finish(self, state: Unfinished, settings: Path, charter: str) -> None:
        """Write the folder, its settings last; then nothing is unfinished any more."""
        invitation, keys = state.invited, self._directory / "keys"
        write_private(keys / "identity.key", state.identity.encode() + b"\n")
        if state.witness:
            write_private(keys / "witness.key", state.witness.encode() + b"\n")
            write_private(keys / "node.pem", state.node.encode())
            write_private(keys / "dataset.secret", bytes.fromhex(state.secret))
        write_private(self._directory / AUTHORITY, state.authority.encode())
        if not settings.exists():  # a crash on the next line leads here again, perhaps after a person's edits
            text = settings_file.explained(
                role=invitation.role, name=invitation.name, coordinator=invitation.address, authority=AUTHORITY,
                charter=charter, proxy=state.proxy,
            )  # fmt: skip
            write_private(settings, text.encode())
        remove_private(self._path)

    def _read(self) -> Unfinished | None:
        data = read_private(self._path, MAX_SIZE)
        if data is None:
            return None
        try:
            return canonical.build(Unfinished, canonical.loads(data, MAX_SIZE))
        except MalformedError:
            raise LocalStateError(
                f"{self._path} is damaged: remove it and ask for another invitation"
            ) from None

    def _write(self, state: Unfinished) -> None:
        write_private(self._path, canonical.dumps(canonical.plain(state)))


def new_keys(invitation: Invitation, proxy: str, authority: bytes) -> Unfinished:
    """Return fresh keys and the signed deposit of their public halves."""
    identity = SigningKey(name=invitation.name, type=KeyType.ED25519, seed=secrets.token_bytes(SEED_SIZE))
    witness, node, public, secret = None, b"", b"", b""
    if invitation.role == "hospital":
        from client.flower_connection import new_node_key  # a second to import, and only hospitals need it

        name = joining.witness_name(invitation.origin, invitation.name)
        witness = SigningKey(name=name, type=KeyType.COSIGNATURE, seed=secrets.token_bytes(SEED_SIZE))
        node, public = new_node_key()
        secret = secrets.token_bytes(SECRET_SIZE)
    deposit = Deposit(
        origin=invitation.origin,
        invitation=joining.code_digest(invitation.code),
        name=invitation.name,
        role=invitation.role,
        key=envelope.public_hex(identity),
        witness=witness.verifier.to_text() if witness is not None else "",
        node=public.decode(),
    )
    return Unfinished(
        invitation=invitation.to_text(),
        proxy=proxy,
        authority=authority.decode(),
        identity=identity.to_text(),
        witness=witness.to_text() if witness is not None else "",
        node=node.decode(),
        secret=secret.hex(),
        deposit=encode_base64(joining.sign_deposit(deposit, identity, witness, node)),
        signed="",
    )


def _progress(found: Mapping[str, Any]) -> str:
    """Return one line about what is waited for."""
    names = {
        key: ", ".join(str(n) for n in found.get(key, ()))[:400] for key in ("missing", "signed", "joined")
    }
    match found.get("phase"):
        case "joining" if found.get("problem"):
            return f"waiting: {str(found['problem'])[:300]}"
        case "joining":
            return f"waiting for {names['missing'] or 'the coordinator'} to join; there: {names['joined']}"
        case "signing":
            return f"waiting for everybody's signature; signed by {names['signed'] or 'nobody yet'}"
        case "voting":
            return f"waiting for the hospitals' votes: {names['signed'] or 'nobody'} of {found.get('needed')} needed"
    return "waiting for the coordinator"
