"""One answer stands for the files that it holds, and for no others; whatever is malformed is asked for again."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from client import news
from client.consortium import Consortium, Pending
from client.errors import PostRefusedError, UnreachableError
from client.premises import open_mirror
from ledger import audit, example
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError
from ledger.note import Note
from ledger.source import Read
from tests.client.fake_coordinator import FakeCoordinator


class Door(Consortium):
    """Answers with what the test says."""

    def __init__(self, answer: dict[str, Any] | PostRefusedError) -> None:
        self.answer = answer

    def get(self, path: str, limit: int = 0, seconds: float = 0) -> dict[str, Any]:
        assert path == "/api/news?above=1&wait=3"
        if isinstance(self.answer, PostRefusedError):
            raise self.answer
        return self.answer

    def wait_for_pending(self, above: int, seconds: float) -> Pending:
        return Pending(note=b"note", report="nonce")


def told(coordinator: FakeCoordinator, above: int) -> dict[str, Any]:
    """The honest answer."""
    note = coordinator.note()
    size = Checkpoint.from_text(Note.from_bytes(note).text).size
    entries = audit.entries(coordinator.folder.read, size, above)
    return {
        "pending": note.decode(),
        "final": coordinator.folder.read("checkpoint").decode(),
        "report": "",
        "entries": [base64.b64encode(entry).decode() for entry in entries],
    }


def forbidden(path: str) -> bytes:
    raise AssertionError(f"{path} was read: the news had it")


@pytest.fixture
def coordinator(tmp_path: Path) -> FakeCoordinator:
    return FakeCoordinator(tmp_path / "log")


def follow(path: Path, coordinator: FakeCoordinator, answer: dict[str, Any], read: Read) -> int:
    """Follow the first entry from files, the rest from an answer; return the size accepted."""
    with open_mirror(path / "mirror", example.charter().digest()) as mirror:
        mirror.follow(coordinator.folder.read, coordinator.now)
        for _ in range(3):
            coordinator.append(coordinator.consortium.tick())
        found = news.ask(Door(answer or told(coordinator, 1)), 1, 3.0)
        mirror.follow(found.over(read, mirror.entries), coordinator.now)
        return mirror.size


def test_a_mirror_follows_an_answer_without_reading_a_file(
    tmp_path: Path, coordinator: FakeCoordinator
) -> None:
    assert follow(tmp_path, coordinator, {}, forbidden) == 4


def test_an_altered_entry_is_refused(tmp_path: Path, coordinator: FakeCoordinator) -> None:
    for _ in range(3):
        coordinator.consortium.append(coordinator.consortium.tick())
    coordinator.publish()
    answer = told(coordinator, 1)
    answer["entries"][1] = answer["entries"][0]
    with open_mirror(tmp_path / "mirror", example.charter().digest()) as mirror:
        found = news.ask(Door(answer), 1, 3.0)
        with pytest.raises(LedgerError):
            mirror.follow(found.over(coordinator.folder.read, lambda start, end: []), coordinator.now)
        assert mirror.conflict() is None


def test_what_the_answer_lacks_is_read_from_the_files(tmp_path: Path, coordinator: FakeCoordinator) -> None:
    with open_mirror(tmp_path / "mirror", example.charter().digest()) as mirror:
        mirror.follow(coordinator.folder.read, coordinator.now)
        coordinator.append(coordinator.consortium.tick())
        found = news.ask(Door({**told(coordinator, 1), "entries": []}), 1, 3.0)
        mirror.follow(found.over(coordinator.folder.read, mirror.entries), coordinator.now)
        assert mirror.size == 2


def test_a_coordinator_without_news_is_asked_for_its_checkpoint() -> None:
    found = news.ask(Door(PostRefusedError(404, "", "nothing there", b"")), 1, 3.0)
    assert (found.note, found.report, found.entries) == (b"note", "nonce", ())


@pytest.mark.parametrize(
    "change",
    [{"pending": 1}, {"entries": {}}, {"entries": ["?"]}, {"entries": [1]}, {"final": None}, {"report": []},
     {"pending": "\ud800"}],
)  # fmt: skip
def test_malformed_news_is_asked_for_again(change: dict[str, Any]) -> None:
    answer = {"pending": "a", "final": "", "report": "", "entries": [], **change}
    with pytest.raises(UnreachableError):
        news.ask(Door(answer), 1, 3.0)
