"""Founding and joining, as decisions on the roll: who may deposit what, when the draft is frozen, who has signed.

    open invitation -> deposit -> (all have deposited) frozen charter -> (all have signed) entry 0 of the log
Whatever changes who the founders are thaws the draft: the next one has another digest and no signatures. After
founding a deposit is the first half of an amendment, which is for `coordinator.proposals`. Pure: the roll, the time
and bytes come in, the next roll goes out.
"""

from __future__ import annotations

from dataclasses import replace

from immutables import Map

from coordinator.errors import JoiningError, UninvitedError
from coordinator.roll import COORDINATOR, Invited, Roll
from ledger import envelope, joining
from ledger.encoding import decode_base64, encode_base64
from ledger.errors import MalformedError
from ledger.joining import Deposit
from ledger.policy import quorum_size
from ledger.records import Amendment, Charter
from ledger.rules_charter import RULES_VERSION
from ledger.signature import SigningKey, VerifierKey
from ledger.state import State
from ledger.values import MAX_MEMBERS, Member, Terms


def invite(roll: Roll, name: str, role: str, code: str, *, now: int, seconds: int) -> Roll:
    """Return the roll with one more invitation; an unused one of the same name is void from now on.

    Raises:
        MalformedError: name or role is none.
        JoiningError: somebody has joined under this name, or there are too many founders.
    """
    joining.require_role(name, role)
    known = roll.by_name(name)
    if name == COORDINATOR or (known is not None and known.deposit):
        raise JoiningError(f"{name} has joined already: nobody else can have this name")
    made = Invited(
        name=name, role=role, code=joining.code_digest(code), made_at=now, expires_at=now + seconds,
        joined_at=0, deposit="",
    )  # fmt: skip
    after = roll.with_invited(made)
    if roll.founded:
        return after
    _require_unsigned(roll)
    if len(after.invited) >= MAX_MEMBERS:
        raise JoiningError(f"a charter lists at most {MAX_MEMBERS} members: invite more after founding")
    return after.thawed()


def revoke(roll: Roll, name: str) -> Roll:
    """Return the roll without somebody's invitation; before founding, also without what was deposited for it.

    Raises:
        JoiningError: there is no such invitation, or the member is on the log: that takes an amendment.
    """
    known = roll.by_name(name)
    if known is None or not known.code:
        raise JoiningError(f"there is no invitation of {name} to revoke")
    if roll.founded and known.deposit:
        raise JoiningError(f"{name} has used the invitation: only an amendment can remove a member")
    _require_unsigned(roll)
    after = replace(roll, invited=tuple(i for i in roll.invited if i.name != name))
    return after if roll.founded else after.thawed()


def admitted(roll: Roll, code: str, now: int) -> Invited:
    """Return whose code this is.

    Raises:
        UninvitedError: nobody's, or it has expired unused.
    """
    known = roll.by_code(joining.code_digest(code))
    if known is None:
        raise UninvitedError(
            "this invitation is unknown here: it was revoked, replaced, or is of another place"
        )
    if not known.deposit and now >= known.expires_at:
        raise UninvitedError("this invitation has expired: ask for another one")
    return known


def deposit(roll: Roll, code: str, data: bytes, now: int) -> Roll:
    """Return the roll with somebody's keys; the same keys again change nothing.

    Raises:
        JoiningError: the code is nobody's, was used for other keys, or a key is somebody else's.
        MalformedError, VerificationError: the deposit is not what it must be.
    """
    known = admitted(roll, code, now)
    found = joining.open_deposit(data)
    if known.deposit:
        if known.keys == found:
            return roll
        raise JoiningError(f"the invitation of {known.name} was used for other keys: ask for another one")
    named = (found.origin, found.invitation, found.name, found.role)
    if named != (roll.origin, known.code, known.name, known.role):
        raise JoiningError("the deposit is for another invitation or another consortium")
    if found.witness and VerifierKey.from_text(found.witness).name != joining.witness_name(
        roll.origin, found.name
    ):
        raise JoiningError("the witness key is not named after its consortium and its hospital")
    if not _own(found).isdisjoint(_taken(roll)):
        raise JoiningError("one of these keys was deposited by somebody else: make keys of your own")
    if found.witness and found.key == VerifierKey.from_text(found.witness).public.hex():
        raise JoiningError("the identity key and the witness key are one: each use has a key of its own")
    return roll.with_invited(replace(known, deposit=encode_base64(data), joined_at=now))


