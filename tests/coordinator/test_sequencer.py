"""The log's one owner: idempotent submission, turns between writers, finality, waiting, and a restart's reports."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.errors import ServiceError, StoppedError
from coordinator.sequencer import Sequencer
from ledger import envelope, example, records
from ledger.checkpoint import cosign
from ledger.errors import (
    LedgerError,
    MalformedError,
    ReadOnlyError,
    RuleError,
    StorageError,
    VerificationError,
)
from ledger.log import Log
from ledger.note import Note
from ledger.signature import Signature
from ledger.store import Store
from tests.coordinator.ward import Clock, Ward, sha

NOW = example.FOUNDED + 60


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


def incident(words: str, member: str = "delta") -> bytes:
    record = records.Incident(origin=example.ORIGIN, member=member, code="odd", evidence=sha(words.encode()))
    return envelope.sign(record, example.KEYS[member])


def line(sequencer: Sequencer, name: str, time: int = NOW) -> Signature:
    text = Note.from_bytes(sequencer.pending()).text
    return cosign(text, example.WITNESSES[name], time)


def report(note: bytes, name: str, time: int = NOW) -> bytes:
    """A witness's checkpoint with its own fresh line."""
    found = Note.from_bytes(note)
    return found.with_signatures(cosign(found.text, example.WITNESSES[name], time)).to_bytes()


def reopened(folder: Path) -> Sequencer:
    return Sequencer(Log.open(folder / "log", [example.LOG_KEY]), Clock(NOW))


# --- submitting ---


def test_record_submitted_twice_is_on_the_log_once(ward: Ward) -> None:
    first = ward.sequencer.submit(incident("a"))
    ward.sequencer.submit(incident("b"))
    assert ward.sequencer.submit(incident("a")) == first
    assert ward.sequencer.standing.view.size == first.index + 2


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", MalformedError),
        (b"{}", MalformedError),
        (b"\xff" * 1000, MalformedError),
        (incident("a")[:-1], MalformedError),
        (incident("a") + b" ", MalformedError),
    ],
)
def test_malformed_record_is_refused_and_changes_nothing(
    ward: Ward, data: bytes, error: type[Exception]
) -> None:
    size = ward.sequencer.standing.view.size
    with pytest.raises(error):
        ward.sequencer.submit(data)
    assert ward.sequencer.standing.view.size == size


def test_strangers_and_forgers_are_refused(ward: Ward) -> None:
    entry = envelope.parse_entry(incident("a"))
    (key,) = entry.signers
    with pytest.raises(VerificationError):
        ward.sequencer.submit(envelope.assemble(entry.record, {key: bytes(64)}))
    with pytest.raises(RuleError):
        ward.sequencer.submit(envelope.sign(entry.record, example.key("a stranger", "stranger")))


def test_receipt_cannot_come_by_itself(ward: Ward) -> None:
    ward.start()
    receipt = example.receipt("alpha", 1, (3, sha(b"root")))
    with pytest.raises(MalformedError, match="never by itself"):
        ward.sequencer.submit(envelope.sign(receipt, example.KEYS["alpha"]))


def test_coordinator_appends_only_after_what_it_has_seen(ward: Ward) -> None:
    tick = records.Tick(origin=example.ORIGIN, time=NOW)
    signed = envelope.sign(tick, example.KEYS["coordinator"])
    seen = ward.sequencer.standing.view.size
    ward.sequencer.submit(incident("a"))
    assert not ward.sequencer.append([signed], after=seen)
    assert ward.sequencer.append([signed], after=seen + 1)


def test_many_threads_submit_and_cosign_without_losing_a_record(ward: Ward) -> None:
    start = ward.sequencer.standing.view.size
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for i in range(5):
                ward.sequencer.submit(incident(f"{name} {i}", name))
        except LedgerError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("alpha", "delta", "echo")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    standing = ward.sequencer.standing
    assert (standing.view.size, standing.histories.size) == (start + 15, start + 15)


# --- cosignatures ---


def test_quorum_makes_it_final_and_no_fewer(ward: Ward) -> None:
    ward.cosigning = ()
    ward.sequencer.submit(incident("a"))
    size = ward.sequencer.standing.view.size
    finals = [ward.sequencer.cosign(size, line(ward.sequencer, name)) for name in example.WITNESSES]
    assert finals == [False, False, False, True, True]  # four of five
    assert ward.sequencer.standing.final_size == size
    assert ward.sequencer.standing.cosignatures == 5


def test_cosignature_of_unknown_size_or_wrong_bytes_is_refused(ward: Ward) -> None:
    ward.cosigning = ()
    ward.sequencer.submit(incident("a"))
    size = ward.sequencer.standing.view.size
    good = line(ward.sequencer, "alpha")
    with pytest.raises(LookupError):
        ward.sequencer.cosign(size + 1, good)
    bad = Signature(name=good.name, key_id=good.key_id, value=good.value[:-1] + bytes([good.value[-1] ^ 1]))
    with pytest.raises(VerificationError):
        ward.sequencer.cosign(size, bad)
    assert ward.sequencer.standing.cosignatures == 0


