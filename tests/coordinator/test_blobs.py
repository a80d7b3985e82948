"""The blob store: what was put comes back, what was not put never does, and no failure leaves half a blob."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.blobs import BlobStore
from coordinator.errors import IntegrityError, StorageError
from coordinator.updates import VerifiedReader


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def path_of(store_path: Path, digest: str) -> Path:
    return store_path / "blobs" / digest[:2] / digest[2:]


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name != "lock")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(pieces=st.lists(st.binary(max_size=50), max_size=5))
def test_what_was_put_comes_back(store: BlobStore, pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    digest = store.put_stream(iter(pieces), max_size=len(data))
    assert digest == digest_of(data) == store.put(data)
    assert store.read(digest) == data
    assert store.size(digest) == len(data)
    assert digest in store
    assert list(store) == sorted(store)
    with store.open(digest) as stream:
        reader = VerifiedReader(stream, digest, "it")
        assert bytes(reader.bytes(len(data))) == data
        reader.finish()


def test_map_gives_numpy_the_bytes_without_a_copy(store: BlobStore) -> None:
    values = np.arange(1000, dtype="<f4")
    mapped = np.frombuffer(store.map(store.put(values.tobytes())), dtype="<f4")
    assert (mapped == values).all()
    assert not mapped.flags.writeable
    assert not mapped.flags.owndata


def test_unknown_blob(store: BlobStore) -> None:
    digest = digest_of(b"never put")
    for act in (store.read, store.open, store.map, store.size):
        with pytest.raises(IntegrityError, match="not in the store"):
            act(digest)
    assert digest not in store
    assert not store.delete(digest)


@pytest.mark.parametrize(
    "digest",
    ["", "a" * 63, "A" * 64, "a" * 65, "../" + "a" * 61, "/etc/passwd", "a" * 64 + "\n", "é" * 64, "٣" * 64],
    ids=ascii,
)
def test_path_traversal_by_digest(store: BlobStore, digest: str) -> None:
    for act in (store.read, store.open, store.map, store.size, store.delete, store.__contains__):
        with pytest.raises(IntegrityError, match="is not a digest") as caught:
            act(digest)
        assert "\n" not in str(caught.value)
    with pytest.raises(IntegrityError, match="is not a digest"):
        store.put_stream((b"x",), max_size=1, expected=digest)


@pytest.mark.parametrize("damage", [b"", b"hellO", b"hello, world", b"hell"])
def test_damaged_blob_is_refused_and_healed_by_putting_it_again(
    store: BlobStore, tmp_path: Path, damage: bytes
) -> None:
    digest = store.put(b"hello")
    path_of(tmp_path, digest).write_bytes(damage)
    with pytest.raises(IntegrityError, match="damaged on disk"):
        store.read(digest)
    with pytest.raises(IntegrityError, match=r"damaged on disk|empty"):
        store.map(digest)
    store.put(b"hello")
    assert store.read(digest) == b"hello"


def test_stream_with_other_bytes_than_promised_leaves_nothing(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="as promised"):
        store.put_stream((b"hel", b"lo"), max_size=5, expected=digest_of(b"hello!"))
    with pytest.raises(IntegrityError, match="more than the 4 bytes"):
        store.put_stream((b"hel", b"lo"), max_size=4)
    assert files(tmp_path / "blobs") == []


def test_endless_stream_is_stopped_at_its_cap(store: BlobStore, tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1000)

    with pytest.raises(IntegrityError, match="more than"):
        store.put_stream(endless(), max_size=10_000)
    assert files(tmp_path / "blobs") == []


def test_failing_source_passes_its_own_error_and_leaves_nothing(store: BlobStore, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionResetError("peer went away")

    with pytest.raises(ConnectionResetError):
        store.put_stream(broken(), max_size=100)
    assert files(tmp_path / "blobs") == []


# -- crashes and full disks -------------------------------------------------------------------------------

WRITES = [(name, nth, persisted) for name, calls in (("fsync", 3), ("replace", 1)) for nth in range(calls)
          for persisted in (False, True)]  # fmt: skip


@pytest.mark.parametrize(("name", "nth", "persisted"), WRITES, ids=str)
@pytest.mark.parametrize("known", [False, True], ids=["new", "put before"])
def test_every_write_failed_before_and_after_it_persisted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int, persisted: bool, known: bool
) -> None:
    store = BlobStore(tmp_path / "blobs")
    other = store.put(b"other")
    if known:
        store.put(b"hello")
    owner: Any = os if name == "fsync" else Path
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def failing(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != nth + 1:
            return real(*args)
        if persisted:
            real(*args)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(owner, name, failing)
    with pytest.raises(StorageError, match="No space left on device; check the disk") as caught:
        store.put(b"hello")
    assert calls > nth
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    visible = set(BlobStore(tmp_path / "blobs"))
    assert visible - {digest_of(b"hello")} == {other}
    for digest in visible:
        store.read(digest)
    assert not list((tmp_path / "blobs" / "incoming").iterdir())
    if name == "fsync" and not known:
        assert digest_of(b"hello") not in visible  # no blob whose durability is in doubt
    if known:
        assert digest_of(b"hello") in visible
    assert store.read(store.put(b"hello")) == b"hello"


def test_full_disk_is_one_clear_line_and_leaves_nothing(store: BlobStore, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel then refuses the write, as it does on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot write a blob in .*; check the disk's space"):
            store.put(bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path / "blobs") == []


def test_directory_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot open a blob"):
        BlobStore(tmp_path / "file" / "blobs")


def test_killed_writers_leave_only_whole_blobs(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, os\n"
        "from coordinator.blobs import BlobStore\n"
        "store = BlobStore(pathlib.Path(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "while True: store.put(os.urandom(200_000))\n"
    )
    root = Path(__file__).parents[2]
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "blobs")], cwd=root, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.02)
        child.kill()
        child.wait()
        child.stdout.close()
        store = BlobStore(tmp_path / "blobs")
        assert not list((tmp_path / "blobs" / "incoming").iterdir())
        assert all(len(store.read(digest)) == 200_000 for digest in store)
    assert list(store)


def test_opening_the_store_removes_orphans_but_not_what_is_being_written(
    store: BlobStore, tmp_path: Path
) -> None:
    orphan = tmp_path / "blobs" / "incoming" / "left-by-a-crash"
    orphan.write_bytes(b"half")

    def chunks() -> Iterator[bytes]:
        yield b"first"
        BlobStore(tmp_path / "blobs")  # another process starts while this one writes
        assert not orphan.exists()
        yield b"second"

    assert store.read(store.put_stream(chunks(), max_size=100)) == b"firstsecond"


# -- retention --------------------------------------------------------------------------------------------


def test_retention_deletes_what_is_old_and_not_kept(store: BlobStore, tmp_path: Path) -> None:
    old, kept, renewed, new = (store.put(data) for data in (b"old", b"kept", b"renewed", b"new"))
    for digest in (old, kept, renewed):
        os.utime(path_of(tmp_path, digest), (1000, 1000))
    store.put(b"renewed")  # putting it again starts its retention anew
    assert store.delete_expired(stored_before=2000, keep={kept}) == [old]
    assert sorted(store) == sorted((kept, renewed, new))
    assert store.delete_expired(stored_before=1000) == []  # kept is exactly that old, no older
    assert store.delete(kept)
    assert kept not in store


def test_reader_keeps_its_blob_while_it_is_deleted(store: BlobStore) -> None:
    digest = store.put(b"hello")
    with store.open(digest) as stream:
        store.delete(digest)
        assert stream.read() == b"hello"


def test_threads_putting_and_deleting_the_same_blob(store: BlobStore) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                store.put(b"shared")
                store.delete_expired(stored_before=time.time() + 10)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.read(store.put(b"shared")) == b"shared"
