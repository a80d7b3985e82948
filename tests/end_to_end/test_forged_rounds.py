"""A dishonest coordinator against a real agent over the real transport: each test is named by the attack.

"Refused" always means: a code came back and no array, and the privacy account was not charged. One agent lives
through all of it, so every test also shows that it recovered from the one before; the fork, from which it must not
recover, comes last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from client.standing import Standing
from ledger import envelope, records
from tests.client.fake_coordinator import MODEL
from tests.end_to_end.besieged_hospital import LONG_ROUNDS, Siege, besieged, read_receipt
from tests.end_to_end.dishonest_coordinator import OTHERS, wait_until
from tests.ledger.consortium import digest

OTHER_MODEL = np.ones_like(MODEL)


@pytest.fixture(scope="module")
def siege(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    with besieged(tmp_path_factory.mktemp("siege")) as made:
        yield made


@pytest.fixture
def job(siege: Siege) -> str:
    """A job under way, everything final: the one of the test before, where that one still serves."""
    siege.coordinator.settle()
    standing = Standing(siege.folder)
    for found, state in siege.coordinator.consortium.state.jobs.items():
        if state.status == "running" and state.record.rounds == LONG_ROUNDS and not standing.stopped(found):
            return found
    return siege.start()


def play(siege: Siege, job: str) -> None:
    """An honest round: alpha obeys, and its receipt goes on the record."""
    receipt = siege.obeyed(siege.message(job))
    siege.coordinator.close_round(job, receipt)


def test_wrong_model(siege: Siege, job: str) -> None:
    play(siege, job)
    honest = siege.message(job)
    assert siege.refused(replace(honest, model=OTHER_MODEL)) == "model-digest"
    assert siege.refused(siege.message(job, OTHER_MODEL)) == "wrong-model"
    siege.require_cosigned()
    play(siege, job)


def test_no_quorum_on_the_record_before_the_last(siege: Siege, job: str) -> None:
    siege.coordinator.witnesses = []
    play(siege, job)
    play(siege, job)  # dispatch may be one round ahead of finality, and no more
    assert siege.refused(siege.message(job)) == "earlier-not-final"
    siege.require_cosigned()  # alpha's own hand is what it gives, and no quorum
    siege.coordinator.settle()
    play(siege, job)


def test_no_quorum_on_what_is_called_final(siege: Siege, job: str) -> None:
    coordinator = siege.coordinator
    coordinator.witnesses = []
    play(siege, job)
    play(siege, job)
    siege.require_cosigned()
    coordinator.call_final(OTHERS[:2])  # with alpha's own three of five; four are a quorum
    assert siege.refused(siege.message(job)) == "unknown-checkpoint"
    coordinator.settle()
    play(siege, job)


def test_no_quorum_on_the_last_record_where_it_is_an_abort(siege: Siege, job: str) -> None:
    siege.coordinator.witnesses = []
    siege.coordinator.append(siege.coordinator.consortium.abort(job))
    assert siege.refused(siege.message(job)) == "last-not-final"
    siege.require_cosigned()
    siege.coordinator.settle()
    play(siege, job)


def test_no_quorum_on_the_start_nor_on_the_last_training_round(siege: Siege) -> None:
    coordinator = siege.coordinator
    job = siege.propose(rounds=1, evaluate=(2,))
    coordinator.witnesses = []
    coordinator.start(job)
    assert siege.refused(siege.message(job)) == "last-not-final"
    siege.require_cosigned()
    coordinator.settle()
    receipt = siege.obeyed(siege.message(job))
    coordinator.witnesses = []
    coordinator.close_round(job, receipt)
    assert siege.refused(siege.message(job)) == "last-not-final"
    coordinator.settle()
    evaluated = siege.ask(siege.message(job))
    assert read_receipt(evaluated)[1].round == 2
    assert evaluated.update is None
    assert evaluated.metrics is not None


def test_rolled_back_checkpoint(siege: Siege, job: str) -> None:
    earlier, asked = list(siege.coordinator.consortium.entries), siege.message(job)
    siege.coordinator.close_round(job, siege.obeyed(asked))
    siege.require_cosigned()  # it has read that the round was closed
    old = asked.config["checkpoint"]
    assert siege.refused(siege.message(job, checkpoint=old)) == "rolled-back"
    assert siege.coordinator.lie(earlier) == old  # the whole log as it was before the round was closed
    assert siege.refused(asked) == "rolled-back"
    siege.coordinator.settle()
    siege.require_cosigned()
    play(siege, job)


def test_own_receipt_absent_and_not_named(siege: Siege, job: str) -> None:
    receipt = siege.obeyed(siege.message(job))
    dropped = siege.coordinator.consortium.fork()
    dropped.append(dropped.receipt("bravo", job))
    closing = dropped.entry(replace(dropped.round_(job), left_out=()))
    number = dropped.job_state(job).next_round
    assert dropped.refuses(closing) == "round.left-out"
    note = siege.coordinator.lie([*dropped.entries, closing])
    assert siege.refused(siege.message(job, round=number + 1, checkpoint=note)) == "conflict"
    assert not siege.coordinator.cosigned(siege.coordinator.shown_size)  # no witness signs against the rules
    siege.coordinator.settle()
    siege.coordinator.close_round(job, receipt)
    siege.require_cosigned()
    found = [("alpha", "rule-broken", sha256(note).hexdigest())]
    wait_until(lambda: incidents(siege) == found, "the incident")
    assert (
        siege.refused(siege.message(job)) == "stopped"
    )  # until a person has looked, though all is well again
    play(siege, siege.start())  # no training for that job alone


def test_own_receipt_absent_and_another_in_its_place(siege: Siege, job: str) -> None:
    """Somebody has alpha's key: by the ledger's rules the batch is good, and alpha alone knows better."""
    coordinator = siege.coordinator
    sent = envelope.open_entry(siege.obeyed(siege.message(job))).record
    assert isinstance(sent, records.Receipt)
    other = replace(sent, update=digest("an update that alpha never sent"))
    coordinator.close_round(job, coordinator.consortium.entry(other, "alpha").data)
    assert siege.refused(siege.message(job)) == "receipt-missing"
    found = ("alpha", "receipt-missing", sent.digest())
    wait_until(lambda: incidents(siege)[-1] == found, "the incident")
    assert siege.refused(siege.message(job)) == "stopped"
    siege.require_cosigned()
    play(siege, siege.start())  # no training for that job alone


def test_own_receipt_called_late_is_the_coordinators_word_alone(siege: Siege, job: str) -> None:
    """What alpha cannot tell from an honest delay: it goes on, the charge stands, and the record says "late"."""
    before = incidents(siege)
    siege.obeyed(siege.message(job))
    siege.coordinator.close_round(job, alpha="late")
    play(siege, job)
    siege.require_cosigned()
    assert incidents(siege) == before


def test_message_of_another_hospital_in_the_superlinks_name(siege: Siege, job: str) -> None:
    """Flower lets any registered node send one: what it says decides, not who seems to say it."""
    honest = siege.message(job)
    number = siege.coordinator.consortium.job_state(job).next_round
    unknown = {**honest.config, "job": digest("a job that nobody proposed")}
    forgeries = {
        "wrong-model": siege.message(job, OTHER_MODEL),
        "wrong-round": siege.message(job, round=number + 1),
        "job-not-running": replace(honest, config=unknown),
    }
    before = siege.charges
    with siege.stranger() as stranger:
        for code, forged in forgeries.items():
            told = siege.forge(stranger, forged)
            assert (told["kind"], told["code"]) == ("refusal", code)
        assert siege.charges == before
        assert siege.forge(stranger, honest)["kind"] == "receipt"  # nothing in it is wrong
    entry, receipt = read_receipt(siege.ask(honest))  # the coordinator's own message gets the same bytes
    assert receipt.charge == before + 1 == siege.charges
    siege.require_cosigned()
    siege.coordinator.close_round(job, entry)
    play(siege, job)


def test_forked_log_ends_training_and_cosigning(siege: Siege, job: str) -> None:
    coordinator = siege.coordinator
    fork = coordinator.consortium.fork()
    coordinator.append(coordinator.consortium.tick(1))
    siege.require_cosigned()
    fork.append(fork.tick(2))
    note = coordinator.lie(fork.entries)
    assert siege.refused(siege.message(job, checkpoint=note)) == "conflict"
    coordinator.settle()
    coordinator.append(coordinator.consortium.tick(1))
    assert siege.refused(siege.message(job)) == "conflict"
    assert not coordinator.cosigned(coordinator.folder.store.size)
    assert siege.agent.process.poll() is None  # it stays, and keeps the evidence


def incidents(siege: Siege) -> list[tuple[str, str, str]]:
    with siege.coordinator.lock:
        found = [e.record for e in siege.coordinator.consortium.entries]
    return [(r.member, r.code, r.evidence) for r in found if isinstance(r, records.Incident)]
