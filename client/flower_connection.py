"""A node's connection to the coordinator's public port: activation, heartbeats, requests that outlive its restarts.

flwr's own client speaks the Fleet API and signs each request with the node's key; this module decides what to
do when a request fails. `client.flower_node` decides what to ask.

Why not `flwr.supernode.fleet_http_connection`, which wraps the same client: where it cannot connect at first it ends
the whole process by `os._exit` five seconds later, and a request answered by 401 makes it send SIGINT to its own
process. An agent also cosigns and must survive both.

What has to be known about Flower 1.41 here:
- 401 means an unknown key, an old node id (the SuperLink lost its database), or a clock more than 5 minutes off: the
  three look alike. The answer to all is to activate again.
- Activating fails with 412 for an unknown key *and* for a node that the SuperLink believes connected: after a crash
  that lasts until its heartbeat has lapsed. A node that remembers its id takes over by deactivating it first.
- 403 means that the run is over.
- The client reads a whole answer into memory; only what is asked for next can be bounded.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient

from client.errors import NodeKeyError
from client.fleet_client import FleetClient

HEARTBEAT_SECONDS = 10.0  # Flower's minimum; a node silent for twice as long counts as away
HEARTBEAT_TICK = 0.5  # seconds between looks at the clock
RETRY_WAIT = (0.2, 10.0)  # seconds, first and longest, after a failed request

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """Where the coordinator is, and who this node is."""

    address: str  # host:port of the coordinator's public port
    authority: bytes  # PEM certificate that its TLS is checked against
    private_key: bytes  # PEM, of `new_node_key`
    id_file: Path  # remembers the node id, to take over from a crashed predecessor
    report: Callable[[str], None] = lambda trouble: (
        None
    )  # told why there is no connection, and "" when there is
    proxy: str = ""  # "http://host:port" that every connection goes through
    busy_seconds: float = 0.05  # between requests while a message is expected
    idle_seconds: float = 1.0  # between requests when nothing happens
    max_message: int = 256 << 20  # bytes
    jitter: Callable[[], float] = random.random  # 0 to 1; spreads tries of many agents


class UnauthorizedError(Exception):
    """401: activate again."""


class RunOverError(Exception):
    """403: nobody waits for this message any more."""


class StoppedError(Exception):
    """The node was told to stop while it waited."""


def new_node_key() -> tuple[bytes, bytes]:
    """Return a fresh private key and its public key, PEM; the public one is deposited with the coordinator."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, public_key_to_bytes(key.public_key())


def public_half(private: bytes) -> bytes:
    """Return the public key, PEM, of a node's private one. Raises NodeKeyError."""
    return public_key_to_bytes(_load_key(private).public_key())


