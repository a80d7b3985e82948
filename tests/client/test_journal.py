"""The agent's screen and journal: one line an event, rotated, private, and never more in it than may be."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client import screen
from client.errors import ConfigError
from client.journal import JournalFile, open_journal
from client.settings import Journal
from client.troubles import LOG, ROUNDS, Troubles

SETTINGS = Journal(file="agent.log", max_mib=1, keep=2)
ROUND = {"event": "round", "job": "ab" * 32, "round": 3, "kind": "update", "code": "", "seconds": 1.5}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[JournalFile]:
    file = open_journal(tmp_path, SETTINGS, as_json=True)
    assert file is not None
    yield file
    file.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_event_is_one_line_of_json_in_a_file_of_its_owner(tmp_path: Path, journal: JournalFile) -> None:
    journal.tell(ROUND)
    [line] = lines(tmp_path / "agent.log")
    assert {k: line[k] for k in ROUND} == ROUND
    assert line["level"] == "info"
    assert line["time"].endswith("+00:00")
    assert (tmp_path / "agent.log").stat().st_mode & 0o777 == 0o600


def test_a_warning_is_one_line_however_it_was_written(tmp_path: Path, journal: JournalFile) -> None:
    try:
        raise ValueError("row 17: 63,male,1")
    except ValueError:
        logging.getLogger("client.test").warning("refused\n2026 info forged\x1b[2J", exc_info=True)
    [line] = lines(tmp_path / "agent.log")
    assert line["text"] == "refused?2026 info forged?[2J"
    assert "63,male,1" not in (tmp_path / "agent.log").read_text()


def test_fields_that_nobody_approved_stay_out_of_the_file(tmp_path: Path, journal: JournalFile) -> None:
    journal.tell({**ROUND, "purpose": "free text of a job", "reason": "x" * 10_000})
    text = (tmp_path / "agent.log").read_text()
    assert "free text" not in text
    assert len(text) < 2000


def test_words_instead_of_json(tmp_path: Path) -> None:
    file = open_journal(tmp_path, SETTINGS, as_json=False)
    assert file is not None
    file.tell(ROUND)
    file.close()
    assert 'info event="round" job=' in (tmp_path / "agent.log").read_text()


def test_the_file_is_rotated_by_size_and_only_so_many_are_kept(tmp_path: Path, journal: JournalFile) -> None:
    assert journal.maxBytes == 1 << 20
    journal.maxBytes = 10_000
    for _ in range(100):
        journal.tell({**ROUND, "reason": "y" * 400})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["agent.log", "agent.log.1", "agent.log.2"]
    assert all(p.stat().st_size <= 10_000 for p in tmp_path.iterdir())
    assert all(p.stat().st_mode & 0o077 == 0 for p in tmp_path.iterdir())


def test_reopen_goes_on_in_a_new_file_after_logrotate_moved_the_old_one(
    tmp_path: Path, journal: JournalFile
) -> None:
    journal.tell(ROUND)
    (tmp_path / "agent.log").rename(tmp_path / "agent.log.old")
    journal.tell({**ROUND, "round": 4})
    journal.reopen()
    journal.tell({**ROUND, "round": 5})
    assert [line["round"] for line in lines(tmp_path / "agent.log.old")] == [3, 4]
    assert [line["round"] for line in lines(tmp_path / "agent.log")] == [5]


def test_no_file_no_journal_and_a_bad_one_is_one_line(tmp_path: Path) -> None:
    assert open_journal(tmp_path, replace(SETTINGS, file=""), as_json=False) is None
    with pytest.raises(ConfigError, match=r"cannot write the journal .*No such file"):
        open_journal(tmp_path, replace(SETTINGS, file="nowhere/agent.log"), as_json=False)


def test_each_trouble_is_told_once_with_its_beginning_and_its_end() -> None:
    told: list[dict[str, Any]] = []
    now = [100.0]
    troubles = Troubles(told.append, lambda: now[0])
    for time, part, trouble in [
        (100.0, LOG, ""), (101.0, LOG, ""), (110.0, LOG, "refused"), (111.0, LOG, "refused"),
        (112.0, ROUNDS, "refused"), (120.0, LOG, "no route"), (170.0, LOG, ""),
    ]:  # fmt: skip
        now[0] = time
        troubles.report(part, trouble)
    assert told == [
        {"event": "connected", "part": "log"},
        {"event": "trouble", "part": "log", "trouble": "refused", "since": 110},
        {"event": "trouble", "part": "rounds", "trouble": "refused", "since": 112},
        {"event": "trouble", "part": "log", "trouble": "no route", "since": 110},
        {"event": "connected", "part": "log", "after": 60},
    ]


def test_the_screen_says_what_it_needs_to_know() -> None:
    trouble = {"event": "trouble", "part": "log", "trouble": "timed\nout", "since": 1_800_000_000}
    assert screen.words(trouble, "/srv/w") == (
        "no connection for the log since 2027-01-15 08:00:00 UTC: timed?out. It is tried again; if it lasts: "
        "wardround hospital check /srv/w"
    )
    again = {"event": "connected", "part": "rounds", "after": 7}
    assert screen.words(again, "") == "connected to the coordinator for Flower's messages again, after 7 s"
    restored = screen.words({"event": "person", "reason": "restored"}, "/srv/w")
    assert restored.endswith(
        "then wardround member rotate /srv/w --witness, wardround hospital resume /srv/w"
    )
    silent = screen.words({"event": "person", "reason": "silent"}, "/srv/w")
    assert "hospital standing /srv/w says why; then wardround hospital resume /srv/w" in silent
    sentence = {"event": "trouble", "part": "log", "trouble": "It disconnected.", "since": 1_800_000_000}
    ended = {"event": "ended", "reason": f"{'/a' * 40} is full: see to the disk, then start again"}
    assert screen.words(ended, "") == f"ended: {ended['reason']}"
    assert "It disconnected. It is" in screen.words(sentence, "/srv/w")
    waiting = {"event": "waiting", "job": "ab" * 32, "code": "ask"}
    assert "hospital show /srv/w abababababab, then approve or refuse" in screen.words(waiting, "/srv/w")
    assert screen.words({"event": "reloaded", "changed": True}, "").endswith("the new settings hold")
    assert screen.words(ROUND, "") == "round 3 of job abababababab: update, 1.50 s"
    assert screen.words({"event": "approved", "job": "ab" * 32}, "") == f"approved: job {'ab' * 20}"
    assert screen.words({"event": "stopped"}, "") == "stopped"
