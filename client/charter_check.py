"""What somebody who joins checks before signing, and of the log before believing it. Pure but for reading the log."""

from __future__ import annotations

from collections.abc import Iterator

from client.errors import JoiningError, UnreachableError
from ledger import audit, envelope, finality, rules
from ledger.checkpoint import Checkpoint
from ledger.envelope import Entry
from ledger.errors import LedgerError, RuleError, VerificationError
from ledger.joining import Deposit, groups
from ledger.note import Note
from ledger.records import Amendment, Charter
from ledger.source import Read
from ledger.state import EMPTY
from ledger.store import PENDING
from ledger.view import NOTHING

GROUPS_IN_A_LINE = 4
COMPARED = 40  # hex digits at least: 160 bits, so that nobody can make two charters that agree in them
LAST = 4  # groups that a person types

# Comparing less would not do. A dishonest coordinator chooses both charters of a pair, one for each end of the
# telephone, so n compared bits cost it 2^(n/2) tries: 64 bits take minutes.


def require_mine(record: Charter, deposit: Deposit) -> None:
    """Refuse a draft that has not exactly this member's own keys, or that the rules would refuse.

    Raises:
        JoiningError: what is wrong, and that nothing was signed.
    """
    mine = [m for m in record.terms.members if m.name == deposit.name]
    keys = [
        m
        for m in record.terms.members
        if m.key == deposit.key or (m.witness and m.witness == deposit.witness)
    ]
    if mine != [deposit.member] or keys != mine:
        raise JoiningError(
            "the draft charter does not have this member's own keys: tell the others, sign nothing"
        )
    if record.origin != deposit.origin:
        raise JoiningError(f"the draft charter is of {record.origin}, the invitation of {deposit.origin}")
    signatures = {member.key: bytes(64) for member in record.terms.members}
    try:
        rules.apply(EMPTY, Entry(record, record.to_bytes(), signatures, b""))
    except RuleError as error:
        raise JoiningError(f"the draft charter breaks a rule, nothing was signed: {error}") from None


def require_admission(record: Amendment, deposit: Deposit) -> None:
    """Refuse to sign an amendment that does anything but admit this member. Raises JoiningError."""
    else_changed = record.remove or record.rotate or record.revoke or record.log
    if record.add != (deposit.member,) or else_changed or record.origin != deposit.origin:
        raise JoiningError(
            "the coordinator wants another amendment signed than this member's admission: sign nothing"
        )


def describe(record: Charter) -> Iterator[str]:
    """Yield what a founder has to know before signing, the digest last."""
    terms = record.terms
    yield f"the draft charter of {record.name}, whose log will be {record.origin}, has these members:"
    for member in terms.members:
        yield f"  {member.name} ({member.role})"
    witnesses = sum(bool(m.witness) for m in terms.members)
    yield f"any {terms.quorum} of the {witnesses} hospitals together decide; {terms.max_dishonest} may be dishonest"
    if terms.recovery_keys:
        yield f"{terms.recovery_quorum} of {len(terms.recovery_keys)} offline recovery keys can start a successor"
    yield "its digest:"
    shown = groups(record.digest())
    for i in range(0, len(shown), GROUPS_IN_A_LINE):
        yield "    " + "  ".join(shown[i : i + GROUPS_IN_A_LINE])


def agrees(digest: str, typed: str) -> bool:
    """Whether somebody gave a digest, or enough of its beginning, however it was grouped."""
    given = "".join(typed.split()).lower()
    return len(given) >= COMPARED and digest.startswith(given)


def last_groups(digest: str) -> str:
    """Return what a person types after comparing all of it."""
    return "".join(groups(digest)[-LAST:])


def verify_log(read: Read, deposit: Deposit, *, charter: str, size: int, root: str) -> str:
    """Check the log from its first entry to its newest checkpoint, and that this member is on it with its keys.

    Args:
        read: Reads a file of it.
        deposit: This member's keys.
        charter: Digest of what entry 0 must be.
        size: Of the final checkpoint that the invitation names; 0 for none.
        root: Its root in hex.

    Returns:
        The charter's digest.

    Raises:
        JoiningError: it is another log than was agreed on.
        UnreachableError: it cannot be read now, or this member is not on it yet.
    """
    try:
        note = read(PENDING)
        head = Checkpoint.from_text(Note.from_bytes(note).text)
        if head.size < max(size, 1):
            raise JoiningError(
                f"the log has {head.size} entries, the invitation knows of {size}: another log"
            )
        view = NOTHING
        for data in audit.entries(read, head.size):
            entry = envelope.open_entry(data)
            if view.size == 0 and entry.digest != charter:
                raise JoiningError(
                    f"the log begins with {entry.digest[:16]}, and not with the charter {charter[:16]} that was "
                    "agreed on: tell the other members, do not take part"
                )
            view = view.extend([entry])
            if view.size == size and view.root.hex() != root:
                raise JoiningError(
                    "the log does not continue the one that the invitation names: tell the members"
                )
        finality.verify_signed(note, view.state.witness_sets[-1:])
        if (view.size, view.root) != (head.size, head.root):
            raise VerificationError("the entries do not lead to the root that the log signed")
    except FileNotFoundError:
        raise UnreachableError("the log cannot be read yet") from None
    except LedgerError as error:
        raise JoiningError(f"the log is not sound, do not take part: {error}") from None
    if view.state.member(deposit.name) != deposit.member:
        raise UnreachableError(f"{deposit.name} is not on the log yet")
    return charter
