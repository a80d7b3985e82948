"""Everything that a member sends goes through the proxy that a person named, and nothing goes anywhere else.

The coordinator's name cannot be resolved on this machine: only the proxy knows where it is.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest

from client.consortium import Consortium
from client.errors import UnreachableError
from client.flower_connection import Connection, NodeSettings, new_node_key
from coordinator import service
from coordinator.tls import ensure_tls
from ledger import example
from tests.coordinator.public_port import LivePort
from tests.coordinator.ward import Ward

NAME = "coordinator.invalid:8443"  # RFC 6761: nothing resolves it


class ConnectProxy:
    """A proxy that knows one place."""

    def __init__(self, place: str, port: int) -> None:
        self.asked: list[str] = []
        self._place, self._port = place, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while True:
            try:
                inside, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._carry, args=(inside,)))
            self._threads[-1].start()

    def _carry(self, inside: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):  # whoever does not believe what it is shown hangs up
            self._tunnel(inside)

    def _tunnel(self, inside: socket.socket) -> None:
        with inside:
            head = b""
            while b"\r\n\r\n" not in head:
                head += inside.recv(4096)
            self.asked.append(head.split(b"\r\n")[0].decode())
            if head.split()[:2] != [b"CONNECT", self._place.encode()]:
                inside.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", self._port)) as outside:
                inside.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                other = {inside: outside, outside: inside}
                while True:
                    for source in select.select([inside, outside], [], [])[0]:
                        data = source.recv(65536)
                        if not data:
                            return
                        other[source].sendall(data)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivePort]:
    ward = Ward(tmp_path_factory.mktemp("ward"))
    with pytest.MonkeyPatch.context() as patched, LivePort(ward) as made:
        patched.setattr(service, "HOLD_SECONDS", 0.0)
        yield made


@pytest.fixture
def proxy(port: LivePort) -> Iterator[ConnectProxy]:
    made = ConnectProxy(NAME, port.number)
    yield made
    made.close()


def door(port: LivePort, address: str, proxy: str) -> Consortium:
    return Consortium(address, port.tls.authority.read_bytes(), key=example.KEYS["alpha"], proxy=proxy)


def node(port: LivePort, folder: Path, address: str, proxy: str) -> Connection:
    settings = NodeSettings(
        address=address,
        authority=port.tls.authority.read_bytes(),
        private_key=new_node_key()[0],
        id_file=folder / "node.id",
        proxy=proxy,
    )
    return Connection(settings)


def test_the_api_and_the_log_are_reached_through_the_proxy_alone(port: LivePort, proxy: ConnectProxy) -> None:
    with contextlib.closing(door(port, NAME, proxy.url)) as made:
        assert made.status()["origin"] == example.ORIGIN
        assert made.read("checkpoint.pending").startswith(example.ORIGIN.encode())
    assert proxy.asked == [f"CONNECT {NAME} HTTP/1.1"]
    with contextlib.closing(door(port, NAME, "")) as direct, pytest.raises(UnreachableError):
        direct.status()


def test_flowers_requests_are_sent_through_the_proxy_alone(
    port: LivePort, proxy: ConnectProxy, tmp_path: Path
) -> None:
    through = node(port, tmp_path, NAME, proxy.url)
    with pytest.raises(httpx.HTTPStatusError) as caught:  # it arrived: there is no SuperLink behind this port
        through.client.PullMessages(PullMessagesRequest())
    assert caught.value.response.status_code == 503
    through.client.close()
    assert proxy.asked == [f"CONNECT {NAME} HTTP/1.1"]
    direct = node(port, tmp_path, NAME, "")
    with pytest.raises(httpx.ConnectError):
        direct.client.PullMessages(PullMessagesRequest())
    direct.client.close()


def test_a_proxy_that_refuses_is_try_again_in_one_line(port: LivePort, proxy: ConnectProxy) -> None:
    with contextlib.closing(door(port, "elsewhere.invalid:1", proxy.url)) as made:
        with pytest.raises(UnreachableError, match="cannot be reached") as caught:
            made.status()
        assert "\n" not in str(caught.value)
    assert proxy.asked == ["CONNECT elsewhere.invalid:1 HTTP/1.1"]


def test_a_proxy_of_the_machine_is_not_used_by_itself(
    port: LivePort, proxy: ConnectProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    with contextlib.closing(door(port, f"localhost:{port.number}", "")) as made:
        assert made.status()["origin"] == example.ORIGIN
    direct = node(port, tmp_path, f"localhost:{port.number}", "")
    with pytest.raises(httpx.HTTPStatusError):
        direct.client.PullMessages(PullMessagesRequest())
    direct.client.close()
    assert proxy.asked == []


def test_a_proxy_that_opens_the_tls_is_not_believed(
    port: LivePort, proxy: ConnectProxy, tmp_path: Path
) -> None:
    other = ensure_tls(tmp_path / "other", [], datetime.now(UTC)).authority.read_bytes()
    made = Consortium(NAME, other, key=example.KEYS["alpha"], proxy=proxy.url)
    with contextlib.closing(made), pytest.raises(UnreachableError, match="certificate verify failed"):
        made.status()
