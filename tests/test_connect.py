"""A notebook at a consortium, over a log that is verified and without a network: restarts, outages, other jobs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import wardround_connect
from client import job_folder, job_initial, member
from client.errors import ConfigError, JobFileError, JobStateError, UnreachableError
from client.job_folder import JobFolder
from client.notebook import job_files
from client.notebook.figures import Figures
from client.researcher import Researcher
from tests.client.job_bench import Bench, sha
from wardround_connect import Consortium
from wardround_submitted import STOPPED, ConsortiumRun


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.chdir(tmp_path)  # the notebook's folder
    made = Bench(tmp_path)
    made.offer("alpha", "bravo")
    yield made
    made.close()


def connected(bench: Bench) -> Consortium:
    """What `connect` returns to a notebook's first cell, also of a restarted one."""

    def opened(sleep: Callable[[float], None]) -> Researcher:
        def briefly(seconds: float) -> None:
            sleep(min(seconds, 0.01))

        made = bench.researcher()
        return Researcher(made.membership, door=made.door, clock=lambda: float(bench.now), sleep=briefly)

    bench.researcher().close()
    return Consortium(member.load(bench.path / "researcher"), opened, clock=lambda: float(bench.now))


class Drafted:
    """A job as a notebook holds it: of no folder."""

    def __init__(self, folder: JobFolder, **changes: Any) -> None:
        self.draft = replace(folder.draft, **changes)
        self.dictionary, self.source = folder.dictionary, folder.source


def job(bench: Bench, **changes: Any) -> Drafted:
    return Drafted(bench.write_folder("template"), name="study", **changes)


def digests(bench: Bench) -> list[str]:
    return list(bench.consortium.state.jobs)


# --- connecting ---


def test_a_folder_that_is_no_members_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no member's folder, it has no member.toml: name the one"):
        wardround_connect.connect(tmp_path / "reseacher")


def test_a_coordinator_that_is_down_is_one_sentence_that_says_what_goes_on(bench: Bench) -> None:
    bench.down = True
    with pytest.raises(
        UnreachableError, match=r"cannot be reached.*a running job resumes by itself"
    ) as found:
        connected(bench)
    assert str(found.value).count("while it is away") == 1
    assert "\n" not in str(found.value)


def test_tables_show_what_the_log_holds(bench: Bench) -> None:
    with connected(bench) as consortium:
        consortium.submit(job(bench))
        assert list(consortium.datasets()["hospital"]) == ["alpha", "bravo"]
        assert list(consortium.datasets()["epsilon_left"]) == list(consortium.datasets()["epsilon"])
        assert {"hospital", "researcher", "coordinator"} <= set(consortium.members()["role"])
        assert list(consortium.agreements()["in_force"]) == [True]
        [shown] = consortium.jobs().to_dict("records")
        assert (shown["name"], shown["status"], shown["asked"]) == ("study", "proposed", "alpha, bravo")
        assert "2 datasets" in repr(consortium)
        assert "<table" in consortium._repr_html_()


# --- submitting ---


def test_submit_keeps_the_job_beside_the_notebook_and_shows_its_price(bench: Bench) -> None:
    with connected(bench) as consortium:
        run = consortium.submit(job(bench))
    assert digests(bench) == [run.digest]
    kept = job_folder.submitted(Path("jobs/study"))
    assert kept is not None
    assert kept.job.digest() == run.digest
    shown = repr(run)
    for part in ("alpha", "bravo", "is asked", "epsilon_at_most", "left_at_least", "add", "must approve"):
        assert part in shown
    assert "<table" in run._repr_html_()


def test_the_price_says_what_later_jobs_have_left(bench: Bench) -> None:
    with connected(bench) as consortium:
        run = consortium.submit(job(bench, epsilon="1.5", heldout_epsilon="1"))
        first = run.price.iloc[0]
    assert (first["epsilon_at_most"], first["heldout_epsilon_at_most"]) == (1.5, 1.0)
    assert first["left_at_least"] == first["lifetime_epsilon"] - 1.5


