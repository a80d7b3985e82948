"""The directory of one log: the database that is the log, and the files derived from it for everybody else.

    log.sqlite            entries, signed checkpoints, cosignatures, a snapshot of the view, named facts
    tile/...              hash tiles and entry bundles of every published checkpoint (C2SP tlog-tiles)
    checkpoint            the newest final checkpoint: a quorum has cosigned it
    checkpoint.pending    the newest checkpoint that the log has signed
    checkpoints/<size>    every final checkpoint, for ever

The coordinator's log and a hospital's mirror are the same directory. The database's commit is the only commit
point; files are a cache of it, synced before a checkpoint becomes final, and opening derives again what a crash
took. What may be appended is for `log`
and `witness` to say; here only sizes, roots and bytes are compared. Rows are `database`, files `disk`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from ledger.checkpoint import Checkpoint
from ledger.database import DATABASE, Database
from ledger.disk import Folder, is_torn, storage_errors
from ledger.edge import Edge, File, partial_tiles
from ledger.errors import LedgerError, MalformedError, StorageError, VerificationError
from ledger.merkle import Frontier, leaf_hash, tree_root
from ledger.note import Note
from ledger.tiles import ENTRIES, TILE_WIDTH, TileNodes, encode_bundle, tile_bytes

CHECKPOINT = "checkpoint"
PENDING = "checkpoint.pending"
CHECKPOINTS = "checkpoints"
_OLD = "it was altered, or the database is an old backup; restore both from one copy"


class Store(Database):
    """An open directory, locked against other processes; a context manager."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Lock, open and repair a directory: use `Store.create` and `Store.open`."""
        self._folder = Folder(path)
        self._edge = Edge()
        self._head: bytes | None = None  # the newest signed checkpoint
        self._lock = self._folder.lock()
        recovered = False
        try:
            super().__init__(path / DATABASE, create=create)
            try:
                self._recover()
                recovered = True
            finally:
                if not recovered:
                    super().close()
        finally:
            if not recovered:
                os.close(self._lock)

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make an empty store; a directory that a crash left without a first entry is taken up again.

        Raises:
            StorageError: the directory holds a log, or cannot be written.
        """
        with storage_errors(f"cannot create {path}"):
            path.mkdir(parents=True, exist_ok=True)
        store = cls(path, create=True)
        if store.size:
            store.close()
            raise StorageError(f"{path} holds a log already: open it, or choose another directory")
        return store

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a store and derive again whatever file a crash took.

        Raises:
            LedgerError: no log there, in use, altered, from an old backup, or of a newer version.
        """
        if not (path / DATABASE).is_file():
            raise StorageError(f"{path} holds no log: there is no {DATABASE}")
        return cls(path, create=False)

    def close(self) -> None:
        """Release the directory; again, it does nothing."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            try:
                super().close()
            finally:
                os.close(lock)

    @property
    def size(self) -> int:
        """Number of committed entries."""
        return self._edge.tree.size

    @property
    def root(self) -> bytes:
        """Root hash over them."""
        return self._edge.tree.root()

    @property
    def tree(self) -> Frontier:
        """Right edge of the tree over them."""
        return self._edge.tree

    def read(self, name: str) -> bytes:
        """Return the bytes of a file below this directory: a `tiles.Read`."""
        return self._folder.read(name)

    def nodes(self) -> TileNodes:
        """Return a reader of complete subtrees; each tile is checked against the root as it is read."""
        return TileNodes(self.read, self.size, self.root)

    def append(
        self,
        entries: Sequence[bytes],
        leaves: Sequence[bytes],
        *,
        before: tuple[int, bytes],
        note: bytes,
        snapshot: bytes | None = None,
        facts: Mapping[str, bytes] | None = None,
    ) -> None:
        """Commit entries with the signed checkpoint over them, then publish their files.

        Args:
            entries: At least one.
            leaves: Their leaf hashes.
            before: Size and root that the caller built on: compare-and-swap.
            note: Signed checkpoint of the new size and root.
            snapshot: The view at the new size; None keeps the older one.
            facts: Stored in the same transaction.

        Raises:
            StorageError: nothing was written (`before` is not the store's size and root), or a write failed:
                then only opening the directory again tells whether the entries are in.
            VerificationError: the note is not of the new size and root; nothing was written.
        """
        self._require_sound()
        old_size, head = self.size, self._head
        if before != (old_size, self.root):
            raise StorageError(f"appending after {before[0]} entries to a log of {old_size}: read it again")
        edge, files = self._edge.extend(entries, leaves)
        _check_head(note, edge.tree.size, edge.tree.root())
        self._commit_entries(head, entries, (old_size, edge.tree.size), note, snapshot, facts or {})
        # Committed: from here on a crash loses nothing, `_recover` publishes the same files.
        self._head = note
        with self._writing():
            self._publish(edge, files)
            self._folder.replace(PENDING, note)

    def finalise(self, size: int, note: bytes) -> None:
        """Make a checkpoint final and publish it; again with more cosignatures, to pass those on as well.

        Args:
            size: At most the store's size, and not below the newest final one.
            note: The checkpoint with the cosignatures of a quorum, which the caller has verified.

        Raises:
            VerificationError: the note is of another root or size; nothing was written.
            StorageError: below the newest final checkpoint, or a write failed.
        """
        if not self.final_size() <= size <= self.size:
            raise StorageError(f"no checkpoint of size {size} can become final at size {self.size}")
        known = self.signed(size) is not None
        _check_head(note, size, self.root if size == self.size else tree_root(size, self.nodes()))
        with self._writing():
            if not known:  # a mirror pulls other checkpoints than those that become final
                self._write(self._partial_files(size))
            self._folder.sync()  # what a quorum vouched for survives a power cut, tiles included
        self._commit_final(size, note, self.size)
        # Committed: the checkpoint is final, whoever has seen it; `_recover` publishes the same files.
        with self._writing():
            self._show_final(size, note)

    def check(self) -> None:
        """Derive every file from the database again and compare: the slow half of an audit of one's own disk.

        Raises:
            StorageError: a file or a row is not what it was.
        """
        if self._query("PRAGMA integrity_check") != [("ok",)]:
            raise StorageError(f"{DATABASE} is damaged: restore the directory from a backup")
        for tile, data in (file for _, files in self._derive(Edge()) for file in files):
            self._compare(tile.path, data)
        for size in self.final_sizes():
            self._compare(f"{CHECKPOINTS}/{size}", self.final(size) or b"")
        for name, note in ((CHECKPOINT, self.final()), (PENDING, self.pending())):
            if note is not None:
                self._compare(name, note)
        self.snapshot()

    def _compare(self, name: str, data: bytes) -> None:
        try:
            same = self.read(name) == data
        except FileNotFoundError:
            raise StorageError(f"{name} is missing: open the log again to derive it") from None
        if not same:
            raise StorageError(f"{name} is not what {DATABASE} says: {_OLD}")

    def _recover(self) -> None:
        """Check the tail of the log against the signed checkpoints, and publish what a crash kept back."""
        self._head = self.pending()
        settled = self._settled()
        start = settled - settled % TILE_WIDTH
        if start:
            self._edge = Edge.at(start, TileNodes(self.read, start))
        for edge, files in self._derive(self._edge):
            self._publish(edge, files)
        if self._head is not None:
            _check_head(self._head, self.size, self.root)
        if self.entries(self.size, self.size + 1):
            raise StorageError(f"{DATABASE} holds entries that no checkpoint covers: it was altered")
        self._restore_notes()
        if self.size != settled:
            self._folder.sync()
            self._settle(self.size)

    def _derive(self, edge: Edge) -> Iterator[tuple[Edge, list[File]]]:
        """Yield, for each signed checkpoint beyond `edge`, the edge there and the files that are new."""
        for size in self.sizes():
            if size <= edge.tree.size:
                continue
            entries = self.entries(edge.tree.size, size)
            edge, files = edge.extend(entries, [leaf_hash(entry) for entry in entries])
            try:
                _check_head(self.signed(size) or b"", edge.tree.size, edge.tree.root())
            except LedgerError as error:
                raise StorageError(f"{DATABASE} was altered below size {size}: {error}") from error
            yield edge, files

    def _publish(self, edge: Edge, files: Sequence[File]) -> None:
        """Write the files of a committed checkpoint: the live path and recovery both come through here."""
        self._write(files)
        self._edge = edge

    def _write(self, files: Sequence[File]) -> None:
        for tile, data in files:
            self._folder.write_once(tile.path, data)

    def _partial_files(self, size: int) -> list[File]:
        """Return the partial tiles of an earlier size; the full ones are there."""
        nodes = self.nodes()
        return [
            (t, encode_bundle(self.entries(t.start, t.start + t.width)))
            if t.level == ENTRIES
            else (t, tile_bytes(t, nodes))
            for t in partial_tiles(size)
        ]

    def _show_final(self, size: int, note: bytes) -> None:
        self._folder.replace(f"{CHECKPOINTS}/{size}", note, sync=True)
        if size == self.final_size():
            self._folder.replace(CHECKPOINT, note, sync=True)
        self._folder.sync()

    def _restore_notes(self) -> None:
        """Bring the checkpoint files up to the database; refuse one that the database cannot have given."""
        there = self._folder.names(CHECKPOINTS)
        sizes = self.final_sizes()
        if strange := sorted(n for n in there - set(map(str, sizes)) if not n.endswith(".tmp")):
            raise StorageError(f"{CHECKPOINTS}/{strange[0]} is not in {DATABASE}: {_OLD}")
        for size in sizes:
            if str(size) not in there or size == sizes[-1]:
                self._restore_note(f"{CHECKPOINTS}/{size}", self.final(size))
        self._restore_note(CHECKPOINT, self.final())
        self._restore_note(PENDING, self._head)

    def _restore_note(self, name: str, note: bytes | None) -> None:
        try:
            found = self.read(name)
        except FileNotFoundError:
            found = b""
        if note is None:
            if found:
                raise StorageError(f"{name} is not in {DATABASE}: {_OLD}")
        elif found != note:
            if not is_torn(found, note) and not self._is_stale(found):
                raise StorageError(f"{name} is not what {DATABASE} says: {_OLD}")
            self._folder.replace(name, note, sync=True)

    def _is_stale(self, found: bytes) -> bool:
        """Whether a checkpoint file holds an earlier state of this database: a crash came before the swap."""
        try:
            text = Note.from_bytes(found).text
            known = self.signed(Checkpoint.from_text(text).size)
        except MalformedError:
            return False
        return known is not None and Note.from_bytes(known).text == text


def _check_head(note: bytes, size: int, root: bytes) -> None:
    head = Checkpoint.from_text(Note.from_bytes(note).text)
    if (head.size, head.root) != (size, root):
        raise VerificationError(f"the checkpoint of size {head.size} is not of these {size} entries")
