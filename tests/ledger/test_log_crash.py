"""The writer killed and failed at every point, with real records and a full audit of the disk after each.

`kill -9` in a loop runs a few dozen times by default. For hundreds of kills:

    WARDROUND_KILLS=500 python -m pytest tests/ledger/test_log_crash.py -k kill
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from ledger import envelope, example, finality, records
from ledger.checkpoint import Checkpoint, cosign
from ledger.database import DATABASE
from ledger.errors import LedgerError, StorageError
from ledger.log import Log
from ledger.merkle import tree_root
from ledger.note import Note
from ledger.restart import Report, Writable
from ledger.view import NOTHING
from tests.faults import FaultyDisk, Mode
from tests.ledger.consortium import Consortium

KILLS = int(os.environ.get("WARDROUND_KILLS", "20"))
ENTRIES_PER_LOG = 400  # then the next kills meet a new log: the audit reads all of it every time
WITNESSES = list(example.WITNESSES.values())[:4]


def resumed(path: Path) -> Log:
    """Open a log whose witnesses report nothing that it does not hold."""
    log = Log.open(path, [example.LOG_KEY])
    newest = Note.from_bytes(log.store.final() or log.store.pending() or b"")
    notes = [newest.with_signatures(cosign(newest.text, key, example.FOUNDED)) for key in WITNESSES]
    reports = [Report(witness=key.verifier, note=note) for key, note in zip(WITNESSES, notes, strict=True)]
    assert log.resume(reports) == Writable()
    return log


def audit(path: Path) -> tuple[int, bytes, int]:
    """Check everything that a log's directory says; return its size, its root and its final size."""
    with Log.open(path) as log:
        log.store.check()
        entries = [envelope.open_entry(data) for data in log.store.entries(0, log.store.size)]
        view = NOTHING.extend(entries)
        assert view == log.view
        nodes = log.store.nodes()
        for size in log.store.sizes():
            head = finality.verify_signed(log.store.signed(size) or b"", view.state.witness_sets)
            assert (head.size, head.root) == (size, tree_root(size, nodes))
        for size in log.store.final_sizes():
            finality.verify_final(log.store.final(size) or b"", view.state.witness_sets)
        return view.size, view.root, log.store.final_size()


def cosign_newest(log: Log) -> None:
    text = Note.from_bytes(log.store.pending() or b"").text
    lines = [cosign(text, key, example.FOUNDED) for key in WITNESSES]
    assert log.cosign(log.view.size, lines)


def append_for_ever(path: Path, acknowledge: Callable[[bytes], object]) -> NoReturn:
    """Append ticks, one to nine at a time, making some checkpoints final; tell after each what is done."""
    rng = random.Random(os.getpid())
    log = resumed(path)
    while True:
        at = log.view.state.time
        count = rng.choice((1, 1, 2, 9))
        ticks = [records.Tick(origin=example.ORIGIN, time=at + 1 + i) for i in range(count)]
        log.append([example.signed(tick) for tick in ticks], at)
        acknowledge(b"%d %s\n" % (log.view.size, log.view.root.hex().encode()))
        if rng.random() < 0.5:
            cosign_newest(log)
            acknowledge(b"final %d\n" % log.view.size)


def killed_after(path: Path, lines: int, delay: float) -> list[bytes]:
    """Start a writer, kill it -9 a moment after it has acknowledged some lines, and return what it said."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            append_for_ever(path, lambda line: os.write(writer, line))
        finally:
            os._exit(1)  # only an error comes here: nothing of pytest may run in this process
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as said:
        heard = b""
        while heard.count(b"\n") < lines and (more := said.read(4096)):
            heard += more
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        heard += said.read()
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, "the writer stopped by itself"
    return heard.splitlines()


def test_kill_in_a_loop_during_appends(tmp_path: Path) -> None:
    """No acknowledged entry is lost, none is invented, and whatever was final stays final."""
    rng = random.Random(2)
    path, size = tmp_path, ENTRIES_PER_LOG
    for kill in range(KILLS):
        if size >= ENTRIES_PER_LOG:
            path = tmp_path / f"from-{kill}"
            Log.create(path, example.signed(example.charter()), [example.LOG_KEY], example.FOUNDED).close()
        said = killed_after(path, rng.randrange(8), rng.random() * 0.02)
        size, _, final_size = audit(path)
        with Log.open(path) as log:
            nodes = log.store.nodes()
            for line in said:
                words = line.split()
                if words[0] == b"final":
                    assert int(words[1]) <= final_size
                else:
                    assert tree_root(int(words[0]), nodes).hex().encode() == words[1]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Consortium, str]:
    """A log with a running job, one batch short of its first round's end."""
    path = tmp_path_factory.mktemp("base") / "log"
    consortium = Consortium.founded()
    consortium.offer("alpha", "bravo")
    job = consortium.run("alpha", "bravo")
    first, *rest = [entry.data for entry in consortium.entries]
    with Log.create(path, first, [example.LOG_KEY], example.FOUNDED) as log:
        log.append(rest, consortium.state.time)
        cosign_newest(log)
    return path, consortium, job


