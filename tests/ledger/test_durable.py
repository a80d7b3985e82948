"""Files of their owner alone: whole or absent, private, and on the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ledger.durable import sync_folder, write_private


def test_a_private_file_is_private_even_over_an_open_leftover(tmp_path: Path) -> None:
    target = tmp_path / "secret"
    for path in (target, tmp_path / ".secret.tmp"):
        path.write_bytes(b"old, and longer")
        path.chmod(0o644)
    write_private(target, b"new")
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (b"new", 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_a_link_that_somebody_laid_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"theirs")
    (tmp_path / ".secret.tmp").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        write_private(tmp_path / "secret", b"ours")
    assert target.read_bytes() == b"theirs"


@pytest.mark.parametrize("call", ["fsync", "open", "fchmod"])
def test_a_full_disk_leaves_the_old_file_and_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    write_private(path, b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        write_private(path, b"new")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_the_folder_is_synced_after_the_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    sync = os.fsync

    def watch(descriptor: int) -> None:
        seen.append((tmp_path / "file").exists())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_private(tmp_path / "file", b"x")
    assert seen == [False, True]
    with pytest.raises(OSError, match="directory"):
        sync_folder(tmp_path / "file")
