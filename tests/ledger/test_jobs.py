"""A job among jobs: aborts, charges, datasets in use and free again, how a job ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger.records import Dataset
from tests.ledger.consortium import DAY, Consortium


def test_an_abort_uses_up_its_number_and_keeps_the_model(running: tuple[Consortium, str]) -> None:
    c, job = running
    before = c.job_state(job)
    c.append(c.abort(job))
    after = c.job_state(job)
    assert (after.next_round, after.model) == (before.next_round + 1, before.model)
    assert c.refuses(replace(c.round_(job), round=before.next_round)) == "round.consecutive"
    c.play(job)
    assert c.job_state(job).model != before.model


def test_charges_of_an_aborted_round_count(running: tuple[Consortium, str]) -> None:
    c, job = running
    c.receive(job, epsilon_job="2", epsilon_dataset="2.5")
    c.append(c.abort(job))
    data = c.state.datasets["alpha/heart"]
    assert (data.charge, data.epsilon) == (2, "2.5")
    assert c.job_state(job).parties["alpha"].epsilon_job == "2"
    assert c.refuses(c.receipt("alpha", job, charge=2)) == "receipt.charge"
    assert c.refuses(c.receipt("alpha", job, epsilon_dataset="2.49")) == "receipt.epsilon-grows"
    c.finish(job)
    assert {s.epsilon_job for s in c.release(job).epsilons} == {"2"}
    c.append(c.release(job))


def test_what_a_job_spent_counts_in_the_next(running: tuple[Consortium, str]) -> None:
    c, job = running
    c.receive(job, epsilon_job="3", epsilon_dataset="7")
    c.append(c.round_(job))
    c.append(c.ended(job, "cancelled"))
    other = c.run("alpha", "bravo")
    assert c.refuses(c.receipt("alpha", other, epsilon_dataset="6.99")) == "receipt.epsilon-grows"
    assert c.refuses(c.receipt("alpha", other, epsilon_dataset="8.01")) == "receipt.within-budget"
    c.append(c.receipt("alpha", other, epsilon_dataset="8"))


def test_two_jobs_and_a_dataset_that_is_free_again(running: tuple[Consortium, str]) -> None:
    c, job = running
    other = c.propose("bravo", "charlie")
    assert c.refuses(c.start(other)) == "start.dataset-free"
    assert c.refuses(c.dataset("bravo")) == "dataset.not-in-use"
    c.finish(job)
    c.append(c.release(job))
    c.append(c.dataset("delta"))
    c.append(c.start(other))
    c.play(other)
    c.append(c.ended(job))  # the released job ends while the other runs
    assert c.state.datasets["bravo/heart"].job == other
    assert c.state.datasets["alpha/heart"].job == ""
    c.append(c.dataset("alpha"))


def test_two_jobs_at_once_do_not_mix(running: tuple[Consortium, str]) -> None:
    c, job = running
    c.offer("delta", "echo")
    other = c.run("delta", "echo")
    nobody = c.abort(other)
    c.receive(job, ["alpha"])
    assert c.refuses(replace(nobody, time=c.state.time)) == "round.job-running"
    c.receive(job, ["bravo", "charlie"])
    c.append(c.round_(job))
    c.play(other)
    assert c.job_state(job).next_round == 3
    assert c.job_state(other).next_round == 2


@pytest.mark.parametrize("reason", ["cancelled", "below-minimum", "expired"])
def test_a_job_that_ends_early_frees_its_datasets(running: tuple[Consortium, str], reason: str) -> None:
    c, job = running
    c.append(c.withdrawal("alpha", job))
    c.append(c.withdrawal("bravo", job))
    c.append(c.tick(31 * DAY))
    c.append(c.ended(job, reason))
    found = c.job_state(job)
    assert (found.status, len(found.parties), len(found.approved)) == (reason, 0, 0)
    assert not c.state.approvals
    assert {d.job for d in c.state.datasets.values()} == {""}
    assert c.refuses(c.ended(job, "cancelled")) in {"ended.job", "record.not-repeated"}


def test_the_researcher_cancels_its_own_job_and_nobody_elses(running: tuple[Consortium, str]) -> None:
    c, job = running
    c.append(c.amendment(add=(c.member("second", "researcher", witness=False),)))
    assert c.refuses(c.ended(job, "cancelled"), "second") == "record.signers"
    assert c.refuses(c.ended(job, "cancelled"), "alpha") == "record.signers"
    assert c.refuses(c.ended(job, "below-minimum"), "researcher") == "record.signers"
    c.append(c.ended(job, "cancelled"), "researcher")


def test_a_dataset_that_changed_hands_its_budget_on(running: tuple[Consortium, str]) -> None:
    c, job = running
    c.receive(job, epsilon_dataset="5")
    c.append(c.round_(job))
    c.append(c.ended(job, "cancelled"))
    smaller = c.append(replace(c.dataset("alpha"), epsilon="6")).record
    assert isinstance(smaller, Dataset)
    data = c.state.datasets["alpha/heart"]
    assert (data.epsilon, data.charge, data.record) == ("5", 2, smaller)
