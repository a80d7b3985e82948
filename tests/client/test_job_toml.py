"""`job.toml`: written, read, explained; and every mistake named at once, each by its line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import job_folder, job_templates, job_toml
from client.errors import JobFileError
from client.job_fields import FIELDS
from client.job_toml import JobDraft
from ledger.values import Setting

DRAFT = job_templates.DRAFTS["breast-cancer"]
DECIMALS = st.decimals(min_value="0.0001", max_value="100", places=4).map(
    lambda d: f"{d:f}".rstrip("0").rstrip(".")
)


def wrong(text: str) -> tuple[str, ...]:
    with pytest.raises(JobFileError) as caught:
        job_toml.parse(text.encode())
    assert "\n" not in str(caught.value)
    return caught.value.problems


@pytest.mark.parametrize("template", sorted(job_templates.DRAFTS))
@pytest.mark.parametrize("explained", [True, False])
def test_every_template_is_read_as_it_was_written(template: str, explained: bool) -> None:
    draft = job_templates.DRAFTS[template]
    assert job_toml.parse(job_toml.to_toml(draft, explained=explained).encode()) == draft


def test_every_line_is_explained() -> None:
    lines = job_toml.to_toml(DRAFT).splitlines()
    for field in FIELDS:
        place = next(i for i, line in enumerate(lines) if line.startswith(f"{field.key} = "))
        assert any(line.startswith("# ") for line in lines[max(0, place - 1) : place])


@given(
    rounds=st.integers(1, 10_000),
    live=st.integers(0, 50),
    final=st.booleans(),
    rate=DECIMALS,
    hidden=st.lists(st.integers(1, 512), max_size=4),
    settings=st.dictionaries(st.sampled_from(["beta", "eta", "num-malicious-nodes"]), DECIMALS),
)
def test_any_draft_survives_its_file(
    rounds: int, live: int, final: bool, rate: str, hidden: list[int], settings: dict[str, str]
) -> None:
    draft = replace(
        DRAFT,
        rounds=rounds,
        live_evaluations=live,
        final_evaluation=final,
        learning_rate=rate,
        hidden=tuple(hidden),
        strategy_settings=tuple(Setting(name=n, value=settings[n]) for n in sorted(settings)),
    )
    assert job_toml.parse(job_toml.to_toml(draft).encode()) == draft


@given(rounds=st.integers(1, 1000), live=st.integers(0, 1000), final=st.booleans())
def test_evaluations_are_rounds_of_the_job_each_once(rounds: int, live: int, final: bool) -> None:
    draft = replace(DRAFT, rounds=rounds, live_evaluations=live, final_evaluation=final)
    found = draft.evaluate
    assert list(found) == sorted(set(found))
    assert all(1 <= r <= rounds + 1 for r in found)
    assert (rounds + 1 in found) == final
    if live <= rounds:
        assert len([r for r in found if r <= rounds]) == live


def test_all_mistakes_are_named_at_once() -> None:
    problems = wrong(
        'name = "My Job"\nrouns = 4\nmodel = 3\ndatasets = []\nexpires = "soon"\n'
        '[training]\nclip = -1\nlearning_rate = inf\nlocal_steps = true\n[aggregation]\neta = "x"\n'
    )
    text = "\n".join(problems)
    for said in (
        "name must be a name of lowercase",
        "'rouns' is unknown: did you mean rounds?",
        "model must be a table",
        'datasets must be "all" or a list',
        "expires must be a time such as",
        "training.clip must be",
        "training.learning_rate must be",
        "training.local_steps must be a whole number of at least 1",
        "aggregation.eta must be a number",
        "purpose is missing",
        "rounds is missing",
        "privacy.epsilon is missing",
    ):
        assert said in text
    assert all("\n" not in p for p in problems)


@pytest.mark.parametrize("text", ["name = ", "\x00", "a = 1\na = 2"])
def test_what_is_no_toml_is_one_line(text: str) -> None:
    assert wrong(text)[0].startswith("not TOML: ")


@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused_by_our_own_error(data: bytes) -> None:
    with pytest.raises(JobFileError):
        job_toml.parse(data)


@pytest.mark.parametrize(
    ("line", "attribute", "value"),
    [
        ("expires = '90m'", "expires_seconds", 5400),
        ("rounds = 7", "rounds", 7),
        ("agreements = ['" + "ab" * 32 + "']", "agreements", ("ab" * 32,)),
        ("datasets = ['b/x', 'a/x']", "datasets", ("a/x", "b/x")),
    ],
)
def test_values_are_read_as_a_person_writes_them(line: str, attribute: str, value: Any) -> None:
    key = line.split(" ")[0]
    lines = [x for x in job_toml.to_toml(DRAFT).splitlines() if not x.startswith(f"{key} =")]
    assert getattr(job_toml.parse("\n".join([line, *lines]).encode()), attribute) == value


@pytest.mark.parametrize(
    ("text", "value"), [("0.30", "0.3"), ("3", "3"), ("1e-4", "0.0001"), ('"0.5"', "0.5")]
)
def test_decimals_have_one_spelling_on_the_record(text: str, value: str) -> None:
    file = job_toml.to_toml(DRAFT).replace("learning_rate = 0.3", f"learning_rate = {text}")
    assert job_toml.parse(file.encode()).learning_rate == value


# --- the folder ---


def test_new_folder_is_whole_and_a_used_one_is_left_alone(tmp_path: Path) -> None:
    folder = job_folder.new(tmp_path / "job", "custom-model")
    assert sorted(p.name for p in folder.path.iterdir()) == ["job.toml", "model.py"]
    assert [p.name for p in tmp_path.iterdir()] == ["job"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(JobFileError, match="exists: name a folder that does not"):
        job_folder.new(tmp_path / "mine")
    with pytest.raises(JobFileError, match="no template 'x': choose one of blank"):
        job_folder.new(tmp_path / "other", "x")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("dictionary", "said"),
    [
        ("nowhere.json", "is no file of .* and does not come with Wardround"),
        ("job.toml", "data dictionary"),
        ("../../etc", "is no file"),
    ],
)
def test_a_dictionary_that_is_none_is_named(tmp_path: Path, dictionary: str, said: str) -> None:
    folder = job_folder.new(tmp_path / "job")
    file = folder.path / "job.toml"
    file.write_text(file.read_text().replace('"breast-cancer"', f'"{dictionary}"', 2))
    text = file.read_text().replace(f'name = "{dictionary}"', 'name = "x"', 1)
    file.write_text(text)
    with pytest.raises(JobFileError, match=said):
        job_folder.load(folder.path)


def test_content_follows_everything_that_was_decided(tmp_path: Path) -> None:
    one, two = (job_folder.new(tmp_path / name, "custom-model") for name in ("one", "two"))
    assert one.content == two.content
    changed: list[JobDraft] = [replace(one.draft, rounds=31), replace(one.draft, agreements=("0" * 64,))]
    digests = {replace(one, draft=d).content for d in changed} | {replace(one, source=b"x").content}
    assert len(digests | {one.content}) == 4


def test_a_damaged_submission_is_one_line(tmp_path: Path) -> None:
    folder = job_folder.new(tmp_path / "job")
    assert job_folder.submitted(folder.path) is None
    (folder.path / job_folder.SUBMITTED).write_text("{}")
    with pytest.raises(Exception, match="restore it, or move it away"):
        job_folder.submitted(folder.path)
