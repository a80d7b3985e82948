"""Holds the coordinator to its word: listens to what it signs, examines it against the log, and stops what must stop.

A word not kept (`client.owed`) stops all training until a person has looked; the agent goes on cosigning. A reply
that was acknowledged and then left out, and a checkpoint that breaks the rules, stop the jobs concerned and are
reported on the record, as soon as the log can take it. What stops is on the disk before what it was about is
forgotten. PROTOCOL.md, "A coordinator that will not append, and a log that dies".
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from client import receipts
from client.answers import statement
from client.custody import Finding
from client.errors import PostRefusedError, UnreachableError
from client.follower import Sight
from client.owed import FINDINGS
from client.premises import Premises
from ledger import envelope
from ledger.records import Receipt

POLL_SECONDS = 20.0
NOT_YET = 404  # HTTP status: the reply has not arrived
RETRY_SECONDS = 0.5
FIRST_SECONDS = (
    1.0  # after a receipt was sent: until then the round may be closed, and the reply goes out first
)
WANTED_SECONDS = 30.0  # between looks at what a restored coordinator lacks
_log = logging.getLogger(__name__)


class Oversight:
    """One hospital's; may be used from several threads. An `Ear` of the consortium's door."""

    def __init__(self, premises: Premises, tell: Callable[[dict[str, Any]], None]) -> None:
        """Listen from now on."""
        self._parts = premises
        self._tell = tell
        self._acting = threading.Lock()
        self._look_again = 0.0  # when to ask what is wanted
        self._expected: SimpleQueue[tuple[bytes, int]] = SimpleQueue()
        premises.consortium.ear = self

    def handing_in(self, entry: bytes) -> None:
        """Make a record durable that is about to be handed in. Raises LocalStateError."""
        sight = self._parts.follower.sight()
        self._parts.custody.handed_in(entry, sight.size if sight else 0)

    def heard(self, entry: bytes, statement: bytes) -> None:
        """Keep what the coordinator signed about a record. Raises LocalStateError."""
        self._parts.custody.heard(entry, statement, self._key())

    def report(self, origin: str, code: str, evidence: str) -> None:
        """Owe the log an incident: it is handed in at the next turn, also after a crash."""
        incident = receipts.incident(origin, self._parts.hospital.name, code, evidence)
        self.handing_in(envelope.sign(incident, self._parts.identity))

    def hand_in_again(self) -> None:
        """Hand in what was never answered. Raises UnreachableError: try again."""
        for entry in self._parts.custody.unanswered():
            try:
                self._parts.consortium.post_record(entry)
            except PostRefusedError as error:
                _log.warning("a %s record was not taken: %s", envelope.parse_entry(entry).record.TYPE, error)

    def hand_in_wanted(self) -> None:
        """Now and then, hand in again what was sent in running jobs, if the coordinator came from a backup.

        They are the bytes that it had before, so nothing is released. Raises UnreachableError: try again.
        """
        parts, sight, now = self._parts, self._parts.follower.sight(), self._parts.clock()
        mine = [
            (job, found.next_round)
            for job, found in (sight.state.jobs.items() if sight else ())
            if found.status == "running" and parts.hospital.name in found.parties and found.next_round > 1
        ]
        if not mine or now < self._look_again:
            return
        listed = parts.consortium.get("/api/wanted").get("blobs", [])
        wanted = {str(digest) for digest in listed} if isinstance(listed, list) else set()
        for job, next_round in mine if wanted else ():
            for number in range(1, next_round):
                reply = parts.account.sent(job, number)
                for data in (reply.update, reply.metrics) if reply else ():
                    digest = receipts.digest(data)
                    if digest in wanted:
                        parts.consortium.post(f"/api/wanted/{digest}", data)
        self._look_again = now + WANTED_SECONDS

    def followed(self) -> None:
        """The log was read just now: count the silence, and examine."""
        sight = self._parts.follower.sight()
        if sight is not None:
            self._parts.custody.contact(sight.size, self._parts.clock())
            self.examine()

    def examine(self) -> None:
        """Judge all that is owed, and act. Raises LocalStateError, StorageError: the disk fails."""
        parts = self._parts
        with self._acting:
            sight = parts.follower.sight()
            if sight is None:
                return
            for finding in parts.custody.examine(
                sight.state, parts.follower.pending, parts.follower.state_at, parts.follower.entries
            ):
                self._act(sight, finding)
                parts.custody.close(finding)
            for note, entries in parts.follower.refused():
                if not parts.custody.is_dealt_with(note):
                    self._deal_with(sight, note, entries)

    def expect(self, receipt: bytes, deadline: int) -> None:
        """Ask for the acknowledgement of a receipt that is about to be sent, until its deadline."""
        self._expected.put((receipt, deadline))

    def fetch(self, stopping: threading.Event, seconds: float, delay: float = 0.0) -> bool:
        """Get the acknowledgement of one receipt; False where none was expected within `seconds`.

        Args:
            stopping: Ends it.
            seconds: How long to wait for a receipt to be sent.
            delay: How long to wait before asking: a receipt that the log shows by then needs no acknowledgement.
        """
        try:
            receipt, deadline = self._expected.get(timeout=seconds)
        except Empty:
            return False
        digest = envelope.parse_entry(receipt).digest
        stopping.wait(delay)
        while not stopping.is_set() and not self._is_logged(receipt):
            left = deadline - self._parts.clock()
            try:
                wait = int(min(max(left, 0.0), POLL_SECONDS))
                answer = self._parts.consortium.get(f"/api/acknowledgements/{digest}?wait={wait}")
            except UnreachableError:
                stopping.wait(RETRY_SECONDS)
            except PostRefusedError as error:
                if error.status != NOT_YET:
                    stopping.wait(RETRY_SECONDS)
            else:
                if not self._parts.custody.acknowledged(receipt, statement(answer), self._key()):
                    _log.warning("what the coordinator sent is no acknowledgement of receipt %s", digest[:12])
                return True
            if left <= 0:
                _log.info("no acknowledgement of receipt %s came: it may be called late", digest[:12])
                return True
        return True

    def run(self, stopping: threading.Event) -> None:
        """Fetch acknowledgements until `stopping`. Raises LocalStateError: the disk fails."""
        while not stopping.is_set():
            self.fetch(stopping, RETRY_SECONDS, FIRST_SECONDS)

    def _is_logged(self, receipt: bytes) -> bool:
        entry, sight = envelope.parse_entry(receipt), self._parts.follower.sight()
        record = entry.record
        assert isinstance(record, Receipt)
        found = sight.state.jobs.get(record.job) if sight else None
        if found is None or found.next_round <= record.round:
            return False
        return any(e.digest == entry.digest for e in self._parts.follower.entries(record.checkpoint_size))

    def _key(self) -> str:
        """The coordinator's identity key as the log has it; none is known before the charter."""
        sight = self._parts.follower.sight()
        return sight.state.coordinator().key if sight else ""

    def _act(self, sight: Sight, finding: Finding) -> None:
        """Stop what must stop, durably."""
        _log.error("%s: %s; the evidence is in owed/evidence", finding.code, FINDINGS[finding.code])
        if finding.kind == "records":
            self._parts.standing.ask_person(finding.code)
            self._tell({"event": "person", "reason": finding.code})
            return
        assert finding.statement is not None
        job = getattr(finding.entry.record, "job", "")
        self._stop(job, finding.code)
        self.report(sight.state.origin, finding.code, finding.statement.digest())

    def _deal_with(self, sight: Sight, note: bytes, entries: list[bytes]) -> None:
        """A checkpoint breaks the rules: the jobs that its entries are about get no more training here."""
        name = self._parts.hospital.name
        mine = {d for d, j in sight.state.jobs.items() if j.status == "running" and name in j.parties}
        named = {getattr(envelope.parse_entry(data).record, "job", "") for data in entries if data}
        _log.error("rule-broken: %s; the evidence is in owed/evidence", FINDINGS["rule-broken"])
        for job in sorted(mine & named or mine):
            self._stop(job, "rule-broken")
        self.report(sight.state.origin, "rule-broken", hashlib.sha256(note).hexdigest())
        self._parts.custody.keep_rule_breaking(note)  # the last step: a crash before it leads here again

    def _stop(self, job: str, code: str) -> None:
        self._parts.standing.stop(job, code)
        self._tell({"event": "job-stopped", "job": job, "code": code})
