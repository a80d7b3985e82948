"""Crowds: the product's training, admission, averaging and accounting, whoever plays the hospitals."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

import wardround_crowd
import wardround_crowd_ray
import wardround_simulated
from client import accounting, building, job_initial, job_record, job_templates, model_builder
from client.data import take
from client.errors import DataError, EngineError, JobFileError, JobStateError
from client.histograms import BINS
from client.notebook.figures import USED, Figures
from client.notebook.in_memory import from_arrays
from client.private_file import write_private
from coordinator.updates import plan_of
from tests import crowds
from tests.client import warm_builder
from wardround_crowd import Crowd, crowd
from wardround_crowd_players import Answers, Call, Players, call_from_json, call_to_json, write
from wardround_crowd_rounds import CrowdRounds


def simulated(path: Path, count: int = 8, *, job: dict[str, Any] | None = None, **arguments: Any) -> Crowd:
    folder = crowds.job(path / "job", **(job or {}))
    return crowd(
        folder, crowds.hospitals(folder.dictionary, count), **{"engine": "inline", "seed": 1, **arguments}
    )


def test_every_hospital_takes_part_in_every_round_and_the_model_is_measured(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    seen: list[Figures] = []
    found = simulated(tmp_path, progress=lambda *done: heard.append(done), watch=seen.append)
    figures = found.figures
    assert (figures.status, figures.rounds, len(figures.hospitals)) == ("finished", 2, 8)
    assert {(p.round, p.hospital) for p in figures.parts if p.fate == USED} == {
        (r, h) for r in (1, 2) for h in figures.hospitals
    }
    assert [m.round for m in figures.measured] == [2, 3]
    assert all(-1 <= p.cosine <= 1 and p.norm > 0 for p in figures.pulls)
    assert len(figures.pulls) == 16
    assert [b.patients for b in figures.budgets] == [16, 32, 32, 32, 64, 64, 64, 64]
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert [s.status for s in seen] == ["running", "running", "finished"]
    assert seen[-1] == figures
    assert np.frombuffer(found.parameters, "<f4").shape == (31,)
    assert not found.declined


def test_the_epsilon_shown_is_composed_over_all_rounds_and_within_the_target(tmp_path: Path) -> None:
    found = simulated(tmp_path)
    spent = {(s.round, s.hospital, s.side): s.epsilon for s in found.figures.spent}
    player = wardround_crowd._enlist(  # the terms that the run was priced with
        found.job,
        {"hospital-0": wardround_crowd._offer("hospital-0", 20, crowds.job(tmp_path / "job"), None)},
    )[0][0]
    event = accounting.event_of(player.terms.training)
    for number in (1, 2):
        once = accounting.job_epsilon([accounting.compose(event, number)], float(found.job.delta))
        assert spent[number, "hospital-0", "training"] == float(accounting.round_up(once))
    assert spent[1, "hospital-0", "training"] < spent[2, "hospital-0", "training"] <= 8
    assert (1, "hospital-0", "heldout") not in spent  # nothing was measured yet
    assert spent[2, "hospital-0", "heldout"] < spent[3, "hospital-0", "heldout"] <= 3
    assert spent[3, "hospital-0", "training"] == spent[2, "hospital-0", "training"]


def test_a_seed_repeats_a_run_and_no_seed_never_does(tmp_path: Path) -> None:
    first, again = simulated(tmp_path), simulated(tmp_path)
    assert first.parameters == again.parameters
    assert first.figures.measured == again.figures.measured
    others = [simulated(tmp_path, seed=2), simulated(tmp_path, seed=None), simulated(tmp_path, seed=None)]
    assert len({first.parameters, *(o.parameters for o in others)}) == 4


@pytest.mark.skipif(
    os.environ.get("WARDROUND_FULL_TESTS") != "1",
    reason="Ray takes half a minute to start: WARDROUND_FULL_TESTS=1",
)
# Ray's own processes end a little after its shutdown, and their Popen objects say so when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ray_gives_the_very_numbers_of_one_process(tmp_path: Path) -> None:
    """Flower's engine with one actor and two nodes; most of the time is Ray's start."""
    inline, ray = simulated(tmp_path), simulated(tmp_path, engine="ray", processes=1)
    gc.collect()
    assert ray.parameters == inline.parameters
    assert replace(ray.figures, digest="") == replace(inline.figures, digest="")


def test_the_next_model_is_the_weighted_mean_of_the_hospitals_updates(tmp_path: Path) -> None:
    asked: list[tuple[Call, Answers]] = []
    folder = crowds.job(tmp_path / "job", live_evaluations=0, final_evaluation=False, heldout_epsilon="0")
    offers = {f"h{i}": wardround_crowd._offer(f"h{i}", 20 * (i + 1), folder, None) for i in range(3)}
    job = job_of(folder, offers)
    enlisted, _ = wardround_crowd._enlist(job, offers)
    rng = np.random.default_rng(0)

    def play(call: Call) -> Answers:
        updates = rng.integers(-(2**20), 2**20, (3, 31))
        asked.append((call, Answers(updates=updates, counts=np.empty((0, 2, BINS), dtype=np.int64))))
        return asked[-1][1]

    rounds = CrowdRounds(job, enlisted, bytes(4 * 31))
    rounds.run(play, lambda done, last: None)
    model = np.zeros(31)
    for _, answers in asked:
        plans = [plan_of(job.training, h.terms.training, h.dataset.size_class) for h in enlisted]
        changes = [p.decode(u) for p, u in zip(plans, answers.updates, strict=True)]
        model = model + sum(h.weight * c for h, c in zip(enlisted, changes, strict=True)) / (16 + 32 + 64)
        model = model.astype("<f4").astype(np.float64)
    assert np.allclose(np.frombuffer(rounds.model, "<f4"), model, rtol=1e-6, atol=0)
    assert asked[1][0].model != asked[0][0].model


def job_of(folder: Any, offers: Any) -> Any:
    initial = job_initial.compute(folder.draft, folder.dictionary, folder.source)
    refs = [d.ref for d in offers.values()]
    return job_record.build(
        folder, initial, origin="a.b/c", researcher="researcher", datasets=refs, agreements=(), now=1
    )


def hostile(
    tmp_path: Path, spoil: Callable[[Answers], Answers], **changes: Any
) -> tuple[CrowdRounds, Figures]:
    """Four hospitals of which the answers are spoilt before they are judged."""
    folder = crowds.job(tmp_path / "job", **changes)
    offers = {f"h{i}": wardround_crowd._offer(f"h{i}", 20, folder, None) for i in range(4)}
    job = job_of(folder, offers)
    enlisted, _ = wardround_crowd._enlist(job, offers)

    def play(call: Call) -> Answers:
        updates = np.full((4, 31), 1000) if call.trains else np.empty((4, 0), dtype=np.int64)
        counts = np.ones((4 if call.place is not None else 0, 2, BINS), dtype=np.int64)
        return spoil(Answers(updates=updates, counts=counts))

    rounds = CrowdRounds(job, enlisted, bytes(4 * 31))
    rounds.run(play, lambda done, last: None)
    return rounds, rounds.figures()


def test_an_update_larger_than_any_honest_one_is_left_out_and_changes_nothing(tmp_path: Path) -> None:
    def spoil(answers: Answers) -> Answers:
        if answers.updates.size:
            answers.updates[2] = 2**50
        return answers

    honest, _ = hostile(tmp_path, lambda answers: answers)
    rounds, figures = hostile(tmp_path, spoil)
    assert {(p.hospital, p.fate) for p in figures.parts} == {
        ("h0", USED), ("h1", USED), ("h2", "norm"), ("h3", USED)
    }  # fmt: skip
    assert rounds.model == honest.model  # the three others sent the same
    assert "h2" not in {p.hospital for p in figures.pulls}
    assert "h2" in {s.hospital for s in figures.spent}  # what it sent is spent all the same


def test_a_histogram_that_no_hospital_could_count_is_left_out(tmp_path: Path) -> None:
    def spoil(answers: Answers) -> Answers:
        if len(answers.counts):
            answers.counts[1, 0, 0] = 10**9
        return answers

    _, figures = hostile(tmp_path, spoil)
    assert {p.fate for p in figures.parts if p.round == 2 and p.hospital == "h1"} == {"metrics"}
    assert all(b.patients < 10**6 for m in figures.measured for b in m.calibration)


def test_below_the_minimum_a_round_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    def spoil(answers: Answers) -> Answers:
        answers.updates[1:] = 2**50
        return answers

    rounds, figures = hostile(tmp_path, spoil, final_evaluation=False)
    assert rounds.model == bytes(4 * 31)
    assert not figures.measured
    assert not figures.pulls


def test_any_process_may_play_any_hospital_in_any_round_with_the_same_noise(tmp_path: Path) -> None:
    """And no two hospitals or rounds share theirs."""
    folder = crowds.job(tmp_path / "job")
    rows, _ = take(
        from_arrays(*crowds.arrays(folder.dictionary, 30, 1), folder.dictionary),
        folder.dictionary,
        bytes(32),
    )
    offers = {f"h{i}": wardround_crowd._offer(f"h{i}", 30, folder, None) for i in range(3)}
    enlisted, _ = wardround_crowd._enlist(job_of(folder, offers), offers)
    place = tmp_path / "crowd"
    place.mkdir()
    write(place, [(wardround_crowd._player(h), rows) for h in enlisted], seed=5)
    model = np.zeros(31, dtype="<f4").tobytes()

    def call(number: int) -> Call:
        return Call(round=number, model=model, trains=True, place=None)

    one, other = Players(place), Players(place)
    whole = np.concatenate([one.answer(call(1), 0, 3).updates, one.answer(call(2), 0, 3).updates])
    apart = [
        other.answer(call(r), h, h + 1).updates for r, h in ((2, 2), (1, 0), (1, 1), (2, 1), (2, 0), (1, 2))
    ]
    order = [apart[i] for i in (1, 2, 5, 4, 3, 0)]
    assert np.array_equal(whole, np.concatenate(order))
    assert len({row.tobytes() for row in whole}) == 6


def test_without_a_seed_equal_hospitals_send_different_noise(tmp_path: Path) -> None:
    folder = crowds.job(tmp_path / "job", rounds=1, live_evaluations=0)
    same = crowds.arrays(folder.dictionary, 20, 1)
    found = crowd(folder, {f"h{i}": same for i in range(4)}, engine="inline")
    assert len({p.norm for p in found.figures.pulls}) == 4


def test_a_hospital_too_large_for_the_delta_declines_and_the_others_train(tmp_path: Path) -> None:
    folder = crowds.job(tmp_path / "job", delta="0.002")
    data = crowds.hospitals(folder.dictionary, 3) | {"large": crowds.arrays(folder.dictionary, 100, 9)}
    found = crowd(folder, data, engine="inline", seed=1)
    assert list(found.declined) == ["large"]
    assert "tenth of one over the size class" in found.declined["large"]
    assert found.figures.hospitals == ("hospital-0", "hospital-1", "hospital-2")
    with pytest.raises(JobFileError, match=r"0 hospitals take part and min_participants is 2.*delta"):
        crowd(folder, {"large": data["large"]}, engine="inline")


def test_a_model_of_the_jobs_own_trains_in_a_crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_builder.warm_up()  # and a fork of this process: a builder of its own imports for seconds
    monkeypatch.setattr(building, "build", partial(building.build, start=warm_builder.fork))
    path = tmp_path / "job"
    path.mkdir()
    write_private(path / "model.py", job_templates.MODEL.encode())
    found = simulated(tmp_path, 2, job={"model": "custom", "rounds": 1, "live_evaluations": 0})
    assert found.job.training.model == "custom"
    assert {p.fate for p in found.figures.parts} == {USED}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda x, y: (x, np.full(len(y), "maybe")), r"hospital-1: 27 rows hold a value of the label column"),
        (lambda x, y: (x[:, :-1], y), r"hospital-1: arrays of shapes \(27, 29\) and \(27,\) do not fit"),
        (lambda x, y: (x[:-1], y), r"hospital-1: arrays of shapes"),
        (lambda x, y: (np.full_like(x, np.nan), y), r"hospital-1: no patient has a usable row: 27 rows dropped"),
        (lambda x, y: (x[:0], y[:0]), r"hospital-1: no patient has a usable row"),
        (lambda x, y: 5, r"hospital-1: a int is no dataset"),
        (lambda x, y: Path("/nowhere.csv"), r"hospital-1: cannot read /nowhere.csv"),
        (lambda x, y: pd.DataFrame(x), r"hospital-1: column 'mean radius' is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_hospitals_data_is_said_with_its_name(
    tmp_path: Path, spoil: Callable[..., object], says: str
) -> None:
    folder = crowds.job(tmp_path / "job")
    data: dict[str, object] = dict(crowds.hospitals(folder.dictionary, 3))
    data["hospital-1"] = spoil(*crowds.arrays(folder.dictionary, 27, 1))
    with pytest.raises(DataError, match=says):
        crowd(folder, data, engine="inline")


def test_a_name_that_no_record_could_hold_is_refused(tmp_path: Path) -> None:
    folder = crowds.job(tmp_path / "job")
    data = crowds.hospitals(folder.dictionary, 2) | {"St Mary": crowds.arrays(folder.dictionary, 20, 1)}
    with pytest.raises(DataError, match=r"hospital 'St Mary': .*lowercase"):
        crowd(folder, data, engine="inline")


def test_a_job_with_a_problem_is_refused_before_any_row_is_read(tmp_path: Path) -> None:
    folder = crowds.job(tmp_path / "job", epsilon="0")
    with pytest.raises(JobFileError, match=r"privacy\.epsilon must be above 0"):
        crowd(folder, {"a": 5}, engine="inline")


def test_a_crowds_run_has_figures_and_a_model_and_says_why_it_has_no_evidence(tmp_path: Path) -> None:
    folder = crowds.job(tmp_path / "job", epsilon="3")
    run = wardround_simulated.simulate(
        folder, crowds.hospitals(folder.dictionary, 3), engine="inline", progress=False
    )
    assert (run.status, set(run.privacy["hospital"])) == ("finished", set(run.figures.hospitals))
    assert sum(p.numel() for p in run.model().parameters()) > 0
    with pytest.raises(JobStateError, match="A crowd has no evidence"):
        run.verify(progress=False)


def test_an_interrupt_ends_a_crowd_and_leaves_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def interrupt(done: int, last: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulated(tmp_path, 2, progress=interrupt)
    assert [p.name for p in tmp_path.iterdir()] == ["job"]


def test_an_unknown_engine_and_an_absent_ray_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JobFileError, match="engine 'spark' is not offered: use inline or ray"):
        simulated(tmp_path, 2, engine="spark")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ray" else object())
    with pytest.raises(EngineError, match=r"ray is not installed.*wardround\[ray\]"):
        wardround_crowd_ray.run(tmp_path, 2, 1, lambda play: None)


def test_a_ray_that_was_running_is_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.server.superlink.fleet.vce.backend import raybackend

    shut: list[str] = []

    class FakeRay:
        def __init__(self, running: bool) -> None:
            self.running = running

        def is_initialized(self) -> bool:
            return self.running

        def shutdown(self) -> None:
            shut.append("down")

    class Backend:
        pool = None

    monkeypatch.setattr(raybackend, "ray", FakeRay(True))
    before = raybackend.RayBackend.terminate
    with wardround_crowd_ray._guest(FakeRay(True)):
        raybackend.RayBackend.terminate(cast(Any, Backend()))
    assert not shut
    assert raybackend.RayBackend.terminate is before
    with wardround_crowd_ray._guest(FakeRay(False)):
        raybackend.RayBackend.terminate(cast(Any, Backend()))
    assert shut == ["down", "down"]  # by Flower, and once more where it did not come so far


def test_where_flower_fails_it_is_a_sentence_and_no_thread_goes_on_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Grid:
        def get_node_ids(self) -> list[int]:
            return []  # as before the nodes are registered

    ended = threading.Event()

    def fail(*, server_app: Any, **others: object) -> None:
        def serve() -> None:
            server_app(grid=Grid(), context=None)
            ended.set()

        threading.Thread(target=serve).start()
        raise RuntimeError("An error was encountered") from RuntimeError("no room for the object store")

    monkeypatch.setattr("flwr.simulation.run_simulation", fail)
    with pytest.raises(EngineError, match=r"Ray did not run the simulation \(no room for the object store\)"):
        wardround_crowd_ray.run(tmp_path, 2, 1, lambda play: None)
    assert ended.wait(10)


def test_an_interrupt_with_ray_is_raised_when_everything_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    def run(**others: object) -> None:
        signal.raise_signal(signal.SIGINT)
        closed.append("closed")

    monkeypatch.setattr("flwr.simulation.run_simulation", run)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        wardround_crowd_ray.run(tmp_path, 2, 1, lambda play: None)
    assert closed
    assert signal.getsignal(signal.SIGINT) is before


def test_a_call_survives_its_way_to_another_process() -> None:
    call = Call(round=3, model=b"1234", trains=False, place=1, edges=(0.1, 0.25))
    assert call_from_json(call_to_json(call), b"1234") == call
