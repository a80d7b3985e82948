"""The writer: what it appends, refuses, signs, publishes and proves, with real records of a consortium."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from ledger import envelope, example, finality, log, restart
from ledger.checkpoint import Checkpoint, cosign
from ledger.envelope import Entry
from ledger.errors import (
    LedgerError,
    MalformedError,
    ReadOnlyError,
    RuleError,
    StorageError,
    VerificationError,
)
from ledger.log import Log
from ledger.merkle import leaf_hash
from ledger.note import Note
from ledger.proof import TlogProof, verify_proof
from ledger.signature import KeyType, SigningKey
from ledger.store import CHECKPOINT, PENDING, Store
from ledger.witness import ClockError
from tests.ledger.consortium import Consortium

WITNESSES = list(example.WITNESSES.values())
NOW = example.FOUNDED
NEW_LOG_KEY = example.key("second log key", example.ORIGIN)


def begun(path: Path, keys: Sequence[SigningKey] = (example.LOG_KEY,)) -> tuple[Log, Consortium]:
    consortium = Consortium.founded()
    return Log.create(path, consortium.entries[0].data, keys, NOW), consortium


def append(writer: Log, consortium: Consortium, *entries: Entry) -> bytes:
    return writer.append([entry.data for entry in entries], consortium.state.time)


def cosigned(writer: Log, size: int, keys: Iterable[SigningKey], time: int = NOW) -> bool:
    text = Note.from_bytes(writer.store.signed(size) or b"").text
    return writer.cosign(size, [cosign(text, key, time) for key in keys])


def no_reports() -> list[restart.Report]:
    return [restart.Report(witness=key.verifier, note=None) for key in WITNESSES]


def test_a_job_is_logged_and_every_entry_of_it_proved(tmp_path: Path) -> None:
    writer, consortium = begun(tmp_path)
    consortium.offer("alpha", "bravo")
    job = consortium.run("alpha", "bravo")
    with writer:
        append(writer, consortium, *consortium.entries[1:])
        before = len(consortium.entries)
        consortium.play(job)
        append(writer, consortium, *consortium.entries[before:])
        assert (writer.view.size, writer.view.root) == (consortium.view.size, consortium.view.root)
        assert cosigned(writer, writer.view.size, WITNESSES[:4])
        policy = finality.trust_policy(writer.view.state.witness_sets[-1])
        for index, entry in enumerate(consortium.entries):
            proof = TlogProof.from_bytes(writer.prove(index))
            assert verify_proof(proof, leaf_hash(entry.data), policy)[0].size == writer.view.size
        with pytest.raises(VerificationError, match="no entry"):
            writer.prove(writer.view.size)
        writer.store.check()


def test_a_refused_entry_changes_nothing(tmp_path: Path) -> None:
    writer, consortium = begun(tmp_path)
    consortium.offer("alpha", "bravo")
    job = consortium.run("alpha", "bravo")
    good = [entry.data for entry in consortium.entries[1:]]
    forged = bytearray(good[0])
    forged[forged.index(b'"sig":"') + 10] ^= 1
    consortium.receive(job)
    receipts = [entry.data for entry in consortium.entries[1:]]
    with writer:
        pending = (tmp_path / PENDING).read_bytes()
        for batch, error in (
            ([], MalformedError),
            ([b"{}"], MalformedError),
            ([*good, good[0]], RuleError),  # the second time
            ([good[0][:-5]], MalformedError),
            ([bytes(forged)], VerificationError),
            (receipts, VerificationError),  # a round's batch without its end
        ):
            with pytest.raises(error):
                writer.append(batch, consortium.state.time)
            assert (writer.view.size, writer.store.size) == (1, 1)
        assert (tmp_path / PENDING).read_bytes() == pending
        writer.append(good, consortium.state.time)


def test_a_batch_that_no_witness_would_accept_in_time_is_refused(tmp_path: Path) -> None:
    writer, consortium = begun(tmp_path)
    tick = consortium.append(consortium.tick(3_600))
    with writer:
        for now in (NOW, NOW + 3_600 - 601, NOW + 3_600 + 601):
            with pytest.raises(ClockError):
                writer.append([tick.data], now)
        writer.append([tick.data], NOW + 3_600 - 600)
    with pytest.raises(ClockError, match="601 s ahead"):
        Log.create(tmp_path / "early", consortium.entries[0].data, [example.LOG_KEY], NOW - 601)
    assert not (tmp_path / "early").exists()


def test_final_needs_the_quorum_and_no_stranger_counts(tmp_path: Path) -> None:
    writer, _ = begun(tmp_path)
    strangers = [example.key(f"stranger {i}", f"stranger{i}", KeyType.COSIGNATURE) for i in range(4)]
    text = Note.from_bytes(writer.store.pending() or b"").text
    with writer:
        assert not cosigned(writer, 1, [*WITNESSES[:3], *strangers])
        with pytest.raises(VerificationError, match="not signed by any known key"):
            cosigned(writer, 1, strangers)
        wrong = cosign(text, WITNESSES[3], NOW)
        with pytest.raises(VerificationError, match="does not verify"):
            writer.cosign(1, [type(wrong)(name=wrong.name, key_id=wrong.key_id, value=bytes(72))])
        with pytest.raises(VerificationError, match="no checkpoint of size 2"):
            writer.cosign(2, [])
        assert not cosigned(writer, 1, WITNESSES[:3], NOW + 5)  # the same three again, later
        assert not (tmp_path / CHECKPOINT).exists()
        with pytest.raises(VerificationError, match="final yet"):
            writer.prove(0)
        assert cosigned(writer, 1, WITNESSES[3:4])
        final = Note.from_bytes((tmp_path / CHECKPOINT).read_bytes())
        assert {line.name for line in final.signatures} == {example.ORIGIN, *(k.name for k in WITNESSES[:4])}
        finality.verify_final(final, writer.view.state.witness_sets)


def test_cosignatures_arrive_in_any_order_late_and_for_older_sizes(tmp_path: Path) -> None:
    writer, consortium = begun(tmp_path)
    with writer:
        for _ in range(2):
            append(writer, consortium, consortium.append(consortium.tick()))
        assert not cosigned(writer, 3, WITNESSES[:2])
        assert not cosigned(writer, 2, WITNESSES[:3])
        assert cosigned(writer, 2, WITNESSES[3:4])
        assert writer.store.final_size() == 2
        assert cosigned(writer, 3, WITNESSES[2:4])
        assert cosigned(writer, 2, WITNESSES[4:])  # nothing to add: a larger one is final
        assert cosigned(writer, 3, WITNESSES[4:])  # late, passed on nevertheless
        newest = Note.from_bytes((tmp_path / CHECKPOINT).read_bytes())
        assert len(newest.signatures) == 6
        assert cosigned(writer, 3, WITNESSES[:1], NOW + 60)  # a heartbeat replaces the older line
        assert cosigned(writer, 3, WITNESSES[:1], NOW + 50)  # and no older one replaces it
        _, times = finality.verify_final((tmp_path / CHECKPOINT).read_bytes(), writer.view.state.witness_sets)
        assert times[WITNESSES[0].name] == NOW + 60
        assert len(times) == 5
        writer.store.check()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]


def test_log_key_rotation_is_signed_by_both_keys_until_it_is_final(tmp_path: Path) -> None:
    writer, consortium = begun(tmp_path, (example.LOG_KEY, NEW_LOG_KEY))
    with writer:
        assert cosigned(writer, 1, WITNESSES)
        change = consortium.append(consortium.amendment(log=NEW_LOG_KEY.verifier.to_text()))
        signers = [
            [line.key_id for line in Note.from_bytes(append(writer, consortium, entry)).signatures]
            for entry in (change, consortium.append(consortium.tick()))
        ]
        both = [example.LOG_KEY.verifier.key_id, NEW_LOG_KEY.verifier.key_id]
        assert signers == [both, both]
        assert cosigned(writer, 3, WITNESSES)
        note = Note.from_bytes(append(writer, consortium, consortium.append(consortium.tick())))
        assert [line.key_id for line in note.signatures] == both[1:]
    with Log.open(tmp_path, [example.LOG_KEY]) as old:
        old.resume(no_reports())
        with pytest.raises(ReadOnlyError, match=r"signing key of ledger\.example"):
            append(old, consortium, consortium.append(consortium.tick()))


def test_an_amendment_needs_the_quorum_of_both_witness_sets(tmp_path: Path) -> None:
    writer, consortium = begun(tmp_path)
    with writer:
        assert cosigned(writer, 1, WITNESSES)
        gone = ("charlie", "delta", "echo")
        joined = [consortium.member(name) for name in ("foxtrot", "golf", "hotel")]
        amendment = consortium.amendment(add=tuple(joined), remove=gone)
        append(writer, consortium, consortium.append(amendment))
        assert not cosigned(writer, 2, WITNESSES)  # all of the old set, two of the new
        assert writer.store.final_size() == 1


def test_nothing_is_signed_after_a_stop_before_the_witnesses_reported(tmp_path: Path) -> None:
    writer, consortium = begun(tmp_path)
    writer.close()
    tick = consortium.append(consortium.tick()).data
    with Log.open(tmp_path, [example.LOG_KEY]) as stopped:
        with pytest.raises(ReadOnlyError, match="read-only until a quorum"):
            stopped.append([tick], consortium.state.time)
        assert isinstance(stopped.resume(no_reports()[:3]), restart.Waiting)
        with pytest.raises(ReadOnlyError):
            stopped.append([tick], consortium.state.time)
        assert cosigned(stopped, 1, WITNESSES)  # what was signed before may become final
        assert isinstance(stopped.resume(no_reports()[:4]), restart.Writable)
        stopped.append([tick], consortium.state.time)


def test_restored_old_backup_signs_nothing_until_it_has_its_missing_tail(tmp_path: Path) -> None:
    writer, consortium = begun(tmp_path / "log")
    backup = tmp_path / "backup"
    with writer:
        append(writer, consortium, consortium.append(consortium.tick()))
        writer.store.put({})
    shutil.copytree(tmp_path / "log", backup)
    with Log.open(tmp_path / "log", [example.LOG_KEY]) as live:
        live.resume(no_reports())
        for _ in range(3):
            append(live, consortium, consortium.append(consortium.tick()))
        pending = Note.from_bytes(live.store.pending() or b"")
        cosigned(live, 5, WITNESSES[:1])
    tick = consortium.append(consortium.tick()).data
    seen = pending.with_signatures(cosign(pending.text, WITNESSES[0], NOW))
    reports = [restart.Report(witness=WITNESSES[0].verifier, note=seen), *no_reports()[1:]]
    tail = [entry.data for entry in consortium.entries[2:5]]
    with Log.open(backup, [example.LOG_KEY]) as old:
        verdict = old.resume(reports)
        assert verdict == restart.MissingTail(size=5, note=seen)
        with pytest.raises(ReadOnlyError):
            old.append([tick], consortium.state.time)
        for wrong in (tail[:2], [*tail, tick], [tail[0], tail[2], tail[1]]):
            with pytest.raises(LedgerError):
                old.restore_tail(wrong, seen)
        forged = Note(text=seen.text, signatures=seen.signatures[1:])
        with pytest.raises(VerificationError, match="not signed by any known key"):
            old.restore_tail(tail, forged)
        old.restore_tail(tail, seen)
        assert old.store.pending() == pending.to_bytes()  # its own old signature, not a new one
        with pytest.raises(ReadOnlyError):
            old.append([tick], consortium.state.time)
        assert isinstance(old.resume(reports), restart.Writable)
        old.append([tick], consortium.state.time)
        old.store.check()


def test_a_fork_of_its_own_making_ends_the_log_for_good(tmp_path: Path) -> None:
    writer, consortium = begun(tmp_path / "log")
    other = consortium.fork()
    with writer:
        append(writer, consortium, consortium.append(consortium.tick()))
    fork, _ = begun(tmp_path / "fork")
    with fork:
        note = Note.from_bytes(append(fork, other, other.append(other.tick(60))))
    seen = note.with_signatures(cosign(note.text, WITNESSES[0], NOW))
    with Log.open(tmp_path / "log", [example.LOG_KEY]) as stopped:
        verdict = stopped.resume(
            [restart.Report(witness=WITNESSES[0].verifier, note=seen), *no_reports()[1:]]
        )
        assert isinstance(verdict, restart.Succession)
    with Log.open(tmp_path / "log", [example.LOG_KEY]) as again:
        kept = again.resume(no_reports())
        assert isinstance(kept, restart.Succession)
        assert kept.evidence == (seen,)
        with pytest.raises(ReadOnlyError):
            append(again, consortium, consortium.append(consortium.tick()))


def test_a_restart_reads_the_snapshot_and_not_the_whole_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "SNAPSHOT_EVERY", 4)
    writer, consortium = begun(tmp_path)
    with writer:
        for _ in range(10):
            append(writer, consortium, consortium.append(consortium.tick()))
        assert (writer.store.snapshot() or (0,))[0] == 9
    parsed: list[bytes] = []
    parse = envelope.parse_entry

    def counting(data: bytes) -> Entry:
        parsed.append(data)
        return parse(data)

    monkeypatch.setattr(envelope, "parse_entry", counting)
    with Log.open(tmp_path) as reader:
        assert reader.view == consortium.view
        assert len(parsed) == 2


def test_a_succession_begins_where_its_predecessor_ended(tmp_path: Path) -> None:
    dead = Consortium.founded()
    record = dead.succession()
    after = dead.succeed(record)
    key = example.key("log of ledger.example/heart-2", "ledger.example/heart-2")
    with Log.create(tmp_path, after.entries[0].data, [key], NOW, dead=dead.view) as writer:
        append(writer, after, after.append(after.tick()))
    with Log.open(tmp_path) as reader:
        assert reader.view == after.view


def test_foreign_key_and_foreign_snapshot_are_refused(tmp_path: Path) -> None:
    consortium = Consortium.founded()
    foreign = example.key("foreign", example.ORIGIN)
    with pytest.raises(ReadOnlyError, match="signing key"):
        Log.create(tmp_path / "a", consortium.entries[0].data, [foreign], NOW)
    begun(tmp_path / "b")[0].close()
    with Store.open(tmp_path / "b") as store:
        store.save_snapshot(1, Consortium().view.to_bytes())
    with pytest.raises(StorageError, match="snapshot is not of this log"):
        Log.open(tmp_path / "b")
    with pytest.raises(StorageError, match="holds a log already"):
        begun(tmp_path / "b")


def test_checkpoints_name_the_log_by_its_origin(tmp_path: Path) -> None:
    writer, _ = begun(tmp_path)
    with writer:
        head = Checkpoint.from_text(Note.from_bytes((tmp_path / PENDING).read_bytes()).text)
    assert head == Checkpoint(origin=example.ORIGIN, size=1, root=writer.view.root)
