"""Follows the log: pulls, judges, stores, cosigns and hands the cosignature over, whether or not a job runs.

Step 1 of PROTOCOL.md's gate. The judging and storing is `ledger.mirror`; here is the lock round it, the long poll
that makes a new checkpoint known at once, and what a restarted coordinator asks its witnesses for. One lock guards
the mirror, another the hand-over: a round waits for the cosignature that the loop has under way, not for the loop.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from client import news
from client.consortium import Consortium
from client.errors import PostRefusedError, UnreachableError
from client.gate import refuse
from client.news import News
from ledger.checkpoint import Checkpoint
from ledger.envelope import Entry, parse_entry
from ledger.errors import InconsistentError, LedgerError, RuleError, StorageError
from ledger.mirror import Mirror
from ledger.note import Note
from ledger.records import Abort, Round
from ledger.signature import SigningKey
from ledger.source import Read
from ledger.state import JobState, State
from ledger.store import CHECKPOINT, PENDING
from ledger.witness import ClockError

POLL_SECONDS = 25.0
BACKOFF = (0.05, 5.0)  # seconds, first and longest, after a failure
REPORT_SECONDS = (
    0.2,
    3.0,
)  # between reports to a log that may not write yet, first and longest: others report too
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """The log as this hospital has accepted and stored it, at one moment."""

    state: State
    size: int
    root: bytes
    final_size: int
    conflict: bool  # whether the log contradicted itself: nothing is trained or signed any more


class Follower:
    """The hospital's mirror and its witness key; may be used from several threads."""

    def __init__(
        self,
        mirror: Mirror,
        consortium: Consortium,
        key: SigningKey,
        clock: Callable[[], float],
        may_cosign: Callable[[], bool] = lambda: True,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Take over an open mirror.

        Args:
            mirror: The hospital's copy.
            consortium: Where the log is read and cosignatures go.
            key: The witness key.
            clock: Unix seconds.
            may_cosign: False while a person has to look first.
            jitter: 0 to 1; spreads tries, so that a hundred agents do not come back in step.
        """
        self._mirror = mirror
        self._consortium = consortium
        self._key = key
        self._clock = clock
        self._may_cosign = may_cosign
        self._jitter = jitter
        self._lock = threading.RLock()
        self._posting = threading.Lock()
        self._closed = False
        self._reported = ("", REPORT_SECONDS[0])  # nonce of the last report, and the wait after the next one
        self._posted = 0  # size of the largest checkpoint whose cosignature was handed over

    def close(self) -> None:
        """Close the mirror, as soon as nobody writes to it; whoever still waits for the network finds it closed."""
        with self._lock:
            self._closed = True
            self._mirror.close()

    def sight(self) -> Sight | None:
        """Return the log of now, or None before its charter was accepted."""
        with self._lock:
            view = self._mirror.view
            if view is None:
                return None
            return Sight(
                state=view.state,
                size=view.size,
                root=view.root,
                final_size=self._mirror.final_size,
                conflict=self._mirror.conflict() is not None,
            )

    def pull(self, note: bytes | None = None, found: News | None = None) -> list[Entry]:
        """Accept what is new up to the newest pending checkpoint, or up to `note`; return the new entries.

        Args:
            note: A signed checkpoint in place of the newest one.
            found: What is known of the log's files already.

        Raises:
            LedgerError: see `Mirror.follow`.
            UnreachableError: the log cannot be read.
        """
        read = self._consortium.read if note is None else _overlaid(self._consortium.read, {PENDING: note})
        if found is not None:
            read = found.over(read, self._mirror.entries)  # used below, under the lock
        with self._lock:
            if self._closed:
                raise UnreachableError("the agent stops")
            return self._mirror.follow(read, int(self._clock()))

    def find(self, note: bytes) -> int:
        """Return the size of a signed checkpoint that somebody refers to, once it is known to be of this log.

        A larger one than was seen is pulled; one that contradicts what was seen is kept as evidence.

        Raises:
            GateError: it is none of this log, or of more than the log shows.
            InconsistentError, RuleError, ClockError, StorageError, UnreachableError: as for `pull`.
        """
        try:
            named = Checkpoint.from_text(Note.from_bytes(note).text)
            size = named.size
            with self._lock:
                if size > self._mirror.size:
                    self.pull(note)
                elif not self._is_head(named):
                    alone = _overlaid(self._consortium.read, {PENDING: note, CHECKPOINT: None})
                    self._mirror.follow(alone, int(self._clock()))
                    self.pull()  # an old one is no news: is there any?
                known = size <= self._mirror.size
        except (InconsistentError, RuleError, ClockError, StorageError):
            raise
        except (LedgerError, FileNotFoundError):
            known = False
        if not known:
            raise refuse("unknown-checkpoint")
        return size

    def _is_head(self, named: Checkpoint) -> bool:
        """Whether a checkpoint names exactly what was accepted; who signed it matters no more then."""
        view = self._mirror.view
        return view is not None and (named.origin, named.size, named.root) == (
            view.state.origin,
            view.size,
            view.root,
        )

    def batch(self, found: JobState) -> list[Entry]:
        """Return the entries that closed a job's last round: its receipts and the record; none after the start."""
        with self._lock:
            (closing,) = map(parse_entry, self._mirror.entries(found.last_index, found.last_index + 1))
            record = closing.record
            if not isinstance(record, Round | Abort):
                return []
            before = self._mirror.entries(found.last_index - record.receipts, found.last_index)
        return [*map(parse_entry, before), closing]

    def entries(self, start: int = 0) -> list[Entry]:
        """Return everything accepted from an index on; from 0 for the rare reader of all of it."""
        with self._lock:
            return [parse_entry(data) for data in self._mirror.entries(start, self._mirror.size)]

    def state_at(self, size: int) -> State:
        """Return the state after the log's first entries, by replaying them: for the rare dispute."""
        with self._lock:
            return self._mirror.view_at(size).state

    def pending(self) -> bytes:
        """Return the signed checkpoint of everything accepted."""
        with self._lock:
            return self._mirror.pending()

    def refused(self) -> list[tuple[bytes, list[bytes]]]:
        """Return every signed checkpoint that breaks the rules, with its new entries."""
        with self._lock:
            return self._mirror.refused()

    def cosign(self) -> None:
        """Cosign everything accepted and hand the cosignature over, unless that was done.

        Raises:
            UnreachableError: it could not be handed over.
            LedgerError: see `Mirror.cosign`.
        """
        with self._posting:
            with self._lock:
                size = self._mirror.size
                if size <= self._posted or not self._may_cosign():
                    return
                line = self._mirror.cosign(self._key, int(self._clock()))
            try:
                self._consortium.post_cosignature(size, line)
            except PostRefusedError as error:
                # The log lost this size, or this is no witness: in either case asking again changes nothing.
                _log.warning("the cosignature of size %d was not taken: %s", size, error)
            self._posted = size

    def run(
        self,
        stopping: threading.Event,
        tell: Callable[[list[Entry]], None],
        report: Callable[[str], None] = lambda trouble: None,
    ) -> None:
        """Follow the log until `stopping`.

        Args:
            stopping: Set by whoever ends the agent.
            tell: Called with every batch of new entries, after it was cosigned.
            report: Told why the log cannot be followed, in one line, and "" when it can.

        Raises:
            StorageError: the disk failed: stop, and start the agent again.
        """
        wait, longest = BACKOFF
        trouble = ""
        while not stopping.is_set():
            try:
                tell(self._step())
                wait, trouble = BACKOFF[0], ""
                report("")
                continue
            except StorageError:
                raise
            except (UnreachableError, PostRefusedError, LedgerError, FileNotFoundError) as error:
                if str(error) != trouble and not stopping.is_set():
                    trouble = str(error)
                    _log.warning("%s", trouble)
                    report(trouble)
            stopping.wait(wait * (0.5 + self._jitter()))
            wait = min(2 * wait, longest)

    def _step(self) -> list[Entry]:
        with self._lock:
            size = self._mirror.size
        owed = self._posted < size and self._may_cosign()  # after a restart, or a failed request
        found = news.ask(self._consortium, size, 0 if owed else POLL_SECONDS)
        new = self.pull(found=found)
        self.cosign()
        if found.report and self._may_cosign():
            self._report(found)
        return new

    def _report(self, pending: News) -> None:
        """Tell a log that was restarted what was signed last, and give it back what it lost."""
        shown = Checkpoint.from_text(Note.from_bytes(pending.note).text).size
        with self._lock:
            line = self._mirror.cosign(self._key, int(self._clock()))
            note = Note.from_bytes(self._mirror.pending()).with_signatures(line).to_bytes()
            lost = self._mirror.entries(shown, self._mirror.size)
        with suppress(PostRefusedError):  # its nonce is of an earlier start: the next poll brings the new one
            if self._consortium.post_report(pending.report, note, lost):
                return
        nonce, wait = self._reported
        wait = wait if nonce == pending.report else REPORT_SECONDS[0]
        self._reported = (pending.report, min(2 * wait, REPORT_SECONDS[1]))
        threading.Event().wait(wait)


def _overlaid(read: Read, files: Mapping[str, bytes | None]) -> Read:
    """Return a reader that knows some files already; None stands for a file that is not there."""

    def overlaid(path: str) -> bytes:
        if path not in files:
            return read(path)
        if (data := files[path]) is None:
            raise FileNotFoundError(path)
        return data

    return overlaid
