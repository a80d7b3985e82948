"""The public port, in memory or live: all that `coordinator.service` puts together, over a ward, without Flower."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx
from starlette.applications import Starlette

from coordinator import service
from coordinator.back_office import BackOffice
from coordinator.config import CoordinatorConfig
from coordinator.public_port import PublicPort, listen
from coordinator.status_page import signing
from coordinator.tls import ensure_tls
from ledger import example, signed_request
from ledger.signature import SigningKey
from tests.coordinator.ward import Ward

TOKEN = "t" * 40
NAMES = ("localhost", "127.0.0.1", "coordinator.invalid")


def app_of(ward: Ward, **settings: Any) -> Starlette:
    """The app of a ward's coordinator, which has just been started."""
    folder = ward.folder
    (folder / "keys").mkdir(exist_ok=True)
    (folder / "keys" / "metrics.token").touch(0o600)
    (folder / "keys" / "metrics.token").write_text(TOKEN)
    tls = ensure_tls(folder / "tls", NAMES, datetime.now(UTC))
    config = CoordinatorConfig(directory=folder, port=1, **settings)
    key = example.KEYS["coordinator"]
    office = BackOffice(config, ward.sequencer, ward.blobs, key, tls, lambda event: None)
    office.acknowledgements = ward.acknowledgements  # one memory of them, whoever is asked
    opened = int(time.time()) - 2  # so that a test can go on at once
    return service.application(office, service.desks(office, config, key, tls, opened))


class Client:
    """An app and who asks it, in one event loop that other threads may wake."""

    def __init__(self, app: Starlette) -> None:
        self._runner = asyncio.Runner()
        transport = httpx.ASGITransport(app)
        self._client = httpx.AsyncClient(transport=transport, base_url="https://public", timeout=60)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    def ask(self, method: str, path: str, key: SigningKey | None = None, **request: Any) -> httpx.Response:
        """Send a request, signed if there is a key."""
        auth: Callable[[httpx.Request], httpx.Request] | None = signing(key) if key is not None else None
        return self._runner.run(self._client.request(method, path, auth=auth, **request))

    def get(self, path: str, reader: str = "alpha") -> httpx.Response:
        """Read as a member does."""
        return self.ask("GET", path, example.KEYS[reader])

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Post what is signed itself."""
        return self.ask("POST", path, **body)


def signature(
    method: str, target: str, key: SigningKey, *, body: bytes = b"", age: int = 0
) -> dict[str, str]:
    """The headers of a request that was signed `age` seconds ago."""
    return signed_request.sign(
        key,
        method=method,
        target=target,
        body=body,
        created=int(time.time()) - age,
        nonce=secrets.token_hex(16),
    )


class LivePort:
    """The app on a real port with its real settings, in a thread."""

    def __init__(self, ward: Ward, *, loop: str = "asyncio") -> None:
        app = app_of(ward)
        self.tls = ensure_tls(ward.folder / "tls", NAMES, datetime.now(UTC))
        listener = listen("127.0.0.1", 0)
        self.number = int(listener.getsockname()[1])
        self._server = PublicPort(self.tls, app)
        self._server.config.loop = loop
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def __enter__(self) -> LivePort:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def connect(self) -> ssl.SSLSocket:
        """A bare TLS connection, for requests that no client would send."""
        context = ssl.create_default_context(cafile=self.tls.authority)
        plain = socket.create_connection(("127.0.0.1", self.number), timeout=20)
        return context.wrap_socket(plain, server_hostname="localhost")

    def send(self, data: bytes) -> bytes:
        """Send bytes, and return all that comes back until the connection is closed; b"" where it was reset."""
        with self.connect() as connection:
            received = b""
            with suppress(ConnectionError, ssl.SSLError):
                connection.sendall(data)
                while chunk := connection.recv(65536):
                    received += chunk
            return received
