"""What several members decide together: propose an amendment or an agreement, list, read, sign or decline.

The coordinator only keeps proposals and counts signatures; nothing that it shows is believed. A record is parsed and
its digest computed here, and what a person signs are the bytes that `words` described.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from client import visible
from client.consortium import REQUEST_SECONDS, Consortium
from client.errors import ProposalError
from ledger import envelope, records
from ledger.encoding import decode_base64
from ledger.errors import LedgerError
from ledger.joining import groups
from ledger.record import Record
from ledger.records import Agreement, Amendment
from ledger.signature import SigningKey

MAX_LISTING = 32 << 20  # bytes
_SHOWN = 16  # hex digits of a key


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One proposal. `record` is what its digest names; the rest is the coordinator's word."""

    digest: str
    record: Record
    by: str
    at: int  # Unix seconds
    expires_at: int
    signed: tuple[str, ...]
    may_sign: tuple[str, ...]
    needed: int
    declined: tuple[str, ...]
    ended: str  # "" while open


def propose(door: Consortium, record: Record, key: SigningKey) -> str:
    """Propose a record that several must sign, with one's own signature; return its digest.

    Args:
        door: The coordinator, with this member's identity key.
        record: An amendment or an agreement.
        key: This member's identity key.

    Raises:
        PostRefusedError: the coordinator does not take it; it says why.
        UnreachableError: try again: the same record is the same proposal.
    """
    return propose_entry(door, envelope.sign(record, key))


def propose_entry(door: Consortium, entry: bytes) -> str:
    """Propose a record with the signatures that it has. Raises as `propose`."""
    door.post("/api/proposals", entry)
    return envelope.parse_entry(entry).digest


def listing(door: Consortium, seconds: float = REQUEST_SECONDS) -> list[Proposal]:
    """Return every proposal that is open or was decided lately, the newest first.

    Args:
        door: The coordinator.
        seconds: How long to wait for it.

    Raises:
        UnreachableError: no answer, or none that can be understood.
        PostRefusedError: this member may not ask.
        ProposalError: a record is another one than its digest says.
    """
    found = door.get("/api/proposals", MAX_LISTING, seconds).get("proposals")
    return [_read(value) for value in found] if isinstance(found, list) else []


def awaiting(door: Consortium, name: str, seconds: float = REQUEST_SECONDS) -> list[Proposal]:
    """Return the open proposals that wait for a member's signature. Raises as `listing`."""
    return [
        p
        for p in listing(door, seconds)
        if not p.ended and name in p.may_sign and name not in (*p.signed, *p.declined)
    ]


def fetch(door: Consortium, digest: str) -> Proposal:
    """Return one proposal, by its digest or the beginning of one. Raises ProposalError and as `listing`."""
    fits = [p for p in listing(door) if p.digest.startswith(digest)]
    if len(fits) != 1:
        said = "there is no proposal" if not fits else "more than one proposal begins with"
        raise ProposalError(f"{said} {digest[:64]}: `wardround member proposals DIR` lists them")
    return fits[0]


def add_signature(door: Consortium, digest: str, key: SigningKey) -> Proposal:
    """Sign a proposal; with the last signature that it needs it goes on the log.

    Args:
        door: The coordinator.
        digest: All of the proposal's digest.
        key: The key that signs.

    Raises:
        ProposalError, PostRefusedError, UnreachableError: see `fetch`; nothing was signed with another record.
    """
    proposal = fetch(door, digest)
    return sign(door, proposal, key)


def sign(door: Consortium, proposal: Proposal, key: SigningKey) -> Proposal:
    """Sign a proposal that was fetched: exactly the record in it. Raises as `add_signature`."""
    entry = envelope.sign(proposal.record, key)
    return _read(door.post(f"/api/proposals/{proposal.digest}/signatures", entry))


def decline(door: Consortium, digest: str) -> Proposal:
    """Tell the others that one will not sign; it decides nothing. Raises as `fetch`."""
    return _read(door.post(f"/api/proposals/{digest}/declined", b""))


