"""The witness decision: may a hospital cosign this pending checkpoint of the consortium's log?

Pure. Given what the witness has seen, the checkpoint, the entries that are new and the time, it returns the view
that the witness then stores durably and only afterwards cosigns (`mirror` does both). PROTOCOL.md, "Time" and "The
gate". The spec's own `add-checkpoint` for outside witnesses, which replay nothing, is `tlog_witness`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ledger import envelope, finality
from ledger.checkpoint import Checkpoint
from ledger.envelope import Entry
from ledger.errors import InconsistentError, VerificationError
from ledger.evidence import Conflict, conflict_between
from ledger.merkle import NodeReader, leaf_hash, tree_root
from ledger.note import Note
from ledger.records import Abort, Charter, Round, Start, Tick
from ledger.view import NOTHING, View

CLOCK_TOLERANCE = 600  # seconds between a pending batch's newest time and the witness's clock
MAX_BATCH = 1_000_000  # entries taken in one step

CheckSignatures = Callable[[Sequence[Entry]], None]


class ForkError(InconsistentError):
    """The log contradicts what it signed before: `conflict` proves it. Stop training, keep cosigning nothing."""

    def __init__(self, conflict: Conflict, reason: str) -> None:
        super().__init__(reason)
        self.conflict = conflict


class ClockError(VerificationError):
    """A pending batch is too far from this clock: set the clock, or wait for the coordinator's next tick."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a witness may store and then cosign.

    Attributes:
        view: The log including the new entries.
        checkpoint: The pending checkpoint, of exactly that view.
        leaves: Leaf hashes of the new entries.
    """

    view: View
    checkpoint: Checkpoint
    leaves: tuple[bytes, ...]


def read_pending(view: View, note: bytes) -> Checkpoint:
    """Return what a signed checkpoint of this log says, so that the caller knows which entries to fetch.

    Raises:
        MalformedError: not a signed checkpoint.
        VerificationError: not signed by the log key that this view knows, or of another log.
    """
    return finality.verify_signed(note, view.state.witness_sets[-1:])


def founded(charter: bytes, digest: str, dead: View | None = None) -> View:
    """Return the view after entry 0, whose charter the caller knows by digest.

    Args:
        charter: Entry 0.
        digest: Hex SHA-256 of the charter's payload, compared by telephone.
        dead: The view of the log that this one follows, where entry 0 is a succession.

    Raises:
        MalformedError: not an entry.
        VerificationError: another charter, or a wrong signature.
        RuleError: the charter breaks a rule.
    """
    entry = envelope.open_entry(charter)
    if dead is None and not isinstance(entry.record, Charter):
        raise VerificationError(
            f"entry 0 is a {entry.record.TYPE} record: begin with the log that it follows"
        )
    if entry.digest != digest:
        raise VerificationError(
            f"entry 0 is the charter {entry.digest}, not {digest}: this is another consortium"
        )
    return NOTHING.extend([entry]) if dead is None else dead.succeeded_by(entry)


def judge(
    view: View,
    seen: bytes | None,
    note: bytes,
    entries: Sequence[bytes],
    now: int,
    *,
    final_size: int,
    node: NodeReader,
    check_signatures: CheckSignatures | None = None,
) -> Accepted:
    """Decide on a pending checkpoint at least as large as what was seen.

    Args:
        view: Everything accepted so far.
        seen: The signed checkpoint of `view.size`; None before the first one.
        note: The pending checkpoint.
        entries: The log's entries from `view.size` up to the pending size.
        now: The witness's clock, Unix seconds.
        final_size: Size of the largest final checkpoint that was verified; its entries are not clock-checked.
        node: Reads the witness's own tree of `view.size`.
        check_signatures: Checks the entries' signatures; one after another where none is given.

    Raises:
        ForkError: the checkpoint contradicts `seen`, with the evidence.
        RuleError: an entry breaks a rule: keep the note and the entries as evidence.
        ClockError: the batch's time is not this clock's.
        MalformedError, VerificationError: the notes or entries are not what they must be; ask again.
    """
    checkpoint = read_pending(view, note)
    if checkpoint.size <= view.size:
        _judge_known(view, seen, note, checkpoint, node)
        return Accepted(view, checkpoint, ())
    if len(entries) != checkpoint.size - view.size or len(entries) > MAX_BATCH:
        raise VerificationError(
            f"{len(entries)} entries for a checkpoint {checkpoint.size - view.size} ahead"
        )
    leaves = tuple(leaf_hash(data) for data in entries)
    if view.tree.extend(leaves).root() != checkpoint.root:
        raise VerificationError(f"these entries do not lead to the signed root of size {checkpoint.size}")
    parsed = [envelope.parse_entry(data) for data in entries]
    (check_signatures or _one_by_one)(parsed)
    after = view.extend(parsed, leaves)
    if not after.state.at_batch_end:
        raise VerificationError(f"the checkpoint of size {checkpoint.size} stands inside a round's batch")
    finality.verify_signed(note, after.state.sets_over(view.size, checkpoint.size))
    _judge_time(after, parsed, view.size, final_size, now)
    return Accepted(after, checkpoint, leaves)


def fork_evidence(seen: bytes, note: bytes, node: NodeReader) -> ForkError | None:
    """Return the fork that a larger tree shows, or None if it does extend what was seen.

    The caller asks this when entries do not lead to a signed root: were they only damaged on the way?

    Args:
        seen: The signed checkpoint accepted before.
        note: The larger signed checkpoint.
        node: Reads the larger tree, checked to its root (`tiles.TileNodes` with a root).
    """
    old, new = (Checkpoint.from_text(Note.from_bytes(n).text) for n in (seen, note))
    if tree_root(old.size, node) == old.root:
        return None
    conflict = conflict_between(seen, old.size, note, new.size, node)
    return ForkError(conflict, f"the log's first {old.size} entries are no longer what it signed")


def _judge_known(
    view: View, seen: bytes | None, note: bytes, checkpoint: Checkpoint, node: NodeReader
) -> None:
    """Being behind is never a conflict; another root is."""
    root = view.root if checkpoint.size == view.size else tree_root(checkpoint.size, node)
    if root == checkpoint.root:
        return
    if seen is None:
        raise VerificationError(f"the log signed another tree of {checkpoint.size} entries than its charter")
    if checkpoint.size == view.size:
        conflict = Conflict(note, seen, ())
    else:
        conflict = conflict_between(note, checkpoint.size, seen, view.size, node)
    raise ForkError(conflict, f"the log signed another tree of {checkpoint.size} entries than the one seen")


def _judge_time(after: View, entries: Iterable[Entry], start: int, final_size: int, now: int) -> None:
    """Judge the newest time of what is not final yet: a later tick brings an old batch back within reach."""
    pending = list(entries)[max(0, final_size - start) :]
    if not any(isinstance(e.record, Start | Round | Abort | Tick) for e in pending):
        return
    off = after.state.time - now
    if abs(off) > CLOCK_TOLERANCE:
        raise ClockError(
            f"the pending batch is {abs(off)} s {'ahead of' if off > 0 else 'behind'} this clock; "
            f"at most {CLOCK_TOLERANCE} s are accepted"
        )


def _one_by_one(entries: Sequence[Entry]) -> None:
    for entry in entries:
        envelope.check_signatures(entry)
