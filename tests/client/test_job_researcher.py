"""A researcher's job from proposal to result, over a log that is verified; crashes, other people's jobs, liars."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client import job_folder, job_result, job_story
from client.errors import JobFileError, JobStateError, NotYetError, UnreachableError
from client.job_story import Event
from ledger.rules_jobs import TRANSITIONS
from ledger.rules_rounds import ABORT_CODES, ABSENT_CODES, ADMISSION_CODES, KNOWN_CODES
from tests.client.job_bench import Bench, sha


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.offer("alpha", "bravo")
    yield made
    made.close()


def jobs(bench: Bench) -> list[str]:
    return list(bench.consortium.state.jobs)


def submitted(bench: Bench, name: str = "job", **changes: Any) -> str:
    with bench.researcher() as me:
        return me.submit(bench.write_folder(name, **changes)).digest


# --- submit ---


def test_submit_hands_in_every_file_and_proposes_what_fits(bench: Bench) -> None:
    folder = bench.write_folder()
    with bench.researcher() as me:
        found = me.submit(folder)
    assert (found.status, found.new, found.hospitals) == ("proposed", True, ("alpha", "bravo"))
    job = bench.consortium.job_state(found.digest).record
    assert set(bench.blobs) == {job.model, job.dictionary}
    assert job.agreements == tuple(bench.consortium.state.agreements)
    assert job.expires_at == bench.now + folder.draft.expires_seconds
    assert job.training.parameters == len(bench.blobs[job.model]) // 4


def test_the_same_folder_is_the_same_job(bench: Bench) -> None:
    digest = submitted(bench)
    bench.append(bench.consortium.tick())  # time goes by, and the record does not
    with bench.researcher() as me:
        again = me.submit(job_folder.load(bench.path / "job"))
    assert (again.digest, again.new) == (digest, False)
    assert jobs(bench) == [digest]


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_submission_cut_anywhere_is_repeated_safely(bench: Bench, write: int, how: str) -> None:
    folder = bench.write_folder()
    bench.broken = {write: how}
    with bench.researcher() as me, pytest.raises(UnreachableError):
        me.submit(folder)
    kept = job_folder.submitted(folder.path)
    assert kept is not None  # before the first byte was sent
    with bench.researcher() as me:
        found = me.submit(folder)
    assert jobs(bench) == [found.digest] == [kept.job.digest()]
    assert set(bench.blobs) == {found.job.model, found.job.dictionary}


def test_a_record_that_expired_before_it_was_sent_is_made_anew(bench: Bench) -> None:
    folder = bench.write_folder(expires_seconds=3600)
    bench.broken = {1: "before"}
    with bench.researcher() as me, pytest.raises(UnreachableError):
        me.submit(folder)
    bench.append(bench.consortium.tick(7200))
    with bench.researcher() as me:
        assert me.submit(folder).job.expires_at == bench.now + 3600


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epsilon": "0"}, "privacy.epsilon must be above 0"),
        ({"purpose": "marketing"}, "permit marketing"),
        ({"datasets": ("alpha/heart", "zulu/heart")}, "zulu/heart: it is not on the log"),
        ({"agreements": ("ab" * 32,)}, "agreement abababababababab is not on the log"),
        ({"min_participants": 3}, "min_participants is 3, 2 datasets fit"),
        ({"delta": "0.002"}, "alpha/heart has about 64 patients: at most 1/640"),
    ],
)
def test_a_job_with_a_problem_sends_nothing(bench: Bench, changes: dict[str, Any], said: str) -> None:
    folder, size = bench.write_folder(**changes), bench.consortium.view.size
    with bench.researcher() as me, pytest.raises(JobFileError, match=said):
        me.submit(folder)
    assert (bench.consortium.view.size, bench.blobs) == (size, {})
    assert job_folder.submitted(folder.path) is None


def test_datasets_of_another_dictionary_or_without_agreement_are_not_asked(bench: Bench) -> None:
    bench.append(bench.consortium.dataset("charlie"))  # another dictionary
    bench.offer("delta", purposes=("cardiology-research",))
    bench.append(
        bench.consortium.dataset("echo", schema=bench.write_folder().dictionary.digest)
    )  # no agreement
    assert bench.consortium.job_state(submitted(bench)).record.datasets == (
        "alpha/heart",
        "bravo/heart",
        "delta/heart",
    )


def test_the_agreement_that_lasts_longest_is_relied_on(bench: Bench) -> None:
    longer = bench.consortium.agreement("alpha", "bravo")
    longer = replace(longer, expires_at=longer.expires_at + 1000, text=sha(b"another"))
    bench.append(longer)
    assert bench.consortium.job_state(submitted(bench)).record.agreements == (longer.digest(),)


def test_only_a_researcher_proposes(bench: Bench) -> None:
    folder = bench.write_folder()
    with bench.researcher("alpha") as me, pytest.raises(JobFileError, match="alpha is a hospital"):
        me.submit(folder)


def test_a_changed_folder_waits_for_the_end_of_its_earlier_job(bench: Bench) -> None:
    first = submitted(bench)
    changed = bench.write_folder(rounds=4)
    with bench.researcher() as me:
        with pytest.raises(JobStateError, match="was changed since it was submitted"):
            me.submit(changed)
        me.cancel(first)
        second = me.submit(changed)
    assert set(jobs(bench)) == {first, second.digest}


# --- watch ---


def kinds(events: list[Event]) -> list[str]:
    return [e.kind for e in events]


def test_watch_tells_a_jobs_whole_story_from_the_log(bench: Bench) -> None:
    job = submitted(bench, min_participants=1)
    bench.append(bench.consortium.refusal("alpha", job))
    bench.start_with(job, "alpha", "bravo")
    bench.append(bench.consortium.skip("alpha", job))
    bench.consortium.append(bench.consortium.receipt("bravo", job, epsilon_job="0.5", epsilon_dataset="0.7"))
    bench.append(bench.consortium.round_(job, {"alpha": "skipped"}))
    bench.finish(job)
    with bench.researcher() as me:
        events = list(me.watch(job))
    assert kinds(events) == [
        "proposed", "refused", "approved", "approved", "started", "skip", "round", "round", "round", "round",
        "released", "ended",
    ]  # fmt: skip
    lines = [e.line for e in events]
    assert lines[1] == "alpha refuses (policy): this hospital's policy approves no job"
    assert "without alpha: it skipped this round" in lines[6]
    assert "epsilon 0.5 at delta 0.0001 (add/remove one patient)" in lines[6]
    assert "evaluation of the final model" in lines[9]
    assert lines[-1] == "ended, finished: the model is released"
    told = events[6].to_json()
    assert (told["took_part"], told["left_out"]) == (["bravo"], {"alpha": "skipped"})
    assert told["epsilons"] == {"bravo": {"job": "0.5", "dataset": "0.7"}}
    assert json.loads(json.dumps(told)) == told


def test_watch_goes_on_after_the_coordinator_was_away(bench: Bench) -> None:
    job = submitted(bench)
    said: list[str] = []

    def wake(reason: str) -> None:
        said.append(reason)
        bench.down = False
        bench.append(bench.consortium.ended(job, "cancelled"))

    with bench.researcher() as me:
        events = me.watch(job, waiting=wake)
        assert next(events).kind == "proposed"
        bench.down = True
        assert kinds(list(events)) == ["ended"]
    assert len(said) == 1
    assert "cannot be reached" in said[0]


def test_watch_tells_a_withdrawal_and_an_abort(bench: Bench) -> None:
    job = submitted(bench)
    bench.approve(job, "alpha", "bravo")
    bench.append(bench.consortium.withdrawal("alpha", job))
    bench.approve(job, "alpha")
    bench.start(job)
    bench.append(bench.consortium.abort(job))
    bench.append(bench.consortium.ended(job, "cancelled"))
    with bench.researcher() as me:
        events = list(me.watch(job))
    assert kinds(events)[3:] == ["withdrawn", "approved", "started", "abort", "ended"]
    assert "gives no model" in events[-2].line


def test_every_code_of_the_rules_has_words() -> None:
    assert set(job_story.REASONS) == {*ADMISSION_CODES, *KNOWN_CODES, *ABSENT_CODES}
    assert set(job_story.ABORTS) == ABORT_CODES
    ends = {to for following in TRANSITIONS.values() for to in following} - {"running", "released"}
    assert set(job_story.ENDS) == ends


def test_an_unknown_job_is_one_line(bench: Bench) -> None:
    with bench.researcher() as me:
        with pytest.raises(JobStateError, match="is not on the log"):
            next(me.watch("0" * 64))
        with pytest.raises(JobStateError, match="0 jobs on the log begin with"):
            me.find("abcd")


# --- cancel ---


@pytest.mark.parametrize("stage", ["proposed", "running", "between rounds"])
def test_a_job_is_cancelled_at_any_stage_and_again_changes_nothing(bench: Bench, stage: str) -> None:
    job = submitted(bench)
    if stage != "proposed":
        bench.start_with(job, "alpha", "bravo")
    if stage == "between rounds":
        for hospital in ("alpha", "bravo"):
            bench.consortium.append(bench.consortium.receipt(hospital, job))
        bench.append(bench.consortium.round_(job))
    with bench.researcher() as me:
        assert me.cancel(job) == "cancelled"
        size = bench.consortium.view.size
        assert me.cancel(job) == "cancelled"
    assert bench.consortium.view.size == size
    assert not any(d.job for d in bench.consortium.state.datasets.values())


def test_a_cancellation_whose_answer_was_lost_is_repeated(bench: Bench) -> None:
    job = submitted(bench)
    bench.broken = {bench._writes + 1: "after"}
    with bench.researcher() as me:
        with pytest.raises(UnreachableError):
            me.cancel(job)
        assert me.cancel(job) == "cancelled"


def test_a_finished_job_and_somebody_elses_are_not_cancelled(bench: Bench) -> None:
    job = submitted(bench)
    with bench.researcher("alpha") as other, pytest.raises(JobStateError, match="only its researcher"):
        other.cancel(job)
    bench.start_with(job, "alpha", "bravo")
    bench.finish(job)
    with bench.researcher() as me, pytest.raises(JobStateError, match="is finished: there is nothing left"):
        me.cancel(job)


# --- result ---


@pytest.fixture
def finished(bench: Bench) -> str:
    job = submitted(bench)
    bench.start_with(job, "alpha", "bravo")
    bench.finish(job)
    return job


def fetch(bench: Bench, job: str, name: str = "researcher") -> job_result.Result:
    with bench.researcher(name) as me:
        return job_result.fetch(me, job, bench.path / "out")


@pytest.mark.parametrize("member", ["researcher", "alpha"])
def test_result_is_what_the_release_names(bench: Bench, finished: str, member: str) -> None:
    found = fetch(bench, finished, member)
    files = {p.relative_to(found.folder).as_posix(): p for p in found.folder.rglob("*") if p.is_file()}
    assert {path: p.read_bytes() for path, p in files.items()} == bench.run
    assert sha(found.model.read_bytes()) == found.release.artifact
    assert not (bench.path / "out.partial").exists()
    with pytest.raises(JobStateError, match="exists: name a folder"):
        fetch(bench, finished)


@pytest.mark.parametrize("path", ["model.safetensors", "card.md", "evidence/model.safetensors"])
def test_another_model_than_the_logs_is_refused(bench: Bench, finished: str, path: str) -> None:
    bench.run[path] = b"another one"
    with pytest.raises(UnreachableError, match="than the release on the log names"):
        fetch(bench, finished)
    assert not (bench.path / "out").exists()


def test_other_bytes_than_listed_are_refused(bench: Bench, finished: str) -> None:
    files = [{"path": p, "size": len(d), "digest": sha(d)} for p, d in sorted(bench.run.items())]
    bench.listing = json.dumps({"files": files}).encode()
    bench.run["evidence/bundle.json"] = b"[]"
    with pytest.raises(UnreachableError, match="served other bytes"):
        fetch(bench, finished)
    assert not (bench.path / "out").exists()


@pytest.mark.parametrize(
    "path",
    [
        "../escape",
        "/etc/passwd",
        "evidence/../../x",
        "a//b",
        ".hidden",
        "evidence/./x",
        "",
        "a\nb",
        "a" * 200,
    ],
)
def test_a_path_out_of_the_folder_is_refused(bench: Bench, finished: str, path: str) -> None:
    bench.run[path] = b"mine"
    with pytest.raises(UnreachableError, match="malformed"):
        fetch(bench, finished)
    assert not list(bench.path.rglob("escape"))


@pytest.mark.parametrize("data", [b"", b"[]", b'{"files": 3}', b'{"files": [{"path": "a"}]}', b"[" * 9000])
def test_a_malformed_listing_is_refused(data: bytes) -> None:
    with pytest.raises(UnreachableError):
        job_result.parse_listing(data)


def test_an_interrupted_fetch_goes_on_where_it_was(bench: Bench, finished: str) -> None:
    gone = bench.run.pop("evidence/log/tile/0/000.p/7")
    files = [{"path": p, "size": len(d), "digest": sha(d)} for p, d in sorted(bench.run.items())]
    files.append({"path": "evidence/log/tile/0/000.p/7", "size": len(gone), "digest": sha(gone)})
    bench.listing = json.dumps({"files": files}).encode()
    with pytest.raises(UnreachableError):
        fetch(bench, finished)
    bench.run["evidence/log/tile/0/000.p/7"] = gone
    bench.asked.clear()
    assert fetch(bench, finished).files == len(files)
    assert [a for a in bench.asked if "/api/runs/" in a and a.count("/") > 4] == [
        f"GET /api/runs/{finished}/evidence/log/tile/0/000.p/7"
    ]


def test_a_job_that_released_nothing_or_is_not_final_has_no_result(bench: Bench) -> None:
    job = submitted(bench)
    with pytest.raises(JobStateError, match="is proposed and has released nothing"):
        fetch(bench, job)
    bench.start_with(job, "alpha", "bravo")
    bench.witnesses = []
    bench.finish(job)
    with pytest.raises(NotYetError, match="is not final yet"):
        fetch(bench, job)


# --- the copy of the log ---


def test_two_commands_share_one_copy(bench: Bench) -> None:
    job = submitted(bench)
    with bench.researcher() as one, bench.researcher() as two:
        events = one.watch(job)
        assert next(events).kind == "proposed"
        assert two.cancel(job) == "cancelled"
        assert kinds(list(events)) == ["ended"]
