"""The exchanges of a job: honest rounds, every kind of hostile reply, aborts, finality, restarts at any step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from coordinator import evaluations, terms
from coordinator.aggregation import recompute
from coordinator.errors import StoppedError
from coordinator.exchange import Arrival, Exchange, Value
from coordinator.metrics import FIRST_EDGES
from coordinator.rounds import ASKED_AGAIN, JobRounds
from coordinator.standing import Standing
from ledger import envelope, example, records
from ledger.records import Abort, Receipt, Round
from tests.coordinator.ward import (
    HOSPITALS,
    PARAMETERS,
    Answerer,
    Hospital,
    Ward,
    carry,
    deliver,
    histogram,
    honest,
    integers,
    passing,
    sha,
)

Config = Mapping[str, Value]
Spoil = Callable[[Hospital, int, Config, NDArray[np.float32]], Arrival | None]


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    made = Ward(tmp_path)
    made.start()
    return made


def spoiled_by_alpha(ward: Ward, spoil: Spoil) -> Answerer:
    """Everybody is honest but alpha."""

    def answer(name: str, node: int, config: Config, model: NDArray[np.float32]) -> Arrival | None:
        hospital = ward.hospitals[name]
        return (spoil if name == "alpha" else Hospital.answer)(hospital, node, config, model)

    return answer


def codes(record: Round | Abort) -> dict[str, str]:
    return {item.hospital: item.code for item in record.left_out}


# --- honest ---


def test_honest_rounds_go_on_the_record_and_recompute_exactly(ward: Ward) -> None:
    assert carry(ward.rounds(), ward) == 4  # three rounds, and the evaluation of the final model
    history = ward.sequencer.standing.jobs[ward.job.digest()]
    assert [c.record.round for c in history.closed] == [1, 2, 3, 4]
    state = ""
    for closed in history.closed[:3]:
        record = closed.record
        assert isinstance(record, Round)
        inputs = terms.round_inputs(history, record.model_before, state, closed.used)
        outcome = recompute(inputs, ward.blobs.open)
        assert (outcome.model_after, outcome.inputs) == (record.model_after, record.inputs)
        assert record.model_after != record.model_before
    final = history.closed[3].record
    assert isinstance(final, Round)
    assert final.model_after == final.model_before


def test_the_average_is_weighted_by_size_class(ward: Ward) -> None:
    rounds = ward.rounds()
    carry(rounds, ward, exchanges=1)
    rounds.next_exchange()
    model = np.frombuffer(ward.initial, dtype="<f4").astype(np.float64)
    change = np.zeros(PARAMETERS)
    for name, size_class in (("alpha", 64), ("bravo", 32), ("charlie", 32)):
        change += size_class * (-0.3 * 0.5 * 2.0**-20 / size_class) * integers(f"{name} 1", PARAMETERS)
    expected = (model + change / 128).astype("<f4")
    (record,) = ward.closed
    assert np.array_equal(np.frombuffer(ward.blobs.read(record.model_after), dtype="<f4"), expected)


def test_evaluations_use_the_edges_that_the_one_before_asks_for(ward: Ward) -> None:
    sent: dict[int, str] = {}

    def answer(name: str, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
        if "edges" in config:
            sent[cast(int, config["round"])] = cast(str, config["edges"])
        return ward.hospitals[name].answer(node, config, model)

    carry(ward.rounds(), ward, answer)
    assert sorted(sent) == [2, 4]
    assert sent[2] == str(evaluations.spell(FIRST_EDGES)).replace("'", '"')
    assert sent[4] != sent[2]
    history = ward.sequencer.standing.jobs[ward.job.digest()]
    found = evaluations.of_history(history, ward.blobs.read)
    assert [m.round for m in found.done] == [2, 4]
    assert found.done[1].evaluation.auroc is not None
    assert found.done[1].evaluation.auroc.low < found.done[1].evaluation.auroc.value


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam", "fedyogi", "fedmedian", "fedtrimmedavg"])
def test_strategies_with_and_without_memory_recompute_from_the_record(tmp_path: Path, strategy: str) -> None:
    ward = Ward(tmp_path)
    ward.job = ward.make_job(
        aggregation=replace(ward.job.aggregation, strategy=strategy, settings=()),
        evaluate=(),
        heldout_epsilon="0",
    )
    ward.start()
    assert carry(ward.rounds(), ward) == 3
    history = ward.sequencer.standing.jobs[ward.job.digest()]
    state = ""
    for closed in history.closed:
        record = closed.record
        assert isinstance(record, Round)
        outcome = recompute(
            terms.round_inputs(history, record.model_before, state, closed.used), ward.blobs.open
        )
        assert (outcome.model_after, outcome.server_state_after) == (
            record.model_after,
            record.server_state_after,
        )
        state = record.server_state_after
    assert bool(state) == (strategy in ("fedavgm", "fedadam", "fedyogi"))


# --- hostile ---


def wrong_shape(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    return h.make(node, config, model, update=np.ones(PARAMETERS + 1, dtype=np.int64))


def wrong_dtype(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    return h.make(node, config, model, update=np.ones(PARAMETERS, dtype=np.float32))


def norm_bomb(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    return h.make(node, config, model, update=np.full(PARAMETERS, 2**62, dtype=np.int64))


def other_bytes_than_receipted(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    made = h.make(node, config, model)
    return replace(made, update=integers("something else", PARAMETERS))


def histogram_nobody_asked_for(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    return replace(h.make(node, config, model), metrics=histogram("uninvited"))


def no_update(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    return replace(h.make(node, config, model), update=None)


def bad_signature(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    made = h.make(node, config, model)
    entry = envelope.parse_entry(cast(bytes, made.config["receipt"]))
    assert isinstance(entry.record, Receipt)
    forged = envelope.sign(entry.record, example.KEYS["delta"])
    return replace(made, config={"kind": "receipt", "receipt": forged})


def broken_signature(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    made = h.make(node, config, model)
    entry = envelope.parse_entry(cast(bytes, made.config["receipt"]))
    (key,) = entry.signers
    broken = envelope.assemble(entry.record, {key: bytes(64)})
    return replace(made, config={"kind": "receipt", "receipt": broken})


def receipt_of_another_round(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    return h.make(node, config, model, round=2)


def receipt_of_another_model(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    return h.make(node, config, model, model_before=sha(b"another"))


def receipt_of_another_hospital(
    h: Hospital, node: int, config: Config, model: NDArray[np.float32]
) -> Arrival:
    return h.ward.hospitals["bravo"].answer(node, config, model)


def receipt_of_another_job(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    return h.make(node, config, model, job=sha(b"another"))


def receipt_over_the_limit(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    return h.make(node, config, model, epsilon_job="41")


def receipt_of_a_checkpoint_that_never_was(
    h: Hospital, node: int, config: Config, model: NDArray[np.float32]
) -> Arrival:
    return h.make(node, config, model, checkpoint_root=sha(b"a fork"))


def another_record_for_a_receipt(
    h: Hospital, node: int, config: Config, model: NDArray[np.float32]
) -> Arrival:
    tick = envelope.sign(records.Tick(origin=example.ORIGIN, time=2_000_000_000), example.KEYS["alpha"])
    return Arrival(node_id=node, config={"kind": "receipt", "receipt": tick})


def no_receipt(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    return replace(h.make(node, config, model), config={"kind": "receipt"})


def nonsense(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    return Arrival(node_id=node, config={"kind": 7, "receipt": "text", "x": b"\x00" * 100})


def refusal(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    return Arrival(node_id=node, config={"kind": "refusal", "code": "hours\nforged log line"})


def skip_of_another(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    record = records.Skip(
        origin=example.ORIGIN, hospital="bravo", job=h.ward.job.digest(), round=1, code="busy"
    )
    return Arrival(
        node_id=node, config={"kind": "skip", "record": envelope.sign(record, example.KEYS["alpha"])}
    )


def skip(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
    record = records.Skip(
        origin=example.ORIGIN, hospital="alpha", job=h.ward.job.digest(), round=1, code="busy"
    )
    return Arrival(
        node_id=node, config={"kind": "skip", "record": envelope.sign(record, example.KEYS["alpha"])}
    )


def failed(code: str) -> Spoil:
    return lambda h, node, config, model: Arrival(node_id=node, failure=code)


ON_THE_RECORD = {  # the receipt is valid and its charge spent: logged, its update not used
    wrong_shape: "shape",
    wrong_dtype: "dtype",
    norm_bomb: "norm",
    other_bytes_than_receipted: "digest",
    histogram_nobody_asked_for: "name",
    no_update: "name",
}
NO_RECEIPT: dict[Spoil, str] = {
    bad_signature: "receipt",
    broken_signature: "receipt",
    receipt_of_another_round: "receipt",
    receipt_of_another_model: "receipt",
    receipt_of_another_hospital: "receipt",
    receipt_of_another_job: "receipt",
    receipt_over_the_limit: "receipt",
    receipt_of_a_checkpoint_that_never_was: "receipt",
    another_record_for_a_receipt: "receipt",
    no_receipt: "receipt",
    nonsense: "receipt",
    skip_of_another: "receipt",
    refusal: "refused",
    skip: "skipped",
    failed("late"): "late",
    failed("unreachable"): "unreachable",
    failed("malformed"): "receipt",
    lambda *_: None: "late",  # it never answers
}


@pytest.mark.parametrize("spoil", ON_THE_RECORD, ids=lambda f: f.__name__)
def test_bad_update_is_left_out_and_its_receipt_logged(ward: Ward, spoil: Spoil) -> None:
    carry_first(ward, spoil)
    (record,) = ward.closed
    assert isinstance(record, Round)
    assert codes(record) == {"alpha": ON_THE_RECORD[cast(Any, spoil)]}
    assert record.receipts == 3
    assert record.model_after == without_alpha(ward)


@pytest.mark.parametrize("spoil", NO_RECEIPT, ids=lambda f: f.__name__)
def test_reply_without_a_valid_receipt_is_left_out_with_its_reason(ward: Ward, spoil: Spoil) -> None:
    carry_first(ward, spoil)
    (record,) = ward.closed
    assert isinstance(record, Round)
    assert codes(record) == {"alpha": NO_RECEIPT[spoil]}
    assert record.receipts == 2
    assert record.model_after == without_alpha(ward)


def test_the_coordinators_log_says_why_there_is_no_receipt(
    ward: Ward, caplog: pytest.LogCaptureFixture
) -> None:
    carry_first(ward, skip)
    assert "round 1: alpha: skipped (busy)" in caplog.text


def carry_first(ward: Ward, spoil: Spoil) -> None:
    """Make round 1 with a hostile alpha, and close it."""
    rounds = ward.rounds()
    while not ward.closed:  # more than once for a hospital that went away: it is asked again
        carry(rounds, ward, spoiled_by_alpha(ward, spoil), exchanges=1)


def without_alpha(ward: Ward) -> str:
    """The model that the two honest hospitals' updates give."""
    model = np.frombuffer(ward.initial, dtype="<f4").astype(np.float64)
    total = np.zeros(PARAMETERS)
    for name in ("bravo", "charlie"):
        total += 32.0 * (integers(f"{name} 1", PARAMETERS) * -((0.3 * 0.5 * 2.0**-20) / 32.0))
    return sha((model + total / 64.0).astype("<f4").tobytes())


