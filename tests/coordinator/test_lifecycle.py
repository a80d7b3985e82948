"""What the coordinator does next for a job, at each point of the job's life."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator import waiting
from coordinator.exchange import Arrival
from coordinator.lifecycle import Step, in_turn, next_step, ready_hospitals
from ledger import example, records
from tests.coordinator.ward import HOSPITALS, Ward, carry


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


def step(ward: Ward, *, waited: bool = False, later: int = 0) -> Step:
    standing, now = ward.sequencer.standing, int(ward.clock.now) + later
    history = standing.jobs[ward.job.digest()]
    return next_step(standing.state, history, now, asked_until=now - 1 if waited else now + 100)


def refuse(ward: Ward, name: str) -> None:
    record = records.Refusal(origin=example.ORIGIN, hospital=name, job=ward.job.digest(), code="policy")
    ward.submit(record, name)


def withdraw(ward: Ward, name: str) -> None:
    approval = ward.sequencer.standing.state.jobs[ward.job.digest()].approved[name]
    ward.submit(records.Withdrawal(origin=example.ORIGIN, hospital=name, approval=approval), name)


def test_proposed_job_starts_when_everybody_has_approved(ward: Ward) -> None:
    ward.propose()
    assert step(ward) is Step.WAIT
    ward.approve("alpha", "bravo")
    assert step(ward) is Step.WAIT  # charlie has not answered
    ward.approve("charlie")
    assert step(ward) is Step.START


def test_a_refusal_is_an_answer_too(ward: Ward) -> None:
    ward.propose()
    ward.approve("alpha", "bravo")
    refuse(ward, "charlie")
    assert step(ward) is Step.START
    ward.approve("charlie")  # it may still approve
    assert step(ward) is Step.START


def test_silence_is_waited_for_until_the_period_is_over(ward: Ward) -> None:
    ward.propose()
    ward.approve("alpha")
    assert step(ward, waited=True) is Step.WAIT  # below the minimum
    ward.approve("bravo")
    assert step(ward) is Step.WAIT
    assert step(ward, waited=True) is Step.START


def test_withdrawn_approval_counts_no_more(ward: Ward) -> None:
    ward.propose()
    ward.approve()
    withdraw(ward, "bravo")
    assert step(ward) is Step.WAIT
    standing = ward.sequencer.standing
    found = standing.state.jobs[ward.job.digest()]
    assert set(ready_hospitals(standing.state, found, int(ward.clock.now))) == {"alpha", "charlie"}


def test_nobody_is_ready_after_the_agreement_has_expired(ward: Ward) -> None:
    ward.propose()
    ward.approve()
    standing = ward.sequencer.standing
    found = standing.state.jobs[ward.job.digest()]
    assert ready_hospitals(standing.state, found, example.EXPIRES) == {}


def test_proposed_job_expires(ward: Ward) -> None:
    ward.propose()
    ward.approve()
    assert step(ward, later=31 * 86_400) is Step.EXPIRE


def test_running_job_runs_until_its_last_exchange_and_is_released(ward: Ward) -> None:
    ward.start()
    assert step(ward) is Step.RUN
    carry(ward.rounds(), ward)
    assert step(ward) is Step.RELEASE


def test_running_job_below_its_minimum_ends(ward: Ward) -> None:
    ward.start()
    withdraw(ward, "alpha")
    assert step(ward) is Step.RUN
    withdraw(ward, "bravo")
    assert step(ward) is Step.BELOW_MINIMUM


def test_running_job_expires_by_the_log_not_by_a_clock(ward: Ward) -> None:
    ward.start()
    assert step(ward, later=31 * 86_400) is Step.RUN  # its next record will say the time
    ward.clock.now = ward.job.expires_at
    ward.append(records.Tick(origin=example.ORIGIN, time=ward.job.expires_at))
    assert step(ward) is Step.EXPIRE


def test_job_in_which_no_round_gave_a_model_is_cancelled(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "BACKOFF", (0.0, 0.0))  # this clock stands still
    ward.start()
    carry(ward.rounds(), ward, lambda name, node, config, model: Arrival(node_id=node, failure="late"))
    assert step(ward) is Step.CANCEL


def test_jobs_under_way_come_first_and_then_the_order_of_the_log(ward: Ward) -> None:
    ward.propose()
    later = replace(ward.job, name="later")
    ward.submit(later, "researcher")
    standing = ward.sequencer.standing
    assert in_turn(standing.state, standing.jobs) == [ward.job.digest(), later.digest()]
    first, ward.job = ward.job, later
    ward.approve(*HOSPITALS)
    ward.start_proposed()
    standing = ward.sequencer.standing
    assert in_turn(standing.state, standing.jobs) == [later.digest(), first.digest()]
