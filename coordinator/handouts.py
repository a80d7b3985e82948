"""Which blobs a member may read, under which right, and the record of it (PROTOCOL.md, "The average").

Every member reads the dictionaries, code, first parameters and model cards of all jobs: they are what it is asked to
agree to. A released model is everybody's in the consortium, too; updates and histograms are for auditors and for the
hospitals of the job, who recompute a round. Whoever is handed a released model, an update or a histogram is on the
record, before the first byte leaves: once for each model, and once for each round for all of its updates, however
often it is fetched, so that no reader can flood the log. While nothing can be written, these are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.errors import ServiceError
from coordinator.histories import Closed, History
from coordinator.sequencer import Sequencer
from coordinator.standing import Standing
from ledger import envelope
from ledger.errors import RuleError
from ledger.records import Access, Round
from ledger.signature import SigningKey
from ledger.values import Member

ATTEMPTS = 20  # at the turn at the log, which rounds may take meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Handout:
    """What a member is about to get; `item` is "" for what needs no record."""

    job: str
    member: str
    item: str
    content: str
    right: str

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two handouts one."""
        return (self.job, self.member, self.item, self.content, self.right)


class Handouts:
    """Judges and records handouts. Any thread may ask."""

    def __init__(self, sequencer: Sequencer, key: SigningKey) -> None:
        """Sign with the coordinator's key."""
        self._sequencer = sequencer
        self._key = key

    def find(self, standing: Standing, member: Member, digest: str) -> Handout | None:
        """Return what handing this blob to this member would be, or None where it has no right to it."""
        for history in standing.jobs.values():
            if digest in open_to_members(history):
                return Handout(job=history.digest, member=member.name, item="", content=digest, right="")
        for history in standing.jobs.values():
            if (found := _recorded(standing, history, member, digest)) is not None:
                return found
        return None

    def note(self, handout: Handout) -> None:
        """Put a handout on the record, unless it is there.

        Raises:
            LedgerError: it cannot be written now: hand nothing out.
            ServiceError: the log is too busy.
        """
        if not handout.item:
            return
        for _ in range(ATTEMPTS):
            standing = self._sequencer.standing
            if handout.key in standing.histories.handouts:
                return
            record = Access(
                origin=standing.state.origin,
                number=standing.state.deliveries + 1,
                job=handout.job,
                member=handout.member,
                item=handout.item,
                content=handout.content,
                right=handout.right,
            )
            entry = envelope.sign(record, self._key)
            try:
                if self._sequencer.append([entry], after=standing.view.size):
                    return
            except RuleError:
                if self._sequencer.standing is standing:  # nobody came in between: it is against the rules
                    raise
        raise ServiceError("the log is busy: try again in a moment")


def open_to_members(history: History) -> frozenset[str]:
    """Return the digests of a job's blobs that any member reads without a record."""
    job = history.job
    digests = {job.dictionary, job.model}
    if job.training.model == "custom":
        digests.add(job.training.model_code)
    if history.release is not None:
        digests.add(history.release.card)
    return frozenset(digests)


def _recorded(standing: Standing, history: History, member: Member, digest: str) -> Handout | None:
    takes_part = member.role == "hospital" and member.name in history.parties
    if history.release is not None and digest == history.release.artifact:
        right = "audit" if member.role == "auditor" else "participation" if takes_part else "release"
        content = standing.state.jobs[history.digest].model
        return Handout(job=history.digest, member=member.name, item="model", content=content, right=right)
    if not takes_part and member.role != "auditor":
        return None
    audits = member.role == "auditor"
    for closed in history.closed:
        for receipt in closed.receipts:
            if digest and digest == receipt.update:
                item, right = "update", "recomputation"
            elif digest and digest == receipt.metrics:
                item, right = "metrics", "audit" if audits else "participation"
            else:
                continue
            content = _round(closed, digest)
            return Handout(job=history.digest, member=member.name, item=item, content=content, right=right)
    return None


def _round(closed: Closed, digest: str) -> str:
    """Return what stands for all updates of a round: the digest of its inputs; of an aborted one, each by itself."""
    return closed.record.inputs if isinstance(closed.record, Round) else digest
