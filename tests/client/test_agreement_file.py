"""An agreement's folder: explained, checked all at once, and the same record however often it is proposed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from client import agreement_file
from client.errors import JobFileError, LocalStateError

ORIGIN = "ledger.example/heart-consortium"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    agreement_file.new(tmp_path / "agreement")
    return tmp_path / "agreement"


def test_the_template_becomes_a_record(folder: Path) -> None:
    found = agreement_file.record_of(folder, ORIGIN, 1000)
    assert found.text == hashlib.sha256((folder / agreement_file.TEXT).read_bytes()).hexdigest()
    assert (found.parties, found.datasets) == (("northgate", "researcher"), ("northgate/heart-disease",))
    assert found.expires_at == 1000 + 52 * 7 * 86_400


def test_proposing_again_is_proposing_the_same_until_something_changes(folder: Path) -> None:
    first = agreement_file.record_of(folder, ORIGIN, 1000)
    assert agreement_file.record_of(folder, ORIGIN, 5000) == first
    (folder / agreement_file.TEXT).write_text("other words")
    second = agreement_file.record_of(folder, ORIGIN, 5000)
    assert (second.text, second.expires_at) != (first.text, first.expires_at)
    assert agreement_file.record_of(folder, ORIGIN, second.expires_at + 1).expires_at > second.expires_at


def test_a_used_folder_is_left_alone(folder: Path) -> None:
    with pytest.raises(JobFileError, match="exists"):
        agreement_file.new(folder)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("parties = []", "parties must name at least one"),
        ('parties = ["a", "a"]', "parties must be a list that names each once"),
        ('parties = ["researcher"]', "datasets names one of northgate, which is not among parties"),
        ('datasets = ["heart"]', "datasets must be a dataset's name"),
        ('purposes = ["Any Purpose"]', "purposes must be a code"),
        ('expires = "never"', "expires must be a time such as"),
        ("text = 3", "text must be a line of text"),
    ],
)
def test_each_mistake_is_named(folder: Path, line: str, said: str) -> None:
    key = line.split(" ")[0]
    lines = [
        x for x in (folder / agreement_file.FILE).read_text().splitlines() if not x.startswith(f"{key} =")
    ]
    with pytest.raises(JobFileError, match=said) as caught:
        agreement_file.parse("\n".join([line, *lines]).encode())
    assert len(caught.value.problems) == 1


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(JobFileError) as caught:
        agreement_file.parse(b'partys = ["a"]\nexpires = 3\n')
    assert len(caught.value.problems) == 6


def test_missing_and_damaged_files_are_one_line(folder: Path) -> None:
    (folder / agreement_file.PROPOSED).write_text("{}")
    with pytest.raises(LocalStateError, match="move it away to propose anew"):
        agreement_file.record_of(folder, ORIGIN, 1000)
    (folder / agreement_file.TEXT).unlink()
    with pytest.raises(JobFileError, match="is not there"):
        agreement_file.record_of(folder, ORIGIN, 1000)
