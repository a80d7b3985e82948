"""The store: commit, files, and what is left after each single failure, torn write, flipped bit or old backup.

Entries are arbitrary bytes here: the store judges none. `test_log` has real records.
"""

from __future__ import annotations

import errno
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ledger import example
from ledger.checkpoint import Checkpoint, cosign
from ledger.database import DATABASE
from ledger.errors import LedgerError, StorageError, VerificationError
from ledger.merkle import Frontier, leaf_hash, root_hash, tree_root
from ledger.note import Note, sign_note
from ledger.store import CHECKPOINT, PENDING, Store
from ledger.tiles import TileNodes, new_tiles, read_bundle
from tests.faults import FaultyDisk, Mode

WITNESS = example.WITNESSES["alpha"]


def signed(tree: Frontier) -> bytes:
    checkpoint = Checkpoint(origin=example.ORIGIN, size=tree.size, root=tree.root())
    return sign_note(checkpoint.to_text(), example.LOG_KEY).to_bytes()


def cosigned(note: bytes, time: int = 1) -> bytes:
    parsed = Note.from_bytes(note)
    return parsed.with_signatures(cosign(parsed.text, WITNESS, time)).to_bytes()


def content(start: int, end: int) -> list[bytes]:
    return [b"entry %d " % index + b"." * (index % 50) for index in range(start, end)]


def add(store: Store, count: int) -> bytes:
    entries = content(store.size, store.size + count)
    leaves = [leaf_hash(entry) for entry in entries]
    note = signed(store.tree.extend(leaves))
    store.append(entries, leaves, before=(store.size, store.root), note=note)
    return note


def finalise(store: Store) -> None:
    store.finalise(store.size, cosigned(store.pending() or b""))


STEPS: tuple[Callable[[Store], object], ...] = (
    lambda store: add(store, 3),
    lambda store: add(store, 250),
    lambda store: store.put({"charge": b"%d" % store.size}),
    lambda store: add(store, 10),  # completes the first tile and bundle
    finalise,
    lambda store: store.add_cosignatures(
        store.size, [cosign(Note.from_bytes(store.pending() or b"").text, WITNESS, 9)]
    ),
    lambda store: add(store, 1),
    finalise,
)


def live(path: Path, first: int = 0) -> Iterator[int]:
    """Take every step from `first` on, yielding its number when it is done."""
    with Store.open(path) if (path / DATABASE).is_file() and first else Store.create(path) as store:
        for number, step in enumerate(STEPS[first:], first):
            step(store)
            yield number


