"""A simulated run: real evidence, the account's own epsilons, and what a newcomer's mistakes look like."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import wardround
from client import demo_data, job_folder
from client.budget import Account
from client.errors import ClientError, JobStateError
from client.job_folder import JobFolder
from client.notebook.run_bar import RunBar
from coordinator import evidence_check
from wardround_run import Run

ROUNDS = 3
HOSPITALS = ("hillcrest", "lakeside", "riverside")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    files = demo_data.write_breast_cancer(tmp_path_factory.mktemp("data"))
    return {name: pd.read_csv(files[name]) for name in HOSPITALS}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> JobFolder:
    made = job_folder.new(tmp_path_factory.mktemp("job") / "breast-cancer")
    return replace(made, draft=replace(made.draft, rounds=ROUNDS, live_evaluations=1))


@pytest.fixture(scope="module")
def run(job: JobFolder, frames: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return wardround.simulate(job, frames, directory=tmp_path_factory.mktemp("left"), progress=False)


def test_its_evidence_passes_the_audit_of_anybody(run: Run, tmp_path: Path) -> None:
    found = evidence_check.verify(run.save(tmp_path / "saved") / "evidence", charter=run.charter)
    assert (found.rounds, found.updates) == (ROUNDS, ROUNDS * len(HOSPITALS))
    assert "Verified" in repr(run.verify(progress=False))
    assert "Verified." in repr(run)


def test_its_last_epsilons_are_the_accounts_own(run: Run) -> None:
    assert run.directory is not None
    last = run.privacy[run.privacy["round"] == ROUNDS + 1]
    for name in HOSPITALS:
        with closing(
            Account.open(run.directory / "hospitals" / name / "account.sqlite", read_only=True)
        ) as account:
            (statement,) = account.history()
        charged = statement.charges[-1].epsilon_job
        assert f"{last[last['hospital'] == name]['epsilon'].max():g}" == charged


def test_its_model_scores_rows_and_says_why_not(run: Run, frames: dict[str, Any]) -> None:
    frame = frames["lakeside"].drop(columns="diagnosis").head(3).copy()
    frame.loc[frame.index[1], "mean radius"] = float("nan")
    scored = run.predict(frame)
    assert list(scored["probability"].isna()) == [False, True, False]
    assert "mean radius" in scored["problem"].iloc[1]


def test_an_interrupted_run_shows_the_rounds_so_far_and_leaves_nothing(
    job: JobFolder,
    frames: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(self: RunBar, figures: Any) -> None:
        if figures.parts:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunBar, "show", interrupt)
    before = threading.active_count()
    run = wardround.simulate(job, frames, progress=False)
    assert capsys.readouterr().out.startswith("stopped after round 1 of 3: every thread has ended")
    assert len(run.participation) == len(HOSPITALS)
    assert threading.active_count() <= before
    with pytest.raises(JobStateError, match="a model needs a finished run"):
        run.model()


def renamed(frame: Any) -> Any:
    return frame.rename(columns={"mean radius": "radius"})


def relabelled(frame: Any) -> Any:
    return frame.assign(diagnosis="malignant")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (renamed, "hillcrest: column 'mean radius' is missing"),
        (relabelled, "hillcrest: .*the label 'diagnosis'"),
        (lambda frame: "absent.csv", "hillcrest: absent.csv is not there"),
        (lambda frame: [1, 2], "hillcrest: a list is no dataset"),
    ],
)
def test_a_mistake_with_the_data_is_one_sentence_that_names_the_hospital(
    job: JobFolder, frames: dict[str, Any], spoil: Callable[[Any], Any], said: str
) -> None:
    spoilt = {**frames, "hillcrest": spoil(frames["hillcrest"])}
    with pytest.raises(ClientError, match=said) as caught:
        wardround.simulate(job, spoilt, progress=False)
    assert "\n" not in str(caught.value)
