"""The offline audit: over a copy of a log, every hash, every signature, every quorum and every rule.

It starts from the charter and follows the amendments; it believes nobody. `Audit` says in plain words what was
established and what was not. Signature checks run on all cores (the library releases the interpreter's lock)
while this thread folds the records.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ledger import envelope, finality
from ledger.checkpoint import Checkpoint
from ledger.envelope import Entry
from ledger.errors import LedgerError, MalformedError, RuleError, VerificationError
from ledger.merkle import hash_pairs, leaf_hash
from ledger.note import Note
from ledger.policy import Policy, verify_checkpoint
from ledger.records import Succession
from ledger.source import Read
from ledger.state import State, WitnessSet
from ledger.tiles import TILE_HEIGHT, TILE_WIDTH, new_tiles, read_bundle
from ledger.view import NOTHING, View

Progress = Callable[[int, int], None]  # entries done, entries in all

_CHUNK = 64  # entries whose signatures one thread checks at a time
_MAX_WAITING = 32  # such chunks, so that memory stays flat


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found; it raises instead where anything is wrong.

    Attributes:
        view: The log, replayed.
        checkpoint: The final checkpoint that all of it leads to.
        times: Newest cosignature time of each witness, POSIX seconds, by the name of its key.
        signatures: How many signatures on records were checked.
        charter: Hex digest of the charter or succession at entry 0.
        charter_known: Whether the caller named that digest.
        policy_checked: Whether a policy file was given and satisfied.
        predecessor: Origin of the log that this one follows, or "".
        kept: Sizes of the kept checkpoints, each verified like the final one.
    """

    view: View
    checkpoint: Checkpoint
    times: dict[str, int]
    signatures: int
    charter: str
    charter_known: bool
    policy_checked: bool
    predecessor: str
    kept: frozenset[int]


def audit(
    read: Read,
    *,
    policy: Policy | None = None,
    charter: str = "",
    predecessor: View | None = None,
    progress: Progress = lambda done, total: None,
) -> Audit:
    """Audit a log from its first entry to its final checkpoint.

    Args:
        read: Reads one file of the copy.
        policy: A trust file that the checkpoint must satisfy too; the charter's own quorum is always required.
        charter: Hex digest of the charter, as compared by telephone; "" to take the log's own and say so.
        predecessor: For a log that begins with a succession: the dead log's view at the size that it names.
        progress: Told how far the replay is.

    Raises:
        LedgerError: saying what is wrong and where.
    """
    note = _read(read, "checkpoint")
    checkpoint = Checkpoint.from_text(Note.from_bytes(note).text)
    if policy is not None:
        verify_checkpoint(policy, note)
    if checkpoint.size == 0:
        raise VerificationError("the log is empty: not even its charter is on it")
    run = _replay(read, checkpoint.size, predecessor, progress)
    first, state = run.entries0, run.view.state
    if charter and first.digest != charter:
        raise VerificationError(
            f"entry 0 is the charter {first.digest}, not {charter}: another consortium's log"
        )
    if (state.origin, run.view.root) != (checkpoint.origin, checkpoint.root):
        raise VerificationError(f"the {checkpoint.size} entries do not lead to the root that the log signed")
    if not state.at_batch_end:
        raise VerificationError(f"the checkpoint of size {checkpoint.size} stands inside a round's batch")
    times, kept = _follow_quorums(read, run, note, checkpoint)
    return Audit(
        view=run.view,
        checkpoint=checkpoint,
        times=times,
        signatures=run.signatures,
        charter=first.digest,
        charter_known=bool(charter),
        policy_checked=policy is not None,
        predecessor=predecessor.state.origin if predecessor else "",
        kept=kept,
    )


def replay(read: Read, size: int) -> View:
    """Return the view of a log's first entries, checked like an audit but for its checkpoints.

    Raises:
        LedgerError: saying what is wrong and where.
    """
    return _replay(read, size, None, lambda done, total: None).view


