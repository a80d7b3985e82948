"""A released model is every member's, and each who is handed it is on the record once."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.errors import ServiceError
from coordinator.handouts import Handouts
from ledger import example, records
from ledger.errors import RuleError
from ledger.values import Member
from tests.coordinator.test_runner import CarryingFlower, finished, running
from tests.coordinator.test_sequencer import incident
from tests.coordinator.ward import Ward, carry, sha


def member(name: str) -> Member:
    return next(m for m in example.members() if m.name == name)


def test_a_released_model_is_on_the_record_under_the_right_of_each_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = Ward(tmp_path)
    desk = Handouts(ward.sequencer, example.KEYS["coordinator"])
    with running(ward, CarryingFlower(ward), monkeypatch):
        ward.propose()
        ward.approve()
        assert finished(ward, ward.job)
        release = ward.sequencer.standing.jobs[ward.job.digest()].release
        assert release is not None
        for _ in range(2):
            for name in ("alpha", "delta", "researcher"):
                found = desk.find(ward.sequencer.standing, member(name), release.artifact)
                assert found is not None
                desk.note(found)
        for digest in (release.card, ward.job.dictionary, ward.job.model):
            found = desk.find(ward.sequencer.standing, member("delta"), digest)
            assert found is not None
            desk.note(found)  # needs no record
        written = ward.sequencer.standing.histories.handouts
    model = ward.sequencer.standing.state.jobs[ward.job.digest()].model
    assert sorted(written, key=lambda key: key[1]) == [
        (ward.job.digest(), "alpha", "model", model, "participation"),
        (ward.job.digest(), "delta", "model", model, "release"),
        (ward.job.digest(), "researcher", "model", model, "release"),
    ]


def test_auditors_read_updates_of_every_job(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.start()
    carry(ward.rounds(), ward)
    receipt = ward.sequencer.standing.jobs[ward.job.digest()].closed[1].receipts[0]
    desk = Handouts(ward.sequencer, example.KEYS["coordinator"])
    auditor = Member(name="auditor", role="auditor", key="0" * 64, witness="")
    for digest, right in ((receipt.update, "recomputation"), (receipt.metrics, "audit")):
        found = desk.find(ward.sequencer.standing, auditor, digest)
        assert found is not None
        assert (found.right, found.member) == (right, "auditor")
        with pytest.raises(
            RuleError, match="no member"
        ):  # this one is on no charter: the rules have the last word
            desk.note(found)
    assert desk.find(ward.sequencer.standing, auditor, "") is None
    assert desk.find(ward.sequencer.standing, auditor, sha(b"unknown")) is None


def test_handouts_wait_their_turn_at_a_busy_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ward = Ward(tmp_path)
    ward.start()
    carry(ward.rounds(), ward)
    receipt = ward.sequencer.standing.jobs[ward.job.digest()].closed[1].receipts[0]
    desk = Handouts(ward.sequencer, example.KEYS["coordinator"])
    found = desk.find(ward.sequencer.standing, member("alpha"), receipt.update)
    assert found is not None
    append, before = ward.sequencer.append, [3]

    def overtaken(batch: list[bytes], *, after: int) -> bool:
        if before[0]:
            before[0] -= 1
            ward.sequencer.submit(incident(f"{before[0]}"))
        return append(batch, after=after)

    monkeypatch.setattr(ward.sequencer, "append", overtaken)
    desk.note(found)
    assert list(ward.sequencer.standing.histories.handouts) == [found.key]
    monkeypatch.setattr(ward.sequencer, "append", lambda batch, *, after: False)
    other = desk.find(ward.sequencer.standing, member("bravo"), receipt.update)
    assert other is not None
    with pytest.raises(ServiceError, match="try again"):
        desk.note(other)


def test_a_restart_remembers_who_was_handed_what(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.start()
    carry(ward.rounds(), ward)
    receipt = ward.sequencer.standing.jobs[ward.job.digest()].closed[1].receipts[0]
    for _ in range(2):
        desk = Handouts(ward.sequencer, example.KEYS["coordinator"])
        found = desk.find(ward.sequencer.standing, member("alpha"), receipt.update)
        assert found is not None
        desk.note(found)
        ward.reopen()
    assert ward.sequencer.standing.state.deliveries == 1
    assert isinstance(ward.closed[1], records.Round)
