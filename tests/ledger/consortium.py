"""A consortium for the tests: valid records for any point of its life, and a view of its log.

Built on the example's keys and records. Every maker takes the view's state as it is now and returns a record that
may follow; a test changes one field of it (`dataclasses.replace`) or signs it with other keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ledger import example, records
from ledger.values import LeftOut, Mechanism, Metric, Participant, Spent
from tests.ledger.living_log import DAY, LivingLog, digest

__all__ = ["DAY", "Consortium", "digest"]


class Consortium(LivingLog):
    """A log under way, with a maker for every record that may come next."""

    def dataset(self, hospital: str, **changes: Any) -> records.Dataset:
        """A hospital's next version of its dataset."""
        old = self.state.datasets.get(f"{hospital}/{changes.get('name', 'heart')}")
        version = 1 if old is None else old.record.version + 1
        made = replace(example.dataset("bravo"), hospital=hospital, origin=self.state.origin, version=version)
        return replace(made, **changes)

    def agreement(self, *hospitals: str, **changes: Any) -> records.Agreement:
        """An agreement of hospitals and the researcher on their datasets."""
        made = replace(
            example.agreement(),
            origin=self.state.origin,
            parties=tuple(sorted((*hospitals, "researcher"))),
            datasets=tuple(f"{h}/heart" for h in sorted(hospitals)),
            expires_at=self.state.time + 365 * DAY,
        )
        return replace(made, **changes)

    def job(self, *hospitals: str, **changes: Any) -> records.Job:
        """A job on these hospitals' datasets, under every agreement in force that the researcher signed."""
        agreements = sorted(
            d
            for d, a in self.state.agreements.items()
            if "researcher" in a.parties and a.expires_at > self.state.time
        )
        made = replace(
            example.job(),
            origin=self.state.origin,
            name=f"job-{len(self.state.jobs)}",
            datasets=tuple(f"{h}/heart" for h in sorted(hospitals)),
            agreements=tuple(agreements),
            min_participants=min(2, len(hospitals)),
            expires_at=self.state.time + 30 * DAY,
        )
        return replace(made, **changes)

    def approval(self, hospital: str, job: str, **changes: Any) -> records.Approval:
        """A hospital's approval, with the job's mechanisms."""
        terms = self.job_state(job).record
        made = replace(
            example.approval(hospital),
            origin=self.state.origin,
            job=job,
            number=self.state.approval_numbers.get(hospital, 0) + 1,
            evaluation=(example.EVALUATION,) * len(terms.evaluate),
        )
        return replace(made, **changes)

    def refusal(self, hospital: str, job: str) -> records.Refusal:
        """A hospital's no."""
        return records.Refusal(origin=self.state.origin, hospital=hospital, job=job, code="policy")

    def withdrawal(self, hospital: str, job: str) -> records.Withdrawal:
        """A hospital takes its approval of a job back."""
        approval = self.job_state(job).approved[hospital]
        return records.Withdrawal(origin=self.state.origin, hospital=hospital, approval=approval)

    def start(self, job: str, **changes: Any) -> records.Start:
        """The start of a job with everybody who approved it."""
        found = self.job_state(job)
        by_size = found.record.aggregation.weighting == "size-class"
        sizes = {r.split("/")[0]: self.state.datasets[r].record.size_class for r in found.record.datasets}
        participants = tuple(
            Participant(hospital=name, approval=found.approved[name], weight=sizes[name] if by_size else 1)
            for name in sorted(found.approved)
        )
        made = records.Start(
            origin=self.state.origin, job=job, time=self.state.time + 10, participants=participants,
            model=found.record.model, software=found.record.software,
        )  # fmt: skip
        return replace(made, **changes)

    def plan(self, hospital: str, job: str) -> tuple[Mechanism, ...]:
        """What a participant is to run in the next round."""
        found = self.job_state(job)
        terms, approval, number = found.record, found.parties[hospital].approval, found.next_round
        training = (approval.training,) if number <= terms.rounds else ()
        due = [m for r, m in zip(terms.evaluate, approval.evaluation, strict=True) if r == number]
        return (*training, *due)

    def receipt(self, hospital: str, job: str, **changes: Any) -> records.Receipt:
        """A participant's receipt of the next round, under the newest checkpoint before the batch."""
        found, plan = self.job_state(job), self.plan(hospital, job)
        party = found.parties[hospital]
        data = self.state.datasets[party.approval.dataset]
        names = {m.name for m in plan}
        size = self.state.batch.start if self.state.batch.job else self.view.size
        made = records.Receipt(
            origin=self.state.origin, hospital=hospital, job=job, round=found.next_round, model_before=found.model,
            update=digest(f"{hospital} {job} {found.next_round}") if "dp-sgd" in names else "",
            metrics=digest(f"histogram {hospital} {job} {found.next_round}") if "histogram" in names else "",
            mechanisms=plan, charge=data.charge + 1, epsilon_job=party.epsilon_job,
            epsilon_dataset=data.epsilon, checkpoint_size=size,
            checkpoint_root=self.view.roots.get(str(size), "0" * 64),
        )  # fmt: skip
        return replace(made, **changes)

    def skip(self, hospital: str, job: str, code: str = "busy") -> records.Skip:
        """A participant sits the next round out."""
        number = self.job_state(job).next_round
        return records.Skip(origin=self.state.origin, hospital=hospital, job=job, round=number, code=code)

    def left_out(self, job: str, codes: Mapping[str, str]) -> tuple[LeftOut, ...]:
        """Codes as given, and "late" for whoever else is absent."""
        absent = set(self.job_state(job).parties) - set(self.state.batch.receipts)
        named = dict.fromkeys(absent, "late") | dict(codes)
        return tuple(LeftOut(hospital=name, code=code) for name, code in sorted(named.items()))

    def round_(self, job: str, codes: Mapping[str, str] | None = None, **changes: Any) -> records.Round:
        """The record that closes the open batch, or a round without any receipt."""
        found, left_out = self.job_state(job), self.left_out(job, codes or {})
        out, trains = {x.hospital for x in left_out}, found.next_round <= found.record.rounds
        after = digest(f"model {job} {found.next_round}") if trains else found.model
        used = [
            (name, r.update, r.metrics, found.parties[name].weight)
            for name, r in self.state.batch.receipts.items()
            if name not in out
        ]
        made = records.Round(
            origin=self.state.origin, job=job, round=found.next_round, time=self.state.time + 10,
            model_before=found.model, model_after=after, receipts=len(self.state.batch.receipts),
            left_out=left_out, inputs=records.inputs_digest(found.model, found.server_state, used),
            server_state_after=found.server_state,
        )  # fmt: skip
        return replace(made, **changes)

    def abort(self, job: str, codes: Mapping[str, str] | None = None, **changes: Any) -> records.Abort:
        """The record that closes the open batch without a model."""
        found = self.job_state(job)
        made = records.Abort(
            origin=self.state.origin, job=job, round=found.next_round, time=self.state.time + 10,
            model_before=found.model, receipts=len(self.state.batch.receipts),
            left_out=self.left_out(job, codes or {}), code="deadline",
        )  # fmt: skip
        return replace(made, **changes)

    def release(self, job: str, **changes: Any) -> records.Release:
        """The release of a job whose exchanges are over."""
        found = self.job_state(job)
        spent = tuple(
            Spent(hospital=name, epsilon_job=p.epsilon_job, epsilon_dataset=p.epsilon_dataset)
            for name, p in sorted(found.parties.items())
            if p.receipts
        )
        made = records.Release(
            origin=self.state.origin, job=job, model=found.model, artifact=digest("artifact"), card=digest("card"),
            metrics=(Metric(name="auroc", value="0.9", low="0.8", high="0.95"),), epsilons=spent,
        )  # fmt: skip
        return replace(made, **changes)

    def ended(self, job: str, reason: str = "finished") -> records.Ended:
        """The end of a job."""
        return records.Ended(origin=self.state.origin, job=job, reason=reason)

    def tick(self, after: int = 3_600) -> records.Tick:
        """An hour goes by."""
        return records.Tick(origin=self.state.origin, time=self.state.time + after)

    def access(self, job: str, **changes: Any) -> records.Access:
        """Evidence of a job goes to the researcher."""
        made = records.Access(
            origin=self.state.origin, number=self.state.deliveries + 1, job=job, member="researcher",
            item="evidence", content=digest("evidence"), right="release",
        )  # fmt: skip
        return replace(made, **changes)

    def incident(self, member: str, words: str = "evidence") -> records.Incident:
        """A member reports."""
        return records.Incident(origin=self.state.origin, member=member, code="fork", evidence=digest(words))

    # --- stretches of a life ---

    def offer(self, *hospitals: str) -> None:
        """Datasets of these hospitals and an agreement on them."""
        for hospital in hospitals:
            self.append(self.dataset(hospital))
        self.append(self.agreement(*hospitals))

    def propose(self, *hospitals: str, **changes: Any) -> str:
        """Propose a job and let the hospitals approve it; return its digest."""
        job = self.append(self.job(*hospitals, **changes)).digest
        for hospital in hospitals:
            self.append(self.approval(hospital, job))
        return job

    def run(self, *hospitals: str, **changes: Any) -> str:
        """Propose, approve and start a job."""
        job = self.propose(*hospitals, **changes)
        self.append(self.start(job))
        return job

    def receive(self, job: str, hospitals: Iterable[str] | None = None, **changes: Any) -> None:
        """Receipts of these participants, or of all."""
        for hospital in sorted(hospitals if hospitals is not None else self.job_state(job).parties):
            self.append(self.receipt(hospital, job, **changes))

    def play(self, job: str, hospitals: Iterable[str] | None = None, **codes: str) -> None:
        """One round with the receipts of these participants, or of all; the others are late or as coded."""
        self.receive(job, hospitals)
        self.append(self.round_(job, codes))

    def finish(self, job: str) -> None:
        """Play every exchange that is left."""
        while self.job_state(job).next_round <= self.job_state(job).record.last_exchange:
            self.play(job)
