"""The live public port: what no client would send, limits on connections, nothing of Flower but ten requests."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from flwr.proto.control_pb2 import ListNodesRequest, StartRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.runtime import RuntimeHttpClient

from coordinator import connections, routing, service
from coordinator.connections import MAX_HEAD
from ledger import example
from tests.coordinator.public_port import LivePort, signature
from tests.coordinator.ward import Ward, sha

CLOSE = b"host: localhost\r\nconnection: close\r\n"
PATIENCE = 15.0  # seconds; a limit against hanging, not a measurement


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return Ward(tmp_path_factory.mktemp("ward"))


@pytest.fixture(scope="module")
def port(ward: Ward) -> Iterator[LivePort]:
    with pytest.MonkeyPatch.context() as patched, LivePort(ward) as made:
        patched.setattr(service, "HOLD_SECONDS", 0.0)
        yield made


def status(answer: bytes) -> int:
    """The status of an answer; 0 where the connection was closed without one."""
    return int(answer.split()[1]) if answer else 0


def works(port: LivePort) -> bool:
    return status(port.send(b"GET /health HTTP/1.1\r\n" + CLOSE + b"\r\n")) == 200


# --- Flower's other APIs ---

TARGETS = [
    *(f"/v1/control/{name}" for name in ("list-nodes", "start-run", "register-node", "stop-run", "")),
    *(f"/v1/runtime/{name}" for name in ("acquire-task", "get-nodes", "push-messages")),
    *("/v1/fleet/register-node", "/v1/fleet/unregister-node", "/v1/fleet/", "/v1/fleet", "/v1", "/docs"),
    *("//v1/control/list-nodes", "/v1//control/list-nodes", "/v1/control//list-nodes", "/./v1/control/list-nodes"),
    *("/v1/fleet/../control/list-nodes", "/v1/fleet/%2e%2e/control/list-nodes", "/v1/fleet/.%2e/control/list-nodes"),
    *("/v1/fleet/..%2fcontrol%2flist-nodes", "/v1/fleet/..%2Fcontrol%2Flist-nodes", "/v1%2Fcontrol%2Flist-nodes"),
    *("/v1/fleet/..%252fcontrol%252flist-nodes", "/v1/fleet/..\\control\\list-nodes"),
    "/v1/fleet/..;/control/list-nodes",
    *("/V1/CONTROL/LIST-NODES", "/v1/Control/list-nodes", "/v1/control/list-nodes.", "/v1/control/list-nodes/"),
    *("/v1./control/list-nodes", "/v1/control./list-nodes", "/v1/control/list-nodes%00", "/v1/control/list-nodes%20"),
    *("/v1/fleet/pull-messages/../../control/list-nodes", "/v1/fleet/pull-messages%2f..%2f..%2fcontrol%2flist-nodes"),
    *("https://127.0.0.1:1/v1/control/list-nodes", "http://superlink/v1/control/list-nodes"),
    "//superlink/v1/control/list-nodes",
    *("/log/../v1/control/list-nodes", "/log/%2e%2e/v1/control/list-nodes", "/?/v1/control/list-nodes"),
    *("*", "superlink:9092", "/v1/control/list-nodes#", "/v1/control/list-nodes?x=/v1/fleet/pull-messages"),
]  # fmt: skip


@pytest.mark.parametrize("method", ["POST", "GET", "CONNECT"])
@pytest.mark.parametrize("target", TARGETS)
def test_no_spelling_reaches_flowers_control_and_runtime_apis(
    port: LivePort, method: str, target: str
) -> None:
    head = f"{method} {target} HTTP/1.1\r\n".encode() + CLOSE
    body = b"content-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
    assert status(port.send(head + body)) in (0, 400, 401, 404, 405)  # and never 503: the door to Flower


def test_flowers_own_clients_are_refused(port: LivePort) -> None:
    """`flwr run`, `flwr ls` and the SuperExec speak through these."""
    where = f"localhost:{port.number}"
    authority = port.tls.authority.read_bytes()
    with (
        ControlHttpClient.from_server_address(where, False, authority, []) as control,
        RuntimeHttpClient.from_server_address(where, False, authority, []) as runtime,
    ):
        for ask in (
            lambda: control.ListNodes(ListNodesRequest()),
            lambda: control.StartRun(StartRunRequest()),
            lambda: runtime.AcquireTask(AcquireTaskRequest()),
        ):
            with pytest.raises(httpx.HTTPStatusError) as caught:
                ask()
            assert caught.value.response.status_code == 404


# --- limits ---


def test_a_long_head_is_cut_off(port: LivePort) -> None:
    for endless in (b"GET /" + b"a" * (2 * MAX_HEAD), b"GET / HTTP/1.1\r\nx: " + b"a" * (2 * MAX_HEAD),
                    b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * MAX_HEAD):  # fmt: skip
        assert status(port.send(endless)) in (0, 400)
    assert works(port)


def test_what_follows_a_chunked_body_is_bounded_too(port: LivePort) -> None:
    head = b"POST /api/reports HTTP/1.1\r\n" + CLOSE + b"transfer-encoding: chunked\r\n\r\n"
    trailers = b"1\r\nx\r\n0\r\n" + b"t: v\r\n" * MAX_HEAD
    assert status(port.send(head + trailers)) in (0, 400)
    extension = b"1;" + b"e" * 4 * MAX_HEAD
    assert status(port.send(head + extension)) in (0, 400)
    assert works(port)


def test_whoever_sends_a_head_slowly_or_nothing_is_hung_up_on(
    port: LivePort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    for first in (b"", b"GET / HT", b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /"):
        with port.connect() as connection:
            began = time.monotonic()
            connection.sendall(first)
            received = b""
            with suppress(ConnectionError):
                while chunk := connection.recv(65536):
                    received += chunk
            assert time.monotonic() - began < PATIENCE
            assert bool(received) == (b"health" in first)


def test_a_slow_body_is_408(port: LivePort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "BODY_SECONDS", 0.3)
    answer = port.send(b"POST /api/records HTTP/1.1\r\n" + CLOSE + b"content-length: 100\r\n\r\nx")
    assert status(answer) == 408
    assert b"did not arrive" in answer


def test_a_large_body_is_refused_before_it_is_read(port: LivePort) -> None:
    for length in (b"1000000000000", b"18446744073709551615"):
        answer = port.send(
            b"POST /api/records HTTP/1.1\r\n" + CLOSE + b"content-length: " + length + b"\r\n\r\nx"
        )
        assert status(answer) in (400, 413)


def test_connections_are_counted(port: LivePort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    held = [port.connect() for _ in range(3)]
    deadline = time.monotonic() + PATIENCE
    while works(port):
        assert time.monotonic() < deadline
    for connection in held:
        connection.close()
    while not works(port):
        assert time.monotonic() < deadline


def test_no_answer_waits_for_the_acknowledgement_of_its_first_part(
    port: LivePort, monkeypatch: pytest.MonkeyPatch
) -> None:
    undelayed: list[int] = []
    made = connections.Bounded.connection_made

    def look(self: connections.Bounded, transport: asyncio.BaseTransport) -> None:
        option = (socket.IPPROTO_TCP, socket.TCP_NODELAY)
        undelayed.append(transport.get_extra_info("socket").getsockopt(*option))
        made(self, transport)

    monkeypatch.setattr(connections.Bounded, "connection_made", look)
    assert works(port)
    assert undelayed
    assert all(undelayed)


def test_the_service_takes_the_files_that_its_owner_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[0]), before[1]))
        connections.make_room()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(connections.MAX_FILES, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n" + CLOSE + b"\r\n",
        b"POST /api/records HTTP/1.1\r\n"
        + CLOSE
        + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/records HTTP/1.1\r\n" + CLOSE + b"content-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        b"POST /api/records HTTP/1.1\r\n" + CLOSE + b"content-length: -1\r\n\r\n",
        b"GET /api/status HTTP/1.1\r\n" + CLOSE + b"signature: \xff\r\nsignature-input: \xe9\r\n\r\n",
        b"GET /log/checkpoint?above=%ff&wait=\xff HTTP/1.1\r\n" + CLOSE + b"\r\n",
        b"GET /health HTTP/1.1\r\n" + CLOSE + b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_nothing_breaks(port: LivePort, data: bytes) -> None:
    assert status(port.send(data)) in (0, 200, 400, 401)
    assert works(port)


def test_plain_http_and_odd_tls_are_hung_up_on(port: LivePort) -> None:
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + b"\xff" * 200):
        with socket.create_connection(("127.0.0.1", port.number), timeout=PATIENCE) as plain:
            plain.sendall(data)
            with suppress(ConnectionError):
                assert b"200" not in plain.recv(100)
    assert works(port)


def test_a_signed_request_passes_over_the_wire_byte_for_byte(port: LivePort, ward: Ward) -> None:
    target = f"/log/tile/entries/000.p/{ward.sequencer.standing.view.size}"
    signed = signature("GET", target, example.KEYS["alpha"])
    head = "".join(f"{name}: {value}\r\n" for name, value in signed.items()).encode()
    request = f"GET {target} HTTP/1.1\r\n".encode() + CLOSE + head + b"\r\n"
    assert status(port.send(request)) == 200
    assert status(port.send(request)) == 401  # the same bytes again
    absolute = signature("GET", target, example.KEYS["alpha"])
    head = "".join(f"{name}: {value}\r\n" for name, value in absolute.items()).encode()
    assert status(port.send(f"GET {target}?x=1 HTTP/1.1\r\n".encode() + CLOSE + head + b"\r\n")) == 401


def test_an_upload_that_breaks_off_leaves_nothing(port: LivePort, ward: Ward) -> None:
    content = b"x" * 100_000
    target = f"/api/blobs/{sha(content)}?kind=code"
    signed = signature("PUT", target, example.KEYS["researcher"], body=content)
    head = "".join(f"{name}: {value}\r\n" for name, value in signed.items()).encode()
    with port.connect() as connection:
        request = f"PUT {target} HTTP/1.1\r\n".encode() + CLOSE + head + b"content-length: 100000\r\n\r\n"
        connection.sendall(request + content[:50_000])
    deadline = time.monotonic() + PATIENCE
    while list((ward.folder / "blobs" / "incoming").iterdir()) or list((ward.folder / "uploads").glob("*/*")):
        assert time.monotonic() < deadline
    assert sha(content) not in ward.blobs
