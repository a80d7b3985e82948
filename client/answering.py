"""Answers proposed jobs: by rule where the policy says so, by a person's decision otherwise, and withdraws.

Everything follows from the log, the policy and the files in `decisions/`, so it may be done again after any crash:
what is on the log already is not said twice. An approval is written to the hospital's disk before it is posted, with
the one snapshot that it commits to. A job that waits for a person is neither approved nor refused until the person
decides or it expires. What this hospital once refused or withdrew from, only a person can still approve.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client import approval
from client.approval import REFUSALS, WAITS
from client.decisions import Decision
from client.errors import DeclinedError, PostRefusedError, WorkerError
from client.follower import Sight
from client.history import Answer, History
from client.premises import Premises
from client.private_file import read_private, write_private
from ledger import envelope
from ledger.records import MAX_RECORD_SIZE, Approval, Refusal, Withdrawal

APPROVAL = "approval"
_REFUSALS = {"builder": "sandbox", "model": "plan", "model-graph": "model-graph"}  # by the worker's code
MAX_CRASHES = 2  # of workers, before a job that they die of is declined
_log = logging.getLogger(__name__)


class Answering:
    """One hospital's answers to jobs, given by one thread; `kept` may be called from any."""

    def __init__(self, premises: Premises, tell: Callable[[dict[str, Any]], None]) -> None:
        self._parts = premises
        self._tell = tell
        self._history = History()
        self._answered: dict[str, str] = {}  # job -> the verdict that was acted on, "" for the policy's
        self._waiting: dict[str, str] = {}  # job -> why, as told
        self._withdrawn: set[str] = set()  # approvals taken back
        self._crashes = Counter[str]()  # of workers that prepared a job

    def forget_answers(self) -> None:
        """Judge every open job again: the policy has changed."""
        self._answered.clear()
        self._waiting.clear()

    def kept(self, job: str) -> bytes | None:
        """Return the signed approval that this hospital gave to a job, or None."""
        return read_private(self._path(job), MAX_RECORD_SIZE)

    def withdraw(self, sight: Sight) -> None:
        """Withdraw wherever a person of this hospital said no and the log does not know yet."""
        name = self._parts.hospital.name
        for digest, given in sight.state.approvals.items():
            decision = self._parts.decisions.of(given.job) if given.hospital == name else None
            if decision is not None and decision.forbids:
                self._withdraw(sight, digest, given)

    def withdraw_from_all(self, sight: Sight) -> None:
        """Withdraw from every job, also in the eyes of a later start of the agent."""
        for digest, given in sight.state.approvals.items():
            if given.hospital == self._parts.hospital.name:
                self._parts.decisions.decide(given.job, "withdraw", sight.size)
                self._withdraw(sight, digest, given)

    def answer(self, sight: Sight) -> bool:
        """Answer what can be answered now; tell whether something must be tried again soon.

        Raises:
            UnreachableError, WorkerError: the coordinator does not answer, or the worker died; call again.
            LedgerError, ClientError: the hospital's own disk, account or files fail.
        """
        self._history.read(self._parts.follower.entries(self._history.size))
        hospital, again = self._parts.hospital, False
        for digest, found in sight.state.jobs.items():
            asked = found.status == "proposed" and hospital.ref in found.record.datasets
            if not asked or hospital.name in found.approved:
                continue
            verdict = self._verdict(digest)
            if verdict is not None and self._answered.get(digest) != verdict:
                again = self._answer(sight, digest, verdict) or again
        return again

    def _verdict(self, job: str) -> str | None:
        """Return what is to be done about an open job: a person's verdict, "" for the policy's, None for nothing."""
        decision = self._parts.decisions.of(job)
        before = self._history.answer(job, self._parts.hospital.name)
        if decision is not None and decision.verdict == "refuse":
            return None if before is not None and before.kind == "refusal" else "refuse"
        if decision is not None and decision.verdict == "approve" and not is_spent(decision, before):
            return "approve"
        return "" if decision is None and before is None else None

    def _answer(self, sight: Sight, job: str, verdict: str) -> bool:
        """Answer one job; tell whether to try again soon."""
        if verdict == "refuse":
            self._refuse(sight, job, "person", REFUSALS["person"])
            self._answered[job] = verdict
            return False
        try:
            if verdict != "approve" and (why := self._must_wait(sight, job)):
                self._wait(job, why)
                return False
            entry = self._approve(sight, job)
        except DeclinedError as error:
            self._refuse(sight, job, error.code, str(error))
            self._answered[job] = verdict
            return False
        return self._post_approval(job, verdict, entry)

    def _must_wait(self, sight: Sight, job: str) -> str:
        """Return why a job waits for a person, or "". Raises DeclinedError: no person is asked about it."""
        record, parts = sight.state.jobs[job].record, self._parts
        why = approval.waits_for(record, parts.hospital.policy)
        if why and job not in self._waiting:  # once: searching for the noise takes a while
            reading = (record.training.model_code,)  # as if a person had read it
            offer = approval.offer_of(sight.state, parts.hospital, parts.account, reading=reading)
            approval.decide(record, offer)
        return why

    def _wait(self, job: str, why: str) -> None:
        if self._waiting.get(job) != why:
            self._waiting[job] = why
            _log.warning("job %s waits for a person: %s; see `wardround hospital show`", job[:12], WAITS[why])
            self._tell({"event": "waiting", "job": job, "code": why})

    def _refuse(self, sight: Sight, job: str, code: str, reason: str) -> None:
        _log.warning("job %s is refused: %s", job[:12], reason)
        self._parts.post(
            Refusal(origin=sight.state.origin, hospital=self._parts.hospital.name, job=job, code=code)
        )
        self._tell({"event": "refused", "job": job, "code": code})

    def _post_approval(self, job: str, verdict: str, entry: bytes) -> bool:
        try:
            self._parts.consortium.post_record(entry)
        except PostRefusedError as error:
            _log.warning("the approval of job %s was not taken: %s", job[:12], error)
            if error.rule == "approval.number":  # another one came between
                self._parts.follower.pull()
                return True
        else:
            self._tell({"event": "approved", "job": job})
        self._answered[job] = verdict
        return False

    def _approve(self, sight: Sight, job: str) -> bytes:
        """Return the signed approval of a job, which is on the disk with the snapshot that it commits to."""
        parts, found = self._parts, sight.state.jobs[job]
        number = sight.state.approval_numbers.get(parts.hospital.name, 0) + 1
        # Decided anew each time: policy and account may allow less than when an earlier approval was written.
        offer = approval.offer_of(sight.state, parts.hospital, parts.account)
        terms = approval.decide(found.record, offer)
        if (kept := self.kept(job)) is not None:
            made = envelope.parse_entry(kept).record
            assert isinstance(made, Approval)
            same = (made.epsilon, made.training, made.evaluation)
            if made.number == number and same == (terms.epsilon, terms.training, terms.evaluation):
                return kept
        return self._prepare(sight, job, terms, number)

    def _prepare(self, sight: Sight, job: str, terms: approval.Terms, number: int) -> bytes:
        parts = self._parts
        try:
            cohort = parts.worker.prepare(terms.spec, parts.dictionary.to_bytes())
        except WorkerError as error:
            self._crashes[job] += error.code in ("builder", "crashed", "memory", "timeout")
            if 0 < self._crashes[job] <= MAX_CRASHES:
                raise  # not the job's fault, perhaps: the next worker tries again
            raise DeclinedError(_REFUSALS.get(error.code, "data"), str(error)) from None
        made = approval.record(
            terms,
            origin=sight.state.origin,
            hospital=parts.hospital.name,
            number=number,
            ref=parts.hospital.ref,
            cohort=cohort,
        )
        entry = envelope.sign(made, parts.identity)
        write_private(self._path(job), entry)
        return entry

    def _withdraw(self, sight: Sight, digest: str, given: Approval) -> None:
        if digest in self._withdrawn:  # the log's next checkpoint will show it
            return
        if self._parts.post(Withdrawal(origin=sight.state.origin, hospital=given.hospital, approval=digest)):
            self._withdrawn.add(digest)
            self._answered.pop(given.job, None)
            self._tell({"event": "withdrawn", "job": given.job})

    def _path(self, job: str) -> Path:
        return self._parts.hospital.folder / "jobs" / job / APPROVAL


def is_spent(decision: Decision, newest: Answer | None) -> bool:
    """Whether a refusal or withdrawal came after a person's approval: another approval is another decision."""
    return newest is not None and newest.kind != "approval" and newest.index >= decision.size
