"""Replies that the coordinator has acknowledged: kept until their round is closed, so that none can become late.

One file a job, `<folder>/<job digest>`, one JSON line a reply: the receipt, where its arrays are spooled, and the
signed acknowledgement. A line is on the disk before the acknowledgement is shown to anybody. After a crash the
exchange is asked again, and what was acknowledged is taken from here: the hospital may be away by then, and is owed a
place in the round. A line that a crash cut short was never shown; it is cut off before the next one is written.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.blobs import BlobStore
from coordinator.closing import Answer, Spooled
from coordinator.errors import IntegrityError, StorageError
from coordinator.metrics import BINS
from coordinator.voice import Voice
from ledger import envelope
from ledger.durable import sync_folder
from ledger.envelope import Entry
from ledger.errors import MalformedError
from ledger.records import Receipt


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Kept:
    answer: Answer
    statement: bytes


class Acknowledgements:
    """All that was acknowledged of the jobs that somebody asks about; any thread may ask."""

    def __init__(self, folder: Path, blobs: BlobStore, voice: Voice) -> None:
        """Read nothing yet.

        Args:
            folder: Made when the first reply is kept.
            blobs: Where the replies' arrays are.
            voice: Signs.
        """
        self._folder = folder
        self._blobs = blobs
        self._voice = voice
        self._lock = threading.Lock()
        self._jobs: dict[str, dict[tuple[int, str], _Kept]] = {}  # by job, then by round and hospital
        self._by_receipt: dict[str, bytes] = {}
        self._listeners: tuple[Callable[[], None], ...] = ()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each acknowledgement, in whatever thread made it; it must return at once."""
        self._listeners = (*self._listeners, listener)

    def keep(self, answer: Answer) -> None:
        """Keep a reply durably, and acknowledge it; one that is kept already stays as it is.

        Args:
            answer: With a receipt that may follow the log, and arrays that are spooled and are those it names.

        Raises:
            StorageError: the disk refused; nothing was acknowledged.
        """
        assert answer.receipt is not None
        receipt = answer.receipt.record
        assert isinstance(receipt, Receipt)
        with self._lock:
            kept = self._load(receipt.job)
            place = (receipt.round, answer.hospital)
            if place in kept:
                return
            statement = self._voice.acknowledgement(receipt)
            self._append(receipt.job, _line(answer, statement))
            # On the disk: from here on the acknowledgement may be shown.
            self._add(kept, answer, statement)
        for listener in self._listeners:
            with suppress(RuntimeError):  # an event loop that has just closed
                listener()

    def find(self, receipt: str) -> bytes | None:
        """Return the acknowledgement of the receipt with this digest, of a job that ran since the start."""
        return self._by_receipt.get(receipt)

    def answers(self, job: str, number: int, model: str) -> dict[str, Answer]:
        """Return the replies to one exchange that were acknowledged before a crash, by hospital.

        Args:
            job: Its digest.
            number: The exchange's round.
            model: Digest of the model that it sends; a reply to another one is of no use.

        Raises:
            StorageError: the disk failed.
            IntegrityError: the store lacks a histogram that was spooled.
        """
        with self._lock:
            kept = self._load(job)
        found = {}
        for (round_number, hospital), one in kept.items():
            record = one.answer.receipt.record if one.answer.receipt is not None else None
            if round_number == number and isinstance(record, Receipt) and record.model_before == model:
                found[hospital] = one.answer
        return found

    def _add(self, kept: dict[tuple[int, str], _Kept], answer: Answer, statement: bytes) -> None:
        assert answer.receipt is not None
        receipt = answer.receipt.record
        assert isinstance(receipt, Receipt)
        kept[receipt.round, answer.hospital] = _Kept(answer=answer, statement=statement)
        self._by_receipt[receipt.digest()] = statement

    def _load(self, job: str) -> dict[tuple[int, str], _Kept]:
        """Return what is known of a job; the first time, read its file and cut off a torn end."""
        if job in self._jobs:
            return self._jobs[job]
        kept: dict[tuple[int, str], _Kept] = {}
        path, whole = self._folder / job, 0
        try:
            data = path.read_bytes() if path.exists() else b""
            for line in data.splitlines(keepends=True):
                if not line.endswith(b"\n") or (read := self._read_line(line)) is None:
                    break
                whole += len(line)
                self._add(kept, *read)
            if whole < len(data):
                os.truncate(path, whole)
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}; see to the disk") from None
        self._jobs[job] = kept
        return kept

    def _append(self, job: str, line: bytes) -> None:
        path = self._folder / job
        try:
            new = not path.exists()
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if os.write(number, line) != len(line):
                    raise OSError(0, "the disk is full")
                os.fsync(number)
            finally:
                os.close(number)
            for folder in (self._folder, self._folder.parent) if new else ():
                sync_folder(folder)
        except OSError as error:
            self._jobs.pop(job, None)  # what is on the disk is unknown: read it again
            raise StorageError(f"cannot write {path}: {error.strerror}; see to the disk") from None

    def _read_line(self, line: bytes) -> tuple[Answer, bytes] | None:
        """Return a line's reply, or None where a crash left something else."""
        try:
            found = json.loads(line)
            entry = envelope.parse_entry(base64.b64decode(found["receipt"], validate=True))
            answer = Answer(
                hospital=found["hospital"],
                receipt=entry,
                update=self._spooled(found["update"]),
                metrics=self._spooled(found["metrics"]),
            )
            return answer, found["statement"].encode()
        except (ValueError, KeyError, TypeError, MalformedError, IntegrityError):
            return None  # IntegrityError: its histogram is gone, from a store older than this file

    def _spooled(self, found: Mapping[str, Any] | None) -> Spooled | None:
        if found is None:
            return None
        shape = tuple(found["shape"])
        counts = None
        if int(np.prod(shape)) == 2 * BINS:
            counts = np.frombuffer(self._blobs.read(found["digest"]), dtype=found["dtype"]).reshape(shape)
        return Spooled(
            digest=found["digest"], dtype=found["dtype"], shape=shape, size=found["size"], counts=counts
        )


def is_whole(entry: Entry, answer: Answer) -> bool:
    """Whether the arrays that came are exactly those that a receipt names."""
    receipt = entry.record
    came = tuple(array.digest if array is not None else "" for array in (answer.update, answer.metrics))
    return isinstance(receipt, Receipt) and came == (receipt.update, receipt.metrics)


def _line(answer: Answer, statement: bytes) -> bytes:
    assert answer.receipt is not None
    named = {"update": answer.update, "metrics": answer.metrics}
    arrays = {
        name: None
        if a is None
        else {"digest": a.digest, "dtype": a.dtype, "shape": list(a.shape), "size": a.size}
        for name, a in named.items()
    }
    line = {
        "hospital": answer.hospital,
        "receipt": base64.b64encode(answer.receipt.data).decode(),
        "statement": statement.decode(),
        **arrays,
    }
    return json.dumps(line).encode() + b"\n"
