"""Records that several must sign: who may propose, what counts, what is dropped, and what a crash leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator import proposals as module
from coordinator.errors import ProposalError
from coordinator.proposals import ACCEPTED, Proposals
from ledger import envelope, example
from ledger.policy import quorum_size
from ledger.records import Agreement, Amendment
from tests.coordinator.ward import Ward

KEYS = example.KEYS


def removal(ward: Ward, name: str = "echo") -> Amendment:
    state = ward.sequencer.standing.state
    current = state.witness_sets[-1]
    return Amendment(
        origin=state.origin, replaces=state.version, add=(), remove=(name,), rotate=(), revoke=(),
        max_dishonest=current.max_dishonest, log="", rules=1,
        quorum=quorum_size(len(current.witnesses) - 1, current.max_dishonest),
    )  # fmt: skip


def agreement(ward: Ward) -> Agreement:
    return Agreement(
        origin=example.ORIGIN, text="ab" * 32, parties=("alpha", "bravo", "researcher"), datasets=(),
        purposes=("cardiology-research",), expires_at=int(ward.clock.now) + 86_400,
    )  # fmt: skip


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


@pytest.fixture
def proposals(ward: Ward) -> Proposals:
    return Proposals(ward.folder, ward.sequencer, ward.clock)


def reopened(ward: Ward) -> Proposals:
    return Proposals(ward.folder, ward.sequencer, ward.clock)


def test_an_agreement_goes_on_the_log_with_its_last_signature(ward: Ward, proposals: Proposals) -> None:
    record = agreement(ward)
    digest = proposals.propose(envelope.sign(record, KEYS["researcher"]))
    assert digest == record.digest()
    proposals.add_signature(digest, envelope.sign(record, KEYS["alpha"]))
    proposals.decline(digest, "bravo")
    again = reopened(ward)  # all of it is on the disk
    shown = again.show(digest)
    assert (shown["signed"], shown["needed"], shown["declined"]) == (["alpha", "researcher"], 3, ["bravo"])
    again.add_signature(digest, envelope.sign(record, KEYS["bravo"]))
    assert again.show(digest)["ended"] == ACCEPTED
    assert digest in ward.sequencer.standing.state.agreements


def test_an_amendment_needs_its_quorum_and_no_more(ward: Ward, proposals: Proposals) -> None:
    record = removal(ward)
    quorum = ward.sequencer.standing.state.witness_sets[-1].quorum
    voters = ["alpha", "bravo", "charlie", "delta", "echo"][:quorum]
    digest = proposals.propose(envelope.sign(record, KEYS[voters[0]]))
    for name in voters[1:]:
        assert not proposals.show(digest)["ended"]
        proposals.add_signature(digest, envelope.sign(record, KEYS[name]))
    assert proposals.show(digest)["ended"] == ACCEPTED
    assert ward.sequencer.standing.state.member("echo") is None


def test_attack_proposal_altered_after_signing(ward: Ward, proposals: Proposals) -> None:
    record = agreement(ward)
    digest = proposals.propose(envelope.sign(record, KEYS["researcher"]))
    other = replace(record, purposes=("anything",))
    with pytest.raises(ProposalError, match="another record"):
        proposals.add_signature(digest, envelope.sign(other, KEYS["alpha"]))
    assert proposals.show(digest)["signed"] == ["researcher"]


def test_attack_stranger_proposes_or_signs(ward: Ward, proposals: Proposals) -> None:
    stranger = example.key("stranger", "stranger")
    with pytest.raises(ProposalError, match="a member must sign"):
        proposals.propose(envelope.sign(removal(ward), stranger))
    digest = proposals.propose(envelope.sign(agreement(ward), KEYS["alpha"]))
    for key in (stranger, KEYS["charlie"]):  # a member that is no party
        with pytest.raises(ProposalError, match="no say"):
            proposals.add_signature(digest, envelope.sign(agreement(ward), key))
    with pytest.raises(ProposalError, match="not proposed"):
        proposals.propose(envelope.sign(example.charter(), KEYS["alpha"]))


def test_what_can_never_succeed_is_refused_or_closed_with_the_reason(
    ward: Ward, proposals: Proposals
) -> None:
    with pytest.raises(ProposalError, match="version 1 is in force"):
        proposals.propose(envelope.sign(replace(removal(ward), replaces=9), KEYS["alpha"]))
    losing = removal(ward, "delta")
    stale = proposals.propose(envelope.sign(losing, KEYS["alpha"]))
    record = removal(ward)
    voters = [KEYS[n] for n in ("alpha", "bravo", "charlie", "delta", "echo")]
    ward.sequencer.submit(envelope.sign(record, *voters))
    proposals.turn()
    assert "amendment.replaces" in proposals.show(stale)["ended"]
    with pytest.raises(LookupError, match="cannot succeed any more"):
        proposals.add_signature(stale, envelope.sign(losing, KEYS["bravo"]))
    ward.clock.now += module.KEPT_SECONDS
    proposals.turn()
    with pytest.raises(LookupError):
        proposals.show(stale)


def test_proposals_expire_and_are_bounded(
    ward: Ward, proposals: Proposals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PER_MEMBER", 2)
    made = [replace(agreement(ward), text=f"{n:064x}") for n in range(3)]
    digests = [proposals.propose(envelope.sign(record, KEYS["alpha"])) for record in made[:2]]
    with pytest.raises(ProposalError, match="too many proposals"):
        proposals.propose(envelope.sign(made[2], KEYS["alpha"]))
    assert proposals.propose(envelope.sign(made[0], KEYS["alpha"])) == digests[0]  # again, it is no new one
    ward.clock.now += module.OPEN_SECONDS
    proposals.turn()
    assert {p["ended"] for p in proposals.listing()} != {""}


def test_a_crash_after_the_log_has_it_is_found_by_the_next_start(
    ward: Ward, proposals: Proposals, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = agreement(ward)
    digest = proposals.propose(envelope.sign(record, KEYS["alpha"], KEYS["bravo"]))

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Proposals, "_end", dies)
        with pytest.raises(KeyboardInterrupt):
            proposals.add_signature(digest, envelope.sign(record, KEYS["researcher"]))
    again = reopened(ward)
    assert again.show(digest)["ended"] == ""
    again.turn()
    assert again.show(digest)["ended"] == ACCEPTED
    size = ward.sequencer.standing.view.size
    again.turn()
    assert ward.sequencer.standing.view.size == size