def freeze(roll: Roll, coordinator: SigningKey, log: SigningKey, now: int) -> Roll:
    """Return the roll with a frozen charter, which the coordinator has signed, once every founder has deposited."""
    if roll.founded or roll.charter or missing(roll) or problem(roll):
        return roll
    record = draft(roll, coordinator, log, now)
    own = envelope.parse_entry(envelope.sign(record, coordinator)).signatures
    return replace(
        roll,
        charter=encode_base64(record.to_bytes()),
        signatures=Map({key: encode_base64(value) for key, value in own.items()}),
    )


def draft(roll: Roll, coordinator: SigningKey, log: SigningKey, now: int) -> Charter:
    """Return the charter of those who have deposited."""
    own = Member(name=COORDINATOR, role="coordinator", key=envelope.public_hex(coordinator), witness="")
    members = [own, *(i.keys.member for i in roll.invited if i.keys is not None)]
    terms = Terms(
        members=tuple(sorted(members, key=lambda member: member.name)),
        max_dishonest=roll.max_dishonest,
        quorum=quorum_size(sum(i.role == "hospital" for i in roll.invited), roll.max_dishonest),
        log=log.verifier.to_text(),
        recovery_keys=roll.recovery_keys,
        recovery_quorum=roll.recovery_quorum,
        rules=RULES_VERSION,
    )
    return Charter(origin=roll.origin, name=roll.name, founded_at=now, terms=terms)


def missing(roll: Roll) -> tuple[str, ...]:
    """Return the founders who have not deposited, in the order of their names."""
    return tuple(i.name for i in roll.invited if not i.deposit)


def problem(roll: Roll) -> str:
    """Return why the founders could not found, whoever joins, or ""."""
    try:
        quorum_size(sum(i.role == "hospital" for i in roll.invited), roll.max_dishonest)
    except MalformedError as error:
        return f"{error}: invite more hospitals"
    return ""


def sign(roll: Roll, code: str, data: bytes, now: int) -> Roll:
    """Return the roll with a founder's signature on the frozen charter; the same one again changes nothing.

    Raises:
        JoiningError: nothing is frozen, it was frozen again meanwhile, or another key signed.
        MalformedError, VerificationError: this is no signed charter.
    """
    known = admitted(roll, code, now)
    entry = envelope.open_entry(data)
    if roll.frozen is None or known.keys is None:
        raise JoiningError("nothing waits for signatures: not everybody has joined")
    if entry.payload != roll.frozen.to_bytes():
        raise JoiningError(
            "the draft was changed meanwhile, earlier signatures are void: compare the new digest"
        )
    if entry.signers != {known.keys.key}:
        raise JoiningError(f"this must be signed by the key that {known.name} deposited, and by no other")
    return replace(
        roll,
        signatures=roll.signatures.update({k: encode_base64(v) for k, v in entry.signatures.items()}),
    )


def signed_by(roll: Roll) -> tuple[str, ...]:
    """Return who has signed the frozen charter."""
    record = roll.frozen
    members = record.terms.members if record is not None else ()
    return tuple(member.name for member in members if member.key in roll.signatures)


def complete(roll: Roll) -> bytes | None:
    """Return entry 0, once every founder has signed it."""
    record = roll.frozen
    if record is None or set(roll.signatures) != {m.key for m in record.terms.members}:
        return None
    return envelope.assemble(
        record, {key: decode_base64(text, "signature", 64) for key, text in roll.signatures.items()}
    )


def founded(roll: Roll, digest: str) -> Roll:
    """Return the roll of a consortium whose log has begun with this charter."""
    return replace(roll, founded=digest)


def admission(state: State, found: Deposit) -> Amendment:
    """Return the amendment that makes somebody a member who has deposited keys after founding.

    Raises:
        JoiningError: the quorum cannot be counted with one more witness.
    """
    current = state.witness_sets[-1]
    witnesses = len(current.witnesses) + bool(found.witness)
    try:
        quorum = quorum_size(witnesses, current.max_dishonest)
    except MalformedError as error:
        raise JoiningError(str(error)) from None
    return Amendment(
        origin=state.origin, replaces=state.version, add=(found.member,), remove=(), rotate=(), revoke=(),
        max_dishonest=current.max_dishonest, quorum=quorum, log="", rules=state.rules,
    )  # fmt: skip


def _require_unsigned(roll: Roll) -> None:
    if not roll.founded and complete(roll) is not None:
        raise JoiningError("every founder has signed: start the service, the log begins as they signed it")


def _own(found: Deposit) -> set[str]:
    witness = VerifierKey.from_text(found.witness).public.hex() if found.witness else ""
    return {found.key, found.node, witness} - {""}


def _taken(roll: Roll) -> set[str]:
    deposits = [keys for i in roll.invited if (keys := i.keys) is not None]
    return set(roll.recovery_keys).union(*map(_own, deposits))
