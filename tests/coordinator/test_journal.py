"""What an operator sees: the journal's lines and the figures; and what neither may ever show."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

import pytest

from coordinator import journal
from coordinator.config import CoordinatorConfig
from coordinator.errors import CoordinatorError
from coordinator.figures import read_token
from ledger import example
from ledger.checkpoint import cosign
from ledger.note import Note
from tests.coordinator.public_port import TOKEN, Client, app_of, signature
from tests.coordinator.test_sequencer import incident
from tests.coordinator.ward import Ward, carry, sha

KEY = example.KEYS["researcher"]


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[list[dict[str, object]]]:
    """The journal's lines, filled in at the end by `read`; the loggers as they were, afterwards."""
    root, own = logging.getLogger(), logging.getLogger("coordinator")
    handlers, levels = root.handlers[:], (root.level, own.level)
    for handler in handlers:
        root.removeHandler(handler)
    journal.begin(CoordinatorConfig(directory=tmp_path, port=1, log_file="journal.log"))
    try:
        yield []
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
            handler.close()
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(levels[0])
        own.setLevel(levels[1])


def standing_size(ward: Ward) -> int:
    return ward.sequencer.standing.view.size


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_changes_leave_a_line_and_polls_none_and_secrets_never(ward: Ward, lines: list[object]) -> None:
    code = b"# secret sauce\n"
    target = f"/api/blobs/{sha(code)}?kind=code"
    with Client(app_of(ward)) as client:
        client.get("/log/checkpoint.pending")
        client.get("/api/status")
        client.post("/api/records", content=incident("a"))
        client.post("/api/records", content=b"{secret sauce")
        note = Note.from_bytes(ward.sequencer.pending())
        line = cosign(note.text, example.WITNESSES["alpha"], int(ward.clock.now)).to_line()
        assert client.post("/api/cosignatures", json={"size": standing_size(ward), "line": line}).is_success
        client.post("/api/cosignatures", content=b"{}")
        client.ask("PUT", target, headers=signature("PUT", target, KEY, body=code), content=code)
        client.ask("PUT", target, content=code)
    found = read(ward.folder / "journal.log")
    changes = [(f["endpoint"], f["status"], f["member"]) for f in found if f["message"] == "change"]
    assert changes == [
        ("records", 200, ""),
        ("records", 400, ""),
        ("cosignatures", 400, ""),
        ("upload", 200, "researcher"),
        ("upload", 401, ""),
    ]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in found)
    text = (ward.folder / "journal.log").read_text()
    for secret in ("sauce", KEY.to_text(), KEY.seed.hex(), TOKEN, "wardround=:"):
        assert secret not in text


def test_a_line_stays_a_line_whatever_is_logged(ward: Ward, lines: list[object]) -> None:
    log, root = logging.getLogger("coordinator.test"), logging.getLogger()
    for handler in root.handlers[:]:
        if not isinstance(
            handler, RotatingFileHandler
        ):  # what captures a test's log cannot pass on half a character
            root.removeHandler(handler)
    log.warning("two\nlines \x1b[2J %s", "\u2028 \ud800")
    try:
        raise ValueError("a\nb")
    except ValueError:
        log.exception("failed")
    first, second = read(ward.folder / "journal.log")
    assert first["message"] == "two\nlines \x1b[2J \u2028 \ud800"
    assert "ValueError" in str(second["traceback"])
    assert (ward.folder / "journal.log").read_bytes().isascii()


def test_the_journal_is_rotated(ward: Ward, lines: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MEBIBYTE", 500)
    journal.begin(
        CoordinatorConfig(directory=ward.folder, port=1, log_file="small.log", log_max_mib=1, log_keep=2)
    )
    for number in range(50):
        logging.getLogger("coordinator.test").warning("line %d", number)
    assert sorted(path.name for path in ward.folder.glob("small.log*")) == [
        "small.log",
        "small.log.1",
        "small.log.2",
    ]


def test_a_journal_that_cannot_be_written_is_one_clear_line(ward: Ward, lines: list[object]) -> None:
    with pytest.raises(CoordinatorError, match="cannot write the journal"):
        journal.begin(CoordinatorConfig(directory=ward.folder, port=1, log_file="nowhere/journal.log"))


def test_figures_are_those_of_the_log(ward: Ward) -> None:
    ward.start()
    carry(ward.rounds(), ward)
    with Client(app_of(ward)) as client:
        client.get("/api/status")
        client.get("/api/status")
        answer = client.ask("GET", "/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.headers["content-type"].startswith("text/plain; version=1.0.0")
    found = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    standing = ward.sequencer.standing
    assert float(found["wardround_log_size"]) == standing.view.size
    assert float(found["wardround_log_final_size"]) == standing.final_size
    assert (float(found["wardround_log_quorum"]), float(found["wardround_log_cosignatures"])) == (4, 5)
    assert float(found['wardround_jobs{status="running"}']) == 1
    assert float(found["wardround_rounds_total"]) == 4
    assert float(found['wardround_requests_total{endpoint="status",status="200"}']) == 2
    assert float(found["wardround_disk_free_bytes"]) > 0
    assert float(found["process_resident_memory_bytes"]) > 0
    for name in example.HOSPITALS:  # not a word about members
        assert name not in answer.text


def test_the_token_is_made_once_and_must_be_private(tmp_path: Path) -> None:
    path = tmp_path / "metrics.token"
    token = read_token(path)
    assert read_token(path) == token
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(CoordinatorError, match="others may read"):
        read_token(path)
    path.chmod(0o600)
    for text in ("", "short", "a" * 31, "a" * 40 + " b"):
        path.write_text(text)
        with pytest.raises(CoordinatorError, match="must hold"):
            read_token(path)
