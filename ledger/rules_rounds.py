"""Rules about a round: receipts, skips, and the record that closes it.

A round is one batch: its receipts, then its round or abort record. Receipts only gather in `state.batch`; the
closing record moves what they say into the job and the datasets, so a receipt costs O(1).
"""

from __future__ import annotations

from collections.abc import Iterable

from ledger.envelope import Entry
from ledger.records import Abort, Receipt, Round, Skip, inputs_digest
from ledger.rule_names import refuse, require
from ledger.rules_consortium import signed_by, signed_by_coordinator
from ledger.state import NO_BATCH, Batch, JobState, KeySpan, LoggedReceipt, Party, State, evolve
from ledger.values import LeftOut, Mechanism, decimal

SKIP_CODES = frozenset({"busy", "crashed", "hours", "maintenance", "paused", "policy", "restored"})
# why a logged receipt is not aggregated: judged on its bytes by the coordinator's admission
ADMISSION_CODES = frozenset({"digest", "dtype", "metrics", "name", "non-finite", "norm", "shape"})
# why there is no receipt; the first five are on the log and must be named when they are true
KNOWN_CODES = ("withdrawn", "revoked", "removed", "expired", "skipped")
ABSENT_CODES = frozenset({"late", "receipt", "refused", "unreachable"})
ABORT_CODES = frozenset({"aggregation", "below-minimum", "deadline", "finality", "restart"})


def receipt(state: State, entry: Entry, record: Receipt) -> State:
    """A hospital says what it released."""
    found, party = _running(state, record)
    _check_signer(state, entry, found, record.hospital)
    require(not party.withdrawn, "receipt.participant", f"{record.hospital} has withdrawn")
    batch = state.batch if state.batch.job else evolve(NO_BATCH, start=state.size)
    next_in = record.round == found.next_round and (not batch.job or batch.job == record.job)
    require(next_in, "receipt.round", f"round {record.round}, expected {found.next_round}")
    once = record.hospital not in batch.receipts and party.skipped != record.round
    require(once, "receipt.once", f"{record.hospital} has a receipt or a skip already")
    require(record.model_before == found.model, "receipt.model", "it trained on another model")
    _check_plan(found, party, record)
    _check_spending(state, party, record)
    covers = found.last_index < record.checkpoint_size <= batch.start
    require(covers, "receipt.checkpoint", f"size {record.checkpoint_size}")
    logged = LoggedReceipt(
        update=record.update,
        metrics=record.metrics,
        charge=record.charge,
        epsilon_job=record.epsilon_job,
        epsilon_dataset=record.epsilon_dataset,
    )
    receipts = batch.receipts.set(record.hospital, logged)
    opened = Batch(job=record.job, round=record.round, start=batch.start, receipts=receipts)
    return evolve(state, size=state.size + 1, batch=opened)


def skip(state: State, entry: Entry, record: Skip) -> State:
    """A hospital sits a round out."""
    signed_by(state, entry, record.hospital, role="hospital")
    found = state.jobs.get(record.job)
    current = found is not None and found.status == "running" and found.next_round == record.round
    require(current, "skip.round", f"round {record.round} is not the next of a running job")
    assert found is not None
    party = found.parties.get(record.hospital)
    fresh = party is not None and party.skipped != record.round
    require(fresh, "skip.participant", f"{record.hospital} takes no part, or has skipped this round")
    assert party is not None
    require(record.code in SKIP_CODES, "skip.code", f"{record.code!r} is not on the list")
    parties = found.parties.set(record.hospital, evolve(party, skipped=record.round))
    skipped = evolve(found, parties=parties)
    return evolve(state, size=state.size + 1, jobs=state.jobs.set(record.job, skipped))


def round_(state: State, entry: Entry, record: Round) -> State:
    """The coordinator closes a round with a model."""
    found = _closable(state, entry, record)
    out = _left_out(state, found, record.left_out)
    used = {name: r for name, r in state.batch.receipts.items() if name not in out}
    minimum = found.record.min_participants
    require(len(used) >= minimum, "round.minimum", f"{len(used)} of {minimum}")
    inputs = inputs_digest(
        found.model,
        found.server_state,
        ((name, r.update, r.metrics, found.parties[name].weight) for name, r in used.items()),
    )
    require(record.inputs == inputs, "round.inputs", f"expected {inputs[:16]}")
    if record.round > found.record.rounds:
        same = (record.model_after, record.server_state_after) == (found.model, found.server_state)
        require(same, "round.evaluation", "the model or the memory changed")
    return _close(state, record, found, record.model_after, record.server_state_after)


def abort(state: State, entry: Entry, record: Abort) -> State:
    """The coordinator closes a round without a model; the receipts it carries have spent their charges."""
    found = _closable(state, entry, record)
    _left_out(state, found, record.left_out)
    require(record.code in ABORT_CODES, "abort.code", f"{record.code!r} is not on the list")
    return _close(state, record, found, found.model, found.server_state)


def _running(state: State, record: Receipt) -> tuple[JobState, Party]:
    found = state.jobs.get(record.job)
    if found is None or found.status != "running":
        raise refuse("receipt.job-running", f"job {record.job[:16]} is not running")
    party = found.parties.get(record.hospital)
    if party is None:
        raise refuse("receipt.participant", f"{record.hospital} takes no part in the job")
    return found, party


