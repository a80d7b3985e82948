"""Who decides: amendments under the old and the new set, impossible quorums, succession."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ledger.errors import MalformedError, RuleError
from ledger.policy import quorum_size
from ledger.view import View
from tests.ledger.consortium import Consortium, digest


def test_an_amendment_needs_the_old_and_the_new_set() -> None:
    c = Consortium.founded()
    c.append(c.tick())
    before = c.view.size
    c.append(c.amendment(add=(c.member("fox"), c.member("golf"))))
    c.append(c.tick())
    old, new = c.state.witness_sets
    assert (old.quorum, new.quorum, len(new.witnesses)) == (4, 5, 7)
    assert c.state.sets_over(before, c.view.size) == (old, new)
    assert c.state.sets_over(0, before) == (old,)
    assert c.state.sets_over(0, before + 1) == (old, new)
    assert c.state.sets_over(before + 1, c.view.size) == (new,)


def test_several_amendments_before_a_final_checkpoint_need_every_set() -> None:
    c = Consortium.founded()
    for name in ("fox", "golf"):
        c.append(c.amendment(add=(c.member(name),)))
    assert c.state.sets_over(1, 3) == c.state.witness_sets
    assert c.state.sets_over(2, 3) == c.state.witness_sets[1:]
    assert c.state.sets_over(3, 4) == c.state.witness_sets[2:]


def test_a_new_log_key_is_in_force_from_its_amendment() -> None:
    c = Consortium.founded()
    new = replace(c.terms(origin=c.state.origin)).log
    old = c.state.witness_sets[0].log
    c.append(c.amendment(log=new))
    assert [s.log for s in c.state.sets_over(1, 2)] == [old, new]
    assert [s.log for s in c.state.sets_over(2, 3)] == [new]
    assert c.refuses(c.amendment(log=old)) == "amendment.keys-fresh"


def test_who_joined_by_an_amendment_votes_in_the_next() -> None:
    c = Consortium.founded()
    fox = c.member("fox")
    record = c.amendment(add=(fox,))
    votes = c.voters()[:3]
    assert c.refuses(record, *votes, c.keys[fox.key]) == "amendment.votes"  # its own vote does not count yet
    c.append(record)
    c.append(c.amendment(remove=("echo",)), *votes, c.keys[fox.key])


@pytest.mark.parametrize(("count", "f"), [(3, 1), (6, 2), (1, 1), (5, 5), (5, 2)])
def test_so_many_dishonest_leave_no_quorum(count: int, f: int) -> None:
    with pytest.raises(MalformedError):
        quorum_size(count, f)
    c = Consortium.founded()
    gone = tuple(m.name for m in c.members() if m.witness)[count:]
    joining = tuple(c.member(f"new-{i}") for i in range(count - 5))
    for quorum in range(1, 7):
        record = c.amendment(remove=gone, add=joining, max_dishonest=f, quorum=quorum)
        assert c.refuses(record) == "charter.quorum"


def follows(c: Consortium, *signers: Any, **changes: Any) -> View:
    return c.succeed(c.succession(**changes), *signers).view


def test_succession_by_a_quorum_or_by_the_recovery_keys(running: tuple[Consortium, str]) -> None:
    c, _ = running
    assert follows(c, *c.voters()[:4]).size == 1
    assert follows(c, *c.recovery[:2]).size == 1
    assert follows(c, *c.voters(), *c.recovery).size == 1
    for too_few in (c.voters()[:3], c.recovery[:1], [*c.voters()[:3], c.recovery[0]]):
        with pytest.raises(RuleError, match=r"succession\.decided"):
            follows(c, *too_few)


def test_succession_with_a_new_coordinator(running: tuple[Consortium, str]) -> None:
    c, _ = running
    others = [m for m in c.members() if m.role != "coordinator"]
    new = c.member("second-coordinator", "coordinator", witness=False)
    members = tuple(sorted([*others, new], key=lambda m: m.name))
    after = c.succeed(c.succession(terms=c.terms(members=members)))
    after.append(after.tick())
    old = next(m for m in c.members() if m.role == "coordinator")
    assert after.refuses(after.tick(), c.keys[old.key]) == "record.signers"


def test_succession_starts_from_nothing_but_members(running: tuple[Consortium, str]) -> None:
    c, job = running
    after = c.succeed(c.succession())
    assert after.state.origin != c.state.origin
    assert not any((after.state.jobs, after.state.datasets, after.state.agreements, after.state.approvals))
    assert job not in after.state.seen
    assert [m.name for m in after.members()] == [m.name for m in c.members()]
    after.offer("alpha", "bravo")
    after.play(after.run("alpha", "bravo"))


def test_succession_in_the_middle_of_a_batch(running: tuple[Consortium, str]) -> None:
    c, job = running
    good = c.succession()
    c.append(c.receipt("alpha", job))
    for record in (good, c.succession()):
        with pytest.raises(RuleError, match=r"succession\.previous"):
            c.succeed(record)


def test_succession_at_an_earlier_size_voids_what_came_after(running: tuple[Consortium, str]) -> None:
    c, _ = running
    record = c.succession()
    later = c.fork()
    later.append(later.incident("alpha", digest("junk")))
    with pytest.raises(RuleError, match=r"succession\.previous"):
        later.succeed(record)
    assert c.succeed(record).view.size == 1
