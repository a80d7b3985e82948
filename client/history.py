"""What hospitals answered to jobs so far, as the log has it: who approved, refused and withdrew, and when. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ledger.envelope import Entry
from ledger.records import Approval, Refusal, Withdrawal


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One hospital's newest answer to a job."""

    hospital: str
    kind: str  # approval, refusal or withdrawal
    code: str  # of a refusal
    index: int  # of the entry


@dataclass(slots=True)
class History:
    """Answers up to a size of the log; `read` takes it further.

    Attributes:
        size: How many entries were read.
        approvals: Every approval ever, by digest, in the log's order.
    """

    size: int = 0
    approvals: dict[str, Approval] = field(default_factory=dict)
    _answers: dict[str, dict[str, Answer]] = field(default_factory=dict)

    def read(self, entries: Iterable[Entry]) -> None:
        """Read the entries that follow."""
        for entry in entries:
            record = entry.record
            if isinstance(record, Approval):
                self.approvals[entry.digest] = record
                self._note(record.job, record.hospital, "approval", "")
            elif isinstance(record, Refusal):
                self._note(record.job, record.hospital, "refusal", record.code)
            elif isinstance(record, Withdrawal) and record.approval in self.approvals:
                self._note(self.approvals[record.approval].job, record.hospital, "withdrawal", "")
            self.size += 1

    def answer(self, job: str, hospital: str) -> Answer | None:
        """Return a hospital's newest answer to a job."""
        return self._answers.get(job, {}).get(hospital)

    def answers(self, job: str) -> tuple[Answer, ...]:
        """Return every hospital's newest answer to a job, by name."""
        return tuple(answer for _, answer in sorted(self._answers.get(job, {}).items()))

    def _note(self, job: str, hospital: str, kind: str, code: str) -> None:
        answer = Answer(hospital=hospital, kind=kind, code=code, index=self.size)
        self._answers.setdefault(job, {})[hospital] = answer
