"""The node's connection survives what a coordinator and a network do to it, and says in one line what is wrong."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse, DeactivateNodeRequest
from flwr.supernode.fleet_http_client import FleetHttpClient

from client import flower_connection
from client.errors import NodeKeyError
from client.flower_connection import (
    Connection,
    NodeSettings,
    RunOverError,
    StoppedError,
    UnauthorizedError,
    new_node_key,
)
from coordinator.tls import ensure_tls

REQUEST = httpx.Request("POST", "https://127.0.0.1/v1/fleet/x")
Step = int | Exception


def refused(status: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("refused", request=REQUEST, response=httpx.Response(status, request=REQUEST))


class ScriptedClient:
    """Answers activations by a script: a node id, or an error to raise. Stays with the last step."""

    def __init__(self, script: list[Step]) -> None:
        self.script = script
        self.deactivated: list[int] = []
        self.asked = 0

    def ActivateNode(self, request: ActivateNodeRequest) -> ActivateNodeResponse:
        assert b"BEGIN PUBLIC KEY" in request.public_key
        step = self.script[min(self.asked, len(self.script) - 1)]
        self.asked += 1
        if isinstance(step, Exception):
            raise step
        return ActivateNodeResponse(node_id=step)

    def DeactivateNode(self, request: DeactivateNodeRequest) -> None:
        if request.node_id in self.deactivated:
            raise refused(412)
        self.deactivated.append(request.node_id)

    def close(self) -> None:
        self.asked = -1


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> NodeSettings:
    from datetime import UTC, datetime

    folder = tmp_path_factory.mktemp("node")
    authority = ensure_tls(folder, [], datetime.now(UTC)).authority.read_bytes()
    private_key, _ = new_node_key()
    return NodeSettings(
        address="127.0.0.1:1", authority=authority, private_key=private_key, id_file=folder / "node-id"
    )


Connect = Callable[[list[Step]], tuple[Connection, ScriptedClient]]


@pytest.fixture
def connect(settings: NodeSettings, monkeypatch: pytest.MonkeyPatch) -> Connect:
    monkeypatch.setattr(flower_connection, "RETRY_WAIT", (0.001, 0.002))
    settings.id_file.unlink(missing_ok=True)

    def build(script: list[Step]) -> tuple[Connection, ScriptedClient]:
        connection, client = Connection(settings), ScriptedClient(script)
        connection.client.close()
        connection.client = cast(FleetHttpClient, client)
        return connection, client

    return build


@pytest.mark.parametrize(
    "trouble",
    [
        refused(401),
        refused(412),
        refused(429),
        refused(500),
        refused(503),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("hung up"),
    ],
    ids=str,
)
def test_activation_outlives_trouble(connect: Connect, settings: NodeSettings, trouble: Exception) -> None:
    connection, client = connect([trouble, trouble, trouble, 2**63 + 7])
    connection.activate()
    assert (connection.node_id, connection.trouble, client.asked) == (2**63 + 7, "", 4)
    assert settings.id_file.read_text() == str(2**63 + 7)


def test_a_refused_signature_sends_no_signal_to_the_agent(connect: Connect) -> None:
    """flwr's own connection helper answers 401 with SIGINT to its own process."""
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        connect([refused(401), refused(401), 5])[0].activate()
    finally:
        signal.signal(signal.SIGINT, before)
    assert received == []


def test_a_restarted_agent_takes_over_from_its_killed_predecessor(
    connect: Connect, settings: NodeSettings
) -> None:
    settings.id_file.write_text("5")
    connection, client = connect([refused(412), 5])
    connection.activate()
    assert (connection.node_id, client.deactivated) == (5, [5])


@pytest.mark.parametrize("content", ["", "not a number", "5\n6"])
def test_a_damaged_memory_of_the_node_id_is_no_obstacle(
    connect: Connect, settings: NodeSettings, content: str
) -> None:
    settings.id_file.write_text(content)
    connection, client = connect([refused(412), 5])
    connection.activate()
    assert (connection.node_id, client.deactivated) == (5, [])


@pytest.mark.parametrize(
    ("error", "words"),
    [(refused(412), "not admitted"), (refused(401), "clock"), (httpx.ConnectError("no route"), "no route")],
    ids=["unknown key", "refused signature", "no network"],
)
def test_stop_ends_an_activation_and_the_trouble_stays_readable(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    monkeypatch.setattr(flower_connection, "RETRY_WAIT", (60.0, 60.0))
    connection, _ = connect([error])
    threading.Timer(0.05, connection.stop).start()
    started = time.monotonic()
    with pytest.raises(StoppedError):
        connection.activate()
    assert words in connection.trouble
    assert connection.node_id is None
    assert time.monotonic() - started < 30  # of the 60 it would sleep


@pytest.mark.parametrize(("status", "expected"), [(401, UnauthorizedError), (403, RunOverError)])
def test_a_refusal_is_told_apart(connect: Connect, status: int, expected: type[Exception]) -> None:
    connection, client = connect([refused(status)])
    with pytest.raises(expected):
        connection.ask(client.ActivateNode, ActivateNodeRequest(public_key=b"BEGIN PUBLIC KEY"))


def test_leaving_says_goodbye_and_closes(connect: Connect) -> None:
    connection, client = connect([5])
    connection.activate()
    connection.leave()
    assert (client.deactivated, client.asked, connection.node_id) == ([5], -1, None)
    with pytest.raises(UnauthorizedError):
        _ = connection.node


def pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"nonsense",
        pem(ed25519.Ed25519PrivateKey.generate()),
        pem(ec.generate_private_key(ec.SECP384R1()), b"x"),
    ],
    ids=["empty", "nonsense", "ed25519", "encrypted"],
)
def test_an_unusable_key_is_refused_without_showing_it(
    settings: NodeSettings, tmp_path: Path, key: bytes
) -> None:
    bad = NodeSettings(
        address=settings.address, authority=settings.authority, private_key=key, id_file=tmp_path / "id"
    )
    with pytest.raises(NodeKeyError) as caught:
        Connection(bad)
    assert key == b"" or key.decode()[:20] not in str(caught.value)