def files(path: Path) -> dict[str, bytes]:
    """Every derived file."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and not file.name.startswith((DATABASE, "lock"))
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole")
    assert len(list(live(path))) == len(STEPS)
    return path


def test_every_tile_bundle_and_checkpoint_can_be_read_by_others(whole: Path) -> None:
    def read(name: str) -> bytes:
        return (whole / name).read_bytes()

    head = Checkpoint.from_text(Note.from_bytes(read(CHECKPOINT)).text)
    leaves = [leaf_hash(entry) for entry in content(0, 264)]
    assert (head.size, head.root) == (264, root_hash(leaves))
    assert Note.from_bytes(read(PENDING)).text == Note.from_bytes(read(CHECKPOINT)).text
    assert tree_root(264, TileNodes(read, 264, head.root)) == head.root
    assert [e for index in range(2) for e in read_bundle(read, index, 264)] == content(0, 264)
    for size in (3, 253, 263, 264):  # partial tiles of every published checkpoint
        assert all((whole / tile.path).is_file() for tile in new_tiles(0, size))
    assert (whole / "checkpoints/263").is_file()
    assert (whole / "checkpoints/264").read_bytes() == read(CHECKPOINT)


def test_what_was_stored_is_there_after_opening(whole: Path) -> None:
    with Store.open(whole) as store:
        assert store.entries(0, 1_000) == content(0, 264)
        assert store.sizes() == [3, 253, 263, 264]
        assert (store.final_size(), store.final_sizes()) == (264, [263, 264])
        assert store.fact("charge") == b"253"
        assert store.facts("ch") == {"charge": b"253"}
        assert [line.name for line in store.cosignatures(263)] == [WITNESS.name]
        assert store.snapshot() is None
        store.check()


def test_a_snapshot_and_facts_are_committed_with_the_entries(tmp_path: Path) -> None:
    leaves = [leaf_hash(b"a")]
    with Store.create(tmp_path) as store:
        store.append(
            [b"a"], leaves, before=(0, store.root), note=signed(Frontier().extend(leaves)),
            snapshot=b"state", facts={"cosigned": b"1"},
        )  # fmt: skip
    with Store.open(tmp_path) as store:
        assert store.snapshot() == (1, b"state")
        assert store.fact("cosigned") == b"1"


def test_compare_and_swap_refuses_another_size_or_root(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        add(store, 2)
        leaves = [leaf_hash(b"x")]
        note = signed(store.tree.extend(leaves))
        for before in ((1, store.root), (2, bytes(32))):
            with pytest.raises(StorageError, match="read it again"):
                store.append([b"x"], leaves, before=before, note=note)
        with pytest.raises(VerificationError, match="not of these"):
            store.append([b"y"], [leaf_hash(b"y")], before=(2, store.root), note=note)
        store.append([b"x"], leaves, before=(2, store.root), note=note)  # nothing was spoilt
        store.check()


def test_a_mirror_finalises_a_size_that_it_never_pulled(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        add(store, 600)
        for size in (300, 512):
            store.finalise(size, cosigned(signed(Frontier().extend(leaf_hash(e) for e in content(0, size)))))
            assert all((tmp_path / tile.path).is_file() for tile in new_tiles(0, size))
        with pytest.raises(StorageError, match="size 300"):
            store.finalise(300, cosigned(signed(Frontier().extend(leaf_hash(e) for e in content(0, 300)))))
        with pytest.raises(VerificationError):
            store.finalise(600, cosigned(signed(Frontier().extend(leaf_hash(e) for e in content(0, 599)))))
        store.check()
    with Store.open(tmp_path) as store:
        assert store.sizes() == [300, 512, 600]
        store.check()


def test_racing_second_process_is_told_in_one_line(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from ledger.store import Store; from ledger.errors import StorageError\n"
        "try: Store.open(Path(sys.argv[1]))\n"
        "except StorageError as error: print(error)"
    )
    with Store.create(tmp_path) as store:
        add(store, 1)
        command = [sys.executable, "-c", program, str(tmp_path)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        assert answer.stdout == f"{tmp_path} is in use by another process: stop that one first\n"
        add(store, 1)


def calls_of_a_whole_life(path: Path) -> list[str]:
    disk = FaultyDisk()
    with disk.active():
        list(live(path))
    return disk.calls


@pytest.mark.parametrize("mode", ["before", "after", "half"])
def test_every_write_failed(tmp_path: Path, whole: Path, mode: Mode) -> None:
    """After each: nothing acknowledged is lost, nothing is invented, and going on gives the very same files."""
    calls = calls_of_a_whole_life(tmp_path / "counted")
    assert len(calls) > 100
    chosen = [n for n, name in enumerate(calls) if mode != "half" or name == "write"]
    for number in chosen:
        path = tmp_path / f"{number}"
        disk, done = FaultyDisk(number, mode), -1
        with disk.active():
            try:
                for step in live(path):
                    done = step
            except StorageError:
                go_on_after(path, done)
            else:
                assert calls[number] in ("mkdir", "open")  # the folder is there, or has to be made first
                assert mode == "after"
        assert files(path) == files(whole), f"call {number}, {calls[number]}"
        shutil.rmtree(path)


def go_on_after(path: Path, done: int) -> None:
    """Open what a failure left, check all of it, and take the steps that are not done."""
    first = done + 1
    if (path / DATABASE).is_file() and has_entries(path):
        with Store.open(path) as store:
            store.check()
            sizes = [0, 3, 253, 253, 263, 263, 263, 264, 264]
            assert store.size in (sizes[first], sizes[min(first + 1, len(STEPS))])
            assert store.entries(0, 1_000) == content(0, store.size)
            if store.size != sizes[first]:
                first += 1  # it failed, but had been committed
            elif first in (5, 8) or store.final_size() == store.size:
                assert store.final_size() == store.size
    list(live(path, first))


def has_entries(path: Path) -> bool:
    try:
        with Store.open(path) as store:
            return store.size > 0
    except StorageError:  # the crash came before the first transaction: `create` goes on from there
        return False


def test_after_a_failed_write_the_store_refuses_everything(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        add(store, 1)
        with FaultyDisk(0, error=errno.EIO).active(), pytest.raises(StorageError, match="Input/output error"):
            add(store, 1)  # the first call is the first tile's: the entry itself is committed
        for attempt in (
            lambda: add(store, 1),
            lambda: store.put({}),
            lambda: store.entries(0, 1),
            store.pending,
        ):
            with pytest.raises(StorageError, match="earlier write failed"):
                attempt()
    with Store.open(tmp_path) as store:
        assert store.entries(0, 9) == content(0, 2)


def test_disk_full_is_one_clear_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        add(store, 5)
        with FaultyDisk(1, error=errno.ENOSPC).active(), pytest.raises(StorageError) as caught:
            add(store, 1)
        assert (
            str(caught.value)
            == "cannot write tile/entries/000.p/6: the disk is full; free space, then start again"
        )
        assert not list(tmp_path.rglob("*.tmp"))
    with Store.open(tmp_path) as store:
        store.check()


def test_database_full_loses_only_what_was_not_acknowledged(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        add(store, 5)
        (pages,) = store._query("PRAGMA page_count")[0]
        store._query(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageError, match=r"cannot write log\.sqlite: the disk is full; free space"):
            add(store, 2_000)
    with Store.open(tmp_path) as store:
        assert store.size == 5
        store.check()
        add(store, 2_000)


def test_a_file_size_limit_is_met_like_a_full_disk(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Store.create(tmp_path) as store:
        add(store, 5)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        try:
            with pytest.raises(StorageError):
                add(store, 20_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with Store.open(tmp_path) as store:
        assert store.size == 5
        store.check()


def test_torn_write_ahead_log(tmp_path: Path) -> None:
    """Cut the write-ahead log of one commit at every frame and inside each: the commit is in whole or not at all."""
    images = [tmp_path / "before", tmp_path / "after"]
    with Store.create(tmp_path / "log") as store:
        add(store, 20)
        shutil.copytree(tmp_path / "log", images[0])
        with FaultyDisk(0).active(), pytest.raises(StorageError):
            add(store, 30)  # committed, no file written
        shutil.copytree(tmp_path / "log", images[1])
    old, new = ((image / f"{DATABASE}-wal").read_bytes() for image in images)
    assert new.startswith(old)
    sizes = set()
    for cut in [*range(len(old), len(new), 1_500), len(new) - 1, len(new)]:
        for tail in (b"", bytes(300), random.Random(cut).randbytes(5_000)):
            path = tmp_path / "torn"
            shutil.copytree(images[0], path)
            (path / f"{DATABASE}-wal").write_bytes(new[:cut] + tail)
            with Store.open(path) as store:
                assert store.entries(0, 99) == content(0, store.size)
                store.check()
                sizes.add(store.size)
            shutil.rmtree(path)
    assert sizes == {20, 50}


def test_torn_and_missing_files_of_the_tail_are_derived_again(tmp_path: Path) -> None:
    list(live(tmp_path / "log"))
    good = files(tmp_path / "log")
    with Store.open(tmp_path / "log") as store:
        store._settle(0)  # as after a crash, when nothing is known to be on the medium
    for name, data in good.items():
        path = tmp_path / "log" / name
        for torn in (
            None,
            b"",
            data[: len(data) // 2],
            data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
        ):
            path.unlink()
            if torn is not None:
                path.write_bytes(torn)
            with Store.open(tmp_path / "log") as store:
                store._settle(0)
            if not name.startswith(
                "checkpoints/263"
            ):  # older final checkpoints were synced before their rename
                assert path.read_bytes() == data, name
            path.write_bytes(data)


def test_flipped_bit_in_any_file_is_found(tmp_path: Path, whole: Path) -> None:
    rng = random.Random(7)
    names, found = [*files(whole), DATABASE], 0
    for name in names:
        for _ in range(8 if name == DATABASE else 2):
            path = tmp_path / "flipped"
            shutil.copytree(whole, path)
            data = bytearray((path / name).read_bytes())
            position = rng.randrange(len(data))
            data[position] ^= 1 << rng.randrange(8)
            (path / name).write_bytes(data)
            try:
                with Store.open(path) as store:
                    store.check()
                    assert store.entries(0, 999) == content(0, 264)  # unused bytes of a database page
                    assert files(path) == files(whole), name
            except LedgerError:
                found += 1
            shutil.rmtree(path)
    assert found > len(names)


def test_old_database_under_newer_files_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with Store.create(path) as store:
        add(store, 3)
    backup = (path / DATABASE).read_bytes()
    with Store.open(path) as store:
        add(store, 3)
    (path / DATABASE).write_bytes(backup)
    with pytest.raises(StorageError, match=r"checkpoint\.pending is not what log.sqlite says: .*old backup"):
        Store.open(path)


def test_foreign_and_newer_databases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"holds no log: there is no {DATABASE}"):
        Store.open(tmp_path)
    database = tmp_path / DATABASE
    database.write_bytes(b"not a database, but long enough to be read as one" * 20)
    with pytest.raises(StorageError, match="not a database"):
        Store.open(tmp_path)
    database.unlink()
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE other (x)")
    connection.close()
    for attempt in (Store.open, Store.create):
        with pytest.raises(StorageError, match="is not the database of a log"):
            attempt(tmp_path)
    database.unlink()
    with Store.create(tmp_path) as store:
        add(store, 1)
        store._query("PRAGMA user_version = 2")
    with pytest.raises(StorageError, match="format 2: install a newer version"):
        Store.open(tmp_path)


def test_a_second_create_refuses_a_log(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        add(store, 1)
    with pytest.raises(StorageError, match="holds a log already"):
        Store.create(tmp_path)


def test_an_unreadable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot create"):
        Store.create(tmp_path / "file" / "log")


def altered_rows() -> Sequence[str]:
    return (
        "UPDATE entries SET data = x'00' WHERE position = 262",
        "DELETE FROM entries WHERE position = 263",
        "INSERT INTO entries VALUES (264, x'00')",
        "DELETE FROM checkpoints WHERE size = 264",
        "UPDATE checkpoints SET note = (SELECT note FROM checkpoints WHERE size = 263) WHERE size = 264",
        "UPDATE checkpoints SET note = x'00' WHERE size = 264",
    )


@pytest.mark.parametrize("statement", altered_rows())
def test_altered_row_is_found_at_open(tmp_path: Path, whole: Path, statement: str) -> None:
    shutil.copytree(whole, tmp_path / "log")
    connection = sqlite3.connect(tmp_path / "log" / DATABASE)
    connection.execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError):
        Store.open(tmp_path / "log")
