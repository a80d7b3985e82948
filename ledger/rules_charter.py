"""Rules about who the consortium is: charter, succession and amendment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from immutables import Map

from ledger.envelope import Entry
from ledger.errors import MalformedError, UpgradeError
from ledger.policy import quorum_size
from ledger.records import Amendment, Charter, Succession
from ledger.rule_names import RULES, refuse, require
from ledger.signature import KeyType, VerifierKey
from ledger.state import EMPTY, NEVER, KeySpan, Membership, State, WitnessSet
from ledger.values import Member

RULES_VERSION = 1


def charter(entry: Entry, record: Charter) -> State:
    """Found a consortium: all founding members sign."""
    keys = {m.key for m in record.terms.members}
    require(entry.signers == keys, "record.signers", "every founding member must sign, and nobody else")
    return _found(record)


def succession(state: State, entry: Entry, record: Succession) -> State:
    """Follow a dead log, judged in that log's state at the last final size."""
    previous = record.previous
    same = previous.origin == state.origin and previous.size == state.size
    require(same, "succession.previous", f"the state is that of {state.origin} at size {state.size}")
    dead_logs = tuple(dict.fromkeys((*state.dead_logs, *(s.log for s in state.witness_sets))))
    own = _verifier(record.terms.log, "charter.log-key")
    old = [_verifier(text, "charter.log-key") for text in dead_logs]
    renewed = all(record.origin != k.name and own.public != k.public for k in old)
    require(renewed, "succession.new-origin", "the origin or the log key is a dead log's")
    later = record.founded_at >= state.time
    require(later, "record.time", f"founded at {record.founded_at}, the dead log reached {state.time}")
    voters = _voters(state)
    recovery = set(state.recovery_keys)
    decided = len(entry.signers & voters) >= state.witness_sets[-1].quorum or (
        0 < state.recovery_quorum <= len(entry.signers & recovery)
    )
    require(decided, "succession.decided", "too few of the dead log's witnesses or recovery keys signed")
    fresh = {m.key for m in record.terms.members} - {
        m.member.key for m in state.members.values() if m.until == NEVER
    }
    allowed = voters | recovery | fresh
    require(fresh <= entry.signers <= allowed, "record.signers", "every new key must sign, and no stranger")
    return replace(_found(record), dead_logs=dead_logs)


def amendment(state: State, entry: Entry, record: Amendment) -> State:
    """Change the charter by a quorum of the witnesses in force."""
    require(record.replaces == state.version, "amendment.replaces", f"version {state.version} is in force")
    _known_rules(record.rules)
    _check_changes(state, record)
    fresh = {m.key for m in record.add} | {c.key for c in record.rotate if c.key}
    require(fresh <= entry.signers, "amendment.new-keys-sign", "a new key has not signed")
    voters = _voters(state) - set(record.revoke)
    votes, quorum = len(entry.signers & voters), state.witness_sets[-1].quorum
    require(votes >= quorum, "amendment.votes", f"{votes} of {quorum} votes")
    require(entry.signers <= voters | fresh, "record.signers", "somebody signed who has no vote")
    members, keys = _changed(state, record)
    present = [m.member for m in members.values() if m.until == NEVER]
    log = record.log or state.witness_sets[-1].log
    witnesses = _check_members(
        state.origin, present, log, record.max_dishonest, record.quorum, state.recovery_keys
    )
    new_set = WitnessSet(
        since=state.size,
        log=log,
        witnesses=witnesses,
        max_dishonest=record.max_dishonest,
        quorum=record.quorum,
    )
    return replace(
        state,
        version=state.version + 1,
        rules=record.rules,
        members=members,
        keys=keys,
        witness_sets=(*state.witness_sets, new_set),
    )


def _found(record: Charter | Succession) -> State:
    terms = record.terms
    _known_rules(terms.rules)
    recovery = len(terms.recovery_keys)
    counted = 1 <= terms.recovery_quorum <= recovery if recovery else terms.recovery_quorum == 0
    require(counted, "charter.recovery", f"{terms.recovery_quorum} of {recovery} keys")
    witnesses = _check_members(
        record.origin, terms.members, terms.log, terms.max_dishonest, terms.quorum, terms.recovery_keys
    )
    first = WitnessSet(
        since=0, log=terms.log, witnesses=witnesses, max_dishonest=terms.max_dishonest, quorum=terms.quorum
    )
    return replace(
        EMPTY,
        origin=record.origin,
        name=record.name,
        version=1,
        rules=terms.rules,
        time=record.founded_at,
        recovery_keys=terms.recovery_keys,
        recovery_quorum=terms.recovery_quorum,
        members=Map({m.name: Membership(member=m, since=0, until=NEVER) for m in terms.members}),
        keys=Map({m.key: KeySpan(member=m.name, since=0, until=NEVER, revoked=False) for m in terms.members}),
        witness_sets=(first,),
    )


def _known_rules(version: int) -> None:
    if version > RULES_VERSION:
        rule = "rules.known-version"
        raise UpgradeError(
            rule, f"rules version {version}, this software knows {RULES_VERSION}. {RULES[rule]}"
        )


