"""Acknowledgements: durable before they are shown, and what was acknowledged cannot be called late after a crash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from coordinator.acknowledgements import Acknowledgements
from coordinator.closing import Answer
from coordinator.errors import StorageError
from coordinator.exchange import Arrival, Value
from ledger import envelope, example, statements
from ledger.records import Abort, Receipt, Round
from ledger.statements import Acknowledgement
from tests.coordinator.ward import HOSPITALS, Ward, carry, honest, integers

KEY = envelope.public_hex(example.KEYS["coordinator"])


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    made = Ward(tmp_path)
    made.start()
    return made


def receipt_of(arrival: Arrival) -> Receipt:
    record = envelope.open_entry(cast(bytes, arrival.config["receipt"])).record
    assert isinstance(record, Receipt)
    return record


def shown(ward: Ward, receipt: Receipt) -> Acknowledgement | None:
    signed = ward.acknowledgements.find(receipt.digest())
    if signed is None:
        return None
    found = statements.open_signed(signed, KEY)
    assert isinstance(found, Acknowledgement)
    return found


def deliver_some(ward: Ward, *names: str) -> None:
    """Ask for the next exchange and bring these hospitals' replies; the coordinator dies before it closes."""
    rounds = ward.rounds()
    exchange = rounds.next_exchange()
    assert exchange is not None
    for node, config in exchange.configs.items():
        name = HOSPITALS[node - 2**63]
        if name in names:
            rounds.receive(honest(ward)(name, node, config, exchange.model) or Arrival(node_id=node))


def test_every_reply_is_acknowledged_by_what_arrived(ward: Ward) -> None:
    carry(ward.rounds(), ward, exchanges=1)
    for name in HOSPITALS:
        receipt = receipt_of(ward.hospitals[name].sent[1])
        assert shown(ward, receipt) == Acknowledgement(
            origin=example.ORIGIN,
            job=ward.job.digest(),
            round=1,
            hospital=name,
            receipt=receipt.digest(),
            update=receipt.update,
            received_at=int(ward.clock.now),
        )


def test_coordinator_killed_before_the_round_closed_owes_an_absent_hospital_its_place(ward: Ward) -> None:
    deliver_some(ward, "alpha", "charlie")
    ward.reopen()
    asked: list[str] = []

    def answer(name: str, node: int, config: Mapping[str, Value], model: NDArray[np.float32]) -> Arrival:
        asked.append(name)
        return honest(ward)(name, node, config, model) or Arrival(node_id=node)

    ward.nodes.known.pop("alpha")  # its node never came back
    carry(ward.rounds(), ward, answer, exchanges=2)
    assert asked[0] == "bravo"  # the others are not asked for what they have sent
    first = ward.closed[0]
    assert isinstance(first, Round)
    assert (first.receipts, first.left_out) == (3, ())


def test_everybody_acknowledged_needs_no_message_at_all(ward: Ward) -> None:
    deliver_some(ward, *HOSPITALS)
    ward.reopen()
    rounds = ward.rounds()
    exchange = rounds.next_exchange()
    assert exchange is not None
    assert exchange.configs == {}
    rounds.next_exchange()
    assert [(r.round, r.receipts) for r in ward.closed] == [(1, 3)]


def test_histograms_survive_too(ward: Ward) -> None:
    carry(ward.rounds(), ward, exchanges=1)
    ward.rounds().next_exchange()
    deliver_some(ward, *HOSPITALS)  # round 2, which evaluates
    ward.reopen()
    carry(ward.rounds(), ward)
    assert [r.left_out for r in ward.closed] == [()] * 4
    assert not any(isinstance(r, Abort) for r in ward.closed)


def test_line_that_a_crash_cut_short_was_never_shown(ward: Ward) -> None:
    deliver_some(ward, "alpha", "bravo")
    path = ward.folder / "acknowledged" / ward.job.digest()
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    ward.reopen()
    assert set(ward.acknowledgements.answers(ward.job.digest(), 1, ward.job.model)) == {"alpha"}
    deliver_some(ward, "bravo", "charlie")
    assert len(path.read_bytes().splitlines()) == 3
    ward.reopen()
    assert set(ward.acknowledgements.answers(ward.job.digest(), 1, ward.job.model)) == set(HOSPITALS)


@pytest.mark.parametrize(
    "lie", ["other update", "receipt against a rule", "somebody else's receipt", "nothing"]
)
def test_reply_that_proves_nothing_is_not_acknowledged(ward: Ward, lie: str) -> None:
    rounds = ward.rounds()
    exchange = rounds.next_exchange()
    assert exchange is not None
    node = ward.nodes.known["alpha"]
    made = ward.hospitals["alpha"].make(node, exchange.configs[node], exchange.model)
    if lie == "other update":
        made = replace(made, update=integers("another", 5))
    elif lie == "receipt against a rule":
        made = ward.hospitals["alpha"].make(node, exchange.configs[node], exchange.model, round=2)
    elif lie == "somebody else's receipt":
        made = ward.hospitals["bravo"].make(node, exchange.configs[node], exchange.model)
    else:
        made = Arrival(node_id=node, config={"kind": "receipt"})
    rounds.receive(made)
    assert not (ward.folder / "acknowledged").exists()


def test_full_disk_acknowledges_nothing(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    rounds = ward.rounds()
    exchange = rounds.next_exchange()
    assert exchange is not None
    node = ward.nodes.known["alpha"]
    reply = honest(ward)("alpha", node, exchange.configs[node], exchange.model)
    assert reply is not None
    keep = Acknowledgements.keep

    def keep_on_a_full_disk(self: Acknowledgements, answer: Answer) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("coordinator.acknowledgements.os.fsync", full)
            keep(self, answer)

    monkeypatch.setattr(Acknowledgements, "keep", keep_on_a_full_disk)
    with pytest.raises(StorageError, match="No space left"):
        rounds.receive(reply)
    assert shown(ward, receipt_of(reply)) is None
