"""A notebook's cells, run against a real coordinator and the agents of three hospitals, one deployment for all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import wardround_plan
from client import dictionary, job_templates
from client.dictionary import Dictionary
from client.errors import UnreachableError
from client.job_toml import JobDraft
from client.notebook.figures import Figures
from tests.end_to_end.consortium import SECONDS, Processes, processes
from wardround_connect import Consortium, connect
from wardround_submitted import ConsortiumRun


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with (
        pytest.MonkeyPatch.context() as patch,
        processes(tmp_path_factory.mktemp("notebook"), patch) as found,
    ):
        found.agree()
        yield found


@pytest.fixture(autouse=True)
def beside_the_notebook(site: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.researcher.parent)


class Job:
    """A job as a notebook holds it."""

    def __init__(self, name: str, **changes: Any) -> None:
        usual = {"purpose": "demonstration", "epsilon": "2", "heldout_epsilon": "2", "live_evaluations": 1}
        self.draft: JobDraft = replace(
            job_templates.DRAFTS["breast-cancer"], name=name, **{**usual, **changes}
        )
        self.dictionary: Dictionary = dictionary.shipped("breast-cancer")
        self.source: bytes | None = None


def when_round(run: ConsortiumRun, number: int) -> threading.Event:
    """Follow a run in another thread until it ends; the event is set once a round has closed."""
    reached = threading.Event()

    def look(figures: Figures) -> None:
        if any(part.round >= number for part in figures.parts):
            reached.set()

    threading.Thread(target=lambda: run.follow([look], progress=False), daemon=True).start()
    return reached


def test_a_plan_for_the_consortium_names_its_hospitals_and_budgets(site: Processes) -> None:
    with connect(site.researcher) as consortium:
        plan = wardround_plan.plan(Job("planned", rounds=2), consortium, seeds=1, epsilons=[], progress=False)
        assert list(plan.hospitals["hospital"]) == ["hillcrest", "lakeside", "northgate"]
        assert list(plan.hospitals["lifetime_epsilon"]) == [8.0] * 3
        assert (plan.hospitals["epsilon"] <= 2).all()
        assert (plan.hospitals["left"] >= 5).all()
        assert list(consortium.jobs()["name"]) == []  # nobody was asked


def test_the_same_cells_from_submission_to_a_verified_result_and_again(site: Processes) -> None:
    with connect(site.researcher) as consortium:
        run = consortium.submit(Job("first", rounds=4))
        assert "left_at_least" in repr(run)
        assert run.folder == Path("jobs/first")
        run.follow(progress=False)
        assert run.status == "finished"
        assert list(run.price["answer"]) == ["takes part"] * 3
        assert (run.price["left_at_least"] >= 8 - 2.5).all()
        assert set(run.participation["fate"]) == {"used"}
        assert run.privacy["epsilon"].max() <= 2
        assert len(run.metrics) == 2  # what is in them is mostly noise at so few patients
        result = run.result()
    assert "computed again" in repr(result.verify(progress=False))
    assert result.figures.status == "finished"
    assert {p.round for p in result.figures.pulls} == {1, 2, 3, 4}  # from the evidence, and nowhere else
    assert len(result.metrics) == 2
    with connect(site.researcher) as consortium:  # the kernel was restarted
        again = consortium.submit(Job("first", rounds=4))
        assert (again.digest, again.status) == (run.digest, "finished")
        assert again.result().evidence == result.evidence
        assert list(consortium.jobs()["name"]).count("first") == 1


def test_an_awaited_run_outlasts_its_coordinator_and_a_restarted_notebook_finds_it(site: Processes) -> None:
    async def notebook(run: ConsortiumRun) -> ConsortiumRun:
        async with asyncio.timeout(SECONDS):
            return await run

    consortium = connect(site.researcher)
    run = consortium.submit(Job("long", rounds=5000))
    assert when_round(run, 1).wait(SECONDS)
    site.kill("coordinator")
    with pytest.raises(UnreachableError, match="a running job resumes by itself"):
        consortium.jobs()
    assert "is" in repr(run)  # what was known is shown all the same
    site.start("coordinator")
    again_at = _back(site)
    again = again_at.submit(Job("long", rounds=5000))
    assert (again.digest, again.status) == (run.digest, "running")
    closed = again.figures.parts[-1].round
    assert when_round(again, closed + 1).wait(SECONDS)  # it goes on where it was
    canceller = threading.Timer(0.5, again.cancel)
    canceller.start()
    assert asyncio.run(notebook(run)).status == "cancelled"
    canceller.join()
    assert (again.price["left_at_least"] > again.price["lifetime_epsilon"] - 4.5).all()
    consortium.close()
    again_at.close()


def _back(site: Processes) -> Consortium:
    """Connect as a person does who runs the cell again until the coordinator is there."""
    pause, until = threading.Event(), SECONDS / 0.2
    while True:
        try:
            return connect(site.researcher)
        except UnreachableError:
            until -= 1
            assert until, "the coordinator did not come back"
            pause.wait(0.2)
