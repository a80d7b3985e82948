"""A log's directory made again from its entries and checkpoints, as a backup has them: nothing is signed anew.

Every signature, rule, root and quorum is checked on the way, so what comes out is what the log once signed. Whoever
opens it finds a log that was stopped: read-only until its witnesses have reported (`restart`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ledger import envelope, finality
from ledger.checkpoint import Checkpoint
from ledger.errors import VerificationError
from ledger.merkle import EMPTY_ROOT, leaf_hash
from ledger.note import Note, open_note
from ledger.signature import VerifierKey
from ledger.store import Store
from ledger.view import NOTHING, View


def rebuild(
    path: Path,
    entries: Sequence[bytes],
    pending: bytes,
    finals: Mapping[int, bytes],
    dead: View | None = None,
) -> View:
    """Make a log's directory, and return its view.

    Args:
        path: A new or empty directory.
        entries: All entries.
        pending: The signed checkpoint over them.
        finals: Final checkpoints by size, none larger.
        dead: The dead log's view, where entry 0 is a succession.

    Raises:
        MalformedError, VerificationError, RuleError: it is not what a log signed; the directory is of no use.
        StorageError: the directory cannot be used.
    """
    parsed = [envelope.open_entry(data) for data in entries]
    view = NOTHING.extend(parsed) if dead is None else dead.succeeded_by(parsed[0]).extend(parsed[1:])
    leaves = [leaf_hash(data) for data in entries]
    head = Checkpoint.from_text(Note.from_bytes(pending).text)
    if (head.size, head.root) != (view.size, view.root):
        raise VerificationError(f"the entries do not lead to the signed root of size {head.size}")
    finality.verify_signed(pending, view.state.witness_sets[-1:])
    keys = [VerifierKey.from_text(s.log) for s in view.state.witness_sets]
    with Store.create(path) as store:
        before = 0
        for size in sorted({*finals, view.size}):
            final = finals.get(size)
            note = _signed_alone(final if final is not None else pending, keys)
            root = store.root if store.size else EMPTY_ROOT
            snapshot = view.to_bytes() if size == view.size else None
            store.append(
                entries[store.size : size],
                leaves[store.size : size],
                before=(store.size, root),
                note=note,
                snapshot=snapshot,
            )
            if final is not None:
                finality.verify_final(final, view.state.sets_over(before, size))
                store.finalise(size, final)
                before = size
    return view


def _signed_alone(note: bytes, keys: Sequence[VerifierKey]) -> bytes:
    """Return a checkpoint with the log's own signatures only, as the log stores it."""
    opened = open_note(note, dict.fromkeys(keys))
    own = tuple(line.signature for line in opened.verified)
    return Note(text=opened.text, signatures=own).to_bytes()
