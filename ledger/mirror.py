"""A hospital's own copy of the log, and its witness: pull, judge, store, and only then cosign.

The decision is `witness.judge`, the disk `store`. What was accepted is stored in one transaction, and the view
follows from it, before any cosignature exists; a contradiction is stored as evidence and ends the cosigning for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ledger import audit, envelope, finality, witness
from ledger.checkpoint import Checkpoint, cosign
from ledger.envelope import Entry
from ledger.errors import InconsistentError, RuleError, StorageError, UpgradeError, VerificationError
from ledger.log import SNAPSHOT_EVERY, restore_view
from ledger.merkle import EMPTY_ROOT, leaf_hash
from ledger.note import Note
from ledger.signature import Signature, SigningKey
from ledger.source import Read
from ledger.store import CHECKPOINT, PENDING, Store
from ledger.tiles import TileNodes
from ledger.view import NOTHING, View
from ledger.witness import Accepted, CheckSignatures, ForkError

_CONFLICT = "conflict"
_REFUSED = "refused"
_CHARTER = "charter"
_DEAD = "dead"


class Mirror:
    """A followed log; use it as a context manager, or `close` it.

    Attributes:
        view: Everything accepted, or None before the charter was.
    """

    def __init__(self, store: Store, charter: str) -> None:
        """Take over an open store; prefer `create` and `open`."""
        self._store = store
        self._charter = charter
        self.view = restore_view(store) if store.size else None
        snapshot = store.snapshot()
        self._snapshot_size = snapshot[0] if snapshot else 0

    @classmethod
    def create(cls, folder: Path, charter: str, dead: View | None = None) -> Mirror:
        """Begin to follow the log whose charter has this digest.

        Args:
            folder: A new one.
            charter: The charter's digest, or that of the succession.
            dead: The view of the log that this one follows, where entry 0 is a succession.

        Raises:
            StorageError: the folder holds a log already, or cannot be written.
        """
        store = Store.create(folder)
        facts = {_CHARTER: charter.encode()}
        store.put(facts if dead is None else {**facts, _DEAD: dead.to_bytes()})
        return cls(store, charter)

    @classmethod
    def open(cls, folder: Path) -> Mirror:
        """Open a mirror that `create` made.

        Raises:
            StorageError: there is none, it is in use, or it was altered.
        """
        store = Store.open(folder)
        charter = store.fact(_CHARTER)
        if charter is None:
            store.close()
            raise StorageError(f"{folder} holds a log, but not one that this hospital follows")
        return cls(store, charter.decode())

    def close(self) -> None:
        """Release the folder."""
        self._store.close()

    def __enter__(self) -> Mirror:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Number of entries accepted."""
        return self._store.size

    @property
    def final_size(self) -> int:
        """Size of the newest checkpoint known to be final."""
        return self._store.final_size()

    def pending(self) -> bytes:
        """Return the signed checkpoint of everything accepted: what this witness reports after a restart."""
        note = self._store.pending()
        if note is None:
            raise StorageError("nothing was followed yet")
        return note

    def entries(self, start: int, end: int) -> list[bytes]:
        """Return accepted entries; a coordinator that lost its tail fetches it here."""
        return self._store.entries(start, end)

    def refused(self) -> list[tuple[bytes, list[bytes]]]:
        """Return every signed checkpoint over entries that the rules forbid, with those entries."""
        kept = self._store.facts(f"{_REFUSED}/")
        notes = [name.removesuffix("/note") for name in kept if name.endswith("/note")]
        return [(kept[f"{name}/note"], kept[f"{name}/entries"].split(b"\n")) for name in notes]

    def view_at(self, size: int) -> View:
        """Return the view of the log's first entries, by replaying them. Raises StorageError: there are fewer."""
        if not 0 <= size <= self.size:
            raise StorageError(f"the log has {self.size} entries here, not {size}")
        entries = [envelope.parse_entry(data) for data in self.entries(0, size)]
        dead = self._dead()
        if dead is None or not entries:
            return NOTHING.extend(entries)
        return dead.succeeded_by(entries[0]).extend(entries[1:])

    def conflict(self) -> bytes | None:
        """Return the evidence that ended the cosigning, or None."""
        return self._store.fact(_CONFLICT)

    def follow(self, read: Read, now: int, check_signatures: CheckSignatures | None = None) -> list[Entry]:
        """Pull to the newest pending checkpoint and store what was accepted; return the new entries.

        Args:
            read: Reads a file of the log.
            now: This witness's clock, Unix seconds.
            check_signatures: Checks the entries' signatures; one after another where none is given.

        Raises:
            ForkError: the log contradicts itself; the evidence is stored, nothing is cosigned any more.
            RuleError: the log signed what the rules forbid; the evidence is stored.
            ClockError: the newest batch is not of this time; everything final before it was stored.
            VerificationError, MalformedError: what was read does not fit together: ask again.
            StorageError: it could not be stored: stop, and open the mirror again.
        """
        if self.conflict() is not None:
            raise InconsistentError(
                "this log contradicted itself before: the evidence is kept, nothing is signed"
            )
        before = self.size
        final = _optional(read, CHECKPOINT)
        if final is not None:
            self._follow_final(read, final, now, check_signatures)
        pending = _optional(read, PENDING)
        if pending is None:
            raise VerificationError("the log shows no checkpoint yet")
        self._accept(read, pending, now, self.final_size, check_signatures)
        return [envelope.parse_entry(data) for data in self._store.entries(before, self.size)]

    def cosign(self, key: SigningKey, now: int) -> Signature:
        """Cosign everything accepted; it is on the disk already.

        Raises:
            InconsistentError: the log contradicted itself before.
            StorageError: nothing was followed yet.
        """
        if self.conflict() is not None:
            raise InconsistentError("this log contradicted itself before: nothing is signed")
        return cosign(Note.from_bytes(self.pending()).text, key, now)

    def _dead(self) -> View | None:
        data = self._store.fact(_DEAD)
        return None if data is None else View.from_bytes(data)

    def _follow_final(self, read: Read, final: bytes, now: int, check: CheckSignatures | None) -> None:
        """Catch up to a final checkpoint: its quorum stands for its time, so no clock is asked."""
        size = Checkpoint.from_text(Note.from_bytes(final).text).size
        if size > self.size:
            self._accept(read, final, now, size, check)
        if size > self.final_size:
            assert self.view is not None
            finality.verify_final(final, self.view.state.sets_over(self.final_size, size))
            self._store.finalise(size, final)

    def _accept(
        self, read: Read, note: bytes, now: int, final_size: int, check: CheckSignatures | None
    ) -> None:
        size = Checkpoint.from_text(Note.from_bytes(note).text).size
        first, view = [], self.view
        if view is None:
            first = [next(audit.entries(read, size))]
            view = witness.founded(first[0], self._charter, self._dead())
        new = list(audit.entries(read, size, view.size)) if size > view.size else []
        seen = self._store.pending()
        try:
            accepted = witness.judge(
                view, seen, note, new, now,
                final_size=final_size, node=self._store.nodes(), check_signatures=check,
            )  # fmt: skip
        except ForkError as fork:
            raise self._keep(fork) from None
        except UpgradeError:
            raise  # nothing is wrong with the log
        except RuleError:
            self._store.put({f"{_REFUSED}/{size}/note": note, f"{_REFUSED}/{size}/entries": b"\n".join(new)})
            raise
        except VerificationError:
            if seen is not None and size > self.size:
                self._look_for_fork(read, seen, note)
            raise
        if size > self.size:
            self._append([*first, *new], accepted, note)

    def _append(self, entries: Sequence[bytes], accepted: Accepted, note: bytes) -> None:
        before = (self._store.size, self._store.root if self._store.size else EMPTY_ROOT)
        leaves = [leaf_hash(data) for data in entries[: len(entries) - len(accepted.leaves)]]
        due = not self._snapshot_size or accepted.view.size - self._snapshot_size >= SNAPSHOT_EVERY
        self._store.append(
            entries,
            [*leaves, *accepted.leaves],
            before=before,
            note=note,
            snapshot=accepted.view.to_bytes() if due else None,
        )
        self.view = accepted.view
        self._snapshot_size = accepted.view.size if due else self._snapshot_size

    def _look_for_fork(self, read: Read, seen: bytes, note: bytes) -> None:
        """Raise where the log shows another tree: were its entries only damaged on the way, nothing is proved."""
        checkpoint = Checkpoint.from_text(Note.from_bytes(note).text)
        try:
            fork = witness.fork_evidence(seen, note, TileNodes(read, checkpoint.size, checkpoint.root))
        except VerificationError:
            return  # the tiles do not lead to the signed root either
        if fork is not None:
            raise self._keep(fork)

    def _keep(self, fork: ForkError) -> ForkError:
        self._store.put({_CONFLICT: fork.conflict.to_bytes()})
        return fork


def _optional(read: Read, path: str) -> bytes | None:
    try:
        return read(path)
    except FileNotFoundError:
        return None
