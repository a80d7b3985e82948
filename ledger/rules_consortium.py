"""Rules about what members agree on and observe: agreement, dataset, tick, access, incident.

Each function takes the state and an entry whose origin and novelty `rules.apply` has judged, and returns the new
state. Where `apply` keeps the record's digest, it counts the entry too; a numbered record's rule counts it here.
"""

from __future__ import annotations

from dataclasses import replace

from ledger.envelope import Entry
from ledger.records import Access, Agreement, Dataset, Incident, Tick
from ledger.rule_names import require
from ledger.state import DatasetState, State
from ledger.values import Member, decimal

RIGHTS = {  # right -> the items that it covers, and the roles that have it (all, where none is named)
    "audit": (("evidence", "metrics", "model", "update"), ("auditor",)),
    "participation": (("evidence", "metrics", "model"), ("hospital",)),
    "recomputation": (("update",), ("auditor", "hospital")),
    "release": (("evidence", "metrics", "model"), ()),
}


def signed_by(state: State, entry: Entry, *names: str, role: str = "") -> None:
    """Require that exactly these members signed, with the keys they have now.

    Raises:
        RuleError: record.signer-is-member, record.signer-role or record.signers.
    """
    keys = set()
    for name in names:
        member = state.member(name)
        require(member is not None, "record.signer-is-member", f"{name} is no member")
        assert member is not None
        require(not role or member.role == role, "record.signer-role", f"{name} is no {role}")
        keys.add(member.key)
    require(entry.signers == keys, "record.signers", f"expected the signature of {' and '.join(names)}")


def signed_by_coordinator(state: State, entry: Entry) -> Member:
    """Require the coordinator's signature alone, and return the coordinator."""
    coordinator = state.coordinator()
    require(entry.signers == {coordinator.key}, "record.signers", "expected the coordinator's signature")
    return coordinator


def agreement(state: State, entry: Entry, record: Agreement) -> State:
    """Every party signs; every dataset's hospital is a party."""
    for name in record.parties:
        require(state.member(name) is not None, "agreement.parties", f"{name} is no member")
    require(bool(record.parties), "agreement.parties", "no party is named")
    signed_by(state, entry, *record.parties)
    for ref in record.datasets:
        owned = ref in state.datasets and ref.split("/")[0] in record.parties
        require(owned, "agreement.datasets", f"{ref} is not on the log, or its hospital is no party")
    require(record.expires_at > state.time, "agreement.unexpired", f"it expired at {record.expires_at}")
    return replace(state, agreements=state.agreements.set(entry.digest, record))


def dataset(state: State, entry: Entry, record: Dataset) -> State:
    """A hospital offers a dataset, or replaces what it said of it."""
    signed_by(state, entry, record.hospital, role="hospital")
    old = state.datasets.get(record.ref)
    wanted = 1 if old is None else old.record.version + 1
    require(record.version == wanted, "dataset.version", f"version {record.version}, expected {wanted}")
    power = record.size_class & (record.size_class - 1) == 0
    require(power, "dataset.size-class", f"{record.size_class} is none")
    epsilon, delta = decimal(record.epsilon), decimal(record.delta)
    require(
        epsilon > 0 and 0 < delta < 1, "dataset.budget", f"({record.epsilon}, {record.delta}) is no budget"
    )
    if old is None:
        new = DatasetState(record=record, charge=0, epsilon="0", job="")
    else:
        require(not old.job, "dataset.not-in-use", f"job {old.job[:16]} runs on {record.ref}")
        kept = epsilon <= decimal(old.record.epsilon) and delta <= decimal(old.record.delta)
        require(kept, "dataset.budget", f"it was ({old.record.epsilon}, {old.record.delta})")
        new = replace(old, record=record)
    return replace(state, datasets=state.datasets.set(record.ref, new))


def tick(state: State, entry: Entry, record: Tick) -> State:
    """The coordinator states the time."""
    signed_by_coordinator(state, entry)
    require(record.time > state.time, "tick.advances", f"{record.time} after {state.time}")
    return replace(state, size=state.size + 1, time=record.time)


def access(state: State, entry: Entry, record: Access) -> State:
    """The coordinator notes a delivery."""
    signed_by_coordinator(state, entry)
    wanted = state.deliveries + 1
    require(record.number == wanted, "access.number", f"number {record.number}, expected {wanted}")
    member = state.member(record.member)
    require(member is not None, "access.member", f"{record.member} is no member")
    assert member is not None
    items, roles = RIGHTS.get(record.right, ((), ()))
    job = state.jobs.get(record.job)
    known = job is not None and record.item in items and (not roles or member.role in roles)
    if job is not None and record.right == "participation":
        known = known and record.member in job.participants
    require(
        known, "access.right", f"{record.member} has no right {record.right!r} to {record.item!r} of this job"
    )
    if record.item == "model":
        assert job is not None
        released = job.status == "released" or job.status == "finished"
        require(
            released and job.model == record.content, "access.right", "the job has not released this model"
        )
    return replace(state, deliveries=wanted)


def incident(state: State, entry: Entry, record: Incident) -> State:
    """Any member reports; the evidence speaks for itself."""
    signed_by(state, entry, record.member)
    return state
