"""Jobs that wait their turn, and jobs that are ended: by their researcher or by the clock, at every stage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from coordinator.exchange import Arrival, Exchange, Value
from ledger.records import Ended, Job
from tests.coordinator.test_runner import CarryingFlower, finished, running, status
from tests.coordinator.ward import Ward


class HeldFlower(CarryingFlower):
    """A Flower whose hospitals train for as long as a test wants, and answer for any job."""

    def __init__(self, ward: Ward) -> None:
        super().__init__(ward)
        self.asked = threading.Event()  # a hospital has begun to train
        self.go_on = threading.Event()
        self._turn = threading.Lock()
        self._sent: dict[tuple[str, str], dict[int, Arrival]] = {}

    def answer(
        self, name: str, node: int, config: Mapping[str, Value], model: NDArray[np.float32]
    ) -> Arrival | None:
        self.asked.set()
        assert self.go_on.wait(20)
        with self._turn:  # a ward's hospitals answer for one job at a time
            job, hospital = str(config["job"]), self.ward.hospitals[name]
            kept, hospital.sent = self.ward.job, self._sent.setdefault((job, name), {})
            self.ward.job = self.ward.sequencer.standing.jobs[job].job
            try:
                return hospital.answer(node, config, model)
            finally:
                self.ward.job = kept


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


@pytest.fixture
def held(ward: Ward) -> Iterator[HeldFlower]:
    flower = HeldFlower(ward)
    yield flower
    flower.go_on.set()
    for thread in flower.threads:
        thread.join(10)


def cancel(ward: Ward, job: Job) -> None:
    """As its researcher does."""
    ward.submit(Ended(origin=job.origin, job=job.digest(), reason="cancelled"), job.researcher)


def second(ward: Ward, **changes: Any) -> Job:
    """Propose another job of the same hospitals, and approve it."""
    ward.job = replace(ward.job, name="second", **changes)
    ward.propose()
    ward.approve()
    return ward.job


def soon(condition: Callable[[], bool]) -> bool:
    for _ in range(500):
        if condition():
            return True
        threading.Event().wait(0.02)
    return False


def test_proposed_job_that_is_cancelled_never_starts(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    flower, job = CarryingFlower(ward), ward.job
    with running(ward, flower, monkeypatch):
        ward.propose()
        cancel(ward, job)
        assert finished(ward, job)
    assert (status(ward, job), flower.jobs) == ("cancelled", [])


def test_job_cancelled_while_hospitals_train_frees_their_datasets_and_its_server_app_at_once(
    ward: Ward, held: HeldFlower, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ward.job
    with running(ward, held, monkeypatch):
        ward.propose()
        ward.approve()
        assert held.asked.wait(10)
        cancel(ward, first)
        assert soon(
            lambda: held.stopped == [0]
        )  # it would wait for every reply, and for a silent one till late
        for hospital in ward.hospitals.values():
            hospital.sent.clear()
        held.go_on.set()
        job = second(ward)
        assert finished(ward, job)
    assert (status(ward, first), status(ward, job)) == ("cancelled", "finished")
    assert held.jobs == [first.digest(), job.digest()]
    assert not ward.sequencer.standing.jobs[first.digest()].closed


def test_job_cancelled_between_rounds_keeps_its_rounds_and_trains_no_more(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    flower, job = CarryingFlower(ward), ward.job
    flower.dies_after = [2]  # the second one's replies are lost with it
    with running(ward, flower, monkeypatch):
        monkeypatch.setattr("coordinator.runner.RETRY_SECONDS", (3600.0, 3600.0))
        ward.propose()
        ward.approve()
        assert soon(
            lambda: [h.charge for h in ward.hospitals.values()] == [2, 2, 2]
        )  # the second was asked for
        cancel(ward, job)
        assert finished(ward, job)
    assert status(ward, job) == "cancelled"
    assert [r.round for r in ward.closed] == [1]
    assert [h.charge for h in ward.hospitals.values()] == [2, 2, 2]


def test_job_cancelled_while_its_hospitals_are_away_asks_nobody(ward: Ward) -> None:
    ward.start()
    ward.nodes.there = set()
    rounds, found = ward.rounds(), list[Exchange | None]()
    thread = threading.Thread(target=lambda: found.append(rounds.next_exchange()))
    thread.start()
    cancel(ward, ward.job)
    thread.join(10)
    assert found == [None]


def test_waiting_job_expires_while_another_one_runs(
    ward: Ward, held: HeldFlower, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ward.job
    with running(ward, held, monkeypatch):
        ward.propose()
        ward.approve()
        assert held.asked.wait(10)
        job = second(ward, expires_at=int(ward.clock.now) + 50)
        ward.clock.now += 60
        assert finished(ward, job)
        assert status(ward, first) == "running"
        held.go_on.set()
        assert finished(ward, first)
    assert (status(ward, first), status(ward, job)) == ("finished", "expired")


def test_running_job_expires_at_the_end_of_the_round_that_passes_its_time(
    ward: Ward, held: HeldFlower, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ward.job
    with running(ward, held, monkeypatch):
        ward.propose()
        ward.approve()
        assert held.asked.wait(10)
        ward.clock.now = job.expires_at + 1
        held.go_on.set()
        assert finished(ward, job)
    assert status(ward, job) == "expired"
    assert len(ward.closed) == 1


def test_jobs_that_wait_run_in_the_order_of_the_log_and_the_first_ones_evidence_does_not_wait(
    ward: Ward, held: HeldFlower, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [ward.job]
    with running(ward, held, monkeypatch):
        ward.propose()
        ward.approve()
        assert held.asked.wait(10)
        for name in ("second", "third"):
            ward.job = replace(ward.job, name=name)
            ward.propose()
            ward.approve()
            jobs.append(ward.job)
        held.go_on.set()
        assert all(finished(ward, job) for job in jobs)
    assert held.jobs == [job.digest() for job in jobs]
    order = [ward.sequencer.standing.jobs[job.digest()].end_index for job in jobs]
    assert order == sorted(order)
