"""Backup and restore of a coordinator: whole or absent, checked before it counts, read-only until witnesses say."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from coordinator import backup, cli, recovery
from coordinator.acknowledgements import Acknowledgements
from coordinator.blobs import BlobStore
from coordinator.errors import CoordinatorError, JobError
from coordinator.sequencer import Sequencer
from ledger import example
from ledger.audit import audit
from ledger.checkpoint import cosign
from ledger.durable import write_private
from ledger.errors import LedgerError, ReadOnlyError
from ledger.log import Log
from ledger.note import Note
from ledger.records import Abort
from ledger.source import open_source
from tests.coordinator.test_sequencer import incident
from tests.coordinator.ward import Ward, carry

NOW = example.FOUNDED + 100


def make_folder(ward: Ward) -> None:
    """What founding leaves beside the log."""
    (ward.folder / "keys").mkdir()
    for name, key in (("log", example.LOG_KEY), ("coordinator", example.KEYS["coordinator"])):
        write_private(ward.folder / "keys" / f"{name}.key", key.to_text().encode())
    (ward.folder / "coordinator.toml").write_text("port = 8443\n")
    (ward.folder / "flower").mkdir()
    (ward.folder / "flower" / "superlink.log").write_text("not worth keeping")


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    made = Ward(tmp_path / "old")
    make_folder(made)
    made.start()
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and "log.sqlite" not in p.name and p.name != "lock"
    }


def play(ward: Ward, exchanges: int) -> None:
    """Make exchanges, and close the last one of them."""
    rounds = ward.rounds()
    carry(rounds, ward, exchanges=exchanges)
    rounds.next_exchange()


def restored(ward: Ward, archive: Path) -> None:
    """Have the ward go on in the folder of a backup, as if the old one had burnt."""
    ward.sequencer.stop()
    folder = archive.with_suffix("")
    backup.restore(archive, folder)
    ward.folder, ward.blobs = folder, BlobStore(folder / "blobs")
    ward.acknowledgements = Acknowledgements(folder / "acknowledged", ward.blobs, ward.voice)
    ward.sequencer = Sequencer(Log.open(folder / "log", [example.LOG_KEY]), ward.clock)


def report(ward: Ward, note: bytes, lost: list[bytes]) -> None:
    for name in example.WITNESSES:
        line = cosign(Note.from_bytes(note).text, example.WITNESSES[name], int(ward.clock.now))
        data = Note.from_bytes(note).with_signatures(line).to_bytes()
        ward.sequencer.report(ward.sequencer.question, data, lost)
    ward.sequencer.subscribe(ward.cosign)


def test_backup_of_a_running_coordinator_gives_the_same_log_and_files(ward: Ward, tmp_path: Path) -> None:
    play(ward, 2)
    out, new = tmp_path / "backup.tar", tmp_path / "new"
    made = backup.write(ward.folder, out, NOW)
    assert out.stat().st_mode & 0o777 == 0o600
    assert backup.restore(out, new) == made
    assert made.size == ward.sequencer.standing.view.size
    for path in new.rglob("*"):
        assert path.is_dir() or path.stat().st_mode & 0o077 == 0 or path.is_relative_to(new / "log")
    old = {k: v for k, v in files(ward.folder).items() if not k.startswith(("flower/", "blobs/lock"))}
    found = files(new)
    partial = {
        name for name in old if ".p/" in name
    }  # of checkpoints that were never final: nobody asks for them
    assert {k: v for k, v in found.items() if k not in partial} == {
        k: v for k, v in old.items() if k not in partial
    }
    assert found.items() <= old.items()
    with Log.open(new / "log", [example.LOG_KEY]) as log:
        assert log.view == ward.sequencer.standing.view
        assert log.store.final_sizes() == ward.sequencer.final_sizes()
        log.store.check()
        with pytest.raises(ReadOnlyError):
            log.append([incident("too early")], NOW)
    audit(open_source(str(new / "log")), charter=example.charter().digest())


def test_log_that_grows_during_the_backup_is_kept_as_it_was(ward: Ward, tmp_path: Path) -> None:
    size = ward.sequencer.standing.view.size
    real = backup._others

    def others(directory: Path) -> object:
        play(ward, 1)
        return real(directory)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backup, "_others", others)
        made = backup.write(ward.folder, tmp_path / "backup.tar", NOW)
    assert made.size == size < ward.sequencer.standing.view.size
    assert backup.restore(tmp_path / "backup.tar", tmp_path / "new").size == size


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("archive")
    made = Ward(folder / "old")
    make_folder(made)
    backup.write(made.folder, folder / "backup.tar", NOW)
    return (folder / "backup.tar").read_bytes()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused_and_nothing_is_left(
    archive: bytes, tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    """But for the padding of tar, which nothing reads: then what comes out is what went in."""
    folder = tmp_path_factory.mktemp("flipped")
    data = bytearray(archive)
    data[int(place * len(data))] ^= 1 << bit
    (folder / "bad.tar").write_bytes(data)
    try:
        backup.restore(folder / "bad.tar", folder / "new")
    except (CoordinatorError, LedgerError):
        assert {p.name for p in folder.iterdir()} == {"bad.tar"}
    else:
        (folder / "good.tar").write_bytes(archive)
        backup.restore(folder / "good.tar", folder / "good")
        assert files(folder / "new") == files(folder / "good")


def test_backup_that_was_cut_short(archive: bytes, tmp_path: Path) -> None:
    for length in (0, 1, 511, 512, 2000, len(archive) // 2, len(archive) - 12_000):
        (tmp_path / "bad.tar").write_bytes(archive[:length])
        with pytest.raises(CoordinatorError):
            backup.restore(tmp_path / "bad.tar", tmp_path / "new")
        assert {p.name for p in tmp_path.iterdir()} == {"bad.tar"}


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "keys/../../evil", "keys//evil", "./evil"])
def test_file_that_would_be_written_elsewhere(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(CoordinatorError, match="no backup of a coordinator"):
        backup.restore(tmp_path / "bad.tar", tmp_path / "new")
    assert {p.name for p in tmp_path.iterdir()} == {"bad.tar"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_member_that_is_no_file(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        member = tarfile.TarInfo("keys")
        member.type, member.linkname = kind, "/etc"
        tar.addfile(member)
    with pytest.raises(CoordinatorError, match="no backup of a coordinator"):
        backup.restore(tmp_path / "bad.tar", tmp_path / "new")
    assert {p.name for p in tmp_path.iterdir()} == {"bad.tar"}


def test_log_that_nobody_signed_so(archive: bytes, tmp_path: Path) -> None:
    """The manifest is right, and the log in it is not: whoever altered the file altered the manifest too."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        parts = {m.name: (tar.extractfile(m) or io.BytesIO()).read() for m in tar}
    manifest = json.loads(parts.pop("manifest.json"))
    entries = parts["log/entries"]
    length = int.from_bytes(entries[:2], "big")
    parts["log/entries"] = entries[: 2 + length]  # the charter alone
    manifest["files"]["log/entries"] = {
        "size": 2 + length,
        "sha256": hashlib.sha256(parts["log/entries"]).hexdigest(),
    }
    parts["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for name, data in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(LedgerError, match="do not lead to the signed root"):
        backup.restore(tmp_path / "bad.tar", tmp_path / "new")
    assert {p.name for p in tmp_path.iterdir()} == {"bad.tar"}


def test_nothing_is_overwritten(ward: Ward, tmp_path: Path) -> None:
    out = tmp_path / "backup.tar"
    backup.write(ward.folder, out, NOW)
    before = out.read_bytes()
    with pytest.raises(CoordinatorError, match="is there already"):
        backup.write(ward.folder, out, NOW)
    assert out.read_bytes() == before
    with pytest.raises(CoordinatorError, match="not empty"):
        backup.restore(out, ward.folder)
    (tmp_path / "empty").mkdir()
    backup.restore(out, tmp_path / "empty")


def test_folder_that_is_not_founded_is_told_apart_from_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "coordinator.toml").write_text("port = 8443\n")
    with pytest.raises(CoordinatorError, match="holds no log yet: until it is founded, copy"):
        backup.write(tmp_path / "new", tmp_path / "out.tar", 0)
    assert not (tmp_path / "out.tar").exists()


