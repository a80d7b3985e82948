"""The trackers that come with Wardround: everything is there once, also after a crash or a restart."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from client.errors import MissingExtraError, TrackingError
from client.notebook import scalars
from client.notebook.figures import Estimate, Figures
from client.notebook.tracking import (
    Callbacks,
    JsonLinesTracker,
    MLflowTracker,
    TensorBoardTracker,
    Tracker,
    track,
)
from tests.client.notebook.made_figures import EMPTY, made, until

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN = made(3, rounds=4)


def area(figures: Figures) -> Estimate:
    """Return the AUROC of the last model measured."""
    found = figures.measured[-1].auroc
    assert found is not None
    return found


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_stream_tells_all_and_is_resumed_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with Callbacks([JsonLinesTracker(path)]) as told:
        told.update(until(RUN, 2))
    before = path.read_bytes()
    path.write_bytes(before[:-10])  # torn by a crash
    with Callbacks([JsonLinesTracker(path)]) as told:
        told.update(until(RUN, 3))
        told.update(RUN)
    track(RUN, JsonLinesTracker(path))
    assert path.read_bytes().startswith(before)
    found = events(path)
    kinds = [event["event"] for event in found]
    assert kinds[0] == "started"
    assert kinds[-1] == "ended"
    assert kinds.count("ended") == 1
    assert [e["round"] for e in found if e["event"] == "round"] == [1, 2, 3, 4]
    assert [e["trained"] for e in found if e["event"] == "measured"] == [m.round - 1 for m in RUN.measured]
    newest = {s.side: s.epsilon for s in RUN.spent if s.hospital == "brookfield"}
    assert found[-3]["hospitals"]["brookfield"]["epsilon"] == newest
    assert found[-2]["auroc"] == asdict(area(RUN))


def test_another_run_of_the_same_job_begins_anew_in_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    other = made(3, rounds=4, seed=2)
    track(RUN, JsonLinesTracker(path))
    one = len(events(path))
    track(other, JsonLinesTracker(path))
    track(other, JsonLinesTracker(path))
    assert len(events(path)) == 2 * one


@pytest.mark.parametrize("content", ["age,sex", "age,sex\n60,1\n", '{"event": 1}\n', "[" * 5000 + "\n"])
def test_a_file_that_is_no_stream_is_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "patients.csv"
    path.write_text(content)
    with pytest.raises(
        TrackingError, match=r"holds something else than events in line 1: name another file$"
    ):
        JsonLinesTracker(path)
    assert path.read_text() == content


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="No such file or directory; name another file"):
        JsonLinesTracker(tmp_path / "nowhere" / "run.jsonl")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database takes seconds to set up
    return (tmp_path / "mlruns").as_uri()


def mlflow_client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient  # here, where the fixture has told it to be quiet

    return MlflowClient(tracking_uri=uri)


def in_mlflow(uri: str) -> tuple[Any, Counter[tuple[str, int, float]]]:
    client = mlflow_client(uri)
    experiment = client.get_experiment_by_name("wardround")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    found = Counter(
        (metric.key, metric.step, metric.value)
        for name in run.data.metrics
        for metric in client.get_metric_history(run.info.run_id, name)
    )
    return run, found


def all_of(figures: Figures) -> Counter[tuple[str, int, float]]:
    return Counter((s.name, s.step, s.value) for s in scalars.of_run(figures))


def test_mlflow_has_every_number_once_though_the_notebook_was_restarted(store: str) -> None:
    with Callbacks([MLflowTracker(tracking_uri=store)], pytest.fail) as told:
        told.update(until(RUN, 1))
        told.update(until(RUN, 2))
    assert in_mlflow(store)[0].info.status == "RUNNING"
    with Callbacks([MLflowTracker(tracking_uri=store)], pytest.fail) as told:
        told.update(RUN)
    run, found = in_mlflow(store)
    assert found == all_of(RUN)
    assert run.info.status == "FINISHED"
    assert run.data.tags["wardround.job"] == RUN.digest
    assert run.data.tags["wardround.status"] == "finished"


def test_another_run_of_the_same_job_has_an_mlflow_run_of_its_own(store: str) -> None:
    told = MLflowTracker(tracking_uri=store)
    for seed in (1, 2):
        with Callbacks([told], pytest.fail) as callbacks:
            callbacks.update(made(2, rounds=1, seed=seed, status="cancelled"))
    client = mlflow_client(store)
    experiment = client.get_experiment_by_name("wardround")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]
    values = {area(made(2, rounds=1, seed=seed)).value for seed in (1, 2)}
    assert {run.data.metrics["auroc"] for run in runs} == values


def test_a_run_of_the_users_own_is_logged_to_and_left_open(store: str) -> None:
    client = mlflow_client(store)
    own = client.create_run(client.create_experiment("mine")).info.run_id
    with Callbacks([MLflowTracker(tracking_uri=store, run_id=own)], pytest.fail) as told:
        told.update(RUN)
    assert client.get_run(own).data.metrics["auroc"] == area(RUN).value
    assert client.get_run(own).info.status == "RUNNING"


def test_an_mlflow_server_that_is_away_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said: list[str] = []
    with Callbacks([MLflowTracker(tracking_uri="http://127.0.0.1:9")], said.append) as told:
        told.update(until(RUN, 1))
        told.update(RUN)
    (line,) = said
    assert line.startswith("MLflowTracker failed and is told no more; the run goes on (")
    assert "\n" not in line


def in_tensorboard(folder: Path) -> Counter[tuple[str, int, float]]:
    (run,) = folder.iterdir()
    found = EventAccumulator(str(run))
    found.Reload()
    return Counter(
        (name, e.step, round(e.value, 5)) for name in found.Tags()["scalars"] for e in found.Scalars(name)
    )


def test_tensorboard_has_every_number_once_though_the_notebook_was_restarted(tmp_path: Path) -> None:
    wanted = Counter({(name, step, round(value, 5)): n for (name, step, value), n in all_of(RUN).items()})
    with Callbacks([TensorBoardTracker(tmp_path)], pytest.fail) as told:
        told.update(until(RUN, 1))
        told.update(until(RUN, 2))
    with Callbacks([TensorBoardTracker(tmp_path)], pytest.fail) as told:
        told.update(RUN)
    found = in_tensorboard(tmp_path)
    assert {(name, step) for name, step, _ in found} == {(name, step) for name, step, _ in wanted}
    assert set(found.values()) == {1}
    assert sum(value for *_, value in found) == pytest.approx(sum(value for *_, value in wanted), rel=1e-4)


@pytest.mark.parametrize(
    ("tracker", "missing", "extra"),
    [(MLflowTracker, "mlflow", "mlflow"), (lambda: TensorBoardTracker("logs"), "tensorboard", "tensorboard")],
)
def test_a_missing_extra_is_named_before_a_run_begins(
    tracker: Any, missing: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf"with {missing}: pip install 'wardround\[{extra}\]'$"):
        tracker()


def test_every_tracker_keeps_the_protocol(tmp_path: Path, store: str) -> None:
    ours = (JsonLinesTracker(tmp_path / "x"), TensorBoardTracker(tmp_path), MLflowTracker(tracking_uri=store))
    assert all(isinstance(tracker, Tracker) for tracker in ours)
    with pytest.raises(TrackingError):
        ours[1].round(RUN, 1)
    with pytest.raises(TrackingError):
        ours[2].round(RUN, 1)
    track(EMPTY, *ours)
    assert [event["event"] for event in events(tmp_path / "x")] == ["started"]
