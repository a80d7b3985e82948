"""A hospital follows the log: honest logs, and every lie that a coordinator could tell its witnesses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ledger import envelope, example
from ledger.checkpoint import Checkpoint, verify_cosignature
from ledger.errors import InconsistentError, RuleError, StorageError, VerificationError
from ledger.evidence import Conflict, conflict_between
from ledger.mirror import Mirror
from ledger.note import Note
from ledger.source import Read
from ledger.store import PENDING
from ledger.witness import CLOCK_TOLERANCE, ClockError, ForkError
from tests.ledger.consortium import DAY, Consortium
from tests.ledger.log_folder import WITNESSES, LogFolder, running

ALPHA = example.WITNESSES["alpha"]
LOG_KEY = example.LOG_KEY.verifier


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogFolder]:
    folder = LogFolder(tmp_path / "log")
    yield folder
    folder.store.close()


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    with Mirror.create(tmp_path / "mirror", example.charter().digest()) as made:
        yield made


def seen_by(mirror: Mirror) -> tuple[int, bytes]:
    assert mirror.view is not None
    return mirror.size, mirror.view.root


def test_an_honest_log_is_followed_and_cosigned(log: LogFolder, mirror: Mirror) -> None:
    consortium, job = running()
    log.publish(consortium)
    entries = mirror.follow(log.read, consortium.state.time)
    assert [e.data for e in entries] == [e.data for e in consortium.entries]
    assert seen_by(mirror) == (consortium.view.size, consortium.view.root)
    assert mirror.final_size == consortium.view.size
    consortium.play(job)
    log.publish(consortium, witnesses=())
    assert len(mirror.follow(log.read, consortium.state.time)) == 3
    assert mirror.final_size == consortium.view.size - 3
    line = mirror.cosign(ALPHA, 7)
    text = Note.from_bytes(log.read(PENDING)).text
    assert verify_cosignature(text, ALPHA.verifier, line) == 7
    assert mirror.follow(log.read, consortium.state.time) == []


def test_it_goes_on_after_a_restart_without_replaying(log: LogFolder, tmp_path: Path) -> None:
    consortium, job = running()
    log.publish(consortium)
    with Mirror.create(tmp_path / "again", example.charter().digest()) as first:
        first.follow(log.read, consortium.state.time)
    consortium.play(job)
    log.publish(consortium)
    with Mirror.open(tmp_path / "again") as second:
        assert second.view is not None
        assert second.size == consortium.view.size - 3
        second.follow(log.read, consortium.state.time)
        assert second.view == consortium.view
        assert [e.data for e in consortium.entries] == second.entries(0, second.size)


def test_being_behind_is_no_conflict(log: LogFolder, mirror: Mirror) -> None:
    consortium, job = running()
    old = log.publish(consortium)
    consortium.play(job)
    log.publish(consortium)
    mirror.follow(log.read, consortium.state.time)
    before = seen_by(mirror)
    assert mirror.follow(overlaid(log.read, {PENDING: old}), consortium.state.time) == []
    assert seen_by(mirror) == before
    assert mirror.conflict() is None


def test_fork_at_the_same_size(log: LogFolder, mirror: Mirror, tmp_path: Path) -> None:
    consortium, job = running()
    other = consortium.fork()
    consortium.play(job)
    other.play(job)
    other.append(other.tick())
    consortium.append(consortium.tick(60))
    assert_forked(log, mirror, consortium, other, tmp_path)


def test_fork_that_grows(log: LogFolder, mirror: Mirror, tmp_path: Path) -> None:
    consortium, job = running()
    other = consortium.fork()
    consortium.append(consortium.tick(60))
    other.append(other.tick(120))
    for _ in range(2):
        other.play(job)
    assert_forked(log, mirror, consortium, other, tmp_path)


def test_fork_of_a_smaller_size(log: LogFolder, mirror: Mirror, tmp_path: Path) -> None:
    consortium, job = running()
    other = consortium.fork()
    consortium.append(consortium.tick(60))
    consortium.play(job)
    other.append(other.tick(120))
    assert_forked(log, mirror, consortium, other, tmp_path)


def test_fork_after_a_power_of_two(log: LogFolder, mirror: Mirror, tmp_path: Path) -> None:
    consortium = Consortium.founded()
    other = consortium.fork()
    while consortium.view.size < 8:
        consortium.append(consortium.tick(60))
    while other.view.size < 13:
        other.append(other.tick(30))
    assert_forked(log, mirror, consortium, other, tmp_path)


def assert_forked(
    log: LogFolder, mirror: Mirror, honest: Consortium, other: Consortium, tmp_path: Path
) -> None:
    log.publish(honest)
    mirror.follow(log.read, honest.state.time)
    forked = LogFolder(tmp_path / "fork")
    forked.publish(other, witnesses=())
    with pytest.raises(ForkError):
        mirror.follow(forked.read, other.state.time)
    forked.store.close()
    evidence = mirror.conflict()
    assert evidence is not None
    conflict = Conflict.from_bytes(evidence)
    assert "signed" in conflict.check([LOG_KEY])  # anybody can check it with the log's key alone
    with pytest.raises(VerificationError):
        conflict.check([example.key("stranger", example.ORIGIN).verifier])
    with pytest.raises(VerificationError):
        Conflict(conflict.older, conflict.newer, conflict.hashes[:-1] or (b"\0" * 32,)).check([LOG_KEY])
    with pytest.raises(InconsistentError):
        mirror.follow(log.read, honest.state.time)
    with pytest.raises(InconsistentError):
        mirror.cosign(ALPHA, 1)


def test_two_checkpoints_that_agree_are_no_evidence(log: LogFolder) -> None:
    consortium, job = running()
    older = log.publish(consortium)
    consortium.play(job)
    newer = log.publish(consortium)
    with pytest.raises(VerificationError):
        Conflict(older, older, ()).check([LOG_KEY])
    honest = log.store.nodes()
    size = Checkpoint.from_text(Note.from_bytes(older).text).size
    with pytest.raises(VerificationError, match="do not show"):
        conflict_between(older, size, newer, log.store.size, honest).check([LOG_KEY])


def test_a_record_that_breaks_a_rule_is_kept_as_evidence_and_not_cosigned(
    log: LogFolder, mirror: Mirror
) -> None:
    consortium, job = running()
    log.publish(consortium)
    mirror.follow(log.read, consortium.state.time)
    before = seen_by(mirror)
    forged = consortium.entry(replace(consortium.start(job), time=consortium.state.time))
    log.publish_entries([*(e.data for e in consortium.entries), forged.data])
    for _ in range(2):
        with pytest.raises(RuleError, match=r"start\.job"):
            mirror.follow(log.read, consortium.state.time)
    assert seen_by(mirror) == before
    line = mirror.cosign(ALPHA, 7)  # still only what was accepted
    assert verify_cosignature(Note.from_bytes(mirror.pending()).text, ALPHA.verifier, line) == 7


def test_a_checkpoint_inside_a_batch(log: LogFolder, mirror: Mirror) -> None:
    consortium, job = running()
    consortium.receive(job)
    log.publish(consortium)
    with pytest.raises(VerificationError, match="inside a round's batch"):
        mirror.follow(log.read, consortium.state.time)
    assert mirror.size == 0


def test_a_forged_signature_on_a_record(log: LogFolder, mirror: Mirror) -> None:
    consortium, _job = running()
    entry = consortium.entry(consortium.tick())
    key, signature = next(iter(entry.signatures.items()))
    forged = envelope.assemble(entry.record, {key: bytes([signature[0] ^ 1]) + signature[1:]})
    log.publish_entries([*(e.data for e in consortium.entries), forged])
    with pytest.raises(VerificationError, match="signature"):
        mirror.follow(log.read, consortium.state.time)


@pytest.mark.parametrize("off", [-CLOCK_TOLERANCE - 1, CLOCK_TOLERANCE + 1])
def test_a_pending_batch_of_another_time(log: LogFolder, mirror: Mirror, off: int) -> None:
    consortium, job = running()
    log.publish(consortium)
    mirror.follow(log.read, consortium.state.time)
    consortium.play(job)
    log.publish(consortium, witnesses=())
    before = seen_by(mirror)
    with pytest.raises(ClockError, match="601 s"):
        mirror.follow(log.read, consortium.state.time - off)
    assert seen_by(mirror) == before
    within = CLOCK_TOLERANCE if off > 0 else -CLOCK_TOLERANCE
    mirror.follow(log.read, consortium.state.time - within)
    assert seen_by(mirror) == (consortium.view.size, consortium.view.root)


def test_a_hospital_that_was_away_for_weeks_catches_up_on_what_is_final(
    log: LogFolder, mirror: Mirror
) -> None:
    consortium, job = running()
    consortium.play(job)
    log.publish(consortium)
    mirror.follow(log.read, consortium.state.time + 30 * DAY)
    assert mirror.size == consortium.view.size


def test_a_quorum_lost_for_a_night_comes_back_with_a_tick(log: LogFolder, mirror: Mirror) -> None:
    """Improves on PROTOCOL.md: else the night's batch could never become final, and the log would be dead."""
    consortium, job = running()
    log.publish(consortium)
    mirror.follow(log.read, consortium.state.time)
    consortium.play(job)
    log.publish(consortium, witnesses=())
    morning = consortium.state.time + 8 * 3_600
    with pytest.raises(ClockError):
        mirror.follow(log.read, morning)
    consortium.append(consortium.tick(8 * 3_600))
    log.publish(consortium, witnesses=())
    mirror.follow(log.read, morning)
    assert mirror.size == consortium.view.size


