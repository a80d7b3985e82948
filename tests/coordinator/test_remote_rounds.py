"""The bridge between the ServerApp's process and the coordinator: what goes in comes out, and nothing else does."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from coordinator import remote_rounds
from coordinator.errors import BridgeError, JobError
from coordinator.exchange import Arrival, Exchange, Rounds
from coordinator.frames import MAX_HEADER
from coordinator.remote_rounds import RoundsServer, connect

JOB = "a" * 64
EXCHANGE = Exchange(
    round=3,
    model=np.array([1.5, -0.0, 3e38], dtype="<f4"),
    configs={
        2**64 - 1: {"round": 3, "checkpoint": b"\x00\xff\n", "edges": '["0.5"]', "large": 2**62},
        7: {},
    },
    deadline=1_790_000_000.25,
)


class Recorder:
    """Gives two exchanges, then the end; keeps what arrives."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange | None] = [EXCHANGE, EXCHANGE, None]
        self.arrivals: list[Arrival] = []
        self.closed = 0
        self.sendings = 0

    def next_exchange(self) -> Exchange | None:
        return self.exchanges.pop(0)

    def sent(self) -> None:
        self.sendings += 1

    def receive(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def server(tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Iterator[RoundsServer]:
    def factory(job: str) -> Rounds:
        if job != JOB:
            raise JobError("no such job is running")
        return recorder

    with RoundsServer(tmp_path, factory) as made:
        monkeypatch.setenv(remote_rounds.SOCKET, str(made.path))
        yield made


def test_exchanges_and_arrivals_cross_unchanged(server: RoundsServer, recorder: Recorder) -> None:
    rounds = connect(JOB)
    found = rounds.next_exchange()
    assert found is not None
    assert (found.round, found.deadline, dict(found.configs)) == (
        3,
        EXCHANGE.deadline,
        dict(EXCHANGE.configs),
    )
    assert list(found.configs) == [2**64 - 1, 7]  # in sending order
    assert found.model.tobytes() == EXCHANGE.model.tobytes()
    sent = [
        Arrival(
            node_id=2**64 - 1,
            config={"kind": "receipt", "receipt": b"\x80", "n": -5},
            update=np.array([[1, -(2**63)]], dtype="<i8"),
            metrics=np.zeros((2, 6), dtype="<i8"),
        ),
        Arrival(node_id=7, failure="late"),
        Arrival(node_id=8, config={"x": ""}, update=np.zeros(0, dtype="<f4")),
    ]
    rounds.sent()
    for arrival in sent:
        rounds.receive(arrival)
    assert rounds.next_exchange() is not None
    assert rounds.next_exchange() is None
    rounds.close()
    assert recorder.sendings == 1
    for expected, got in zip(sent, recorder.arrivals, strict=True):
        assert (got.node_id, dict(got.config), got.failure) == (
            expected.node_id,
            dict(expected.config),
            expected.failure,
        )
        for a, b in ((expected.update, got.update), (expected.metrics, got.metrics)):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
                assert not b.flags.writeable


def test_socket_is_for_its_owner_alone(server: RoundsServer) -> None:
    assert stat.S_IMODE(server.path.parent.stat().st_mode) == 0o700


def test_socket_of_a_deep_folder_is_short_and_removed_again(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    with RoundsServer(deep, lambda job: Recorder()) as made:
        assert len(os.fsencode(made.path)) < 104
        assert stat.S_IMODE(made.path.parent.stat().st_mode) == 0o700
    assert not made.path.parent.exists()


def test_unknown_job_ends_the_conversation(server: RoundsServer) -> None:
    with closing(connect("b" * 64)) as rounds, pytest.raises(BridgeError):
        rounds.next_exchange()


def test_coordinator_that_is_gone_is_an_error_not_a_hang(server: RoundsServer) -> None:
    with closing(connect(JOB)) as rounds:
        assert rounds.next_exchange() is not None
        server.close()
        with pytest.raises(BridgeError):
            rounds.next_exchange()
    with pytest.raises(BridgeError):
        connect(JOB)


def test_failure_while_receiving_ends_the_conversation(
    server: RoundsServer, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receive(arrival: Arrival) -> None:
        raise JobError("the store is full")

    monkeypatch.setattr(recorder, "receive", receive)
    with closing(connect(JOB)) as rounds:
        rounds.next_exchange()
        rounds.receive(Arrival(node_id=7, failure="late"))
        with pytest.raises(BridgeError):
            rounds.next_exchange()
    assert recorder.closed == 1


def frame(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(4, "big") + text + body


BEGIN = frame({"call": "begin", "job": JOB, "arrays": []})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        (MAX_HEADER + 1).to_bytes(4, "big"),
        frame(b"\xff\xfe"),
        frame([]),
        frame({"call": "begin", "job": 7, "arrays": []}),
        frame({"call": "next", "arrays": []}),
        BEGIN + frame({"call": "steal", "arrays": []}),
        BEGIN + frame({"call": "next"}),
        BEGIN + frame({"call": "receive", "arrays": []}),
        BEGIN + frame({"call": "receive", "node": "x", "config": {}, "failure": "", "arrays": []}),
        BEGIN + frame({"call": "receive", "node": 1, "config": [], "failure": "", "arrays": []}),
        BEGIN + frame({"call": "receive", "arrays": [["update", "object", [1]]]}, bytes(8)),
        BEGIN + frame({"call": "receive", "arrays": [["update", "int64", [2**60]]]}),
        BEGIN + frame({"call": "receive", "arrays": [["update", "int64", [-1]]]}),
        BEGIN + frame({"call": "receive", "arrays": [["update", "int64", ["8"]]]}),
        BEGIN + frame({"call": "receive", "arrays": 5}),
        BEGIN + frame({"call": "receive", "arrays": [["update", "int64", [4]]]}, bytes(8)),
    ],
)
def test_malformed_frames_end_the_conversation_and_reach_nobody(
    server: RoundsServer, recorder: Recorder, data: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.path))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            assert client.recv(100) == b""
    assert recorder.arrivals == []
    with closing(connect(JOB)) as rounds:
        assert rounds.next_exchange() is not None  # the next conversation is unharmed