def test_disk_that_fills_up_leaves_nothing(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    backup.write(ward.folder, tmp_path / "backup.tar", NOW)
    monkeypatch.setattr("coordinator.backup.os.fsync", full)
    with pytest.raises(CoordinatorError, match="No space left"):
        backup.write(ward.folder, tmp_path / "second.tar", NOW)
    with pytest.raises(CoordinatorError, match="No space left"):
        backup.restore(tmp_path / "backup.tar", tmp_path / "new")
    assert {p.name for p in tmp_path.iterdir()} == {"old", "backup.tar"}


def test_commands(ward: Ward, tmp_path: Path) -> None:
    out = tmp_path / "backup.tar"
    made = CliRunner().invoke(cli.app, ["backup", str(ward.folder), "--out", str(out), "--json"])
    assert json.loads(made.output)["size"] == ward.sequencer.standing.view.size
    text = CliRunner().invoke(cli.app, ["restore", str(out), str(tmp_path / "new")]).output
    assert "writes nothing before a quorum of its witnesses" in text


# --- a coordinator that is older than its log ---


def test_restored_coordinator_takes_its_tail_back_and_the_job_goes_on(ward: Ward, tmp_path: Path) -> None:
    """Rounds 2 and 3 came after the backup: their entries come from a witness, their updates from the hospitals."""
    play(ward, 1)
    backup.write(ward.folder, tmp_path / "backup.tar", NOW)
    shown = ward.sequencer.standing.view.size
    play(ward, 2)
    note, store = ward.sequencer.pending(), ward.sequencer._log.store
    lost, updates = store.entries(shown, store.size), ward.blobs
    restored(ward, tmp_path / "backup.tar")
    with pytest.raises(ReadOnlyError, match="waits for a quorum"):
        ward.sequencer.submit(incident("too early"))
    report(ward, note, lost)
    assert ward.sequencer.standing.writable
    assert ward.sequencer.standing.view.size == shown + len(lost)
    job = ward.job.digest()
    with pytest.raises(JobError, match="came from a backup"):
        recovery.recover(ward.sequencer.standing, job, ward.blobs)
    history, model = ward.sequencer.standing.jobs[job], ward.sequencer.standing.state.jobs[job].model
    wanted = recovery.wanted(history, model, ward.blobs)
    assert len(wanted) == 9  # two updates rounds of three hospitals, and the histograms of the second
    for digest in wanted:
        ward.blobs.put(updates.read(digest))
    recovery.recover(ward.sequencer.standing, job, ward.blobs)
    assert model in ward.blobs
    carry(ward.rounds(), ward)
    assert [r.round for r in ward.closed] == [1, 2, 3, 4]
    assert not any(isinstance(r, Abort) for r in ward.closed)
    assert [h.charge for h in ward.hospitals.values()] == [4, 4, 4]


def test_model_that_cannot_be_computed_again_is_named(ward: Ward, tmp_path: Path) -> None:
    ward.blobs.delete(ward.job.model)
    with pytest.raises(JobError, match="cannot be computed again"):
        recovery.recover(ward.sequencer.standing, ward.job.digest(), ward.blobs)


def test_nothing_is_wanted_of_a_job_whose_store_is_whole(ward: Ward) -> None:
    play(ward, 3)
    job = ward.job.digest()
    standing = ward.sequencer.standing
    assert recovery.wanted(standing.jobs[job], standing.state.jobs[job].model, ward.blobs) == ()
    recovery.recover(standing, job, ward.blobs)