def test_a_final_checkpoint_without_a_quorum(log: LogFolder, mirror: Mirror) -> None:
    consortium, _ = running()
    log.publish(consortium, witnesses=WITNESSES[:3])
    with pytest.raises(VerificationError, match="quorum"):
        mirror.follow(log.read, consortium.state.time)
    assert mirror.final_size == 0


def test_another_consortium(log: LogFolder, tmp_path: Path) -> None:
    consortium, _ = running()
    log.publish(consortium)
    with (
        Mirror.create(tmp_path / "other", "0" * 64) as mirror,
        pytest.raises(VerificationError, match="another consortium"),
    ):
        mirror.follow(log.read, consortium.state.time)


def test_a_foreign_log_key(mirror: Mirror, tmp_path: Path) -> None:
    consortium, _ = running()
    foreign = LogFolder(tmp_path / "foreign", [example.key("thief", example.ORIGIN)])
    foreign.publish(consortium)
    with pytest.raises(VerificationError, match="not signed"):
        mirror.follow(foreign.read, consortium.state.time)
    foreign.store.close()


def test_damage_on_the_way_is_no_conflict(log: LogFolder, mirror: Mirror) -> None:
    consortium, job = running()
    log.publish(consortium)
    mirror.follow(log.read, consortium.state.time)
    consortium.play(job)
    log.publish(consortium)
    path = f"tile/entries/000.p/{consortium.view.size}"
    damaged = bytearray(log.read(path))
    damaged[-3] ^= 1
    with pytest.raises(VerificationError):
        mirror.follow(overlaid(log.read, {path: bytes(damaged)}), consortium.state.time)
    assert mirror.conflict() is None
    mirror.follow(log.read, consortium.state.time)
    assert mirror.size == consortium.view.size