def words(proposal: Proposal, text: bytes | None = None) -> Iterator[str]:
    """Yield what a proposal does, in plain words; nothing in it can move a terminal's cursor or hide.

    Args:
        proposal: The proposal.
        text: An agreement's own text, to compare its digest.

    Raises:
        ProposalError: the text is another one than the agreement's.
    """
    yield from map(visible.shown, _words(proposal, text))


def _words(proposal: Proposal, text: bytes | None) -> Iterator[str]:
    record = proposal.record
    yield f"proposal {' '.join(groups(proposal.digest)[:4])} ..., by {proposal.by} on {_when(proposal.at)}"
    if isinstance(record, Amendment):
        yield from _amendment(record)
    elif isinstance(record, Agreement):
        yield from _agreement(record, text)
    signed = ", ".join(proposal.signed) or "nobody"
    yield f"signed by {signed}; {proposal.needed} signatures are needed, of {', '.join(proposal.may_sign)}"
    if proposal.declined:
        yield f"declined by {', '.join(proposal.declined)}"
    yield proposal.ended or f"open until {_when(proposal.expires_at)}"


def _amendment(record: Amendment) -> Iterator[str]:
    yield f"It amends version {record.replaces} of the charter of {record.origin}:"
    for member in record.add:
        yield f"  {member.name} becomes a member as {member.role}, with the key {member.key[:_SHOWN]}..."
        if member.witness:
            yield f"    and a witness, who decides with the others, with the key {member.witness}"
    for name in record.remove:
        yield f"  {name} is no member any more; the name is never used again"
    for change in record.rotate:
        kinds = " and ".join(
            kind for kind, new in (("identity key", change.key), ("witness key", change.witness)) if new
        )
        yield f"  {change.member} gets a new {kinds}; the old one is not valid from then on"
    for key in record.revoke:
        yield f"  the key {key[:_SHOWN]}... counts as stolen: nothing that it signs is taken any more"
    if record.log:
        yield f"  the log gets a new key: {record.log}"
    yield (
        f"  then any {record.quorum} hospitals together decide, {record.max_dishonest} may be dishonest, and version "
        f"{record.rules} of the rules holds"
    )


def _agreement(record: Agreement, text: bytes | None) -> Iterator[str]:
    yield f"It is a data use agreement between {', '.join(record.parties)}:"
    yield f"  datasets {', '.join(record.datasets)}; purposes {', '.join(record.purposes)}"
    yield f"  until {_when(record.expires_at)}"
    if text is None:
        yield f"  its text has the SHA-256 {' '.join(groups(record.text))}: compare it with --text FILE"
    elif hashlib.sha256(text).hexdigest() == record.text:
        yield "  its text is the file that you gave"
    else:
        raise ProposalError("the file is another text than the one that the agreement names: do not sign")


def _read(value: Any) -> Proposal:
    """Read what the coordinator shows of a proposal. Raises ProposalError."""
    try:
        if not isinstance(value, Mapping):
            raise TypeError
        record = records.parse(decode_base64(str(value["record"]), "record"))
        if record.digest() != value["digest"]:
            raise ProposalError(
                "the coordinator shows another record than the digest names: tell the members"
            )
        return Proposal(
            digest=record.digest(),
            record=record,
            by=_line(value["by"]),
            at=int(value["at"]),
            expires_at=int(value["expires_at"]),
            signed=tuple(map(_line, value["signed"])),
            may_sign=tuple(map(_line, value["may_sign"])),
            needed=int(value["needed"]),
            declined=tuple(map(_line, value["declined"])),
            ended=_line(value["ended"]),
        )
    except (KeyError, TypeError, ValueError, LedgerError):
        raise ProposalError("the coordinator's answer is no proposal of this version's") from None


def _line(value: object) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(value)[:500])


def _when(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "an impossible time"
