"""Deposits before a job: whole or absent, within limits, and gone when nobody names them."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from coordinator.uploads import PROBATION, SMALL, Uploads
from ledger import example
from tests.coordinator.public_port import Client, app_of, signature
from tests.coordinator.ward import DICTIONARY, Ward, sha

KEY = example.KEYS["researcher"]
MODEL = 1 << 20


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


@pytest.fixture
def client(ward: Ward) -> Iterator[Client]:
    with Client(app_of(ward, model_mib=1)) as made:
        yield made


def put(client: Client, content: bytes, kind: str = "code", digest: str = "") -> int:
    target = f"/api/blobs/{digest or sha(content)}?kind={kind}"
    headers = signature("PUT", target, KEY, body=content)
    return client.ask("PUT", target, headers=headers, content=content).status_code


def marks(ward: Ward) -> list[str]:
    return sorted(path.name for path in (ward.folder / "uploads" / "researcher").glob("*"))


def uploads(ward: Ward, ahead: float) -> Uploads:
    """The same desk, later."""
    return Uploads(ward.folder / "uploads", ward.sequencer, ward.blobs, MODEL, lambda: time.time() + ahead)


@pytest.mark.parametrize("size", [1, 1000, MODEL])
def test_a_deposit_is_stored_under_its_digest(ward: Ward, client: Client, size: int) -> None:
    content = os.urandom(size)
    assert put(client, content, "model") == 200
    assert ward.blobs.read(sha(content)) == content
    assert marks(ward) == [sha(content)]
    assert put(client, content, "model") == 200


def test_too_much_is_refused_before_it_is_read(ward: Ward, client: Client) -> None:
    read: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        for place in range(1000):
            read.append(place)
            yield b"x" * 10_000

    for kind, limit in (("code", SMALL), ("dictionary", SMALL), ("model", MODEL)):
        target = f"/api/blobs/{sha(kind.encode())}?kind={kind}"
        headers = signature("PUT", target, KEY, body=kind.encode()) | {"content-length": str(limit + 1)}
        assert client.ask("PUT", target, headers=headers, content=endless()).status_code == 413
        headers = signature("PUT", target, KEY, body=kind.encode()) | {"content-length": "10"}  # a lie
        assert client.ask("PUT", target, headers=headers, content=endless()).status_code == 413
    assert len(read) < 20
    assert marks(ward) == []


@pytest.mark.parametrize("kind", ["", "Code", "data", "code&kind=code", "code&x=1"])
def test_only_three_kinds_are_known(client: Client, kind: str) -> None:
    assert put(client, b"x", kind) == 400


def test_an_unstated_length_is_411(client: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    target = f"/api/blobs/{sha(b'x')}?kind=code"
    headers = signature("PUT", target, KEY, body=b"x")
    assert client.ask("PUT", target, headers=headers, content=chunks()).status_code == 411


def test_other_bytes_than_were_signed_are_not_kept(ward: Ward, client: Client) -> None:
    target = f"/api/blobs/{sha(b'good')}?kind=code"
    headers = signature("PUT", target, KEY, body=b"good")
    assert client.ask("PUT", target, headers=headers, content=b"evil").status_code == 400
    assert sha(b"good") not in ward.blobs
    assert sha(b"evil") not in ward.blobs
    assert marks(ward) == []  # nor charged
    assert list((ward.folder / "blobs" / "incoming").iterdir()) == []


def test_one_member_may_have_four_models_on_probation(ward: Ward, client: Client) -> None:
    for number in range(4):
        assert put(client, bytes([number]) * MODEL, "model") == 200
    assert put(client, b"x") == 409
    with Client(app_of(ward, model_mib=1)) as later:  # a restart forgets nothing
        assert put(later, b"x") == 409


def test_a_job_ends_the_probation_and_a_day_without_one_the_deposit(ward: Ward, client: Client) -> None:
    assert put(client, b"code") == 200
    assert put(client, DICTIONARY, "dictionary") == 200  # which the store holds already: not charged
    assert marks(ward) == [sha(b"code")]
    (ward.folder / "uploads" / "researcher" / sha(DICTIONARY)).write_text("5")
    ward.propose()
    assert uploads(ward, PROBATION - 60).expire() == []
    assert marks(ward) == [sha(b"code")]
    assert uploads(ward, PROBATION + 60).expire() == [sha(b"code")]
    assert marks(ward) == []
    assert sha(b"code") not in ward.blobs
    assert ward.blobs.read(sha(DICTIONARY)) == DICTIONARY


def test_what_the_coordinator_itself_stored_meanwhile_stays(ward: Ward, client: Client) -> None:
    assert put(client, b"code") == 200
    mark = ward.folder / "uploads" / "researcher" / sha(b"code")
    os.utime(mark, (time.time() - 2 * PROBATION,) * 2)  # the deposit is old, but the blob was stored just now
    assert uploads(ward, 0).expire() == []
    assert sha(b"code") in ward.blobs


def test_a_crash_between_mark_and_blob_leaves_nothing_for_ever(ward: Ward) -> None:
    desk = uploads(ward, 2 * PROBATION)
    mark = ward.folder / "uploads" / "researcher" / sha(b"lost")
    mark.parent.mkdir()
    mark.write_text("")  # torn
    assert desk.expire() == []
    assert marks(ward) == []