def test_a_restarted_notebook_finds_the_job_that_runs(bench: Bench) -> None:
    with connected(bench) as consortium:
        first = consortium.submit(job(bench))
    bench.start_with(first.digest, "alpha", "bravo")
    with connected(bench) as consortium:
        again = consortium.submit(job(bench))
    assert (again.digest, again.status) == (first.digest, "running")
    assert digests(bench) == [first.digest]
    assert list(again.price["answer"]) == ["takes part"] * 2


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_submission_cut_anywhere_is_repeated_by_the_same_cell(bench: Bench, write: int, how: str) -> None:
    bench.broken = {write: how}
    with connected(bench) as consortium:
        with pytest.raises(UnreachableError):
            consortium.submit(job(bench))
        kept = job_folder.submitted(Path("jobs/study"))
        assert kept is not None  # before the first byte was sent
        found = consortium.submit(job(bench))
    assert digests(bench) == [found.digest] == [kept.job.digest()]


def test_two_jobs_of_one_name_are_one_sentence_that_says_what_to_do(bench: Bench) -> None:
    with connected(bench) as consortium:
        first = consortium.submit(job(bench))
        with pytest.raises(JobStateError) as found:
            consortium.submit(job(bench, rounds=5))
        assert str(found.value) == (
            "jobs/study holds another job named study (rounds is 3 there and 5 here): "
            "give this one a name of its own, or name another folder for it"
        )
        assert digests(bench) == [first.digest]
        second = consortium.submit(job(bench, rounds=5), "elsewhere")
    assert set(digests(bench)) == {first.digest, second.digest}


def test_two_kernels_that_submit_one_job_at_one_moment_propose_it_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = job_initial.compute

    def slowly(*arguments: Any) -> job_initial.Initial:
        time.sleep(0.3)  # between the look at what was submitted before and the new record
        return compute(*arguments)

    monkeypatch.setattr(job_initial, "compute", slowly)
    made = job_files.keep(job(bench))
    found: list[str] = []
    bench.researcher().close()  # makes the member's folder

    def kernel(seconds: float) -> None:
        opened = bench.researcher()
        with Researcher(opened.membership, door=opened.door, clock=lambda: bench.now + seconds) as me:
            found.append(me.submit(made).digest)

    kernels = [threading.Thread(target=kernel, args=(second,)) for second in (0.0, 1.0)]
    for each in kernels:
        each.start()
    for each in kernels:
        each.join()
    assert len(found) == 2
    assert digests(bench) == sorted(set(found))
    assert len(digests(bench)) == 1


def test_a_job_with_a_problem_leaves_nothing_behind(bench: Bench) -> None:
    with connected(bench) as consortium:
        with pytest.raises(JobFileError, match=r"privacy\.epsilon must be above 0"):
            consortium.submit(job(bench, epsilon="0"))
        with pytest.raises(JobFileError, match="permit marketing"):
            consortium.submit(job(bench, purpose="marketing"))
    assert not Path("jobs").exists()
    assert bench.blobs == {}


def test_a_folder_of_the_command_line_is_submitted_as_it_is(bench: Bench) -> None:
    folder = bench.write_folder("typed")
    with connected(bench) as consortium:
        run = consortium.submit(folder)
    assert run.folder == folder.path
    assert job_folder.submitted(folder.path) is not None


# --- following ---


def end(bench: Bench, digest: str, after: float = 0.1) -> threading.Timer:
    """Have the job end while somebody follows it."""

    def finish() -> None:
        bench.start_with(digest, "alpha", "bravo")
        bench.finish(digest)

    timer = threading.Timer(after, finish)
    timer.start()
    return timer


def test_follow_tells_every_event_and_returns_the_run(bench: Bench) -> None:
    told: list[Figures] = []
    with connected(bench) as consortium:
        run = consortium.submit(job(bench))
        timer = end(bench, run.digest)
        assert run.follow([told.append], progress=False) is run
        timer.join()
        assert told[-1].status == "finished"
        assert len({id(f) for f in told}) == len(told)
        events = list(run.events["event"])
        assert (events[0], events[-2:]) == ("proposed", ["released", "ended"])
        assert list(run.participation["hospital"].unique()) == ["alpha", "bravo"]
        assert run.status == "finished"
        assert "is finished: the model is released" in repr(run)


