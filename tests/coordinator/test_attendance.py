"""What holds an exchange back: hospitals that are away, hospitals that skip, and what ends the waiting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coordinator import status, status_page, waiting
from coordinator.exchange import Arrival, Value
from coordinator.lifecycle import tick_is_due
from coordinator.rounds import ASKED_AGAIN, JobRounds
from ledger import envelope, example, records
from ledger.records import Abort, Round
from tests.coordinator.ward import HOSPITALS, Answerer, Ward, carry, passing

HOUR = 3600.0
BEGAN = example.FOUNDED + 60.0
Config = Mapping[str, Value]


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    monkeypatch.setattr("coordinator.attendance.WILLING_POLL_SECONDS", 60.0)  # fewer steps
    made = Ward(tmp_path)
    made.start()
    return made


def spelled(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def skip(ward: Ward, name: str, config: Config, code: str, hint: object = None) -> dict[str, Any]:
    """The config of a signed skip, with a hint where one is given."""
    number = config["round"]
    assert isinstance(number, int)
    record = records.Skip(
        origin=example.ORIGIN, hospital=name, job=ward.job.digest(), round=number, code=code
    )
    made: dict[str, Any] = {"kind": "skip", "record": envelope.sign(record, example.KEYS[name])}
    return made if hint is None else {**made, "retry_after": hint}


def closed_until(ward: Ward, opens: Mapping[str, float], code: str = "hours") -> Answerer:
    """Each hospital skips until it opens, and says by its hint when that is."""

    def answer(name: str, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
        left = opens.get(name, 0.0) - ward.clock.now
        if left > 0:
            return Arrival(node_id=node, config=skip(ward, name, config, code, int(-(-left // 1))))
        return ward.hospitals[name].answer(node, config, model)

    return answer


def aborted(ward: Ward) -> int:
    return sum(isinstance(r, Abort) for r in ward.closed)


# --- away ---


def test_absent_hospital_is_waited_for_once_and_then_left_behind(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.nodes.there.discard("charlie")
    rounds = JobRounds(replace(ward.desk(), patience_seconds=5), ward.job.digest())
    monkeypatch.setattr(ward.sequencer, "wait", passing(ward))

    def answer(name: str, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
        if name == "charlie":
            return Arrival(node_id=node, failure="unreachable")
        return ward.hospitals[name].answer(node, config, model)

    carry(rounds, ward, answer, exchanges=1)
    assert BEGAN + 5 <= ward.clock.now < BEGAN + 6
    carry(rounds, ward, answer, exchanges=2)
    assert ward.clock.now < BEGAN + 6  # charlie is no news in the second and third


@pytest.mark.parametrize("there", [set(), {"bravo"}], ids=["nobody", "one"])
def test_a_cut_of_an_hour_costs_no_round(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, there: set[str]
) -> None:
    ward.nodes.there = there
    rounds = JobRounds(replace(ward.desk(), patience_seconds=1, round_seconds=30), ward.job.digest())

    def back() -> None:
        if ward.clock.now >= BEGAN + HOUR:
            ward.nodes.there = set(HOSPITALS)

    monkeypatch.setattr(ward.sequencer, "wait", passing(ward, back))
    assert carry(rounds, ward) == 4
    assert BEGAN + HOUR <= ward.clock.now < BEGAN + HOUR + 5  # noticed soon
    assert not aborted(ward)


def test_hospitals_that_go_away_between_rounds_hold_the_next_one_back(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = ward.rounds()
    carry(rounds, ward, exchanges=1)  # everybody was there, so nobody is in doubt
    ward.nodes.there = {"alpha"}

    def back() -> None:
        if ward.clock.now >= BEGAN + HOUR:
            ward.nodes.there = set(HOSPITALS)

    monkeypatch.setattr(ward.sequencer, "wait", passing(ward, back))
    assert carry(rounds, ward) == 3
    assert ward.clock.now >= BEGAN + HOUR
    assert not aborted(ward)


# --- away in the middle of an exchange ---


class Cut:
    """Charlie's connection breaks when it is asked in round 2, and comes back after some seconds."""

    def __init__(self, ward: Ward, seconds: float, victims: tuple[str, ...] = ("charlie",)) -> None:
        self.ward = ward
        self.seconds = seconds
        self.victims = victims
        self.began = 0.0
        self.asked: list[tuple[int, str]] = []

    def answer(self, name: str, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
        number = config["round"]
        assert isinstance(number, int)
        self.asked.append((number, name))
        if number == 2 and name in self.victims and not self.began:
            self.began = self.ward.clock.now
        if self.began and self.ward.clock.now < self.began + self.seconds and name in self.victims:
            self.ward.nodes.there = set(HOSPITALS) - set(self.victims)
            return Arrival(node_id=node, failure="unreachable")
        return self.ward.hospitals[name].answer(node, config, model)

    def look(self) -> None:
        if self.began and self.ward.clock.now >= self.began + self.seconds:
            self.ward.nodes.there = set(HOSPITALS)


def test_a_cut_during_a_round_is_waited_for_and_the_hospital_asked_again(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = Cut(ward, seconds=20)
    rounds = JobRounds(replace(ward.desk(), patience_seconds=60), ward.job.digest())
    monkeypatch.setattr(ward.sequencer, "wait", passing(ward, cut.look))
    assert carry(rounds, ward, cut.answer) == 5
    assert [len(record.left_out) for record in ward.closed if isinstance(record, Round)] == [0] * 4
    assert cut.asked.count((2, "charlie")) == 2
    assert cut.asked.count((2, "alpha")) == 1  # whoever had replied is not asked again
    assert ward.clock.now < BEGAN + 25


def test_a_hospital_that_stays_away_is_waited_for_once(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Cut(ward, seconds=HOUR)
    rounds = JobRounds(replace(ward.desk(), patience_seconds=60), ward.job.digest())
    monkeypatch.setattr(ward.sequencer, "wait", passing(ward, cut.look))
    assert carry(rounds, ward, cut.answer) == 4
    codes = [[item.code for item in record.left_out] for record in ward.closed]
    assert codes == [[], ["unreachable"], ["unreachable"], ["unreachable"]]
    assert [number for number, name in cut.asked if name == "charlie"] == [1, 2]  # not to be charged in vain
    assert BEGAN + 60 <= ward.clock.now < BEGAN + 65


@pytest.mark.parametrize(("seconds", "lost"), [(90.0, 0), (HOUR, 1)], ids=["back", "past the deadline"])
def test_a_cut_that_would_cost_the_round_is_waited_for_until_the_deadline(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, seconds: float, lost: int
) -> None:
    cut = Cut(ward, seconds, victims=("bravo", "charlie"))
    desk = replace(ward.desk(), patience_seconds=5, round_seconds=600)
    rounds = JobRounds(desk, ward.job.digest())
    monkeypatch.setattr(ward.sequencer, "wait", passing(ward, cut.look))
    carry(rounds, ward, cut.answer)
    assert aborted(ward) == lost
    assert cut.asked.count((2, "alpha")) == 1
    if lost:
        assert ward.clock.now >= BEGAN + HOUR  # the next round is not asked for without them


def test_a_round_that_comes_to_nothing_anyway_waits_for_nobody(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = Cut(ward, seconds=HOUR)
    rounds = JobRounds(replace(ward.desk(), patience_seconds=60, round_seconds=600), ward.job.digest())
    monkeypatch.setattr(ward.sequencer, "wait", passing(ward, cut.look))

    def answer(name: str, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
        if config["round"] == 2 and name in ("alpha", "bravo"):
            return Arrival(node_id=node, config=skip(ward, name, config, "busy"))
        return cut.answer(name, node, config, model)

    carry(rounds, ward, answer, exchanges=2)
    assert rounds.next_exchange() is not None
    assert isinstance(ward.closed[1], Abort)
    assert ward.closed[1].time < BEGAN + 5
    assert cut.asked.count((2, "charlie")) == 1


def test_a_connection_that_breaks_every_time_is_given_up(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ward.sequencer, "wait", passing(ward))
    asked = list[int]()

    def answer(name: str, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
        if name == "charlie" and config["round"] == 1:
            asked.append(node)
            return Arrival(node_id=node, failure="unreachable")
        return ward.hospitals[name].answer(node, config, model)

    carry(ward.rounds(), ward, answer)
    assert len(asked) == 1 + ASKED_AGAIN
    assert [item.hospital for item in ward.closed[0].left_out] == ["charlie"]
    assert not ward.closed[1].left_out


def test_status_says_who_is_away_since_when_and_for_how_many_it_waits(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, said = ward.desk(), list[str]()
    ward.nodes.there = {"bravo"}

    def look() -> None:
        found = status.status(ward.sequencer.standing, {}, {}, {}, desk.waits.of)
        said.extend(status_page.lines(found))
        if ward.clock.now >= BEGAN + 600:
            ward.nodes.there = set(HOSPITALS)

    monkeypatch.setattr(ward.sequencer, "wait", passing(ward, look))
    assert JobRounds(desk, ward.job.digest()).next_exchange() is not None
    since = f"away since {spelled(BEGAN)}"
    line = f"  it waits until 2 hospitals are connected: alpha is {since}; charlie is {since}"
    assert line in said
    assert desk.waits.of(ward.job.digest()) is None


def test_a_withdrawal_during_a_wait_is_heeded_before_anybody_is_asked(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.nodes.there = {"alpha"}
    job = ward.job.digest()

    def happen() -> None:
        found = ward.sequencer.standing.state.jobs[job]
        if not found.parties["alpha"].withdrawn:
            approval = found.approved["alpha"]
            ward.submit(
                records.Withdrawal(origin=example.ORIGIN, hospital="alpha", approval=approval), "alpha"
            )
        ward.nodes.there = set(HOSPITALS)

    monkeypatch.setattr(ward.sequencer, "wait", passing(ward, happen))
    exchange = ward.rounds().next_exchange()
    assert exchange is not None
    assert set(exchange.configs) == {ward.nodes.known[name] for name in ("bravo", "charlie")}


# --- what ends a wait ---


@pytest.mark.parametrize("cause", ["away", "hours", "no quorum"])
def test_a_job_expires_while_it_waits(ward: Ward, monkeypatch: pytest.MonkeyPatch, cause: str) -> None:
    rounds = ward.rounds()
    far = ward.job.expires_at + 10 * HOUR
    monkeypatch.setattr("coordinator.attendance.WILLING_POLL_SECONDS", 6 * HOUR)
    monkeypatch.setattr("coordinator.attendance.NODE_POLL_SECONDS", (6 * HOUR, 6 * HOUR))
    monkeypatch.setattr("coordinator.rounds.TURN_SECONDS", 6 * HOUR)
    monkeypatch.setattr(ward.sequencer, "wait", passing(ward))
    if cause == "away":
        ward.nodes.there = set()
    if cause == "hours":
        ward.clock.now = ward.job.expires_at - 48 * HOUR
    if cause == "no quorum":
        carry(rounds, ward, exchanges=2)
        ward.cosigning = ()
        ward.clock.now = ward.job.expires_at - HOUR
    assert carry(rounds, ward, closed_until(ward, dict.fromkeys(HOSPITALS, far))) <= 60
    standing = ward.sequencer.standing
    assert standing.state.time >= ward.job.expires_at
    assert standing.state.jobs[ward.job.digest()].status == "running"  # the runner ends it


def test_a_job_that_is_cancelled_waits_for_nobody(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, job = ward.rounds(), ward.job
    answer = closed_until(ward, dict.fromkeys(HOSPITALS, BEGAN + 9 * HOUR))
    carry(rounds, ward, answer, exchanges=1)

    def cancel() -> None:
        if (
            ward.clock.now >= BEGAN + HOUR
            and ward.sequencer.standing.state.jobs[job.digest()].status == "running"
        ):
            ward.submit(
                records.Ended(origin=job.origin, job=job.digest(), reason="cancelled"), job.researcher
            )

    monkeypatch.setattr(ward.sequencer, "wait", passing(ward, cancel))
    assert rounds.next_exchange() is None
    assert BEGAN + HOUR <= ward.clock.now < BEGAN + HOUR + 61


# --- outside their hours, paused, busy ---


def test_a_closed_period_costs_one_round_and_the_job_goes_on_when_enough_are_open(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = {"alpha": BEGAN + 9 * HOUR, "bravo": BEGAN + 3 * HOUR, "charlie": BEGAN + 40 * HOUR}
    monkeypatch.setattr(ward.sequencer, "wait", passing(ward))
    assert carry(ward.rounds(), ward, closed_until(ward, opens)) == 4
    assert [type(r) for r in ward.closed] == [Abort, Round, Round, Round]
    assert BEGAN + 9 * HOUR <= ward.clock.now < BEGAN + 9 * HOUR + 5  # two of three are open by then


def test_one_that_skips_does_not_hold_up_the_others(ward: Ward) -> None:
    answer = closed_until(ward, {"alpha": BEGAN + 9 * HOUR}, "paused")
    assert carry(ward.rounds(), ward, answer) == 4
    assert (ward.clock.now, aborted(ward)) == (BEGAN, 0)


def test_status_says_until_when_a_job_waits_and_for_whom(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, said = ward.desk(), list[str]()
    monkeypatch.setattr(
        ward.sequencer,
        "wait",
        passing(
            ward,
            lambda: said.extend(
                status_page.lines(status.status(ward.sequencer.standing, {}, {}, {}, desk.waits.of))
            ),
        ),
    )
    opens = {"alpha": BEGAN + 9 * HOUR, "bravo": BEGAN + 3 * HOUR}
    carry(JobRounds(desk, ward.job.digest()), ward, closed_until(ward, opens))
    line = (
        f"  it waits until {spelled(opens['bravo'])} for 2 hospitals: alpha is outside its hours until "
        f"{spelled(opens['alpha'])}; bravo is outside its hours until {spelled(opens['bravo'])}"
    )
    assert line in said


@pytest.mark.parametrize(
    "hint",
    [None, 0, 1, -5, True, "7", b"7", 2.5, -(2**62)],
    ids=repr,
)
def test_a_hint_that_is_none_or_too_short_cannot_make_a_job_burn_its_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hint: object
) -> None:
    ward = Ward(tmp_path, rounds=12, evaluate=(), heldout_epsilon="0")
    ward.start()
    monkeypatch.setattr("coordinator.attendance.WILLING_POLL_SECONDS", 1e6)
    monkeypatch.setattr(ward.sequencer, "wait", passing(ward))

    def answer(name: str, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
        return Arrival(node_id=node, config=skip(ward, name, config, "busy", hint))

    assert carry(ward.rounds(), ward, answer) == 12
    assert ward.clock.now - BEGAN == 60 * (1 + 2 + 4 + 8 + 16 + 32) + 5 * HOUR


def test_a_hint_without_an_end_is_cut_to_a_week(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = ward.rounds()
    monkeypatch.setattr("coordinator.attendance.WILLING_POLL_SECONDS", HOUR)
    monkeypatch.setattr(ward.sequencer, "wait", passing(ward))

    def answer(name: str, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
        return Arrival(node_id=node, config=skip(ward, name, config, "paused", 2**62))

    carry(rounds, ward, answer, exchanges=2)
    assert ward.clock.now == BEGAN + 7 * 24 * HOUR


def test_hospitals_that_refuse_are_asked_again_after_longer_and_longer(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ward.sequencer, "wait", passing(ward))
    asked: list[float] = []

    def answer(name: str, node: int, config: Config, model: NDArray[np.float32]) -> Arrival:
        asked.append(ward.clock.now - BEGAN)
        return Arrival(node_id=node, config={"kind": "refusal", "code": "person"})

    carry(ward.rounds(), ward, answer, exchanges=3)
    assert sorted(set(asked)) == [0, 60, 180]


def test_a_round_that_gives_a_model_ends_the_row_of_aborts(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ward.sequencer, "wait", passing(ward))
    carry(ward.rounds(), ward, closed_until(ward, dict.fromkeys(HOSPITALS, BEGAN + 60), "busy"), exchanges=2)
    history = ward.sequencer.standing.jobs[ward.job.digest()]
    assert waiting.aborted_in_a_row(history) == 1
    carry(ward.rounds(), ward, exchanges=2)
    history = ward.sequencer.standing.jobs[ward.job.digest()]
    assert waiting.aborted_in_a_row(history) == 0


def test_hints_do_not_survive_a_restart_which_asks_at_once(ward: Ward) -> None:
    answer = closed_until(ward, dict.fromkeys(HOSPITALS, BEGAN + 9 * HOUR))
    rounds = ward.rounds()
    carry(rounds, ward, answer, exchanges=1)
    ward.reopen()
    assert ward.rounds().next_exchange() is not None
    assert ward.clock.now == BEGAN


# --- the pure decisions ---

times = st.lists(st.floats(0, 1e9), max_size=8)


@given(times, st.integers(-2, 9))
def test_enough_are_willing_at_the_time_and_too_few_before_it(found: list[float], needed: int) -> None:
    at = waiting.ask_at(found, needed)
    if needed <= len(found):
        assert sum(t <= at for t in found) >= needed
        assert at == 0.0 or sum(t < at for t in found) < needed
    else:
        assert at == 0.0  # nobody else can come: the rules of the job's life decide


@given(st.integers(0, 10**6), st.one_of(st.none(), st.integers(), st.text(), st.booleans(), st.binary()))
def test_no_hint_moves_the_time_out_of_its_bounds(count: int, hint: object) -> None:
    at = waiting.willing_from(1e9, count, waiting.read_hint(hint))
    assert waiting.backoff(count) <= at - 1e9 <= max(waiting.LONGEST_HINT, waiting.BACKOFF[1])


@given(st.integers(1, 10**6))
def test_backoff_never_shrinks_and_has_an_end(count: int) -> None:
    assert waiting.backoff(count) <= waiting.backoff(count + 1) <= waiting.BACKOFF[1]


def test_time_is_stated_often_enough_for_witnesses_that_come_back(ward: Ward) -> None:
    state = ward.sequencer.standing.state
    assert not tick_is_due(state, state.time + 3599, final=True, every=3600)
    assert tick_is_due(state, state.time + 3600, final=True, every=3600)
    assert not tick_is_due(state, state.time + 299, final=False, every=3600)
    assert tick_is_due(state, state.time + 300, final=False, every=3600)
    assert tick_is_due(state, state.time + 10, final=False, every=10)
