"""A log as far as somebody has read it: the state of its records and the right edge of its tree, in one value.

Coordinator, witness and auditor all read by `extend`; whoever drops the result has read nothing. Beyond
`rules.apply` it checks what needs the tree: that each receipt obeyed a checkpoint of this very log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, cast

from immutables import Map

from ledger import canonical, rules
from ledger.canonical import Text
from ledger.envelope import Entry
from ledger.errors import MalformedError, VerificationError
from ledger.merkle import Frontier, leaf_hash
from ledger.records import Receipt, Succession
from ledger.rule_names import require
from ledger.state import EMPTY, MAX_SNAPSHOT_SIZE, State

MIN_ROOTS = 128  # newest batch ends that are always remembered


@dataclass(frozen=True, slots=True)
class View:
    """What a log says, up to one size.

    Attributes:
        state: Of the records.
        tree: Right edge of the tree.
        roots: Hex root at each recent batch end, by decimal size: what a receipt may name.
    """

    state: State
    tree: Frontier
    roots: Map[str, str]

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.tree.size

    @property
    def root(self) -> bytes:
        """Root hash of the tree."""
        return self.tree.root()

    def extend(self, entries: Iterable[Entry], leaves: Iterable[bytes] | None = None) -> View:
        """Return the view after more entries, whose signatures the caller checks.

        Args:
            entries: Parsed entries, in order.
            leaves: Their leaf hashes, where the caller has them already.

        Raises:
            RuleError: a record may not follow those before it.
        """
        state, tree, roots = self.state, self.tree, self.roots
        entries, pending = list(entries), list[bytes]()
        hashes = iter(leaves) if leaves is not None else (leaf_hash(e.data) for e in entries)
        for entry, leaf in zip(entries, hashes, strict=True):
            before, state = state, rules.apply(state, entry)
            if type(entry.record) is Receipt:
                _check_obeyed(roots, entry.record)
            pending.append(leaf)
            if state.at_batch_end:  # a batch's leaves at once: most interior nodes are hashed only then
                tree, pending = tree.extend(pending), []
                roots = _remember(roots, before, state, tree)
        return View(state, tree.extend(pending) if pending else tree, roots)

    def succeeded_by(self, entry: Entry) -> View:
        """Return the view of a log after its entry 0, which follows the dead log that this view is of.

        Raises:
            RuleError: the succession was not decided, or names another root.
        """
        state = rules.succeed(self.state, entry)
        named = cast(Succession, entry.record).previous.root == self.root.hex()
        require(named, "succession.previous", "the dead log's root is another one")
        return _founded(state, entry)

    def to_bytes(self) -> bytes:
        """Return a snapshot, for a restart without replay; it proves nothing."""
        return canonical.dumps(canonical.plain(_snapshot(self)))

    @classmethod
    def from_bytes(cls, data: bytes) -> View:
        """Read a snapshot. Raises MalformedError for bytes that `to_bytes` did not write."""
        snapshot = canonical.build(_Snapshot, canonical.loads(data, MAX_SNAPSHOT_SIZE))
        if canonical.dumps(canonical.plain(snapshot)) != data:
            raise MalformedError("the snapshot is not in canonical form")
        try:
            tree = Frontier(snapshot.state.size, tuple(bytes.fromhex(h) for h in snapshot.hashes))
        except VerificationError as error:
            raise MalformedError(f"the snapshot's tree: {error}") from None
        if not all(size.isascii() and size.isdecimal() for size in snapshot.roots):
            raise MalformedError("the snapshot remembers a root of no size")
        return cls(snapshot.state, tree, snapshot.roots)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    state: State
    hashes: tuple[Annotated[str, Text(r"[0-9a-f]{64}", "a hash")], ...]
    roots: Map[str, str]


def _snapshot(view: View) -> _Snapshot:
    return _Snapshot(state=view.state, hashes=tuple(h.hex() for h in view.tree.hashes), roots=view.roots)


def _founded(state: State, entry: Entry) -> View:
    tree = Frontier().append(leaf_hash(entry.data))
    return View(state, tree, Map({"1": tree.root().hex()}))


def _check_obeyed(roots: Map[str, str], record: Receipt) -> None:
    own = roots.get(str(record.checkpoint_size)) == record.checkpoint_root
    require(own, "receipt.checkpoint", f"this log had no such checkpoint of size {record.checkpoint_size}")


def _remember(roots: Map[str, str], before: State, state: State, tree: Frontier) -> Map[str, str]:
    """Add the root at a batch end; now and then forget those that no receipt can name any more."""
    roots = roots.set(str(tree.size), tree.root().hex())
    began = before.batch.start if before.batch.job else before.size
    # Forgetting looks at everything kept, so it waits until as many entries were read: O(1) an entry.
    period = max(4 * MIN_ROOTS, 1 << (len(roots) + len(state.jobs)).bit_length() - 1)
    return _pruned(state, roots) if began // period != tree.size // period else roots


def _pruned(state: State, roots: Map[str, str]) -> Map[str, str]:
    """Forget the batch ends that no running job's receipt can name, but keep the newest MIN_ROOTS."""
    sizes = sorted(map(int, roots))
    running = [j.last_index for j in state.jobs.values() if j.status == "running"]
    oldest = min([*running, sizes[-MIN_ROOTS:][0]])
    return Map({str(s): roots[str(s)] for s in sizes if s >= oldest})


NOTHING = View(EMPTY, Frontier(), Map())
