"""What a person needs to know about a job before deciding, as values: standing, agreements, columns and privacy cost.

The numbers come from the functions that the agent decides with (`approval`, `accounting`), over the same log, account
and settings, so they are the very ones that its approval will be signed with. Text is `client.show`'s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from client import accounting, approval, renyi
from client.accounting import Event, Lifetime
from client.answering import is_spent
from client.approval import REFUSALS, WAITS
from client.budget import Account
from client.config import Hospital
from client.decisions import Decision
from client.local_log import LocalLog
from ledger.records import Approval, Job
from ledger.state import JobState
from ledger.values import Mechanism

OVER = ("cancelled", "expired", "below-minimum", "released", "finished")
_NOBODY = "0" * 64  # cohort of an approval that is only tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """How this hospital stands to a job: one word, and why."""

    word: str  # waits, answering, approved, refused, withdrawn, or over
    why: str

    @property
    def waits(self) -> bool:
        """Whether a person has to decide."""
        return self.word == "waits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a job costs this hospital's patients; every epsilon is for add/remove one patient, rounded up to 0.01.

    Attributes:
        limit: The hospital's own limit for the job, as its approval states it.
        training: One round's mechanism.
        evaluation: One for each evaluation.
        epsilon_training: Of the whole job for training patients, at the job's `delta`.
        epsilon_heldout: The same for held-out patients, whom training never sees.
        spent: Of the dataset so far, at its lifetime delta.
        after: Of the dataset when this and every other approved job have run to their end.
        used: Part of the lifetime budget used now and then, as its filter counts: 1 is all.
    """

    limit: str
    training: Mechanism
    evaluation: tuple[Mechanism, ...]
    epsilon_training: str
    epsilon_heldout: str
    delta: str
    spent: str
    after: str
    lifetime: Lifetime
    used: tuple[float, float]

    @property
    def factor(self) -> float:
        """e^epsilon, of the dearer side: by how much one patient can change the chances of anything learnt."""
        return math.exp(max(float(self.epsilon_training), float(self.epsilon_heldout)))

    @property
    def left(self) -> str:
        """What the lifetime epsilon would exceed `after` by."""
        rest = Decimal(accounting.spell(Decimal(str(self.lifetime.epsilon)))) - Decimal(self.after)
        return accounting.spell(max(rest, Decimal(0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Covering:
    """An agreement that a job relies on."""

    digest: str
    expires_at: int
    covers: bool  # this hospital's dataset, for this purpose


def own_of(log: LocalLog, hospital: Hospital, decision: Decision | None, job: str) -> Own:
    """Return how this hospital stands to a job, by the log, its policy and a person's decision."""
    found, answer = log.state.jobs[job], log.history.answer(job, hospital.name)
    party, verdict = found.parties.get(hospital.name), decision.verdict if decision else ""
    in_force = hospital.name in found.approved
    if decision is not None and decision.forbids and in_force:
        return Own(word="withdrawn", why="by a person; it binds the agent already, the record follows")
    again = decision is not None and verdict == "approve" and not is_spent(decision, answer)
    withdrawn = answer is not None and answer.kind == "withdrawal" and not in_force
    if (party and party.withdrawn) or (withdrawn and not again and found.status == "proposed"):
        return Own(word="withdrawn", why="on the record; only a person can approve again")
    if found.status in OVER:
        took = found.participants and hospital.name in found.participants
        return Own(
            word="over", why=f"{found.status}; this hospital {'took part' if took else 'took no part'}"
        )
    if in_force:
        return Own(word="approved", why="by a person" if verdict == "approve" else "by the policy's rule")
    if found.status == "running":
        return Own(word="over", why="it runs without this hospital")
    if again:
        return Own(word="answering", why="approved by a person; the agent has not put it on the record yet")
    if answer and answer.kind == "refusal":
        return Own(word="refused", why=f"{answer.code}: {REFUSALS.get(answer.code, 'no reason known here')}")
    if verdict == "refuse":
        return Own(word="answering", why="refused by a person; the agent has not put it on the record yet")
    why = approval.waits_for(found.record, hospital.policy)
    if why and hospital.policy.approve != "never":
        return Own(word="waits", why=WAITS[why])
    return Own(word="answering", why="the policy's rule decides; the agent has not answered yet")


def cost_of(log: LocalLog, hospital: Hospital, account: Account, job: str) -> Cost:
    """Return what a job costs: under the approval in force, or under the one that would be given now.

    Raises:
        DeclinedError: this hospital cannot take part; the code says why.
        ClientError: the account or `models/` cannot be read.
    """
    found = log.state.jobs[job]
    offer = approval.offer_of(
        log.state, hospital, account, reading=(found.record.training.model_code,)
    )  # as if a person had read it
    given = log.state.approvals.get(found.approved.get(hospital.name, ""))
    after = [list(offer.training), list(offer.heldout)]
    if given is None:
        given = approval.record(
            approval.decide(found.record, offer),
            origin=log.state.origin,
            hospital=hospital.name,
            number=1,
            ref=hospital.ref,
            cohort=_NOBODY,
        )
        for side, events in zip(after, approval.remaining(found.record, given, 1), strict=True):
            side += events
    return _cost(found.record, given, account, hospital.ref, after)


def _cost(job: Job, given: Approval, account: Account, ref: str, after: Sequence[Sequence[Event]]) -> Cost:
    delta, lifetime = float(job.delta), account.lifetime(ref)
    training, heldout = approval.remaining(job, given, 1)
    now = [account.events(ref, side) for side in ("training", "heldout")]
    orders = (*renyi.ORDERS, lifetime.order)
    total = max(accounting.filter_epsilon(side, lifetime.delta, orders) for side in after)
    spent = account.spent(ref)
    used = [max(accounting.filter_spent(s, lifetime.order) for s in sides) for sides in (now, after)]
    return Cost(
        limit=given.epsilon,
        training=given.training,
        evaluation=given.evaluation,
        epsilon_training=accounting.round_up(accounting.job_epsilon(training, delta)),
        epsilon_heldout=accounting.round_up(accounting.job_epsilon(heldout, delta)),
        delta=job.delta,
        spent=spent,
        after=max(accounting.round_up(total), spent, key=Decimal),
        lifetime=lifetime,
        used=(used[0] / lifetime.limit, used[1] / lifetime.limit),
    )


def agreements_of(log: LocalLog, hospital: Hospital, found: JobState) -> tuple[Covering, ...]:
    """Return the agreements that a job relies on, and whether each covers this hospital's part in it."""
    return tuple(
        Covering(
            digest=digest,
            expires_at=agreement.expires_at,
            covers=hospital.name in agreement.parties
            and hospital.ref in agreement.datasets
            and found.record.purpose in agreement.purposes,
        )
        for digest in found.record.agreements
        if (agreement := log.state.agreements.get(digest)) is not None
    )


def earlier_model(log: LocalLog, hospital: Hospital, job: str) -> str:
    """Return the digest of the newest other model.py of the same researcher that this hospital approved, or ""."""
    wanted, found = log.state.jobs[job].record, ""
    for given in log.history.approvals.values():
        before = log.state.jobs[given.job].record
        own = given.hospital == hospital.name and before.training.model == wanted.training.model
        if own and before.researcher == wanted.researcher:
            code = before.training.model_code
            found = code if code != wanted.training.model_code else found
    return found
