"""The agent's paperwork: registers the dataset and its next versions, has jobs answered, cleans up after ended ones.

Everything follows from the state of the log, so it may be done again after any crash. Records that could not be
posted are kept (`client.custody`) and handed in again until the coordinator takes or refuses them. Answering jobs is
`client.answering`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from client.answering import Answering
from client.dataset_record import record_of
from client.decisions import NewOffer
from client.errors import WorkerError
from client.follower import Sight
from client.premises import Premises
from ledger import envelope
from ledger.records import Dataset

_log = logging.getLogger(__name__)


class Enrolment:
    """One hospital's paperwork, done by one thread; `approval_of` may be called from any."""

    def __init__(self, premises: Premises, tell: Callable[[dict[str, Any]], None]) -> None:
        self._parts = premises
        self._tell = tell
        self._answering = Answering(premises, tell)
        self._cleaned: set[str] = set()
        self._cohorts: dict[int, str] = {}  # version -> commitment of a record that may be under way
        self._refused: set[int] = set()  # versions of the dataset's record: a person has to look
        self._warned = ""
        self._stamp = 0

    def approval_of(self, job: str) -> str:
        """Return the digest of the approval that this hospital gave to a job, or ""."""
        data = self._answering.kept(job)
        return envelope.parse_entry(data).digest if data else ""

    @property
    def is_registered(self) -> bool:
        """Whether the dataset is on the record, as far as the log is known here."""
        return self._version_on_record() > 0

    def settings_changed(self) -> None:
        """Judge every open job again, by the settings of now."""
        self._warned = ""
        self._refused.clear()
        self._cohorts.clear()
        self._answering.forget_answers()

    def turn(self) -> bool:
        """Do all that can be done now; tell whether something is left that must be tried again soon.

        Raises:
            UnreachableError, WorkerError: the coordinator does not answer, or the worker died; call again.
            LedgerError, ClientError: the hospital's own disk, account or files fail.
        """
        if (stamp := self._parts.decisions.stamp()) != self._stamp:
            self._stamp = stamp
            self._refused.clear()
        sight = self._parts.follower.sight()
        if sight is None or sight.state.member(self._parts.hospital.name) is None:
            return False
        self._answering.withdraw(sight)
        if self._parts.standing.restored:
            self._answering.withdraw_from_all(sight)
        if self._parts.standing.person:
            return False
        if self._parts.hospital.ref not in sight.state.datasets:
            return 1 not in self._refused and self._register(sight, 1)
        if self._is_offered(sight):
            return self._register(sight, sight.state.datasets[self._parts.hospital.ref].record.version + 1)
        if not self._account_is_ready(sight):
            return False
        self._clean_up(sight)
        return self._answering.answer(sight)

    def _register(self, sight: Sight, version: int) -> bool:
        """Put the dataset on the record: a commitment, a size class, a budget; nothing exact. Tell if it is there."""
        parts, dictionary = self._parts, self._parts.dictionary.to_bytes()
        if version > 1 and not self._is_usable(version):
            return False
        parts.follower.pull()  # an earlier try may have arrived although its answer did not
        if self._version_on_record() < version:
            if version not in self._cohorts:  # one commitment a version: its salt is kept, and one only
                self._cohorts[version] = parts.worker.commit(dictionary, version=version)
            if not self._parts.post(self._record(sight, version, self._cohorts[version])):
                self._refused.add(version)
                return False
            parts.follower.pull()
        self._tell({"event": "registered", "dataset": parts.hospital.ref, "version": version})
        return True

    def _version_on_record(self) -> int:
        sight = self._parts.follower.sight()
        found = sight.state.datasets.get(self._parts.hospital.ref) if sight is not None else None
        return found.record.version if found is not None else 0

    def _record(self, sight: Sight, version: int, cohort: str) -> Dataset:
        """Return the dataset's record as the settings of now have it."""
        hospital, schema = self._parts.hospital, self._parts.dictionary.digest
        return record_of(hospital, schema, origin=sight.state.origin, version=version, cohort=cohort)

    def _is_usable(self, version: int) -> bool:
        """Whether the rows fit what is to be offered. Raises WorkerError: not known, try again."""
        try:
            self._parts.worker.survey(self._parts.dictionary.to_bytes())
        except WorkerError as error:
            if error.code in ("crashed", "timeout"):
                raise
            self._warn(f"version {version} of the dataset's record is not registered: {error}")
            self._refused.add(version)
            return False
        return True

    def _is_offered(self, sight: Sight) -> bool:
        """Whether a person wants exactly these settings on the record, as its next version, and it can be now."""
        offer, found = self._parts.decisions.offer, sight.state.datasets[self._parts.hospital.ref]
        version = found.record.version + 1
        if offer is None or offer.version != version or version in self._refused or found.job:
            return False
        wanted = NewOffer.of(self._record(sight, version, found.record.cohort))
        if wanted != offer:
            self._warn("hospital.toml is no longer what was offered: run `wardround hospital offer` again")
        return wanted == offer

    def _account_is_ready(self, sight: Sight) -> bool:
        """Enter the dataset's budget, as the log has it, in the account; tell if settings and log agree."""
        record = sight.state.datasets[self._parts.hospital.ref].record
        self._parts.account.register(record.ref, float(record.epsilon), float(record.delta))
        wanted = self._record(sight, record.version, record.cohort)
        if wanted != record:
            self._warn(
                f"hospital.toml and the record of {record.ref} on the log differ: no job is approved; "
                "`wardround hospital offer` registers what the file says now"
            )
        return wanted == record

    def _warn(self, line: str) -> None:
        if line != self._warned:
            self._warned = line
            _log.warning("%s", line)

    def _clean_up(self, sight: Sight) -> None:
        """Remove the rows of jobs that have ended; receipts, charges and the approval stay."""
        for digest, found in sight.state.jobs.items():
            over = found.status not in ("proposed", "running")
            if over and digest not in self._cleaned and self._answering.kept(digest) is not None:
                self._parts.worker.forget(digest)
                self._parts.account.discard_replies(digest, found.next_round)
                self._cleaned.add(digest)
