"""The agent's paperwork: registers the dataset, answers proposed jobs, cleans up after ended ones.

Everything follows from the state of the log, so it may be done again after any crash. An approval is written to the
hospital's disk before it is posted: the one snapshot that it commits to is taken once. Records that could not be
posted are kept (`client.custody`) and handed in again until the coordinator takes or refuses them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from client import approval, software
from client.approval import Offer
from client.errors import DeclinedError, PostRefusedError, WorkerError
from client.follower import Sight
from client.premises import Premises
from client.private_file import read_private, write_private
from client.reviewed import reviewed
from ledger import envelope
from ledger.record import Record
from ledger.records import MAX_RECORD_SIZE, Approval, Dataset, Refusal, Withdrawal

APPROVAL = "approval"
MAX_CRASHES = 2  # of workers, before a job that they die of is declined
_log = logging.getLogger(__name__)


class Enrolment:
    """One hospital's paperwork, done by one thread; `approval_of` may be called from any."""

    def __init__(self, premises: Premises, tell: Callable[[dict[str, Any]], None]) -> None:
        self._hospital = premises.hospital
        self._dictionary = premises.dictionary
        self._identity = premises.identity
        self._follower = premises.follower
        self._consortium = premises.consortium
        self._account = premises.account
        self._worker = premises.worker
        self._standing = premises.standing
        self._tell = tell
        self._answered: set[str] = set()  # jobs declined, or approved and posted
        self._cleaned: set[str] = set()
        self._crashes = Counter[str]()  # of workers that prepared a job
        self._refused = False  # the dataset's record, by a rule: a person has to look
        self._warned = False

    def approval_of(self, job: str) -> str:
        """Return the digest of the approval that this hospital gave to a job, or ""."""
        data = self._kept(job)
        return envelope.parse_entry(data).digest if data else ""

    def turn(self) -> bool:
        """Do all that can be done now; tell whether something is left that must be tried again soon.

        Raises:
            UnreachableError, WorkerError: the coordinator does not answer, or the worker died; call again.
            LedgerError, ClientError: the hospital's own disk, account or files fail.
        """
        sight = self._follower.sight()
        if sight is None or sight.state.member(self._hospital.name) is None:
            return False
        if self._standing.restored:
            self._withdraw(sight)
        if self._standing.person:
            return False
        if self._hospital.ref not in sight.state.datasets:
            return not self._refused and self._register(sight)
        if not self._account_is_ready(sight):
            return False
        self._clean_up(sight)
        return self._answer_jobs(sight)

    def _register(self, sight: Sight) -> bool:
        """Put the dataset on the record: a commitment, a size class, a budget; nothing exact. Tell if it is there."""
        data = self._hospital.dataset
        cohort = self._worker.commit(self._dictionary.to_bytes(), version=1)
        record = Dataset(
            origin=sight.state.origin,
            hospital=self._hospital.name,
            name=data.name,
            version=1,
            schema=self._dictionary.digest,
            cohort=cohort,
            size_class=data.size_class,
            purposes=data.purposes,
            epsilon=data.epsilon,
            delta=data.delta,
        )
        self._refused = not self._post(record)
        if not self._refused:
            self._follower.pull()
            self._tell({"event": "registered", "dataset": record.ref})
        return not self._refused

    def _account_is_ready(self, sight: Sight) -> bool:
        """Enter the dataset's budget, as the log has it, in the account; tell if settings and log agree."""
        record, data = sight.state.datasets[self._hospital.ref].record, self._hospital.dataset
        self._account.register(record.ref, float(record.epsilon), float(record.delta))
        same = (record.schema, record.size_class, record.epsilon, record.delta, record.purposes) == (
            self._dictionary.digest, data.size_class, data.epsilon, data.delta, data.purposes,
        )  # fmt: skip
        if not same and not self._warned:
            self._warned = True
            _log.warning(
                "hospital.toml and the record of %s on the log differ: no job is approved", record.ref
            )
        return same

    def _answer_jobs(self, sight: Sight) -> bool:
        waiting = False
        for digest, found in sight.state.jobs.items():
            asked = found.status == "proposed" and self._hospital.ref in found.record.datasets
            if not asked or digest in self._answered or self._hospital.name in found.approved:
                continue
            try:
                entry = self._approve(sight, digest)
            except DeclinedError as error:
                _log.warning("job %s is refused: %s", digest[:12], error)
                refusal = Refusal(
                    origin=sight.state.origin, hospital=self._hospital.name, job=digest, code=error.code
                )
                self._post(refusal)
                self._tell({"event": "refused", "job": digest, "code": error.code})
            else:
                try:
                    self._consortium.post_record(entry)
                except PostRefusedError as error:
                    _log.warning("the approval of job %s was not taken: %s", digest[:12], error)
                    waiting = waiting or error.rule == "approval.number"  # another one came between
                    if waiting:
                        self._follower.pull()
                        continue
                else:
                    self._tell({"event": "approved", "job": digest})
            self._answered.add(digest)
        return waiting

    def _approve(self, sight: Sight, digest: str) -> bytes:
        """Return the signed approval of a job, which is on the disk with the snapshot that it commits to."""
        found, name = sight.state.jobs[digest], self._hospital.name
        number = sight.state.approval_numbers.get(name, 0) + 1
        if (kept := self._kept(digest)) is not None:
            made = envelope.parse_entry(kept).record
            assert isinstance(made, Approval)
            if made.number == number:
                return kept
            return self._keep(replace(made, number=number))
        dataset = sight.state.datasets[self._hospital.ref].record
        training, heldout = approval.promised(sight.state, name, dataset.ref)
        offer = Offer(
            dataset=dataset,
            policy=self._hospital.policy,
            software=software.installed(),
            lifetime=self._account.lifetime(dataset.ref),
            training=(*self._account.events(dataset.ref, "training"), *training),
            heldout=(*self._account.events(dataset.ref, "heldout"), *heldout),
            reviewed=reviewed(self._hospital.models).keys(),
        )
        terms = approval.decide(found.record, offer)
        try:
            cohort = self._worker.prepare(terms.spec, self._dictionary.to_bytes())
        except WorkerError as error:
            self._crashes[digest] += error.code in ("crashed", "timeout")
            if 0 < self._crashes[digest] <= MAX_CRASHES:
                raise  # not the job's fault, perhaps: the next worker tries again
            raise DeclinedError("plan" if error.code == "model" else "data", str(error)) from None
        made = approval.record(
            terms, origin=sight.state.origin, hospital=name, number=number, ref=dataset.ref, cohort=cohort
        )
        return self._keep(made)

    def _withdraw(self, sight: Sight) -> None:
        for digest, given in sight.state.approvals.items():
            if given.hospital == self._hospital.name:
                self._post(
                    Withdrawal(origin=sight.state.origin, hospital=self._hospital.name, approval=digest)
                )

    def _clean_up(self, sight: Sight) -> None:
        """Remove the rows of jobs that have ended; receipts, charges and the approval stay."""
        for digest, found in sight.state.jobs.items():
            over = found.status not in ("proposed", "running")
            if over and digest not in self._cleaned and self._kept(digest) is not None:
                self._worker.forget(digest)
                self._account.discard_replies(digest, found.next_round)
                self._cleaned.add(digest)

    def _post(self, record: Record) -> bool:
        """Post a record; tell whether it was taken. Raises UnreachableError."""
        try:
            self._consortium.post_record(envelope.sign(record, self._identity))
        except PostRefusedError as error:
            _log.warning("a %s record was not taken: %s", record.TYPE, error)
            return False
        return True

    def _path(self, job: str) -> Path:
        return self._hospital.folder / "jobs" / job / APPROVAL

    def _kept(self, job: str) -> bytes | None:
        return read_private(self._path(job), MAX_RECORD_SIZE)

    def _keep(self, made: Approval) -> bytes:
        entry = envelope.sign(made, self._identity)
        write_private(self._path(made.job), entry)
        return entry