# --- waiting ---


def test_waiter_is_woken_by_finality(ward: Ward) -> None:
    ward.cosigning = ()
    ward.sequencer.submit(incident("a"))
    size = ward.sequencer.standing.view.size
    result: list[bool] = []
    thread = threading.Thread(
        target=lambda: result.append(ward.sequencer.wait(lambda s: s.final_size >= size, 30))
    )
    thread.start()
    for name in example.WITNESSES:
        ward.sequencer.cosign(size, line(ward.sequencer, name))
    thread.join(30)
    assert result == [True]
    assert not ward.sequencer.wait(lambda s: False, 0.01)


def test_stop_wakes_and_ends_every_waiter(ward: Ward) -> None:
    ended: list[str] = []

    def wait() -> None:
        try:
            ward.sequencer.wait(lambda s: False)
        except StoppedError:
            ended.append("stopped")

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    ward.sequencer.stop()
    for thread in threads:
        thread.join(30)
    assert ended == ["stopped"] * 3
    with pytest.raises(ReadOnlyError):
        ward.sequencer.submit(incident("a"))


@pytest.mark.parametrize("fails", ["before", "after"])
def test_after_a_failed_write_everything_is_refused(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    real: Callable[..., None] = Store.append

    def append(self: Store, *arguments: Any, **more: Any) -> None:
        if fails == "after":
            real(self, *arguments, **more)
        raise StorageError("the disk is full; free space, then start again")

    monkeypatch.setattr(Store, "append", append)
    with pytest.raises(StorageError):
        ward.sequencer.submit(incident("a"))
    monkeypatch.undo()
    with pytest.raises(ReadOnlyError, match="disk is full"):
        ward.sequencer.submit(incident("b"))
    with pytest.raises(ServiceError, match="disk is full"):
        ward.sequencer.wait(lambda s: True)
    ward.cosigning = tuple(example.WITNESSES)
    ward.reopen()
    ward.sequencer.submit(incident("a"))  # found again, or appended now
    assert ward.sequencer.submit(incident("b")).index == ward.sequencer.standing.view.size - 1


# --- restarts ---


def test_reopened_log_is_read_only_until_a_quorum_reports(ward: Ward, tmp_path: Path) -> None:
    with ward.sequencer as before:
        note = before.pending()
    with reopened(tmp_path) as sequencer:
        with pytest.raises(ReadOnlyError):
            sequencer.submit(incident("a"))
        left = [sequencer.report(sequencer.question, report(note, name), []) for name in example.WITNESSES]
        assert left == [3, 2, 1, 0, 0]
        assert sequencer.standing.writable
        sequencer.submit(incident("a"))


def test_one_witness_cannot_report_for_a_quorum(ward: Ward, tmp_path: Path) -> None:
    with ward.sequencer as before:
        note = before.pending()
    with reopened(tmp_path) as sequencer:
        left = [sequencer.report(sequencer.question, report(note, "alpha", NOW + i), []) for i in range(5)]
        assert left == [3] * 5


def test_replayed_report_of_an_earlier_opening_is_refused(ward: Ward, tmp_path: Path) -> None:
    with ward.sequencer as before:
        note, question = before.pending(), before.question
    with reopened(tmp_path) as sequencer:
        with pytest.raises(VerificationError, match="older question"):
            sequencer.report(question, report(note, "alpha"), [])
        with pytest.raises(VerificationError, match="sign afresh"):
            sequencer.report(sequencer.question, report(note, "alpha", NOW - 10_000), [])


@pytest.mark.parametrize("note", [b"", b"nonsense", b"a\n1\nAAAA\n\n"])
def test_report_that_is_no_checkpoint_is_refused(ward: Ward, tmp_path: Path, note: bytes) -> None:
    with ward.sequencer:
        pass
    with reopened(tmp_path) as sequencer, pytest.raises(LedgerError):
        sequencer.report(sequencer.question, note, [])


def test_backup_older_than_the_witnesses_gets_its_tail_back_before_it_writes(
    ward: Ward, tmp_path: Path
) -> None:
    with ward.sequencer as before:
        backup = tmp_path / "backup"
        shutil.copytree(tmp_path / "log", backup)  # the database is idle: a plain copy is whole
        old = before.standing.view.size
        before.submit(incident("a"))
        before.submit(incident("b"))
        note, tail = before.pending(), [incident("a"), incident("b")]
    shutil.rmtree(tmp_path / "log")
    backup.rename(tmp_path / "log")
    with reopened(tmp_path) as sequencer:
        assert sequencer.standing.view.size == old
        assert sequencer.report(sequencer.question, report(note, "alpha"), []) > 0
        assert "saw" in sequencer.standing.obstacle
        with pytest.raises(LedgerError):  # not the entries that were signed
            sequencer.report(sequencer.question, report(note, "bravo"), [incident("b"), incident("a")])
        assert sequencer.report(sequencer.question, report(note, "bravo"), tail) == 2
        assert sequencer.standing.view.size == old + 2
        for name in ("charlie", "delta"):
            sequencer.report(sequencer.question, report(note, name), tail)
        assert sequencer.standing.writable
        assert sequencer.submit(incident("a")).index == old


def test_histories_are_the_same_after_a_restart(ward: Ward) -> None:
    ward.start()
    before = ward.sequencer.standing.histories
    ward.reopen()
    assert ward.sequencer.standing.histories == before


# --- this machine's clock ---


class Machine:
    """A clock that may be set, and one that may not."""

    def __init__(self) -> None:
        self.ahead, self.gone = 0.0, 0.0

    def clock(self) -> float:
        return NOW + self.gone + self.ahead

    def elapsed(self) -> float:
        return 1000 + self.gone


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def watched(tmp_path: Path, machine: Machine) -> Sequencer:
    charter = envelope.sign(example.charter(), *example.KEYS.values())
    log = Log.create(tmp_path / "log", charter, [example.LOG_KEY], example.FOUNDED)
    return Sequencer(log, machine.clock, begun=True, elapsed=machine.elapsed)


def witnessed(sequencer: Sequencer, machine: Machine, *names: str, off: int = 0) -> None:
    """Let witnesses cosign the newest checkpoint by clocks that are off by so much."""
    size = sequencer.standing.view.size
    for name in names or tuple(example.WITNESSES):
        sequencer.cosign(size, line(sequencer, name, int(NOW + machine.gone) + off))


@pytest.mark.parametrize("ahead", [3 * 3600, -3 * 3600, 601, -601])
def test_a_clock_that_jumps_signs_nothing_until_it_is_set_right(
    watched: Sequencer, machine: Machine, ahead: int
) -> None:
    witnessed(watched, machine)
    machine.gone, machine.ahead = 50.0, ahead
    with pytest.raises(ReadOnlyError, match=f"{abs(ahead)} s {'ahead of' if ahead > 0 else 'behind'}"):
        watched.submit(incident("a"))
    tick = envelope.sign(records.Tick(origin=example.ORIGIN, time=watched.now()), example.KEYS["coordinator"])
    with pytest.raises(ReadOnlyError, match="set it"):
        watched.append([tick], after=1)
    assert "\n" not in watched.clock_trouble
    assert watched.standing.view.size == 1
    machine.ahead = 0.0
    watched.submit(incident("a"))


def test_a_clock_that_runs_a_little_wrong_is_no_matter(watched: Sequencer, machine: Machine) -> None:
    witnessed(watched, machine, off=-500)
    machine.gone = 10 * 24 * 3600.0
    watched.submit(incident("a"))


def test_one_lying_witness_neither_stops_the_log_nor_lets_a_wrong_clock_pass(
    watched: Sequencer, machine: Machine
) -> None:
    witnessed(watched, machine, "alpha", "bravo", "charlie")
    witnessed(watched, machine, "delta", off=10**8)
    watched.submit(incident("a"))
    machine.ahead = 10**8
    with pytest.raises(ReadOnlyError, match="set it"):
        watched.submit(incident("b"))


def test_fewer_witnesses_than_a_quorum_judge_no_clock(watched: Sequencer, machine: Machine) -> None:
    witnessed(watched, machine, "alpha", "bravo", "charlie", off=9999)
    watched.submit(incident("a"))
    assert not watched.clock_trouble


def test_an_old_cosignature_sent_again_is_no_news_of_a_clock(watched: Sequencer, machine: Machine) -> None:
    old = [line(watched, name, NOW) for name in example.WITNESSES]
    witnessed(watched, machine)
    machine.gone = 2 * 3600.0
    watched.submit(incident("a"))
    witnessed(watched, machine)
    machine.gone = 4 * 3600.0
    for one in old:
        watched.cosign(1, one)
    assert not watched.clock_trouble


def test_after_a_restart_the_reports_of_the_witnesses_judge_the_clock(
    watched: Sequencer, machine: Machine, tmp_path: Path
) -> None:
    with watched:
        note = watched.pending()
    machine.ahead = -3 * 3600.0
    log = Log.open(tmp_path / "log", [example.LOG_KEY])
    with Sequencer(log, machine.clock, elapsed=machine.elapsed) as sequencer:
        for name in example.WITNESSES:
            sequencer.report(sequencer.question, report(note, name), [])
        assert sequencer.standing.writable
        with pytest.raises(ReadOnlyError, match="10800 s behind"):
            sequencer.submit(incident("a"))
        machine.ahead = 0.0
        sequencer.submit(incident("a"))
    machine.ahead = 3 * 3600.0
    log = Log.open(tmp_path / "log", [example.LOG_KEY])
    with Sequencer(log, machine.clock, elapsed=machine.elapsed) as sequencer:
        with pytest.raises(VerificationError, match="clock is ahead"):
            sequencer.report(sequencer.question, report(sequencer.pending(), "alpha"), [])
        assert not sequencer.standing.writable