def test_a_rotated_log_key_needs_both_signatures_once(mirror: Mirror, tmp_path: Path) -> None:
    consortium, _ = running()
    new = example.key("log again", example.ORIGIN)
    old_only, both = LogFolder(tmp_path / "old"), LogFolder(tmp_path / "both")
    for folder in (old_only, both):
        folder.publish(consortium)
    mirror.follow(both.read, consortium.state.time)
    consortium.append(consortium.amendment(log=new.verifier.to_text()))
    old_only.publish(consortium)
    with pytest.raises(VerificationError):
        mirror.follow(old_only.read, consortium.state.time)
    both.keys = (example.LOG_KEY, new)
    both.publish(consortium)
    mirror.follow(both.read, consortium.state.time)
    consortium.append(consortium.tick())
    both.keys = (new,)
    both.publish(consortium)
    mirror.follow(both.read, consortium.state.time)
    assert mirror.final_size == consortium.view.size
    old_only.store.close()
    both.store.close()


def test_a_mirror_is_not_a_log_and_a_log_no_mirror(log: LogFolder, tmp_path: Path) -> None:
    log.publish(Consortium.founded())
    log.store.close()
    with pytest.raises(StorageError, match="not one that this hospital follows"):
        Mirror.open(log.path)
    with pytest.raises(StorageError):
        Mirror.create(log.path, "0" * 64)
    log.store = LogFolder(tmp_path / "unused").store


def overlaid(read: Read, files: dict[str, bytes]) -> Read:
    """A reader that shows other bytes in some places."""
    return lambda path: files[path] if path in files else read(path)