class Connection:
    """One node's connection. `stop` and `wake` may be called from any thread or signal handler."""

    def __init__(self, settings: NodeSettings) -> None:
        """Connect to nothing yet. Raises NodeKeyError when the private key is unusable."""
        self.node_id: int | None = None  # while activated
        self.trouble = ""  # why there is no connection, in one line for the hospital's screen
        self.stopping = False
        self._settings = settings
        self._wake = threading.Event()
        self._key = _load_key(settings.private_key)
        self.client: FleetHttpClient = FleetClient(
            settings.address, settings.authority, self._key, proxy=settings.proxy
        )

    @property
    def node(self) -> Node:
        """The node as its requests name it. Raises UnauthorizedError before `activate`."""
        if self.node_id is None:
            raise UnauthorizedError
        return Node(node_id=self.node_id)

    def activate(self) -> None:
        """Become known as connected, however long that takes. Raises StoppedError."""
        self.node_id = None
        wait, longest = RETRY_WAIT
        public_key = public_key_to_bytes(self._key.public_key())
        request = ActivateNodeRequest(public_key=public_key, heartbeat_interval=HEARTBEAT_SECONDS)
        while True:
            try:
                node_id = int(self.ask(self.client.ActivateNode, request).node_id)
                break
            except UnauthorizedError:
                self._report("the coordinator does not know this node's key, or a clock is wrong by minutes")
            except httpx.HTTPStatusError:
                if self._take_over():
                    continue
                self._report("the coordinator has not admitted this node's key")
            self.sleep(wait * (0.5 + self._settings.jitter()))
            wait = min(2 * wait, longest)
        try:
            self._settings.id_file.write_text(str(node_id))
        except OSError as error:  # it only shortens the wait after a crash
            _log.warning("%s: cannot be written (%s)", self._settings.id_file, error.strerror)
        self.node_id = node_id
        self._report("")

    def ask(self, call: Callable[[_Question], _Answer], request: _Question) -> _Answer:
        """Make a request until it is answered; a coordinator that restarts is waited for.

        Raises:
            UnauthorizedError: Activate again.
            RunOverError: Drop the message.
            StoppedError: The node was told to stop.
        """
        wait, longest = RETRY_WAIT
        while True:
            try:
                answer = call(request)
            except httpx.TransportError as error:
                self._report(f"the coordinator cannot be reached at {self._settings.address}: {error}")
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                if status == httpx.codes.UNAUTHORIZED:
                    raise UnauthorizedError from error
                if status == httpx.codes.FORBIDDEN:
                    raise RunOverError from error
                if status == httpx.codes.PRECONDITION_FAILED:
                    raise  # `activate` alone meets it
                self._report(f"the coordinator answers with HTTP status {status}")
            else:
                if self.node_id is not None:
                    self._report("")
                return answer
            self.sleep(wait * (0.5 + self._settings.jitter()))
            wait = min(2 * wait, longest)

    def beat(self) -> None:
        """Send heartbeats until `stop`, also while an answer takes minutes: the main of a thread."""
        last = time.monotonic()
        while not self.stopping:
            time.sleep(HEARTBEAT_TICK)
            if self.node_id is None or time.monotonic() - last < HEARTBEAT_SECONDS * 0.8:
                continue
            last = time.monotonic()
            request = SendNodeHeartbeatRequest(
                node=Node(node_id=self.node_id), heartbeat_interval=HEARTBEAT_SECONDS
            )
            try:
                self.client.SendNodeHeartbeat(request)
            except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed meanwhile
                _log.debug("a heartbeat failed (%s); the next request will tell why", type(error).__name__)

    def sleep(self, seconds: float) -> None:
        """Sleep, or until woken. Raises StoppedError."""
        self._wake.wait(seconds)
        self._wake.clear()
        if self.stopping:
            raise StoppedError

    def wake(self) -> None:
        """End a sleep."""
        self._wake.set()

    def stop(self) -> None:
        """End everything that waits here."""
        self.stopping = True
        self._wake.set()

    def leave(self) -> None:
        """Tell the coordinator that the node is away, if that can be done at once, and close."""
        self.stop()
        if self.node_id is not None:
            try:
                self.client.DeactivateNode(DeactivateNodeRequest(node_id=self.node_id))
            except httpx.HTTPError:
                _log.info("the coordinator was not told that this node leaves")
        self.node_id = None
        self.client.close()

    def _take_over(self) -> bool:
        """Deactivate what an earlier process of this node left behind; tell whether there was anything."""
        try:
            node_id = int(self._settings.id_file.read_text())
            self.client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
        except (OSError, ValueError, httpx.HTTPError):
            return False
        return True

    def _report(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            _log.warning("%s", trouble)
        elif self.trouble and not trouble:
            _log.info("connected to %s", self._settings.address)
        self.trouble = trouble
        self._settings.report(trouble)


def _load_key(private_key: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(private_key, password=None)
    except (ValueError, TypeError) as error:
        raise NodeKeyError(
            "the node's key is not an unencrypted PEM key; restore it from a backup"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NodeKeyError("the node's key is not an elliptic-curve key; make a new one and deposit it")
    return key