def test_nan_in_an_update_of_several_local_steps_is_left_out(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.job = ward.make_job(training=replace(ward.job.training, local_steps=2))
    ward.start()

    def answer(name: str, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
        update = np.full(PARAMETERS, 0.01, dtype="<f4")
        if name == "alpha":
            update[2] = np.nan
        mechanisms = tuple(
            replace(m, steps=2) if m.name == "dp-sgd" else m for m in ward.hospitals[name].mechanisms(1)
        )
        return ward.hospitals[name].make(node, config, model, update=update, mechanisms=mechanisms)

    rounds = ward.rounds()
    carry(rounds, ward, answer, exchanges=1)
    rounds.next_exchange()
    assert codes(ward.closed[0]) == {"alpha": "non-finite"}


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 7), dtype=np.int64),
        np.zeros(12, dtype=np.int64),
        np.zeros((2, 6), dtype=np.float32),
        np.full((2, 6), -(2**63), dtype=np.int64),
        np.full((2, 6), 10_000, dtype=np.int64),
    ],
    ids=["shape", "flat", "dtype", "overflowing", "too-many-patients"],
)
def test_histogram_bomb_is_left_out_and_moves_no_metric(ward: Ward, bad: Any) -> None:
    def spoil(h: Hospital, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
        return h.make(node, config, model, metrics=bad if "edges" in config else None)

    carry(ward.rounds(), ward, spoiled_by_alpha(ward, spoil))
    assert [codes(r) for r in ward.closed] == [{}, {"alpha": "metrics"}, {}, {"alpha": "metrics"}]


def test_duplicate_reply_changes_nothing(ward: Ward) -> None:
    rounds = ward.rounds()
    exchange = rounds.next_exchange()
    assert exchange is not None
    names = {node: name for name, node in ward.nodes.known.items()}
    deliver(rounds, exchange, names, honest(ward))
    alpha = ward.nodes.known["alpha"]
    again = ward.hospitals["alpha"].make(
        alpha, exchange.configs[alpha], exchange.model, update=np.zeros(PARAMETERS, dtype=np.int64)
    )
    rounds.receive(again)
    rounds.receive(replace(again, node_id=12345))  # a stranger's
    rounds.next_exchange()
    (record,) = ward.closed
    assert codes(record) == {}
    history = ward.sequencer.standing.jobs[ward.job.digest()]
    assert history.closed[0].receipts[0].update == sha(integers("alpha 1", PARAMETERS).tobytes())


# --- below the minimum, aborts, ends ---


def test_below_minimum_the_round_is_aborted_on_the_record_and_keeps_the_model(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ward.sequencer, "wait", passing(ward))

    def answer(name: str, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
        if config["round"] == 1 and name != "bravo":
            return Arrival(node_id=node, failure="unreachable")
        return ward.hospitals[name].answer(node, config, model)

    assert carry(ward.rounds(), ward, answer) == 4 + ASKED_AGAIN
    aborted, *others = ward.closed
    assert isinstance(aborted, Abort)
    assert aborted.code == "below-minimum"
    assert aborted.receipts == 1  # bravo's charge is spent
    assert all(isinstance(r, Round) for r in others)
    assert others[0].model_before == aborted.model_before == ward.job.model


def test_model_that_is_not_finite_aborts_every_round(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.initial = np.array([0, 1, np.inf, 2, 3], dtype="<f4").tobytes()
    ward.blobs.put(ward.initial)
    ward.job = ward.make_job()
    ward.start()
    carry(ward.rounds(), ward)
    assert [(type(r), getattr(r, "code", "")) for r in ward.closed[:3]] == [(Abort, "aggregation")] * 3
    assert [r.receipts for r in ward.closed[:3]] == [3, 3, 3]


def test_withdrawal_in_the_middle_leaves_the_hospital_out_and_asks_it_no_more(ward: Ward) -> None:
    rounds = ward.rounds()
    asked: list[set[str]] = []

    def answer(name: str, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
        asked[-1].add(name)
        made = ward.hospitals[name].answer(node, config, model)
        if name == "alpha":
            approval = ward.sequencer.standing.state.jobs[ward.job.digest()].approved["alpha"]
            record = records.Withdrawal(origin=example.ORIGIN, hospital="alpha", approval=approval)
            ward.submit(record, "alpha")
        return made

    names = {node: name for name, node in ward.nodes.known.items()}
    while (exchange := rounds.next_exchange()) is not None:
        asked.append(set())
        deliver(rounds, exchange, names, answer)
    assert asked == [{"alpha", "bravo", "charlie"}] + [{"bravo", "charlie"}] * 3
    assert [codes(r) for r in ward.closed] == [{"alpha": "withdrawn"}] * 4


def test_too_many_withdrawals_end_the_exchanges(ward: Ward) -> None:
    rounds = ward.rounds()
    assert rounds.next_exchange() is not None
    for name in ("alpha", "bravo"):
        approval = ward.sequencer.standing.state.jobs[ward.job.digest()].approved[name]
        ward.submit(records.Withdrawal(origin=example.ORIGIN, hospital=name, approval=approval), name)
    assert rounds.next_exchange() is None  # round 1 was aborted, and nobody is asked again
    (record,) = ward.closed
    assert isinstance(record, Abort)


def test_cancelled_job_is_not_recorded_further(ward: Ward) -> None:
    rounds = ward.rounds()
    exchange = rounds.next_exchange()
    assert exchange is not None
    deliver(rounds, exchange, {n: name for name, n in ward.nodes.known.items()}, honest(ward))
    ward.submit(records.Ended(origin=example.ORIGIN, job=ward.job.digest(), reason="cancelled"), "researcher")
    size = ward.sequencer.standing.view.size
    assert rounds.next_exchange() is None
    assert ward.sequencer.standing.view.size == size


def test_hospital_without_a_registered_node_is_unreachable(ward: Ward) -> None:
    del ward.nodes.known["charlie"]
    ward.nodes.there.discard("charlie")
    assert carry(ward.rounds(), ward) == 4
    assert [codes(r) for r in ward.closed] == [{"charlie": "unreachable"}] * 4


# --- finality ---


def test_dispatch_is_one_round_ahead_of_finality_and_no_further(ward: Ward) -> None:
    rounds = ward.rounds()
    carry(rounds, ward, exchanges=1)
    ward.cosigning = ()  # the witnesses fall silent after the start
    second = rounds.next_exchange()
    assert second is not None  # round 1 is recorded and not final
    assert second.round == 2
    deliver(rounds, second, {n: name for name, n in ward.nodes.known.items()}, honest(ward))
    assert waits(ward, rounds)  # round 2 is recorded; round 1 must be final first
    assert len(ward.closed) == 2


def test_start_must_be_final_before_the_first_message(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.cosigning = ()
    ward.start()
    assert waits(ward, ward.rounds())


def test_abort_must_be_final_before_the_next_message(ward: Ward) -> None:
    rounds = ward.rounds()
    assert rounds.next_exchange() is not None
    ward.cosigning = ()
    assert waits(ward, rounds)  # nobody answered: round 1 was aborted
    assert isinstance(ward.closed[0], Abort)


def test_last_round_must_be_final_before_its_model_is_evaluated(ward: Ward) -> None:
    rounds = ward.rounds()
    carry(rounds, ward, exchanges=3)
    ward.cosigning = ()
    assert waits(ward, rounds)
    assert len(ward.closed) == 3


def waits(ward: Ward, rounds: JobRounds) -> bool:
    """Whether the next exchange is held back until the coordinator is stopped."""

    def wait(condition: Callable[[Standing], bool], seconds: float | None = None) -> bool:
        if not condition(ward.sequencer.standing):
            raise StoppedError("the coordinator would wait here")
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ward.sequencer, "wait", wait)
        try:
            rounds.next_exchange()
        except StoppedError:
            return True
    return False


# --- restarts ---


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    made = Ward(tmp_path_factory.mktemp("undisturbed"))
    made.start()
    carry(made.rounds(), made)
    return made


@pytest.mark.parametrize("answered", [0, 2, 3])
@pytest.mark.parametrize("done", range(4))
def test_restart_between_any_two_steps_gives_the_same_models(
    ward: Ward, undisturbed: Ward, done: int, answered: int
) -> None:
    rounds = ward.rounds()
    carry(rounds, ward, exchanges=done)
    exchange = rounds.next_exchange()
    assert exchange is not None
    partly(ward, rounds, exchange, answered)
    ward.reopen()  # killed before the exchange was closed
    carry(ward.rounds(), ward)
    assert [r.model_after for r in ward.closed] == [r.model_after for r in undisturbed.closed]
    assert [r.inputs for r in ward.closed] == [r.inputs for r in undisturbed.closed]
    assert [h.charge for h in ward.hospitals.values()] == [4, 4, 4]  # nobody trained twice


def partly(ward: Ward, rounds: JobRounds, exchange: Exchange, answered: int) -> None:
    for name in HOSPITALS[:answered]:
        node = ward.nodes.known[name]
        rounds.receive(ward.hospitals[name].answer(node, exchange.configs[node], exchange.model))


def test_two_servers_of_one_job_record_each_round_once(ward: Ward) -> None:
    one, two = ward.rounds(), ward.rounds()
    names = {node: name for name, node in ward.nodes.known.items()}
    for rounds in (one, two):
        exchange = rounds.next_exchange()
        assert exchange is not None
        deliver(rounds, exchange, names, honest(ward))
    first, second = one.next_exchange(), two.next_exchange()
    assert first is not None
    assert second is not None
    assert (first.round, second.round) == (2, 2)
    assert [r.round for r in ward.closed] == [1]


def test_member_record_in_between_does_not_cost_the_round(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = ward.rounds()
    carry(rounds, ward, exchanges=1)
    append = ward.sequencer.append
    tries: list[int] = []

    def slow(batch: Any, *, after: int) -> bool:
        if not tries:
            incident = records.Incident(
                origin=example.ORIGIN, member="delta", code="something", evidence=sha(b"evidence")
            )
            ward.submit(incident, "delta")
        tries.append(after)
        return append(batch, after=after)

    monkeypatch.setattr(ward.sequencer, "append", slow)
    assert rounds.next_exchange() is not None
    assert len(tries) == 2
    assert codes(ward.closed[0]) == {}
