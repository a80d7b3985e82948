"""What this hospital holds the coordinator to, outside the log: one file each, durable before anything depends on it.

    owed/records/<record digest>    a record that was handed in, and what the coordinator signed about it
    owed/replies/<receipt digest>   a receipt that was sent, and the acknowledgement of its arrival
    owed/evidence/<code>-<digest>   what the coordinator did not keep; nothing removes it
The first two go as soon as the log has done justice. A record that got no answer is handed in again, also after a
restart. Judging is `client.owed`; what follows from a finding is for the caller.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from client import owed
from client.errors import LocalStateError
from client.owed import Broken, Settled, Verdict
from client.private_file import read_private, write_private
from ledger import canonical, envelope, statements
from ledger.encoding import decode_base64, encode_base64
from ledger.envelope import Entry
from ledger.errors import LedgerError, MalformedError
from ledger.records import Receipt
from ledger.state import State
from ledger.statements import Acknowledgement, Objection, Promise, Statement
from ledger.values import Count, Part

FOLDER = "owed"
MAX_CONTACT = 60.0  # seconds between two looks at the log that count as contact
_MAX_SIZE = 1 << 18
_Kind = TypeVar("_Kind", bound=Part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed(Part):
    """A record that was handed in, or a receipt that was sent."""

    entry: str  # base64
    size: Count  # entries of the log that this hospital knew then
    statement: str  # what the coordinator signed, or ""

    @property
    def data(self) -> bytes:
        """The entry's bytes."""
        return decode_base64(self.entry, "entry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence(Part):
    """What a person needs to hold the coordinator to its word."""

    code: str  # one of `owed.FINDINGS`
    entry: str  # base64
    statement: str
    checkpoint: str  # the signed checkpoint under which it was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A word that was not kept; the evidence is on the disk."""

    kind: str  # "records" or "replies"
    digest: str
    code: str
    entry: Entry
    statement: Statement | None


class Custody:
    """One hospital's folder; may be used from several threads."""

    def __init__(self, folder: Path) -> None:
        """Read what is kept. Raises LocalStateError: a file is damaged."""
        self._folder = folder / FOLDER
        self._lock = threading.RLock()
        self._records = {p.name: _parse(Handed, p) for p in _files(self._folder / "records")}
        self._replies = {p.name: _parse(Handed, p) for p in _files(self._folder / "replies")}
        self._answered: set[str] = set()  # records that were answered, however, since the start
        self._waited: dict[str, float] = {}  # by record: seconds of contact without it
        self._looked = 0.0

    def handed_in(self, entry: bytes, size: int) -> None:
        """Keep a record that is about to be handed in; one that is kept already stays as it is."""
        digest = envelope.parse_entry(entry).digest
        with self._lock:
            if digest not in self._records:
                self._keep("records", digest, Handed(entry=encode_base64(entry), size=size, statement=""))

    def heard(self, entry: bytes, statement: bytes, key: str) -> None:
        """Keep the coordinator's answer about a record, if it is one that it can be held to.

        Args:
            entry: The record.
            statement: What came, from anywhere; anything else than its promise or objection is no answer.
            key: The coordinator's identity key.
        """
        digest = envelope.parse_entry(entry).digest
        said = _opened(statement, key)
        with self._lock:
            self._answered.add(digest)
            kept = self._records.get(digest)
            about = isinstance(said, Promise | Objection) and said.record == digest
            if kept is not None and about and kept.statement != statement.decode():
                self._keep("records", digest, replace(kept, statement=statement.decode()))

    def unanswered(self) -> list[bytes]:
        """Return the records to hand in: those that were never answered."""
        with self._lock:
            return [k.data for d, k in self._records.items() if not k.statement and d not in self._answered]

    def acknowledged(self, receipt: bytes, statement: bytes, key: str) -> bool:
        """Keep the acknowledgement of a receipt that was sent; False where it is none."""
        entry = envelope.parse_entry(receipt)
        said, record = _opened(statement, key), entry.record
        if not isinstance(said, Acknowledgement) or not isinstance(record, Receipt):
            return False
        stated = (said.job, said.round, said.hospital, said.receipt)
        if stated != (record.job, record.round, record.hospital, entry.digest):
            return False
        kept = Handed(entry=encode_base64(receipt), size=record.checkpoint_size, statement=statement.decode())
        with self._lock:
            self._keep("replies", entry.digest, kept)
        return True

    def contact(self, size: int, now: float) -> None:
        """Note that the log was read just now: silence is counted in contact with a log that moved on."""
        with self._lock:
            gap, self._looked = min(max(0.0, now - self._looked), MAX_CONTACT), now
            for digest, kept in self._records.items():
                if size > kept.size:
                    self._waited[digest] = (
                        self._waited.get(digest, -gap) + gap
                    )  # the first look counts nothing

    def examine(
        self,
        state: State,
        checkpoint: Callable[[], bytes],
        replay: Callable[[int], State],
        entries: Callable[[int], list[Entry]],
    ) -> list[Finding]:
        """Judge everything that is kept; what is found is evidence on the disk when this returns.

        Args:
            state: Of the log as this hospital has accepted it.
            checkpoint: Returns the signed checkpoint over it.
            replay: Returns the state after the log's first entries.
            entries: Returns the log's entries from an index on.

        Raises:
            LocalStateError: the disk fails.
        """
        with self._lock:
            findings = []
            for digest, kept in list(self._records.items()):
                entry, said = envelope.parse_entry(kept.data), _signed(kept.statement)
                waited = self._waited.get(digest, 0.0)
                if entry.record.origin != state.origin:  # of a log that died: nobody can keep it any more
                    verdict: Verdict = Settled()
                else:
                    verdict = owed.judge_record(entry, said, state, waited, replay)
                findings += self._conclude("records", digest, kept, verdict, checkpoint)
            for digest, kept in list(self._replies.items()):
                said = _signed(kept.statement)
                assert isinstance(said, Acknowledgement)
                verdict = owed.judge_reply(said, state, partial(entries, kept.size))
                findings += self._conclude("replies", digest, kept, verdict, checkpoint)
            return findings

    def close(self, finding: Finding) -> None:
        """Forget what a finding was about, once what follows from it is durable; the evidence stays."""
        with self._lock:
            self._forget(finding.kind, finding.digest)

    def evidence(self) -> list[Evidence]:
        """Return all evidence, for the hospital's own screen. Raises LocalStateError: a file is damaged."""
        return [_parse(Evidence, p) for p in _files(self._folder / "evidence")]

    def is_dealt_with(self, note: bytes) -> bool:
        """Whether a checkpoint that breaks the rules is among the evidence."""
        return self._rule_breaking(note).exists()

    def keep_rule_breaking(self, note: bytes) -> None:
        """Put a checkpoint that breaks the rules among the evidence; its entries are in the mirror."""
        found = Evidence(code="rule-broken", entry="", statement="", checkpoint=note.decode())
        write_private(self._rule_breaking(note), canonical.dumps(canonical.plain(found)))

    def _rule_breaking(self, note: bytes) -> Path:
        return self._folder / "evidence" / f"rule-broken-{hashlib.sha256(note).hexdigest()[:16]}"

    def _conclude(
        self, kind: str, digest: str, kept: Handed, verdict: Verdict, checkpoint: Callable[[], bytes]
    ) -> list[Finding]:
        if isinstance(verdict, Settled):
            self._forget(kind, digest)
        if not isinstance(verdict, Broken):
            return []
        found = Evidence(
            code=verdict.code, entry=kept.entry, statement=kept.statement, checkpoint=checkpoint().decode()
        )
        path = self._folder / "evidence" / f"{verdict.code}-{digest[:16]}"
        write_private(path, canonical.dumps(canonical.plain(found)))
        entry, said = envelope.parse_entry(kept.data), _signed(kept.statement)
        return [Finding(kind=kind, digest=digest, code=verdict.code, entry=entry, statement=said)]

    def _keep(self, kind: str, digest: str, kept: Handed) -> None:
        write_private(self._folder / kind / digest, canonical.dumps(canonical.plain(kept)))
        (self._records if kind == "records" else self._replies)[digest] = kept

    def _forget(self, kind: str, digest: str) -> None:
        path = self._folder / kind / digest
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise LocalStateError(f"cannot remove {path}: {error.strerror}; see to the disk") from None
        (self._records if kind == "records" else self._replies).pop(digest, None)


def _opened(statement: bytes, key: str) -> Statement | None:
    """Return what the coordinator signed, or None for anything else."""
    try:
        return statements.open_signed(statement, key)
    except LedgerError:
        return None


def _signed(text: str) -> Statement | None:
    """Return a statement whose signature was checked when it was kept."""
    if not text:
        return None
    payload = json.loads(text)["payload"]
    return statements.parse(decode_base64(payload, "payload"))


def _files(folder: Path) -> list[Path]:
    """Return a folder's files; a crash may have left hidden ones, which were never finished."""
    try:
        found = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise LocalStateError(f"cannot read {folder}: {error.strerror}") from None
    return [path for path in found if not path.name.startswith(".")]


def _parse(kind: type[_Kind], path: Path) -> _Kind:
    try:
        return canonical.build(kind, canonical.loads(read_private(path, _MAX_SIZE) or b"", _MAX_SIZE))
    except MalformedError:
        raise LocalStateError(f"{path} is damaged: restore it, or ask for help") from None
