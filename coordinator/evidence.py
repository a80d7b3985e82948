"""The evidence bundle of a finished job: everything that anyone needs to check it, offline and without asking.

    bundle.json           which job of which log
    log/                  the log's files up to a final checkpoint, every kept checkpoint included
    trust.policy          the log's key, its witnesses and their quorum, as the charter has them
    blobs/<sha256>        initial parameters, data dictionary, model.py, every update and histogram receipted
    model.safetensors     the released file
    card.md               its card

Later models and the strategy's memory are not in it: they follow from the updates. Written here; `evidence_check`
verifies. A folder appears whole or not at all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator import release
from coordinator.blobs import BlobStore
from coordinator.errors import EvidenceError, StorageError
from coordinator.histories import History
from ledger import canonical, finality
from ledger.checkpoint import Checkpoint
from ledger.errors import MalformedError
from ledger.note import Note
from ledger.source import Read
from ledger.state import State
from ledger.tiles import new_bundles, new_tiles
from ledger.values import Digest, Origin, Part

FOLDER = "evidence"
FORMAT = "wardround-evidence/1"
INDEX = "bundle.json"
POLICY = "trust.policy"
LOG = "log"
BLOBS = "blobs"
MAX_INDEX = 4096  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Index(Part):
    """What a bundle says of itself."""

    format: str
    job: Digest
    origin: Origin

    def to_bytes(self) -> bytes:
        """Return `INDEX`."""
        return canonical.dumps(canonical.plain(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Index:
        """Parse `INDEX`. Raises EvidenceError."""
        try:
            found = canonical.build(cls, canonical.loads(data, MAX_INDEX))
        except MalformedError as error:
            raise EvidenceError(f"{INDEX}: {error}") from None
        if found.format != FORMAT or found.to_bytes() != data:
            raise EvidenceError(f"{INDEX} is not that of a {FORMAT} bundle")
        return found


def log_paths(size: int) -> Iterator[str]:
    """Yield the paths of every tile and entry bundle of a log of `size`."""
    for tile in (*new_tiles(0, size), *new_bundles(0, size)):
        yield tile.path


def blob_digests(history: History) -> set[str]:
    """Return the digests of what a bundle must hold: all that was fixed beforehand, and all that was averaged."""
    job = history.job
    wanted = {job.model, job.dictionary}
    if job.training.model == "custom":
        wanted.add(job.training.model_code)
    for closed in history.closed:
        wanted.update(d for r in closed.used for d in (r.update, r.metrics) if d)
    return wanted


def extra_digests(history: History) -> set[str]:
    """Return the digests of what a bundle holds if the store does: replies that were receipted and left out."""
    receipted = {d for c in history.closed for r in c.receipts for d in (r.update, r.metrics) if d}
    return receipted - blob_digests(history)


def write(
    run: Path, read: Read, kept: Sequence[int], state: State, history: History, blobs: BlobStore
) -> None:
    """Write a finished job's folder: the model, its card and the bundle.

    Args:
        run: The job's folder; made if absent.
        read: Reads a file of the log's directory.
        kept: Sizes of the log's final checkpoints.
        state: The log's.
        history: The job's, released.
        blobs: The store.

    Raises:
        EvidenceError: the job is not released, or a final checkpoint does not cover its release yet.
        IntegrityError: the store lacks something, or it is damaged.
        StorageError: the disk refused; nothing half-made is left under its name.
    """
    if history.release is None:
        raise EvidenceError(f"job {history.digest[:16]} has released nothing: there is nothing to show")
    files = dict(_log_files(read, kept, history.end_index))
    files[INDEX] = Index(format=FORMAT, job=history.digest, origin=state.origin).to_bytes()
    files[POLICY] = finality.trust_policy(state.witness_sets[-1]).to_bytes()
    files[release.MODEL] = blobs.read(history.release.artifact)
    files[release.CARD] = blobs.read(history.release.card)
    held = blob_digests(history) | {d for d in extra_digests(history) if d in blobs}
    try:
        run.mkdir(parents=True, exist_ok=True)
        partial = run / f"{FOLDER}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        for name, data in files.items():
            _write(partial / name, data)
        for digest in sorted(held):
            _write(partial / BLOBS / digest, blobs.read(digest))
        for name in (release.MODEL, release.CARD):
            _replace(run / name, files[name])
        partial.replace(run / FOLDER)
    except OSError as error:
        raise StorageError(f"cannot write {run}: {error.strerror}; free space, then start again") from error


def export(run: Path, target: Path) -> None:
    """Copy a finished job's bundle to a folder that does not exist yet.

    Raises:
        EvidenceError: there is no bundle, or the target exists.
        StorageError: the disk refused; nothing half-made is left.
    """
    source = run / FOLDER
    if not source.is_dir():
        raise EvidenceError(f"{source} does not exist: the job is not finished, or this is another folder")
    if target.exists():
        raise EvidenceError(f"{target} exists: name a folder that does not")
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
        partial.replace(target)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise StorageError(
            f"cannot write {target}: {getattr(error, 'strerror', None) or 'copying failed'}"
        ) from None


def _log_files(read: Read, kept: Sequence[int], last: int) -> Iterator[tuple[str, bytes]]:
    """Yield the log's files up to the newest final checkpoint, which must cover the entry at `last`."""
    note = read("checkpoint")
    size = Checkpoint.from_text(Note.from_bytes(note).text).size
    if size <= last:
        raise EvidenceError("the release is not final yet: wait for the witnesses' cosignatures")
    yield f"{LOG}/checkpoint", note
    for number in sorted(n for n in kept if n <= size):
        path = f"checkpoints/{number}"
        yield f"{LOG}/{path}", note if number == size else read(path)
    for path in log_paths(size):
        yield f"{LOG}/{path}", read(path)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(path)
