"""The log's writer: judge a batch, sign the checkpoint over it, commit, publish; then gather cosignatures.

The order of writes is LEDGER.md 5.2: the checkpoint is signed and committed together with its entries before
anybody sees it, so no crash can make the log sign two histories. A restored backup could; that is why a log that
is opened again signs nothing before `resume` (decision: `restart`). Disk and recovery are `store`, judging is
`rules` by way of `view`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from ledger import envelope, finality, restart
from ledger.checkpoint import Checkpoint
from ledger.envelope import Entry
from ledger.errors import MalformedError, ReadOnlyError, StorageError, VerificationError
from ledger.merkle import inclusion_proof, leaf_hash, verify_inclusion
from ledger.note import MAX_SIGNATURES, Note, open_note, sign_note
from ledger.proof import TlogProof
from ledger.restart import Report, Succession, Verdict, Writable
from ledger.signature import Signature, SigningKey, VerifierKey
from ledger.state import WitnessSet
from ledger.store import Store
from ledger.tiles import TileNodes
from ledger.view import NOTHING, View
from ledger.witness import CLOCK_TOLERANCE, ClockError

SNAPSHOT_EVERY = 1_024  # entries: what a restart replays at most, beside the last batch
_SUCCESSION = "succession/"  # facts: checkpoints of ours that contradict the log

CheckSignatures = Callable[[Sequence[Entry]], None]


class Log:
    """An open log and its keys; a context manager. Calls must not overlap.

    Attributes:
        store: Its directory.
        view: What its entries amount to.
    """

    def __init__(self, store: Store, view: View, keys: Sequence[SigningKey], *, writable: bool) -> None:
        """Take over an open store: use `Log.create` and `Log.open`."""
        self.store = store
        self.view = view
        self._keys = {key.verifier.to_text(): key for key in keys}
        self._writable = writable
        self._reader = (0, TileNodes(store.read, 0))  # of the newest final size: keeps the tiles it has read
        snapshot = store.snapshot()
        self._snapshot_size = snapshot[0] if snapshot else 0

    @classmethod
    def create(
        cls, path: Path, first: bytes, keys: Sequence[SigningKey], now: int, *, dead: View | None = None
    ) -> Log:
        """Begin a log; this object may write at once, for nobody can have seen another checkpoint.

        Args:
            path: A new or empty directory.
            first: Entry 0: the charter, or the succession of a dead log.
            keys: The log's signing key.
            now: Unix seconds.
            dead: The dead log's view at the size that the succession names.

        Raises:
            LedgerError: the entry or the directory cannot be used.
        """
        entry = envelope.open_entry(first)
        view = NOTHING.extend([entry]) if dead is None else dead.succeeded_by(entry)
        if view.state.time > now + CLOCK_TOLERANCE:
            raise ClockError(f"the log would begin {view.state.time - now} s ahead of this clock")
        store = Store.create(path)
        begun = False
        try:
            log = cls(store, NOTHING, keys, writable=True)
            log._commit(view, [first], [leaf_hash(first)], log._sign(view).to_bytes())
            begun = True
        finally:
            if not begun:
                store.close()
        return log

    @classmethod
    def open(cls, path: Path, keys: Sequence[SigningKey] = ()) -> Log:
        """Open a log to read it; `resume` makes it writable. Without keys it can only be read and cosigned.

        Raises:
            LedgerError: no log there, in use, altered, or signed by none of its own keys.
        """
        store = Store.open(path)
        opened = None
        try:
            opened = cls(store, restore_view(store), keys, writable=False)
            finality.verify_signed(store.pending() or b"", opened.view.state.witness_sets[-1:])
        finally:
            if opened is None:
                store.close()
        return opened

    def close(self) -> None:
        """Release the directory."""
        self.store.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def log_keys(self) -> tuple[VerifierKey, ...]:
        """Every key that has ever been this log's, oldest first."""
        texts = dict.fromkeys(s.log for s in self.view.state.witness_sets)
        return tuple(VerifierKey.from_text(text) for text in texts)

    def append(
        self, batch: Sequence[bytes], now: int, check_signatures: CheckSignatures | None = None
    ) -> bytes:
        """Append a batch, all or nothing, and return the signed checkpoint over it.

        Args:
            batch: Entries that end where a checkpoint may stand: receipts with their round or abort.
            now: Unix seconds; witnesses refuse a batch that is far from theirs.
            check_signatures: Checks the entries' signatures; one after another where none is given.

        Raises:
            ReadOnlyError: `resume` has not said that the log may write.
            MalformedError, VerificationError, RuleError: an entry cannot follow; nothing changed.
            ClockError: the batch's time is not this clock's; nothing changed.
            StorageError: the outcome is unknown: close the log and open it again.
        """
        self._require_writable()
        after, leaves = self._judge(batch, check_signatures)
        off = after.state.time - now
        if after.state.time != self.view.state.time and abs(off) > CLOCK_TOLERANCE:
            raise ClockError(f"the batch is {abs(off)} s off this clock: no witness would cosign it")
        note = self._sign(after).to_bytes()
        self._commit(after, batch, leaves, note)
        return note

    def cosign(self, size: int, lines: Iterable[Signature]) -> bool:
        """Take in cosignatures of a signed checkpoint and return whether it, or a larger one, is final.

        Lines of strangers are ignored. They may come in any order, for any size, and again with a newer time.

        Raises:
            VerificationError: the log has not signed this size, or a witness's line is wrong; none was stored.
            StorageError: the outcome is unknown: close the log and open it again.
        """
        signed = self.store.signed(size)
        if signed is None:
            raise VerificationError(f"this log has signed no checkpoint of size {size}")
        if size < self.store.final_size():
            return True
        sets = self._sets(size)
        note = Note.from_bytes(signed)
        witnesses = {key for s in sets for key in finality.keys_of(s)[1:]}
        stored = {(line.name, line.key_id): line for line in self.store.cosignatures(size)}
        opened = open_note(Note(text=note.text, signatures=tuple(lines)), witnesses)
        new = []
        for line in opened.verified:
            known = stored.get((line.key.name, line.key.key_id))
            if known is None or known.value[:8] < line.signature.value[:8]:  # their times
                stored[line.key.name, line.key.key_id] = line.signature
                new.append(line.signature)
        if new:
            self.store.add_cosignatures(size, new)
        final = all(_has_quorum(s, stored) for s in sets)
        if final and (new or size > self.store.final_size()):
            lasting = finality.lasting(sets, stored, MAX_SIGNATURES - len(note.signatures))
            self.store.finalise(size, note.with_signatures(*lasting).to_bytes())
        return final

    def prove(self, index: int) -> bytes:
        """Return the tlog-proof of an entry under the newest final checkpoint.

        Raises:
            VerificationError: the entry is not final yet, or the tiles do not prove it.
        """
        final = self.store.final()
        if final is None:
            raise VerificationError("no checkpoint of this log is final yet")
        note = Note.from_bytes(final)
        head = Checkpoint.from_text(note.text)
        if self._reader[0] != head.size:
            self._reader = (head.size, TileNodes(self.store.read, head.size))
        hashes = inclusion_proof(index, head.size, self._reader[1])
        (entry,) = self.store.entries(index, index + 1)
        verify_inclusion(index, head.size, leaf_hash(entry), hashes, head.root)
        return TlogProof(index=index, hashes=hashes, note=note).to_bytes()

    def resume(self, reports: Iterable[Report]) -> Verdict:
        """Judge the witnesses' reports after a stop; with `Writable` the log may append from now on."""
        witnesses = self.view.state.witness_sets[-1]
        verdict: Verdict
        if kept := self.store.facts(_SUCCESSION):
            evidence = tuple(Note.from_bytes(note) for note in kept.values())
            verdict = Succession(reason="this log's key signed two histories", evidence=evidence)
        else:
            own = {*self.log_keys, *map(VerifierKey.from_text, self._keys)}  # a backup may predate a new key
            verdict = restart.judge(self.store.size, self.store.nodes(), tuple(own), reports, witnesses)
            if isinstance(verdict, Succession):
                notes = {f"{_SUCCESSION}{i}": note.to_bytes() for i, note in enumerate(verdict.evidence)}
                self.store.put(notes)
        self._writable = isinstance(verdict, Writable)
        return verdict

    def restore_tail(
        self, entries: Sequence[bytes], note: Note, check_signatures: CheckSignatures | None = None
    ) -> None:
        """Take back entries that this log signed and lost: nothing is made or signed again.

        Args:
            entries: All from the log's size to the checkpoint's, from any source.
            note: The checkpoint that the log signed over them, as a witness reported it.
            check_signatures: As for `append`.

        Raises:
            MalformedError, VerificationError, RuleError: these are not the entries, or the log did not sign.
            StorageError: the outcome is unknown: close the log and open it again.
        """
        head = Checkpoint.from_text(note.text)
        after, leaves = self._judge(entries, check_signatures)
        if (head.size, head.root) != (after.size, after.root):
            raise VerificationError(f"these entries do not lead to the signed root of size {head.size}")
        finality.verify_signed(note, after.state.witness_sets[-1:])
        self._writable = False
        own = [VerifierKey.from_text(s.log) for s in after.state.witness_sets]
        signed = tuple(line.signature for line in open_note(note, dict.fromkeys(own)).verified)
        self._commit(after, entries, leaves, Note(text=note.text, signatures=signed).to_bytes())

    def _judge(self, batch: Sequence[bytes], check: CheckSignatures | None) -> tuple[View, list[bytes]]:
        if not batch:
            raise MalformedError("a batch has at least one entry")
        entries = [envelope.parse_entry(data) for data in batch]
        leaves = [leaf_hash(data) for data in batch]
        after = self.view.extend(entries, leaves)
        if check is not None:
            check(entries)
        else:
            for entry in entries:
                envelope.check_signatures(entry)
        if not after.state.at_batch_end:
            raise VerificationError("the batch ends inside a round: add its round or abort record")
        return after, leaves

    def _sets(self, size: int) -> tuple[WitnessSet, ...]:
        """Return the witness sets that must agree to a size, given what was final before it."""
        before = max((s for s in self.store.final_sizes() if s < size), default=0)
        return self.view.state.sets_over(before, size)

    def _sign(self, after: View) -> Note:
        """Sign with the key of every set since the last final checkpoint: whoever is there can follow."""
        needed = dict.fromkeys(s.log for s in after.state.sets_over(self.store.final_size(), after.size))
        if missing := [text for text in needed if text not in self._keys]:
            raise ReadOnlyError(f"the signing key of {missing[0]} is needed to write to this log")
        text = Checkpoint(origin=after.state.origin, size=after.size, root=after.root).to_text()
        return sign_note(text, *(self._keys[key] for key in needed))

    def _commit(self, after: View, batch: Sequence[bytes], leaves: Sequence[bytes], note: bytes) -> None:
        due = after.size - self._snapshot_size >= SNAPSHOT_EVERY or not self.view.size
        self.store.append(
            batch,
            leaves,
            before=(self.view.size, self.view.root),
            note=note,
            snapshot=after.to_bytes() if due else None,
        )
        self.view = after
        if due:
            self._snapshot_size = after.size

    def _require_writable(self) -> None:
        if not self._writable:
            raise ReadOnlyError("the log was stopped: it is read-only until a quorum of witnesses reports")


def restore_view(store: Store) -> View:
    """Return the view of a store: its snapshot and the entries since, whose signatures were checked before.

    Raises:
        StorageError: the snapshot is not of this log.
        RuleError: entries were accepted that the rules forbid: the database was altered.
    """
    size, data = store.snapshot() or (0, b"")
    view = View.from_bytes(data) if size else NOTHING
    view = view.extend(envelope.parse_entry(entry) for entry in store.entries(size, store.size))
    if (view.size, view.root) != (store.size, store.root):
        raise StorageError("the snapshot is not of this log: restore the directory from a backup")
    return view


def _has_quorum(witnesses: WitnessSet, stored: dict[tuple[str, bytes], Signature]) -> bool:
    keys = finality.keys_of(witnesses)[1:]
    return sum((key.name, key.key_id) in stored for key in keys) >= witnesses.quorum
