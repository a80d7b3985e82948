"""The public port in memory: all that `coordinator.service` puts together, over a ward, without Flower."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
from starlette.applications import Starlette

from coordinator import service
from coordinator.back_office import BackOffice
from coordinator.config import CoordinatorConfig
from coordinator.status_page import signing
from coordinator.tls import ensure_tls
from ledger import example, signed_request
from ledger.signature import SigningKey
from tests.coordinator.ward import Ward

TOKEN = "t" * 40


def app_of(ward: Ward, **settings: Any) -> Starlette:
    """The app of a ward's coordinator, which has just been started."""
    folder = ward.folder
    (folder / "keys").mkdir(exist_ok=True)
    (folder / "keys" / "metrics.token").touch(0o600)
    (folder / "keys" / "metrics.token").write_text(TOKEN)
    tls = ensure_tls(folder / "tls", [], datetime.now(UTC))
    config = CoordinatorConfig(directory=folder, port=1, **settings)
    key = example.KEYS["coordinator"]
    office = BackOffice(config, ward.sequencer, ward.blobs, key, tls, lambda event: None)
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