def play(log: Log, batch: Sequence[bytes], now: int) -> None:
    log.append(batch, now)
    cosign_newest(log)


@pytest.mark.parametrize("mode", ["before", "after"])
def test_every_write_of_a_round_failed(
    base: tuple[Path, Consortium, str], tmp_path: Path, mode: Mode
) -> None:
    """The round is in whole or not at all, and the log never signs another one of the same size."""
    path, consortium, job = base
    consortium = consortium.fork()
    start = consortium.view.size
    consortium.play(job)
    batch, now = [entry.data for entry in consortium.entries[start:]], consortium.state.time
    counted = FaultyDisk()
    shutil.copytree(path, tmp_path / "counted")
    with counted.active(), resumed(tmp_path / "counted") as log:
        first = len(counted.calls)
        play(log, batch, now)
    expected = audit(tmp_path / "counted")
    for number in range(first, len(counted.calls)):
        failed = tmp_path / "failed"
        shutil.copytree(path, failed)
        with FaultyDisk(number, mode).active(), resumed(failed) as log:
            try:
                play(log, batch, now)
            except StorageError:
                with pytest.raises(LedgerError):
                    log.append(batch, now)  # nothing more until it is opened again
        size, _, _ = audit(failed)
        assert size in (start, start + len(batch))
        with FaultyDisk().active(), resumed(failed) as log:
            if size == start:
                log.append(batch, now)
            cosign_newest(log)
        assert audit(failed) == expected, counted.calls[number]
        shutil.rmtree(failed)


def test_failed_creation_is_taken_up_again(tmp_path: Path) -> None:
    charter = example.signed(example.charter())
    counted = FaultyDisk()
    with counted.active():
        Log.create(tmp_path / "whole", charter, [example.LOG_KEY], example.FOUNDED).close()
    for number in range(len(counted.calls)):
        path = tmp_path / f"{number}"
        with FaultyDisk(number).active(), pytest.raises(StorageError):
            Log.create(path, charter, [example.LOG_KEY], example.FOUNDED)
        try:
            Log.create(path, charter, [example.LOG_KEY], example.FOUNDED).close()
        except StorageError:  # it failed, but was committed: the audit says whether all is there
            assert (path / DATABASE).is_file()
        assert audit(path) == audit(tmp_path / "whole")


def test_a_checkpoint_is_committed_before_anybody_sees_it(
    base: tuple[Path, Consortium, str], tmp_path: Path
) -> None:
    """Every file that a reader can see at any moment is of a checkpoint that is in the database."""
    path, consortium, _ = base
    shutil.copytree(path, tmp_path / "log")
    tick = consortium.fork().append(consortium.tick(60))
    with resumed(tmp_path / "log") as log:
        disk = FaultyDisk()
        with disk.active():
            log.append([tick.data], consortium.state.time + 60)
    assert disk.calls[-1] == "replace"
    calls = [FaultyDisk(number, "before") for number in range(len(disk.calls))]
    for number, failing in enumerate(calls):
        copy = tmp_path / f"{number}"
        shutil.copytree(path, copy)
        with resumed(copy) as log, failing.active(), pytest.raises(StorageError):
            log.append([tick.data], consortium.state.time + 60)
        seen = Checkpoint.from_text(Note.from_bytes((copy / "checkpoint.pending").read_bytes()).text)
        assert seen.size == consortium.view.size  # the swap is the last call: nobody has seen the new one
        assert audit(copy)[0] == consortium.view.size + 1  # though it is committed
