"""What the hospital keeps: whole or absent on a failing disk, private to its owner, refused when damaged."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import snapshot_file
from client.data import Snapshot
from client.errors import LocalStateError
from client.private_file import read_private, write_private
from client.standing import FILE, Standing
from tests.ledger.consortium import digest

SALT = bytes(range(32))


def snapshot(rows: int = 5, width: int = 3) -> Snapshot:
    draw = np.random.default_rng(rows * 7 + width)
    return Snapshot(
        features=draw.normal(size=(rows, width)).astype(np.float32),
        labels=draw.integers(0, 2, rows),
        held_out=draw.integers(0, 2, rows).astype(np.bool_),
        patients=tuple(draw.bytes(32) for _ in range(rows)),
    )


@given(st.integers(0, 20), st.integers(1, 5))
def test_a_snapshot_is_read_as_it_was_written(rows: int, width: int) -> None:
    made = snapshot(rows, width)
    data = snapshot_file.to_bytes(made)
    found = snapshot_file.from_bytes(data)
    assert snapshot_file.to_bytes(found) == data
    assert np.array_equal(found.features, made.features)
    assert np.array_equal(found.labels, made.labels)
    assert np.array_equal(found.held_out, made.held_out)
    assert found.patients == made.patients


def test_a_damaged_snapshot_is_refused() -> None:
    data = snapshot_file.to_bytes(snapshot())
    for bad in (b"", data[:-1], data + b"\0", b"{}\n", b'{"rows":-1,"features":1}\n', data[1:]):
        with pytest.raises(LocalStateError):
            snapshot_file.from_bytes(bad)


def test_the_commitment_depends_on_every_bit_and_on_the_salt() -> None:
    data = bytearray(snapshot_file.to_bytes(snapshot(2, 1)))
    commitments = {
        snapshot_file.commitment(bytes(data), SALT),
        snapshot_file.commitment(bytes(data), SALT[::-1]),
    }
    for place in range(8 * len(data)):
        data[place // 8] ^= 1 << place % 8
        commitments.add(snapshot_file.commitment(bytes(data), SALT))
        data[place // 8] ^= 1 << place % 8
    assert len(commitments) == 2 + 8 * len(data)


def test_a_private_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    assert read_private(path, 10) is None
    write_private(path, b"one")
    write_private(path, b"two")
    assert read_private(path, 3) == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(LocalStateError, match="larger than 2 bytes"):
        read_private(path, 2)


@pytest.mark.parametrize("call", ["fsync", "open", "fchmod"])
def test_a_full_disk_leaves_the_old_file_and_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    write_private(path, b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(LocalStateError, match=r"cannot write .*: No space left on device"):
        write_private(path, b"new")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_standing_survives_a_restart(tmp_path: Path) -> None:
    job, other = digest("job"), digest("other")
    standing = Standing(tmp_path)
    assert not standing.person
    assert not standing.stopped(job)
    standing.stop(job, "receipt-missing")
    standing.ask_person("restored")
    again = Standing(tmp_path)
    assert again.person == "restored"
    assert again.stopped(job)
    assert not again.stopped(other)
    again.resume()
    assert not Standing(tmp_path).person
    assert Standing(tmp_path).stopped(job)


def test_standing_that_was_damaged_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"{")
    with pytest.raises(LocalStateError, match="damaged"):
        Standing(tmp_path)
