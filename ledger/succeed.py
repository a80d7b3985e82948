"""Ending a log that died and beginning the next: what its members sign, and what each of them checks first.

A log dies when its key signed two histories, when it lost entries that nobody holds, or when too few witnesses are
left. Its successor names the last final size and root; what came after is void. PROTOCOL.md, "A coordinator that
will not append, and a log that dies"; who may decide is `rules_charter.succession`.
"""

from __future__ import annotations

from collections.abc import Iterable

from ledger import audit, envelope, finality
from ledger.checkpoint import Checkpoint
from ledger.errors import VerificationError
from ledger.note import Note
from ledger.records import Succession
from ledger.source import Read
from ledger.state import NEVER
from ledger.store import CHECKPOINT
from ledger.values import Previous, Terms
from ledger.view import NOTHING, View


def last_final(read: Read, dead: View | None = None) -> View:
    """Return the view of a log at its newest final checkpoint, every signature and its quorum checked.

    Args:
        read: Reads a file of the log.
        dead: The view of the log that it follows, if it follows one.

    Raises:
        LedgerError: the log is damaged.
        FileNotFoundError: nothing of it was ever final.
    """
    note = read(CHECKPOINT)
    size = Checkpoint.from_text(Note.from_bytes(note).text).size
    entries = [envelope.open_entry(data) for data in audit.entries(read, size)]
    first, rest = entries[:1], entries[1:]
    view = NOTHING.extend(first) if dead is None else dead.succeeded_by(first[0])
    view = view.extend(rest)
    if finality.verify_final(note, view.state.witness_sets[-1:])[0].root != view.root:
        raise VerificationError(f"the log's entries do not lead to its final root of size {size}")
    return view


def propose(view: View, origin: str, log_key: str, now: int) -> Succession:
    """Return the succession of a dead log by the same members with the keys that they have now.

    Args:
        view: Of the dead log at its last final size.
        origin: The new log's.
        log_key: The new log's verifier key.
        now: Unix seconds.
    """
    state, last = view.state, view.state.witness_sets[-1]
    members = [m.member for m in state.members.values() if m.until == NEVER]
    return Succession(
        origin=origin,
        name=state.name,
        founded_at=max(now, state.time),
        previous=Previous(origin=state.origin, size=view.size, root=view.root.hex()),
        terms=Terms(
            members=tuple(sorted(members, key=lambda m: m.name)),
            max_dishonest=last.max_dishonest,
            quorum=last.quorum,
            log=log_key,
            recovery_keys=state.recovery_keys,
            recovery_quorum=state.recovery_quorum,
            rules=state.rules,
        ),
    )


def differences(view: View, record: Succession) -> list[str]:
    """Return what a succession changes beside origin and log key, one line each, for whoever is asked to sign it."""
    same = propose(view, record.origin, record.terms.log, record.founded_at)
    old, new = ({m.name: m for m in r.terms.members} for r in (same, record))
    found = [f"{name} is no member any more" for name in sorted(old.keys() - new.keys())]
    found += [f"{name} is a new member" for name in sorted(new.keys() - old.keys())]
    found += [
        f"{name} has another role or key"
        for name in sorted(old.keys() & new.keys())
        if old[name] != new[name]
    ]
    names = ("max_dishonest", "quorum", "recovery_keys", "recovery_quorum", "rules")
    return found + [f"{n} changes" for n in names if getattr(same.terms, n) != getattr(record.terms, n)]


def require_true(view: View, final_size: int, record: Succession) -> None:
    """Refuse a succession that does not follow a log as its reader knows it.

    Args:
        view: Of the dead log at the size that the succession names, as the reader has it.
        final_size: The largest size that the reader knows to be final.
        record: The succession.

    Raises:
        VerificationError: it names another root, or would make void what a quorum made final.
    """
    previous = record.previous
    if (previous.origin, previous.size, previous.root) != (view.state.origin, view.size, view.root.hex()):
        raise VerificationError(f"the log {previous.origin} has another root at size {previous.size} here")
    if final_size > previous.size:
        raise VerificationError(
            f"{final_size} entries are final here: a succession at size {previous.size} would make some of them void"
        )


def collect(signed: Iterable[bytes]) -> bytes:
    """Return one entry of the same record with everybody's signatures.

    Raises:
        MalformedError, VerificationError: one is no signed record, or the records differ.
    """
    entries = [envelope.open_entry(data) for data in signed]
    if not entries or len({e.payload for e in entries}) != 1:
        raise VerificationError("the signed files are not of one and the same succession: sign one draft")
    signatures = {key: sig for e in entries for key, sig in e.signatures.items()}
    return envelope.assemble(entries[0].record, signatures)