def test_a_bar_is_drawn_and_closed(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    with connected(bench) as consortium:
        run = consortium.submit(job(bench))
        end(bench, run.digest, 0).join()
        run.follow()
    assert "4/4" in capsys.readouterr().err


def test_an_interrupt_stops_following_and_says_that_the_job_goes_on(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(figures: Figures) -> None:
        raise KeyboardInterrupt

    with connected(bench) as consortium:
        run = consortium.submit(job(bench))
        assert run.follow([interrupt], progress=False) is run
        assert capsys.readouterr().out.strip() == STOPPED
        assert run.status == "proposed"


def test_follow_waits_through_an_outage(bench: Bench) -> None:
    with connected(bench) as consortium:
        run = consortium.submit(job(bench))

        def away(figures: Figures) -> None:
            if figures.status == "proposed":
                bench.down = True
                threading.Timer(0.2, back).start()

        def back() -> None:
            bench.down = False
            end(bench, run.digest, 0).join()

        run.follow([away], progress=False)
        assert run.status == "finished"


def test_wait_gives_up_in_time_and_says_that_the_job_goes_on(bench: Bench) -> None:
    with connected(bench) as consortium:
        run = consortium.submit(job(bench))
        began = time.monotonic()
        with pytest.raises(JobStateError, match=r"is proposed after 0\.3 s, and goes on: wait again"):
            run.wait(timeout=0.3)
        assert time.monotonic() - began < 10  # a limit against hanging
        timer = end(bench, run.digest)
        assert run.wait(timeout=60) is run
        timer.join()


def test_a_run_is_awaited_while_the_loop_does_other_things(bench: Bench) -> None:
    async def notebook(run: ConsortiumRun) -> tuple[str, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        other = asyncio.create_task(tick())
        found = await run
        other.cancel()
        return found.status, ticks

    with connected(bench) as consortium:
        run = consortium.submit(job(bench))
        timer = end(bench, run.digest, 0.3)
        status, ticks = asyncio.run(notebook(run))
        timer.join()
    assert status == "finished"
    assert ticks > 5


def test_an_awaited_run_that_is_given_up_leaves_no_thread(bench: Bench) -> None:
    async def notebook(run: ConsortiumRun) -> None:
        async with asyncio.timeout(0.2):
            await run

    with connected(bench) as consortium:
        run = consortium.submit(job(bench))
        with pytest.raises(TimeoutError):
            asyncio.run(notebook(run))  # which joins its threads
        assert run.status == "proposed"


def test_a_run_is_cancelled_and_again_changes_nothing(bench: Bench) -> None:
    with connected(bench) as consortium:
        run = consortium.submit(job(bench))
        assert run.cancel().status == "cancelled"
        assert run.cancel().status == "cancelled"
        assert consortium.run(run.digest[:8]).status == "cancelled"


# --- the end ---


def test_what_a_finished_job_left_is_fetched_once_and_found_again(bench: Bench) -> None:
    with connected(bench) as consortium:
        run = consortium.submit(job(bench))
        with pytest.raises(JobStateError, match="has released nothing"):
            run.fetch()
        end(bench, run.digest, 0).join()
        found = run.fetch()
        assert found.folder == Path("jobs/study/result")
        assert sha(found.model.read_bytes()) == found.release.artifact
        bench.asked.clear()
        assert run.fetch().folder == found.folder  # the same cell again
        assert not any("/api/runs/" in a for a in bench.asked)
        found.model.write_bytes(b"another")
        with pytest.raises(JobStateError, match="exists: name a folder that does not"):
            run.fetch()


def test_figures_are_the_logs_and_quality_is_nobodys_word_but_the_releases(bench: Bench) -> None:
    with connected(bench) as consortium:
        run = consortium.submit(job(bench))
        claimed = {"auroc": {"value": "0.8", "low": "0.7", "high": "0.9"}, "loss": {"value": "x"}}
        one = {
            "digest": run.digest,
            "evaluations": [{"round": 2, **claimed}, {"round": 99, **claimed}, "nonsense"],
        }
        bench.status = {"jobs": [None, one]}
        bench.start_with(run.digest, "alpha", "bravo")
        [measured] = run.figures.measured
        assert (measured.round, measured.log_loss) == (2, None)
        assert measured.auroc is not None
        assert measured.auroc.value == 0.8
        bench.finish(run.digest)
        figures = run.figures
    assert (figures.status, figures.rounds, figures.hospitals) == ("finished", 3, ("alpha", "bravo"))
    assert [(p.round, p.fate) for p in figures.parts if p.hospital == "alpha"] == [
        (r, "used") for r in (1, 2, 3, 4)
    ]
    assert {b.hospital for b in figures.budgets} == {"alpha", "bravo"}
    spent = [s.epsilon for s in figures.spent if (s.hospital, s.side) == ("alpha", "training")]
    assert spent == sorted(spent)
    assert spent[0] > 0
