"""The folder in which a notebook's job is kept: made whole, found again, never another job's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client import dictionary, job_folder, job_templates, job_toml
from client.dictionary import Dictionary
from client.errors import JobFileError, JobStateError, LocalStateError
from client.job_templates import DRAFTS, MODEL
from client.notebook import job_files
from ledger import durable
from ledger.values import Setting


class Drafted:
    def __init__(self, source: bytes | None = None, own: Dictionary | None = None, **changes: Any) -> None:
        self.draft = replace(DRAFTS["breast-cancer"], name="study", **changes)
        self.dictionary = own or dictionary.shipped("breast-cancer")
        self.source = source


OWN = dictionary.parse(job_templates.DICTIONARY.encode())


@pytest.fixture(autouse=True)
def beside_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "job",
    [
        Drafted(),
        Drafted(MODEL.encode(), model="custom"),
        Drafted(own=OWN, dictionary="somewhere/else.json"),
        Drafted(strategy="fedadam", strategy_settings=(Setting(name="eta", value="0.05"),)),
    ],
)
def test_a_kept_job_is_the_same_job_when_it_is_found_again(job: Drafted) -> None:
    made = job_files.keep(job)
    assert made.path == Path("jobs/study")
    assert (made.dictionary, made.source) == (job.dictionary, job.source)
    assert replace(made.draft, dictionary="x") == replace(job.draft, dictionary="x")
    assert job_files.keep(job) == made == job_folder.load(made.path)
    assert [p.name for p in Path("jobs").iterdir()] == ["study"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Drafted(rounds=7), "(rounds is 30 there and 7 here)"),
        (
            Drafted(epsilon="1", rounds=7),
            "rounds is 30 there and 7 here, privacy.epsilon is 3 there and 1 here",
        ),
        (Drafted(own=OWN), "(the data dictionary is another)"),
        (Drafted(MODEL.encode(), model="custom"), "model.py is another"),
        (Drafted(strategy="fedadam", strategy_settings=(Setting(name="eta", value="1"),)), "other settings"),
        (Drafted(rounds=7, epsilon="1", delta="0.00001", seed=4), "and 1 more)"),
    ],
)
def test_another_job_of_the_name_is_refused_with_what_differs(other: Drafted, said: str) -> None:
    made = job_files.keep(Drafted())
    with pytest.raises(JobStateError) as found:
        job_files.keep(other)
    assert said in str(found.value)
    assert str(found.value).endswith("give this one a name of its own, or name another folder for it")
    assert job_folder.load(made.path) == made


def test_a_folder_of_something_else_is_named_and_left_alone() -> None:
    Path("jobs/study").mkdir(parents=True)
    Path("jobs/study/notes.txt").write_text("mine")
    with pytest.raises(JobFileError, match=r"jobs/study/job\.toml is not there"):
        job_files.keep(Drafted())
    assert [p.name for p in Path("jobs/study").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_disk_that_refuses_leaves_no_half_made_folder(write: int, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, calls = durable.write_private, 0

    def refuse(path: Path, content: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == write:
            raise OSError(28, "No space left on device")
        honest(path, content)

    monkeypatch.setattr(durable, "write_private", refuse)
    with pytest.raises(LocalStateError, match="No space left"):
        job_files.keep(Drafted(MODEL.encode(), own=OWN, model="custom"))
    assert list(Path("jobs").iterdir()) == []


def test_what_is_no_job_is_one_sentence() -> None:
    with pytest.raises(JobFileError, match=r"a dict is no job: make one by wardround\.Job\.template"):
        job_files.keep({"rounds": 3})  # type: ignore[arg-type]


def test_a_folder_that_was_typed_is_taken_where_it_is() -> None:
    typed = job_folder.new(Path("typed"))
    assert job_files.keep(typed) is typed
    assert not Path("jobs").exists()
    elsewhere = job_files.keep(typed, Path("copy"))
    assert elsewhere.draft == typed.draft
    assert job_toml.parse((elsewhere.path / job_toml.FILE).read_bytes()) == typed.draft
