"""Every rule broken alone: signatures, agreements, datasets, time, deliveries."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from ledger import example
from tests.ledger.broken_steps import (
    Case,
    Step,
    breaks,
    case,
    changed,
    founded,
    moved,
    offered,
    resigned,
)
from tests.ledger.consortium import Consortium, digest

case(
    "record.origin",
    "another log",
    lambda: changed(founded(), founded().tick(), origin="ledger.example/other"),
)


@breaks("record.not-repeated")
def agreement_twice() -> Case:
    before, record = offered(), offered().agreement("alpha", "bravo")
    after = before.fork()
    after.append(record)
    return moved(before, after, record)


case(
    "record.signer-is-member",
    "stranger offers",
    lambda: changed(founded(), founded().dataset("alpha"), hospital="mallory"),
)


@breaks("record.signer-role")
def researcher_offers() -> Case:
    c = founded()
    return Step(c, c.entry(c.dataset("alpha"))), Step(c, c.entry(c.dataset("researcher")))


case("record.signers", "tick by a hospital", lambda: resigned(founded(), founded().tick(), "alpha"))
case(
    "record.signers",
    "agreement without one party",
    lambda: resigned(offered(), offered().agreement("alpha", "bravo"), "alpha", "researcher"),
)
case(
    "record.signers",
    "agreement with a bystander",
    lambda: resigned(offered(), offered().agreement("alpha"), "alpha", "bravo", "researcher"),
)


@breaks("agreement.parties")
def stranger_is_party() -> Case:
    c = offered()
    parties = ("alpha", "mallory", "researcher")
    bad = replace(c.agreement("alpha"), parties=parties)
    return Step(c, c.entry(c.agreement("alpha"))), Step(c, c.entry(bad))


case(
    "agreement.parties",
    "agreement of nobody",
    lambda: changed(offered(), offered().agreement("alpha"), parties=()),
)
case(
    "agreement.datasets",
    "agreement on an unknown dataset",
    lambda: changed(offered(), offered().agreement("alpha"), datasets=("alpha/lungs",)),
)
case(
    "agreement.datasets",
    "agreement on somebody elses dataset",
    lambda: changed(offered(), offered().agreement("alpha"), datasets=("bravo/heart",)),
)
case(
    "agreement.unexpired",
    "agreement that expires now",
    lambda: changed(offered(), offered().agreement("alpha"), expires_at=offered().state.time),
)
case(
    "dataset.version",
    "dataset version left out",
    lambda: changed(offered(), offered().dataset("alpha"), version=3),
)
case(
    "dataset.size-class",
    "exact number of patients",
    lambda: changed(offered(), offered().dataset("alpha"), size_class=100),
)
case("dataset.budget", "no budget", lambda: changed(offered(), offered().dataset("delta"), epsilon="0"))
case("dataset.budget", "delta of one", lambda: changed(offered(), offered().dataset("delta"), delta="1"))
case(
    "dataset.budget",
    "budget raised after the fact",
    lambda: changed(offered(), offered().dataset("alpha"), epsilon="8.01"),
)


@breaks("dataset.not-in-use")
def dataset_changed_under_a_running_job() -> Case:
    running = offered().fork()
    running.run("alpha", "bravo")
    return moved(offered(), running, offered().dataset("alpha"))


case(
    "tick.advances",
    "time stands still",
    lambda: changed(founded(), founded().tick(), time=founded().state.time),
)


@cache
def with_releases() -> tuple[Consortium, str]:
    """An auditor is a member, and a job of alpha and bravo has ended with a release."""
    c = offered().fork()
    c.append(c.amendment(add=(c.member("audit", "auditor", witness=False),)))
    job = c.run("alpha", "bravo")
    c.finish(job)
    c.append(c.release(job))
    return c, job


@breaks("access.number")
def delivery_left_out() -> Case:
    c, job = with_releases()
    return changed(c, c.access(job), number=2)


@breaks("access.member")
def delivery_to_a_stranger() -> Case:
    c, job = with_releases()
    return changed(c, c.access(job), member="mallory")


def access_to(good: dict[str, str], **bad: str) -> Case:
    c, job = with_releases()
    return changed(c, c.access(job, **good), **bad)


case("access.right", "right that does not exist", lambda: access_to({}, right="curiosity"))
case("access.right", "update under the right to the release", lambda: access_to({}, item="update"))
case(
    "access.right",
    "participation of a hospital that took no part",
    lambda: access_to({"member": "alpha", "right": "participation"}, member="charlie"),
)
case(
    "access.right",
    "audit by a researcher",
    lambda: access_to({"member": "audit", "right": "audit", "item": "update"}, member="researcher"),
)


@breaks("access.right")
def model_that_was_not_released() -> Case:
    c, job = with_releases()
    good = c.access(job, item="model", content=c.job_state(job).model)
    return changed(c, good, content=digest("another model"))


case("access.right", "delivery of an unknown job", lambda: access_to({}, job=digest("no job")))


case(
    "record.signers",
    "charter without one founder",
    lambda: resigned(Consortium(), example.charter(), *list(example.KEYS.values())[1:]),
)


@breaks("record.signers")
def amendment_signed_by_the_researcher_too() -> Case:
    c = founded()
    record = c.amendment(remove=("echo",))
    return resigned(c, record, *c.signers(record), "researcher")


@breaks("record.signers")
def succession_without_a_new_key() -> Case:
    c = founded().fork()
    coordinator = c.member("coordinator", "coordinator", witness=False)
    members = tuple(coordinator if m.name == "coordinator" else m for m in c.members())
    record = c.succession(terms=c.terms(members=members))
    return resigned(c, record, *c.voters())


@breaks("record.time")
def succession_before_the_log_it_follows() -> Case:
    c = founded().fork()
    c.append(c.tick())
    return changed(c, c.succession(), founded_at=c.state.time - 1)