def _check_signer(state: State, entry: Entry, found: JobState, hospital: str) -> None:
    """Judge key and membership as of the job's previous record, revocation as of now (PROTOCOL.md, "Time")."""
    (key,) = entry.signers if len(entry.signers) == 1 else ("",)
    span = state.keys.get(key)
    valid = (
        span is not None
        and span.member == hospital
        and span.since <= found.last_index < span.until
        and not span.revoked
    )
    require(valid, "record.signers", f"not signed by the key that {hospital} had at the previous record")


def _check_plan(found: JobState, party: Party, record: Receipt) -> None:
    terms = found.record
    in_time = found.last_time < min(terms.expires_at, party.agreements_until)
    require(in_time, "receipt.in-time", "the job or the agreement had expired at the previous record")
    trains, evaluates = record.round <= terms.rounds, record.round in terms.evaluate
    expected: list[Mechanism] = [party.approval.training] if trains else []
    if evaluates:
        expected.append(party.approval.evaluation[terms.evaluate.index(record.round)])
    require(record.mechanisms == tuple(expected), "receipt.mechanism", "not what was approved for this round")
    named = bool(record.update) == trains and bool(record.metrics) == evaluates
    require(named, "receipt.digests", "a digest is missing or not expected in this round")


def _check_spending(state: State, party: Party, record: Receipt) -> None:
    dataset = state.datasets[party.approval.dataset]
    require(
        record.charge > dataset.charge, "receipt.charge", f"charge {record.charge} after {dataset.charge}"
    )
    job, lifetime = decimal(record.epsilon_job), decimal(record.epsilon_dataset)
    grows = job >= decimal(party.epsilon_job) and lifetime >= decimal(dataset.epsilon)
    require(grows, "receipt.epsilon-grows", f"({record.epsilon_job}, {record.epsilon_dataset})")
    limit, budget = party.approval.epsilon, dataset.record.epsilon
    require(job <= decimal(limit), "receipt.within-limit", f"{record.epsilon_job} of {limit}")
    require(lifetime <= decimal(budget), "receipt.within-budget", f"{record.epsilon_dataset} of {budget}")


def _closable(state: State, entry: Entry, record: Round | Abort) -> JobState:
    """Check what a round and an abort have in common."""
    signed_by_coordinator(state, entry)
    found = state.jobs.get(record.job)
    running = found is not None and found.status == "running" and state.batch.job in ("", record.job)
    require(running, "round.job-running", f"job {record.job[:16]} is not running, or its batch is another's")
    assert found is not None
    due = record.round == found.next_round and record.round <= found.record.last_exchange
    require(due, "round.consecutive", f"round {record.round}, expected {found.next_round}")
    require(record.model_before == found.model, "round.continues-lineage", "another model is named")
    count = len(state.batch.receipts)
    require(record.receipts == count, "round.receipts", f"{record.receipts} named, {count} before it")
    require(record.time >= state.time, "record.time", f"{record.time} after {state.time}")
    return found


def _left_out(state: State, found: JobState, left_out: Iterable[LeftOut]) -> dict[str, str]:
    """Check that everybody absent is named, with the true reason, and return hospital -> code."""
    codes = {item.hospital: item.code for item in left_out}
    stranger = next((name for name in codes if name not in found.parties), None)
    require(stranger is None, "round.left-out", f"{stranger} takes no part in the job")
    for name, party in found.parties.items():
        present = name in state.batch.receipts
        code = codes.get(name)
        require(present or code is not None, "round.left-out", f"{name} is neither aggregated nor left out")
        if code is None:
            continue
        if present:
            right = code in ADMISSION_CODES
        else:
            known = known_reason(state, found, name, party)
            right = code == known if known else code in ABSENT_CODES
        require(right, "round.reasons", f"{name} is left out as {code!r}")
    return codes


def known_reason(state: State, found: JobState, name: str, party: Party) -> str:
    """Return the reason why a participant cannot have given a receipt, as far as the log knows one."""
    span = _key_at(state, name, found.last_index)
    reasons = (
        party.withdrawn,
        span is not None and span.revoked,
        span is None,
        found.last_time >= min(found.record.expires_at, party.agreements_until),
        party.skipped == found.next_round,
    )
    return next((code for code, true in zip(KNOWN_CODES, reasons, strict=True) if true), "")


def _key_at(state: State, name: str, index: int) -> KeySpan | None:
    """Return the one key that a member of some time had after the entry at `index`, if any."""
    newest = state.keys[state.members[name].member.key]
    if newest.since <= index:
        return newest if index < newest.until else None
    spans = (s for s in state.keys.values() if s.member == name and s.since <= index < s.until)
    return next(spans, None)  # its key was changed since, which is rare


def _close(state: State, record: Round | Abort, found: JobState, model: str, server_state: str) -> State:
    parties, datasets = found.parties.mutate(), state.datasets.mutate()
    for name, logged in state.batch.receipts.items():
        party = parties[name]
        parties[name] = evolve(
            party,
            epsilon_job=logged.epsilon_job,
            epsilon_dataset=logged.epsilon_dataset,
            receipts=party.receipts + 1,
        )
        ref = party.approval.dataset
        datasets[ref] = evolve(datasets[ref], charge=logged.charge, epsilon=logged.epsilon_dataset)
    closed = evolve(
        found,
        next_round=record.round + 1,
        model=model,
        server_state=server_state,
        last_index=state.size,
        last_time=record.time,
        previous_index=found.last_index,
        aborted=isinstance(record, Abort),
        parties=parties.finish(),
    )
    return evolve(
        state,
        size=state.size + 1,
        time=record.time,
        jobs=state.jobs.set(record.job, closed),
        datasets=datasets.finish(),
        batch=NO_BATCH,
    )
