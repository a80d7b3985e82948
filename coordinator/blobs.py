"""The content-addressed store: model parameters, updates, server state and job bundles, each under its SHA-256.

Layout: `<directory>/<first two hex digits>/<the other 62>`; `<directory>/incoming` holds what is being written.
A blob becomes visible only by a rename, after its bytes are on the disk, so a reader sees all of it or
nothing; what a crash leaves in `incoming` is removed at the next opening. Several processes may use one store
at once. What a digest means, and for how long it must be kept, is for the caller to know.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from coordinator.errors import IntegrityError, StorageError
from ledger.durable import sync_folder

MAX_BLOB_SIZE = 4 * 2**30  # bytes; a model of a thousand million float32 parameters
_DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobStore:
    """Bytes on disk, named by their own digest."""

    def __init__(self, directory: Path) -> None:
        """Open the store, creating it where there is none, and remove what a crash left half-written.

        Raises:
            StorageError: the directory cannot be created or written.
        """
        self._root = directory
        self._incoming = directory / "incoming"
        with self._failures("open"):
            self._incoming.mkdir(parents=True, exist_ok=True)
            self._remove_orphans()

    def put(self, data: bytes) -> str:
        """Store bytes durably and return their digest. Storing the same bytes again changes only their age.

        Raises:
            StorageError: the disk refused; the store is as it was before.
        """
        return self.put_stream((data,), max_size=len(data))

    def put_stream(self, chunks: Iterable[bytes], *, max_size: int, expected: str | None = None) -> str:
        """Store a stream durably and return its digest.

        Args:
            chunks: The bytes, in pieces of any size.
            max_size: Refuse to write more than this many bytes.
            expected: The digest that the bytes must have, where the caller knows it.

        Raises:
            IntegrityError: too many bytes, or not the expected ones; nothing is kept.
            StorageError: the disk refused; the store is as it was before.
        """
        if expected is not None:
            _require_digest(expected)
        with self._incoming_file() as (stream, path):
            digest = self._copy(chunks, stream, min(max_size, MAX_BLOB_SIZE))
            if expected is not None and digest != expected:
                raise IntegrityError(
                    f"the bytes have digest {digest[:12]}, not {expected[:12]} as promised: refused"
                )
            with self._failures("write"):
                os.fsync(stream.fileno())
                self._publish(path, digest)
        return digest

    def read(self, digest: str) -> bytes:
        """Return a blob's bytes, all verified.

        Raises:
            IntegrityError: no such blob, or the disk holds other bytes than were stored.
        """
        with self.open(digest) as stream, self._failures("read"):
            data = stream.read()
        if hashlib.sha256(data).hexdigest() != digest:
            raise _damaged(digest)
        return data

    def open(self, digest: str) -> FileIO:
        """Open a blob for one reader that hashes what it reads, as `updates.VerifiedReader` does.

        Raises:
            IntegrityError: no such blob.
        """
        path = self._path(digest)
        with self._failures("open"):
            try:
                return path.open("rb", buffering=0)
            except FileNotFoundError:
                raise IntegrityError(
                    f"blob {digest[:12]} is not in the store: it was never put, or its retention is over"
                ) from None

    def map(self, digest: str) -> mmap.mmap:
        """Map a blob into memory, read only and verified: `numpy.frombuffer` reads it without a copy.

        Raises:
            IntegrityError: no such blob, an empty one, or damaged bytes.
        """
        with self.open(digest) as stream, self._failures("map"):
            if os.fstat(stream.fileno()).st_size == 0:
                raise IntegrityError(f"blob {digest[:12]} is empty: there is nothing to map")
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        if hashlib.sha256(mapped).hexdigest() != digest:
            mapped.close()
            raise _damaged(digest)
        return mapped

    def size(self, digest: str) -> int:
        """Return a blob's size in bytes. Raises IntegrityError where there is no such blob."""
        with self.open(digest) as stream:
            return os.fstat(stream.fileno()).st_size

    def delete(self, digest: str) -> bool:
        """Delete one blob for ever; False where there was none."""
        with self._failures("delete"), self._exclusive():
            return self._unlink(self._path(digest))

    def delete_expired(
        self, *, stored_before: float, keep: Collection[str] = (), among: Iterable[str] | None = None
    ) -> list[str]:
        """Delete what has outlived its retention; return the digests deleted, sorted.

        Args:
            stored_before: Unix seconds; a blob last put at this time or later stays.
            keep: Digests to keep whatever their age: models of running jobs, for example.
            among: Look at these only; at all where it is None.
        """
        deleted = []
        for digest in self if among is None else among:
            with self._failures("delete"), self._exclusive():  # put() again cannot slip in between
                path = self._path(digest)
                old = path.exists() and path.stat().st_mtime < stored_before
                if old and digest not in keep and self._unlink(path):
                    deleted.append(digest)
        return deleted

    def __contains__(self, digest: str) -> bool:
        return self._path(digest).is_file()

    def __iter__(self) -> Iterator[str]:
        """Yield the digests of all blobs, sorted."""
        for folder in sorted(self._root.glob("[0-9a-f][0-9a-f]")):
            names = sorted(entry.name for entry in folder.iterdir())
            yield from (d for name in names if _DIGEST.fullmatch(d := folder.name + name))

    def _copy(self, chunks: Iterable[bytes], stream: BinaryIO, max_size: int) -> str:
        """Write chunks and return the digest of all of them; a failure of their source passes unchanged."""
        state, size = hashlib.sha256(), 0
        for chunk in chunks:
            size += len(chunk)
            if size > max_size:
                raise IntegrityError(f"more than the {max_size} bytes that may come: refused")
            state.update(chunk)
            view = memoryview(chunk)
            while view:
                with self._failures("write"):
                    view = view[stream.write(view) :]
        return state.hexdigest()

    def _path(self, digest: str) -> Path:
        _require_digest(digest)
        return self._root / digest[:2] / digest[2:]

    def _publish(self, path: Path, digest: str) -> None:
        """Make a finished file visible. It replaces an older copy, which heals a damaged one."""
        target = self._path(digest)
        with self._exclusive():
            known = target.exists()
            target.parent.mkdir(exist_ok=True)
            path.replace(target)  # from here on readers see the blob; its bytes are already durable
            try:
                sync_folder(target.parent)
                sync_folder(self._root)
            except OSError:
                if not known:  # its name may not survive a crash: better absent than uncertain
                    target.unlink(missing_ok=True)
                raise

    def _unlink(self, path: Path) -> bool:
        if not path.exists():
            return False
        path.unlink()
        sync_folder(path.parent)
        return True

    @contextmanager
    def _incoming_file(self) -> Iterator[tuple[BinaryIO, Path]]:
        """A new file in `incoming`, locked for as long as its writer lives, gone when the writer fails."""
        with self._failures("create"):
            stream, path = self._create()
        try:
            with stream:
                yield stream, path
        finally:
            path.unlink(missing_ok=True)  # nothing to do after a rename

    def _create(self) -> tuple[BinaryIO, Path]:
        while True:
            number, name = tempfile.mkstemp(dir=self._incoming)
            stream = os.fdopen(number, "wb", buffering=0)
            fcntl.flock(stream, fcntl.LOCK_EX)
            if os.fstat(number).st_nlink:
                return stream, Path(name)
            stream.close()  # another process opened the store before we had the lock, and removed the file

    def _remove_orphans(self) -> None:
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
                path.unlink()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep renames and deletions of all threads and processes apart."""
        with (self._root / "lock").open("wb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _failures(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"cannot {doing} a blob in {self._root}: {error.strerror or error}; "
                "check the disk's space and permissions, then try again"
            ) from error


def _require_digest(digest: str) -> None:
    """A digest becomes a path: nothing but 64 hex digits may."""
    if not _DIGEST.fullmatch(digest):
        raise IntegrityError(f"{digest[:80]!r} is not a digest: 64 lowercase hex digits are expected")


def _damaged(digest: str) -> IntegrityError:
    return IntegrityError(f"blob {digest[:12]} is damaged on disk: fetch it again from whoever sent it")
