"""Many cosignatures in one commit: each line gets its own answer, and a wrong one costs nobody else anything."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.cosigning import Queue
from ledger import example
from ledger.checkpoint import cosign
from ledger.errors import ReadOnlyError, StorageError, VerificationError
from ledger.log import Log
from ledger.note import Note
from ledger.signature import Signature
from tests.coordinator.ward import Ward

NOW = example.FOUNDED + 60
NAMES = sorted(example.WITNESSES)


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many lines each call of `Log.cosign` was given."""
    seen: list[int] = []
    original = Log.cosign

    def counted(log: Log, size: int, lines: Iterable[Signature]) -> bool:
        found = list(lines)
        seen.append(len(found))
        return original(log, size, found)

    monkeypatch.setattr(Log, "cosign", counted)
    return seen


def line(ward: Ward, name: str) -> Signature:
    return cosign(Note.from_bytes(ward.sequencer.pending()).text, example.WITNESSES[name], NOW)


def forged(ward: Ward, name: str) -> Signature:
    honest = line(ward, name)
    return replace(honest, value=honest.value[:-1] + bytes([honest.value[-1] ^ 1]))


def log_of(ward: Ward) -> Log:
    return ward.sequencer._log


def size_of(ward: Ward) -> int:
    return ward.sequencer.standing.view.size


def test_lines_that_wait_are_taken_in_together(ward: Ward, commits: list[int]) -> None:
    queue, size = Queue(), size_of(ward)
    turns = [queue.add(size, line(ward, name)) for name in NAMES]
    queue.take_in(log_of(ward))
    assert commits == [len(NAMES)]
    assert [turn.outcome() for turn in turns] == [True] * len(NAMES)
    assert len(log_of(ward).store.cosignatures(size)) == len(NAMES)


def test_a_wrong_line_is_refused_and_the_others_are_taken(ward: Ward) -> None:
    queue, size = Queue(), size_of(ward)
    bad = queue.add(size, forged(ward, NAMES[0]))
    good = [queue.add(size, line(ward, name)) for name in NAMES[1:]]
    queue.take_in(log_of(ward))
    with pytest.raises(VerificationError):
        bad.outcome()
    assert all(turn.done and turn.error is None for turn in good)
    assert {c.name for c in log_of(ward).store.cosignatures(size)} == {
        example.WITNESSES[n].name for n in NAMES[1:]
    }


def test_an_unknown_size_is_nobody_elses_fault(ward: Ward) -> None:
    queue, size = Queue(), size_of(ward)
    unknown = queue.add(size + 7, line(ward, NAMES[0]))
    known = queue.add(size, line(ward, NAMES[1]))
    queue.take_in(log_of(ward))
    assert known.outcome() is False
    with pytest.raises(LookupError):
        unknown.outcome()


def test_nobody_is_answered_whose_line_was_not_committed(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise StorageError("the disk is full")

    monkeypatch.setattr(Log, "cosign", full)
    size, errors = size_of(ward), list[str]()

    def hand_in(name: str) -> None:
        try:
            ward.sequencer.cosign(size, line(ward, name))
        except (StorageError, ReadOnlyError) as error:
            errors.append(type(error).__name__)

    threads = [threading.Thread(target=hand_in, args=(name,)) for name in NAMES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == len(NAMES)
