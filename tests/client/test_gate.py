"""The gate, each test named by the attack that it stops; and the honest message that it lets through."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import gate
from client.errors import GateError
from client.gate import Order, Own, Question
from ledger import records
from ledger.envelope import Entry
from ledger.values import LeftOut
from tests.ledger.consortium import Consortium, digest

EDGES = ("0.1", "0.3", "0.5", "0.7", "0.9")
NOW = 1_000


class Scene:
    """A running job as a hospital sees it, and the honest message that comes next."""

    def __init__(self, rounds_played: int = 1, **changes: Any) -> None:
        self.consortium = Consortium.founded()
        self.consortium.offer("alpha", "bravo")
        self.job = self.consortium.run("alpha", "bravo", **changes)
        for _ in range(rounds_played):
            self.consortium.play(self.job)
        self.final_size = self.consortium.view.size

    def question(self, **changes: Any) -> Question:
        found = self.consortium.job_state(self.job)
        due = found.next_round in found.record.evaluate
        honest = Question(
            job=self.job,
            round=found.next_round,
            model=found.model,
            checkpoint=b"",
            deadline=NOW + 60,
            edges=EDGES if due else (),
        )
        return replace(honest, **changes)

    def last_batch(self) -> list[Entry]:
        """The entries that closed the last round."""
        entries = self.consortium.entries
        last = self.consortium.job_state(self.job).last_index
        record = entries[last].record
        return (
            entries[last - record.receipts : last + 1]
            if isinstance(record, records.Round | records.Abort)
            else []
        )

    def own(self, hospital: str = "alpha") -> Own:
        batch = self.last_batch()
        sent = [e for e in batch if isinstance(e.record, records.Receipt) and e.record.hospital == hospital]
        return Own(
            approval=self.consortium.job_state(self.job).approved.get(hospital, ""),
            last_receipt=sent[0].digest if sent else "",
            last_batch=batch,
        )

    def judge(self, question: Question | None = None, hospital: str = "alpha", **changes: Any) -> Order:
        asked = question or self.question()
        standard = {
            "hospital": hospital,
            "model": asked.model,
            "checkpoint_size": self.consortium.view.size,
            "final_size": self.final_size,
            "now": NOW,
        }
        own = changes.pop("own", None) or self.own(hospital)
        return gate.judge(self.consortium.state, asked, own, **{**standard, **changes})


def refused(code: str, scene: Scene, question: Question | None = None, **changes: Any) -> None:
    with pytest.raises(GateError) as caught:
        scene.judge(question, **changes)
    assert caught.value.code == code


def test_an_honest_message_is_obeyed_in_every_round() -> None:
    scene = Scene(rounds_played=0)
    terms = scene.consortium.job_state(scene.job).record
    for number in range(1, terms.last_exchange + 1):
        order = scene.judge()
        assert (order.training is not None) == (number <= terms.rounds)
        assert (order.evaluation is not None) == (number in terms.evaluate)
        scene.consortium.play(scene.job)
        scene.final_size = scene.consortium.view.size


def test_training_and_histogram_in_one_exchange() -> None:
    scene = Scene(evaluate=(2, 4))
    order = scene.judge()
    assert [m.name for m in order.mechanisms] == ["dp-sgd", "histogram"]
    refused("edges", scene, scene.question(edges=()))
    refused("edges", scene, scene.question(edges=EDGES[:-1]))


def test_dispatch_may_be_one_round_ahead_of_finality() -> None:
    scene = Scene(rounds_played=2)
    scene.final_size = scene.consortium.job_state(scene.job).previous_index + 1
    assert scene.judge().question.round == 3


def test_wrong_model() -> None:
    scene = Scene()
    forged = digest("another model")
    refused("wrong-model", scene, scene.question(model=forged))


def test_model_digest_lie() -> None:
    scene = Scene()
    refused("model-digest", scene, model=digest("the bytes that really came"))
    lie = scene.question(model=digest("what the message states"))
    refused("model-digest", scene, lie, model=scene.question().model)


def test_no_quorum_on_r_minus_1() -> None:
    scene = Scene(rounds_played=2)
    scene.final_size = scene.consortium.job_state(scene.job).previous_index
    refused("earlier-not-final", scene)


def test_no_quorum_on_r_after_the_start() -> None:
    scene = Scene(rounds_played=0)
    scene.final_size = scene.consortium.job_state(scene.job).last_index
    refused("last-not-final", scene)


def test_no_quorum_on_r_after_an_abort() -> None:
    scene = Scene()
    scene.consortium.append(scene.consortium.abort(scene.job))
    scene.final_size = scene.consortium.job_state(scene.job).last_index
    refused("last-not-final", scene)
    scene.final_size += 1
    scene.judge()


def test_no_quorum_on_r_after_the_last_round() -> None:
    scene = Scene(rounds_played=3)
    scene.final_size = scene.consortium.job_state(scene.job).last_index
    refused("last-not-final", scene)
    scene.final_size += 1
    scene.judge()


def test_rolled_back_checkpoint() -> None:
    scene = Scene()
    refused("rolled-back", scene, checkpoint_size=scene.consortium.job_state(scene.job).last_index)


def test_own_receipt_absent() -> None:
    scene = Scene()
    refused("receipt-missing", scene, own=replace(scene.own(), last_receipt=digest("what was sent")))


def test_own_receipt_replaced_by_another_in_its_name() -> None:
    scene = Scene()
    own = scene.own()
    assert own.last_receipt
    refused("receipt-missing", scene, own=replace(own, last_receipt=""))


def test_own_receipt_silently_dropped() -> None:
    scene = Scene()
    own = scene.own()
    dropped = [e for e in own.last_batch if getattr(e.record, "hospital", "") != "alpha"]
    refused("receipt-missing", scene, own=replace(own, last_batch=dropped))


def test_own_receipt_left_out_with_a_reason_is_no_incident() -> None:
    scene = Scene(rounds_played=0)
    consortium = scene.consortium
    consortium.receive(scene.job, ["bravo"])
    consortium.append(consortium.abort(scene.job, {"alpha": "late"}))
    scene.final_size = consortium.view.size
    scene.judge(own=replace(scene.own(), last_receipt=digest("sent, but late")))


def test_not_a_participant() -> None:
    scene = Scene()
    refused("not-a-participant", scene, hospital="charlie")


def test_withdrawn() -> None:
    scene = Scene()
    scene.consortium.append(scene.consortium.withdrawal("alpha", scene.job))
    refused("withdrawn", scene, own=replace(scene.own(), approval=digest("any")))


def test_skipped_before() -> None:
    scene = Scene()
    scene.consortium.append(scene.consortium.skip("alpha", scene.job))
    refused("skipped", scene)


def test_approval_that_this_hospital_never_gave() -> None:
    scene = Scene()
    refused("approval", scene, own=replace(scene.own(), approval=""))


def test_unknown_job() -> None:
    scene = Scene()
    refused("job-not-running", scene, scene.question(job=digest("no such job")))


def test_job_that_has_not_started() -> None:
    scene = Scene()
    proposed = scene.consortium.append(scene.consortium.job("alpha", "bravo")).digest
    refused("job-not-running", scene, scene.question(job=proposed))


def test_job_that_has_ended() -> None:
    scene = Scene()
    question = scene.question()
    scene.consortium.append(scene.consortium.ended(scene.job, "cancelled"), "researcher")
    refused("job-not-running", scene, question, own=Own(approval="", last_receipt="", last_batch=()))


def test_round_replayed() -> None:
    scene = Scene(rounds_played=2)
    found = scene.consortium.job_state(scene.job)
    refused("wrong-round", scene, scene.question(round=found.next_round - 1))


def test_round_ahead() -> None:
    scene = Scene()
    refused("wrong-round", scene, scene.question(round=3))


def test_round_after_the_last_exchange() -> None:
    scene = Scene(rounds_played=4)
    refused("wrong-round", scene)


def test_deadline_passed() -> None:
    scene = Scene()
    refused("deadline", scene, scene.question(deadline=NOW))


def test_expired_agreement() -> None:
    scene = Scene()
    found = scene.consortium.job_state(scene.job)
    scene.consortium.receive(scene.job)
    late = scene.consortium.round_(scene.job, time=found.record.expires_at)
    scene.consortium.append(late)
    scene.final_size = scene.consortium.view.size
    refused("expired", scene)


def message(**changes: Any) -> dict[str, Any]:
    honest: dict[str, Any] = {
        "job": digest("job"),
        "round": 1,
        "model": digest("model"),
        "checkpoint": b"note",
        "deadline": 1,
        "edges": json.dumps(EDGES),
    }
    return {k: v for k, v in {**honest, **changes}.items() if v is not None}


def test_a_message_is_read_as_it_is() -> None:
    question = gate.read(message())
    assert (question.round, question.edges, question.checkpoint) == (1, EDGES, b"note")
    assert gate.read(message(edges=None)).edges == ()


@pytest.mark.parametrize("name", ["job", "round", "model", "checkpoint", "deadline"])
def test_message_without_a_value_or_of_a_wrong_kind(name: str) -> None:
    for wrong in (None, "x", b"", 1):
        if type(wrong) is not type(message()[name]):
            with pytest.raises(GateError) as caught:
                gate.read(message(**{name: wrong}))
            assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    "edges",
    [
        "",
        "{",
        "[1]",
        '["x"]',
        '["1e3"]',
        '["nan"]',
        '["0.2","0.1"]',
        '["0.1","0.1"]',
        "[" * 5000,
        7,
        '{"a":1}',
    ],
)
def test_hostile_edges(edges: object) -> None:
    with pytest.raises(GateError) as caught:
        gate.read(message(edges=edges))
    assert caught.value.code == "edges"


VALUES = st.one_of(st.text(max_size=80), st.binary(max_size=80), st.integers())


@given(st.dictionaries(st.sampled_from([*message(), "other"]), VALUES))
def test_any_message_is_a_question_or_a_refusal(config: Mapping[str, Any]) -> None:
    codes = [None, *gate.REFUSALS]
    assert code_of({**message(), **config}) in codes  # anything but a GateError would leave


def code_of(config: Mapping[str, Any]) -> str | None:
    try:
        gate.read(config)
    except GateError as error:
        return error.code
    return None


def test_a_refusal_says_its_code_and_no_value() -> None:
    for code, words in gate.REFUSALS.items():
        error = gate.refuse(code)
        assert str(error) == f"{code}: {words}"
        assert records.Refusal(origin="a.example", hospital="alpha", job=digest("job"), code=code)


def test_shown_is_exactly_the_own_receipt_or_a_reason() -> None:
    scene = Scene()
    batch = scene.last_batch()
    closing = batch[-1].record
    assert isinstance(closing, records.Round)
    own = scene.own().last_receipt
    assert gate.is_shown(own, "alpha", batch)
    assert gate.is_shown("", "charlie", batch)
    assert not gate.is_shown(own, "charlie", batch)
    named = replace(closing, left_out=(LeftOut(hospital="charlie", code="late"),))
    assert gate.is_shown(own, "charlie", [*batch[:-1], scene.consortium.entry(named)])
    assert gate.is_shown("", "alpha", [])
