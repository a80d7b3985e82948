"""Every rule broken alone: charter, succession, amendment. `broken_steps` says how a case reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ledger import example
from ledger.records import Amendment
from ledger.signature import KeyType
from tests.ledger.broken_steps import (
    Case,
    Step,
    breaks,
    case,
    changed,
    founded,
    moved,
    resigned,
)
from tests.ledger.consortium import Consortium, digest


@breaks("log.begins")
def tick_first() -> Case:
    nothing = Consortium()
    return Step(nothing, nothing.entry(example.charter())), Step(nothing, founded().entry(founded().tick()))


@breaks("log.begins")
def succession_without_the_dead_log() -> Case:
    entry = founded().entry(founded().succession())
    nothing = Consortium()
    return Step(founded(), entry), Step(nothing, entry)


@breaks("log.one-charter")
def second_charter() -> Case:
    record = replace(example.charter(), name="another-consortium")
    return moved(Consortium(), founded(), record)


@breaks("rules.known-version")
def rules_of_tomorrow() -> Case:
    c = founded()
    return changed(c, c.amendment(remove=("echo",)), rules=2)


def charter(**terms: Any) -> Case:
    """A charter with other terms, signed by every key that it lists."""
    nothing, good = Consortium(), example.charter()
    bad = replace(good, terms=replace(good.terms, **terms))
    return Step(nothing, nothing.entry(good)), Step(nothing, nothing.entry(bad))


def charter_members(**members: dict[str, str]) -> Case:
    """A charter with other fields of some members."""
    return charter(members=tuple(replace(m, **members.get(m.name, {})) for m in example.members()))


def witness_of(name: str, kind: KeyType = KeyType.COSIGNATURE) -> str:
    return example.key(f"{name} spare", name, kind).verifier.to_text()


case(
    "charter.one-coordinator", "two coordinators", lambda: charter_members(researcher={"role": "coordinator"})
)


@breaks("charter.one-coordinator")
def coordinator_removed() -> Case:
    c = founded()
    good = c.amendment(remove=("researcher",))
    return Step(c, c.entry(good)), Step(c, c.entry(replace(good, remove=("coordinator",))))


case(
    "charter.keys-distinct",
    "member holds a recovery key",
    lambda: charter(recovery_keys=(*example.charter().terms.recovery_keys[:2], example.members()[0].key)),
)
case(
    "charter.keys-distinct",
    "two members with one key",
    lambda: charter_members(alpha={"key": example.members()[1].key}),
)


@breaks("charter.keys-distinct")
def witness_key_is_an_identity_key() -> Case:
    own = replace(example.KEYS["alpha"], type=KeyType.COSIGNATURE)
    return charter_members(alpha={"witness": own.verifier.to_text()})


case(
    "charter.log-key",
    "log key of another name",
    lambda: charter(log=witness_of("ledger.example/other", KeyType.ED25519)),
)
case("charter.log-key", "log key of the witnesses kind", lambda: charter(log=witness_of(example.ORIGIN)))


@breaks("charter.log-key")
def log_key_with_a_wrong_key_id() -> Case:
    name, key_id, rest = example.LOG_KEY.verifier.to_text().split("+", 2)
    return charter(log=f"{name}+{int(key_id, 16) ^ 1:08x}+{rest}")


@breaks("charter.witnesses")
def coordinator_is_a_witness() -> Case:
    witness = example.members()[0].witness
    return charter_members(alpha={"witness": ""}, coordinator={"witness": witness})


case(
    "charter.witnesses",
    "witness key of the logs kind",
    lambda: charter_members(alpha={"witness": witness_of("alpha.example/witness", KeyType.ED25519)}),
)
case(
    "charter.witnesses",
    "two witnesses of one name",
    lambda: charter_members(alpha={"witness": witness_of("bravo.example/witness")}),
)
case("charter.quorum", "quorum too small", lambda: charter(quorum=example.charter().terms.quorum - 1))
case("charter.quorum", "more dishonest than a quorum withstands", lambda: charter(max_dishonest=2))


@breaks("charter.quorum")
def removal_without_a_new_quorum() -> Case:
    c = founded()
    return changed(c, c.amendment(remove=("echo",)), quorum=4)


case("charter.recovery", "recovery quorum of nobody", lambda: charter(recovery_quorum=0))
case("charter.recovery", "recovery quorum beyond the keys", lambda: charter(recovery_quorum=4))
case("charter.recovery", "recovery quorum without keys", lambda: charter(recovery_keys=()))


def succession_previous(c: Consortium, **changes: Any) -> Case:
    good = c.succession()
    return changed(c, good, previous=replace(good.previous, **changes))


case(
    "succession.previous",
    "succession at another size",
    lambda: succession_previous(founded(), size=founded().view.size + 1),
)
case(
    "succession.previous",
    "succession of another root",
    lambda: succession_previous(founded(), root=digest("another root")),
)
case(
    "succession.previous",
    "succession of another log",
    lambda: succession_previous(founded(), origin="ledger.example/other"),
)


@breaks("succession.new-origin")
def succession_with_the_dead_logs_key() -> Case:
    c = founded()
    origin = "ledger.example/heart-2"
    same = replace(example.LOG_KEY, name=origin).verifier.to_text()
    return changed(c, c.succession(origin=origin), terms=c.terms(origin=origin, log=same))


@breaks("succession.new-origin")
def succession_back_to_a_log_that_died_before() -> Case:
    first = founded()
    c = first.succeed(first.succession(origin="ledger.example/heart-2"))
    good = c.succession(origin="ledger.example/heart-3")
    log = witness_of(example.ORIGIN, KeyType.ED25519)
    return changed(c, good, origin=example.ORIGIN, terms=c.terms(log=log))


@breaks("succession.new-origin")
def succession_with_the_old_origin() -> Case:
    c = founded()
    return changed(
        c, c.succession(), origin=example.ORIGIN, terms=c.terms(log=witness_of("x", KeyType.ED25519))
    )


case(
    "succession.decided",
    "succession by too few witnesses",
    lambda: resigned(founded(), founded().succession(), *founded().voters()[:3]),
)


@breaks("succession.decided")
def succession_by_too_few_recovery_keys() -> Case:
    c = founded()
    good = c.entry(c.succession(), *c.recovery[:2])
    return Step(c, good), Step(c, c.entry(c.succession(), c.recovery[0]))


@breaks("amendment.replaces")
def amendment_of_an_old_charter() -> Case:
    before = founded()
    after = before.fork()
    after.append(after.amendment(rotate=(after.rotation("alpha"),)))
    return moved(before, after, before.amendment(remove=("echo",)))


@breaks("amendment.votes")
def amendment_by_too_few() -> Case:
    c = founded()
    return resigned(c, c.amendment(remove=("echo",)), *c.voters()[:3])


@breaks("amendment.votes")
def vote_of_a_key_that_the_amendment_revokes() -> Case:
    c = founded().fork()
    stolen = c.key_of("alpha")
    record = c.amendment(rotate=(c.rotation("alpha"),), revoke=(c.members()[0].key,))
    new = c.signers(record)[-1]
    return resigned(c, record, stolen, *(c.key_of(n) for n in ("bravo", "charlie", "delta")), new)


@breaks("amendment.changes")
def amendment_of_nothing() -> Case:
    c = founded()
    record = c.amendment(remove=("researcher",))
    return changed(c, record, remove=())


@breaks("amendment.changes")
def one_member_changed_twice() -> Case:
    c = founded().fork()
    rotation = c.rotation("echo")
    good = c.amendment(rotate=(rotation,))
    bad = c.amendment(rotate=(rotation,), remove=("echo",))
    return Step(c, c.entry(good)), Step(c, c.entry(bad))


case(
    "amendment.members-exist",
    "stranger removed",
    lambda: changed(founded(), founded().amendment(remove=("researcher",)), remove=("mallory",)),
)


@breaks("amendment.names-fresh")
def name_of_a_former_member() -> Case:
    c = founded().fork()
    c.append(c.amendment(remove=("echo",)))
    return changed(c, good := c.amendment(add=(c.member("fox"),)), add=(replace(good.add[0], name="echo"),))


def joins_with(c: Consortium, **member: str) -> Case:
    """Somebody joins, and somebody whose keys are not new."""
    good = c.amendment(add=(c.member("fox"),))
    bad = replace(good, add=(replace(good.add[0], **member),))
    return Step(c, c.entry(good)), Step(c, c.entry(bad))


@breaks("amendment.keys-fresh")
def old_key_comes_back() -> Case:
    c = founded().fork()
    old = c.members()[0].key
    c.append(c.amendment(rotate=(c.rotation("alpha"),), revoke=(old,)))
    return joins_with(c, key=old)


@breaks("amendment.keys-fresh")
def old_witness_key_comes_back_under_another_name() -> Case:
    c = founded().fork()
    c.append(c.amendment(remove=("echo",)))
    same = replace(example.WITNESSES["echo"], name="fox.example/witness").verifier.to_text()
    return joins_with(c, witness=same)


@breaks("amendment.new-keys-sign")
def key_that_nobody_holds() -> Case:
    c = founded().fork()
    return resigned(c, c.amendment(rotate=(c.rotation("alpha"),)), *c.voters())


@breaks("amendment.revoked-replaced")
def revoked_and_kept() -> Case:
    c = founded().fork()
    key = c.members()[0].key
    good = c.amendment(rotate=(c.rotation("alpha"),), revoke=(key,))
    bad: Amendment = replace(good, rotate=(c.rotation("bravo"),))
    return Step(c, c.entry(good)), Step(c, c.entry(bad))


@breaks("amendment.revoked-replaced")
def unknown_key_revoked() -> Case:
    c = founded().fork()
    good = c.amendment(rotate=(c.rotation("alpha"),), revoke=(c.members()[0].key,))
    return changed(c, good, revoke=(digest("no key"),))
