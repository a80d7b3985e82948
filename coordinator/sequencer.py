"""The one owner of the log: members' records, the coordinator's batches, cosignatures, and waiting for any of them.

Every method may be called from any thread; writers take turns, readers take `standing`, which is swapped whole. A log
that was stopped is read-only until a quorum of witnesses has answered `question`; `failure` says why a write failed.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType

from coordinator import reports
from coordinator.cosigning import Queue
from coordinator.errors import ObjectedError, ServiceError, StoppedError
from coordinator.histories import Histories
from coordinator.standing import Standing, Submitted
from coordinator.witness_clocks import Clock, WitnessClocks
from ledger import envelope
from ledger.checkpoint import Checkpoint
from ledger.envelope import Entry
from ledger.errors import MalformedError, ReadOnlyError, RuleError, StorageError, VerificationError
from ledger.log import Log
from ledger.note import Note
from ledger.records import Receipt
from ledger.restart import MissingTail, Report, Succession, Waiting, Writable
from ledger.signature import Signature


class Sequencer:
    """Writes to one open log, whose keys it was opened with. A context manager: leaving it closes the log."""

    def __init__(self, log: Log, clock: Clock, *, begun: bool = False, elapsed: Clock | None = None) -> None:
        """Take over an open log.

        Args:
            log: Opened with its keys.
            clock: This machine's.
            begun: Whether `Log.create` made it just now, so that no witness can have seen more than it holds.
            elapsed: Seconds by a clock that nobody sets, to see `clock` jump; `clock` itself where there is none.

        Raises:
            LedgerError: its entries cannot be read.
        """
        self._log = log
        self._clock = clock
        self._clocks = WitnessClocks(clock, elapsed or clock)
        self._changed = threading.Condition()  # its lock is the turn at the log
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._cosignatures = Queue()
        self._opened = int(clock())
        self._stopped = False
        self._failure = ""
        self.question = secrets.token_hex(16)  # of this opening; witnesses' reports repeat it
        self._reports: dict[str, Report] = {}  # by the text of the witness's key
        entries = log.store.entries(0, log.store.size)
        self._standing = Standing(
            view=log.view,
            histories=Histories().follow(map(envelope.parse_entry, entries)),
            final_size=log.store.final_size(),
            cosignatures=len(log.store.cosignatures(log.store.size)),
            writable=begun,
            obstacle="",
        )

    def __enter__(self) -> Sequencer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        with self._changed:
            self._log.close()

    @property
    def standing(self) -> Standing:
        """The newest standing; never changed, only replaced."""
        return self._standing

    @property
    def failure(self) -> str:
        """Why nothing more can be written, or ""."""
        return self._failure

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def now(self) -> int:
        """Return the time for a record: this clock's, and never before the log's own."""
        return max(int(self._clock()), self._standing.state.time)

    @property
    def clock_trouble(self) -> str:
        """Why nothing is signed with this machine's clock, in one line, or ""."""
        return self._clocks.objection(self._standing.state.witness_sets[-1])

    def submit(self, data: bytes) -> Submitted:
        """Append one member's record as a batch of its own; one that is there already is found again.

        Raises:
            MalformedError, VerificationError: it cannot be on this log.
            ObjectedError: a rule forbids it as the log is now.
            ReadOnlyError: the log waits for its witnesses, or a write failed: try again later.
        """
        entry = envelope.open_entry(data)
        if isinstance(entry.record, Receipt):
            raise MalformedError("a receipt comes with the reply that it is for, never by itself")
        with self._changed:
            self._require_open()
            index = self._standing.state.seen.get(entry.digest)
            if index is None:
                index = self._log.store.size
                try:
                    self._append([data])
                except RuleError as error:
                    raise ObjectedError(error, record=entry.digest, size=index) from None
            return Submitted(index=index, digest=entry.digest)

    def append(self, batch: Sequence[bytes], *, after: int) -> bool:
        """Append the coordinator's own batch if the log still has `after` entries; False where it has not.

        Raises:
            LedgerError: the batch cannot follow, or could not be written.
        """
        with self._changed:
            self._require_open()
            if self._log.store.size != after:
                return False
            self._append(batch)
            return True

    def cosign(self, size: int, line: Signature) -> bool:
        """Take in one cosignature; return whether its checkpoint, or a larger one, is final.

        Raises:
            VerificationError: the line is wrong; strangers' lines are ignored.
            LookupError: the log has signed no checkpoint of this size.
        """
        turn = self._cosignatures.add(size, line)
        with self._changed:
            if not turn.done:  # nobody has taken it in meanwhile, with theirs
                self._require_sound()
                with self._failing():
                    self._cosignatures.take_in(self._log)
                self._refresh()
            turn.outcome()
            if (signed := self._log.store.signed(size)) is not None:
                self._clocks.take(self._standing.state.witness_sets[-1], Note.from_bytes(signed), line)
        return turn.final

    def report(self, question: str, note: bytes, entries: Sequence[bytes]) -> int:
        """Take in what a witness saw last, and the entries that this log may have lost.

        Args:
            question: That of this opening.
            note: The witness's newest checkpoint, with its cosignature.
            entries: Entries from this log's size up to that checkpoint's, or none.

        Returns:
            How many further witnesses must report; 0 when the log may be written.

        Raises:
            LedgerError: the report or the entries are not what they must be.
        """
        with self._changed:
            self._require_sound()
            if self._standing.writable:
                return 0
            if question != self.question:
                raise VerificationError("the report answers an older question: ask for the checkpoint again")
            found = Note.from_bytes(note)
            newest = self._standing.state.witness_sets[-1]
            report = reports.read(found, newest.witnesses, self._opened)
            self._reports[report.witness.to_text()] = report
            self._clocks.take(newest, found, found.signatures[-1])
            with self._failing():
                return self._resume(entries)

    def pending(self) -> bytes:
        """Return the newest signed checkpoint."""
        with self._changed:
            return self._log.store.pending() or b""

    def final_sizes(self) -> list[int]:
        """Return every size that has a final checkpoint, ascending."""
        with self._changed:
            return self._log.store.final_sizes()

    def read(self, name: str) -> bytes:
        """Return a file of the log's directory: a `ledger.source.Read`. Needs no turn: files are swapped whole."""
        return self._log.store.read(name)

    def wait(self, condition: Callable[[Standing], bool], seconds: float | None = None) -> bool:
        """Block until a condition holds; False after `seconds` without.

        Raises:
            StoppedError: the coordinator is being stopped.
            ServiceError: the log cannot be written any more.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or bool(self._failure) or condition(self._standing), seconds
            )
            if self._stopped:
                raise StoppedError("the coordinator is being stopped")
            if self._failure:
                raise ServiceError(self._failure)
            return condition(self._standing)

    def wait_for_change(self, known: Standing, seconds: float) -> None:
        """Block until the standing is another one than `known`, or for `seconds`. Raises as `wait` does."""
        self.wait(lambda standing: standing is not known, seconds)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change, in whatever thread made it; it must return at once."""
        self._listeners = (*self._listeners, listener)

    def stop(self) -> None:
        """Wake everybody who waits; they are told to leave. Idempotent."""
        with self._changed:
            self._stopped = True
            self._tell()

    def _append(self, batch: Sequence[bytes]) -> None:
        with self._failing():
            self._log.append(batch, int(self._clock()))
        self._refresh([envelope.parse_entry(data) for data in batch])

    def _resume(self, entries: Sequence[bytes]) -> int:
        """Judge all reports so far; restore a tail that a witness brought, and judge again."""
        verdict = self._log.resume(self._reports.values())
        before = self._log.store.size
        if isinstance(verdict, MissingTail) and len(entries) >= verdict.size - before:
            self._log.restore_tail(list(entries[: verdict.size - before]), verdict.note)
            self._refresh([envelope.parse_entry(e) for e in self._log.store.entries(before, verdict.size)])
            verdict = self._log.resume(self._reports.values())
        match verdict:
            case Writable():
                for note in filter(None, (report.note for report in self._reports.values())):
                    size = Checkpoint.from_text(note.text).size
                    if self._log.store.signed(size) is not None:  # a backup may lack what made it final
                        self._log.cosign(size, note.signatures)
                self._refresh(writable=True)
                return 0
            case Waiting():
                return verdict.more
            case MissingTail():
                self._hinder(f"a witness saw {verdict.size} entries: the missing ones are fetched from it")
            case Succession():
                self._hinder(f"{verdict.reason}: it cannot go on, only a successor can")
        return self._standing.state.witness_sets[-1].quorum

    def _hinder(self, obstacle: str) -> None:
        self._standing = replace(self._standing, obstacle=obstacle)
        self._tell()

    def _refresh(self, new: Sequence[Entry] = (), *, writable: bool = False) -> None:
        store = self._log.store
        self._standing = Standing(
            view=self._log.view,
            histories=self._standing.histories.follow(new),
            final_size=store.final_size(),
            cosignatures=len(store.cosignatures(store.size)),
            writable=writable or self._standing.writable,
            obstacle="",
        )
        self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        for listener in self._listeners:
            with suppress(RuntimeError):  # an event loop that has just closed
                listener()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Around whatever writes: after a StorageError nobody knows what is on the disk."""
        try:
            yield
        except StorageError as error:
            self._failure = str(error)
            self._tell()
            raise

    def _require_sound(self) -> None:
        if self._failure or self._stopped:
            raise ReadOnlyError(self._failure or "the coordinator is being stopped: try again later")

    def _require_open(self) -> None:
        self._require_sound()
        if not self._standing.writable:
            raise ReadOnlyError("the log waits for a quorum of its witnesses after a stop: try again later")
        if trouble := self.clock_trouble:
            raise ReadOnlyError(trouble)