def _voters(state: State) -> set[str]:
    """The identity keys of the members whose witnesses are in force."""
    return {m.member.key for m in state.members.values() if m.until == NEVER and m.member.witness}


def _check_members(
    origin: str, members: Iterable[Member], log: str, f: int, quorum: int, recovery: tuple[str, ...]
) -> tuple[str, ...]:
    """Check a whole membership, as founded or as amended; return the witnesses' verifier keys, sorted."""
    members = list(members)
    one = [m.role for m in members].count("coordinator") == 1
    require(one, "charter.one-coordinator", "there is none, or more than one")
    log_key = _verifier(log, "charter.log-key")
    fits = log_key.name == origin and log_key.type is KeyType.ED25519
    require(fits, "charter.log-key", f"the key is named {log_key.name}, the origin is {origin}")
    witnesses = {m.witness: _verifier(m.witness, "charter.witnesses") for m in members if m.witness}
    names = {k.name for k in witnesses.values()} | {origin}
    typed = all(k.type is not KeyType.ED25519 for k in witnesses.values())
    apart = not any(m.witness for m in members if m.role == "coordinator")
    require(
        typed and apart and len(names) == len(witnesses) + 1,
        "charter.witnesses",
        "a witness key is of another kind, a name is used twice, or the coordinator is a witness",
    )
    used = Counter([m.key for m in members] + list(recovery) + [log_key.public.hex()])
    used.update(k.public.hex() for m in members if m.witness for k in (witnesses[m.witness],))
    require(max(used.values()) == 1, "charter.keys-distinct", "one key appears twice")
    try:
        wanted = quorum_size(len(witnesses), f)
    except MalformedError as error:
        raise refuse("charter.quorum", str(error)) from None
    require(quorum == wanted, "charter.quorum", f"{quorum} of {len(witnesses)}, expected {wanted}")
    return tuple(sorted(witnesses))


def _verifier(text: str, rule: str) -> VerifierKey:
    try:
        return VerifierKey.from_text(text)
    except MalformedError as error:
        raise refuse(rule, str(error)) from None


def _public(text: str, rule: str) -> str:
    """The key itself, in hex: under another name it is still the same key."""
    return _verifier(text, rule).public.hex()


def _check_changes(state: State, record: Amendment) -> None:
    current = state.witness_sets[-1]
    touched = [*(m.name for m in record.add), *record.remove, *(c.member for c in record.rotate)]
    other = (record.max_dishonest, record.rules) != (current.max_dishonest, state.rules)
    once = len(set(touched)) == len(touched) and all(c.key or c.witness for c in record.rotate)
    changed = touched or record.log or other
    require(bool(changed) and once, "amendment.changes", "nothing changes, or a member is named twice")
    for name in (*record.remove, *(c.member for c in record.rotate)):
        require(state.member(name) is not None, "amendment.members-exist", f"{name} is no member")
    for member in record.add:
        require(member.name not in state.members, "amendment.names-fresh", f"{member.name} was used before")
    fresh = [m.key for m in record.add] + [c.key for c in record.rotate if c.key]
    witnesses = [m.witness for m in record.add] + [c.witness for c in record.rotate]
    fresh += [_public(w, "charter.witnesses") for w in witnesses if w]
    fresh += [_public(record.log, "charter.log-key")] if record.log else []
    before = {_public(k, "charter.witnesses") for s in state.witness_sets for k in (s.log, *s.witnesses)}
    used = before.union(state.keys, state.recovery_keys)
    unused = len(set(fresh)) == len(fresh) and used.isdisjoint(fresh)
    require(unused, "amendment.keys-fresh", "a new key was used before")
    leaving = {*record.remove, *(c.member for c in record.rotate if c.key)}
    for key in record.revoke:
        span = state.keys.get(key)
        replaced = span is not None and span.until == NEVER and span.member in leaving
        require(
            replaced, "amendment.revoked-replaced", f"key {key[:16]} is not in use, or its member keeps it"
        )


def _changed(state: State, record: Amendment) -> tuple[Map[str, Membership], Map[str, KeySpan]]:
    members, keys, now = state.members.mutate(), state.keys.mutate(), state.size
    for name in record.remove:
        gone = members[name]
        members[name] = replace(gone, until=now)
        keys[gone.member.key] = replace(keys[gone.member.key], until=now)
    for change in record.rotate:
        old = members[change.member]
        new = replace(
            old.member, key=change.key or old.member.key, witness=change.witness or old.member.witness
        )
        members[change.member] = replace(old, member=new)
        if change.key:
            keys[old.member.key] = replace(keys[old.member.key], until=now)
            keys[change.key] = KeySpan(member=change.member, since=now, until=NEVER, revoked=False)
    for member in record.add:
        members[member.name] = Membership(member=member, since=now, until=NEVER)
        keys[member.key] = KeySpan(member=member.name, since=now, until=NEVER, revoked=False)
    for key in record.revoke:
        keys[key] = replace(keys[key], revoked=True)
    return members.finish(), keys.finish()