def entries(read: Read, size: int, start: int = 0) -> Iterator[bytes]:
    """Yield the entries of a log of `size` from `start` on, unchecked.

    Raises:
        MalformedError, VerificationError: a bundle is damaged or missing.
    """
    for index in range(start // TILE_WIDTH, -(-size // TILE_WIDTH)):
        bundle = read_bundle(read, index, size)
        yield from bundle[max(0, start - index * TILE_WIDTH) :]


@dataclass(frozen=True, slots=True)
class _Run:
    view: View
    signatures: int
    entries0: Entry
    roots: dict[int, bytes]  # at each size where a batch ends


def _replay(read: Read, size: int, predecessor: View | None, progress: Progress) -> _Run:
    """Fold all entries in this thread while others check their signatures."""
    view, leaves, roots, signatures = NOTHING, list[bytes](), dict[int, bytes](), 0
    first: Entry | None = None
    checks: deque[Future[None]] = deque()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for bundle in range(-(-size // TILE_WIDTH)):
            start = len(leaves)
            parsed = _parse(_bundle(read, bundle, size), start)
            leaves.extend(leaf_hash(e.data) for e in parsed)
            for at in range(0, len(parsed), _CHUNK):
                checks.append(pool.submit(_check_signatures, parsed[at : at + _CHUNK], start + at))
            for index, entry in enumerate(parsed, start):
                view = _fold(view, entry, leaves[index], index, predecessor)
                signatures += len(entry.signatures)
                if view.state.at_batch_end:
                    roots[index + 1] = bytes.fromhex(view.roots[str(index + 1)])
            first = first or parsed[0]
            while len(checks) > _MAX_WAITING:
                checks.popleft().result()
            progress(len(leaves), size)
        for check in checks:
            check.result()
    _check_tiles(read, leaves)
    assert first is not None
    return _Run(view, signatures, first, roots)


def _bundle(read: Read, index: int, size: int) -> tuple[bytes, ...]:
    try:
        return read_bundle(read, index, size)
    except LedgerError as error:
        raise type(error)(f"entries {index * TILE_WIDTH} and on: {error}") from None


def _parse(bundle: Sequence[bytes], start: int) -> list[Entry]:
    parsed = []
    for index, data in enumerate(bundle, start):
        try:
            parsed.append(envelope.parse_entry(data))
        except MalformedError as error:
            raise MalformedError(f"entry {index}: {error}") from None
    return parsed


def _check_signatures(entries: Sequence[Entry], start: int) -> None:
    for index, entry in enumerate(entries, start):
        try:
            envelope.check_signatures(entry)
        except VerificationError as error:
            raise VerificationError(f"entry {index}: {error}") from None


def _fold(view: View, entry: Entry, leaf: bytes, index: int, predecessor: View | None) -> View:
    try:
        if index == 0 and isinstance(entry.record, Succession):
            if predecessor is None:
                raise VerificationError(
                    f"the log follows {entry.record.previous.origin}: name a copy of that one too (--predecessor)"
                )
            return predecessor.succeeded_by(entry)
        return view.extend((entry,), (leaf,))
    except RuleError as error:
        raise RuleError(error.rule, f"entry {index}: {error.reason}") from None


def _check_tiles(read: Read, leaves: Sequence[bytes]) -> None:
    """Compare every hash tile with the hashes of the entries."""
    rows = {0: list(leaves)}
    for tile in new_tiles(0, len(leaves)):
        if tile.level not in rows:
            row = rows[tile.level - 1]
            for _ in range(TILE_HEIGHT):
                row = hash_pairs(row)
            rows[tile.level] = row
        expected = b"".join(rows[tile.level][tile.start : tile.start + tile.width])
        try:
            found = read(tile.path)
        except FileNotFoundError:
            if tile.width == TILE_WIDTH:
                raise VerificationError(
                    f"{tile.path} is missing: fetch it again, or use another copy"
                ) from None
            found = _read(read, tile.full.path)[: len(expected)]
        if found != expected:
            raise VerificationError(
                f"{tile.path} is not what the entries hash to: use another copy of the log"
            )


def _follow_quorums(
    read: Read, run: _Run, note: bytes, checkpoint: Checkpoint
) -> tuple[dict[str, int], frozenset[int]]:
    """Require a quorum of every witness set in turn, through all kept checkpoints, up to the final one.

    An amendment counts only once the set before it and the set after it have cosigned: the first checkpoint kept
    after it must show both. From there on the new set is enough.
    """
    state, final, kept = run.view.state, 0, list[tuple[bytes, int, int]]()
    for size in run.roots:
        try:
            kept.append((read(f"checkpoints/{size}"), final, size))
        except FileNotFoundError:
            continue
        final = size
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        checks = [pool.submit(_verify_kept, state, run.roots[item[2]], *item) for item in kept]
        for check in checks:
            check.result()
    times = _verify_final(note, state.sets_over(final, checkpoint.size), "checkpoint")[1]
    return times, frozenset(size for _, _, size in kept)


def _verify_kept(state: State, root: bytes, note: bytes, before: int, size: int) -> None:
    name = f"checkpoints/{size}"
    found = _verify_final(note, state.sets_over(before, size), name)[0]
    if (found.size, found.root) != (size, root):
        raise VerificationError(f"{name} is of another tree than these entries")


def _verify_final(note: bytes, sets: tuple[WitnessSet, ...], name: str) -> tuple[Checkpoint, dict[str, int]]:
    """Like `finality.verify_final`, and no line of a stranger: the log publishes none."""
    try:
        found = finality.verify_final(note, sets)
    except LedgerError as error:
        raise type(error)(f"{name}: {error}") from None
    keys = {(k.name, k.key_id) for s in sets for k in finality.keys_of(s)}
    stranger = next(
        (line for line in Note.from_bytes(note).signatures if (line.name, line.key_id) not in keys), None
    )
    if stranger is not None:
        raise VerificationError(
            f"{name} bears a signature of {stranger.name}, which is no witness of this log"
        )
    return found


def _read(read: Read, path: str) -> bytes:
    try:
        return read(path)
    except FileNotFoundError:
        raise VerificationError(
            f"{path} is missing: fetch it again, or use another copy of the log"
        ) from None
