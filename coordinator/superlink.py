"""Flower's own SuperLink as a child process on loopback, and the requests that the coordinator makes to it.

Two children serve one coordinator: the SuperLink, and a waiting *host*, a process that has imported everything and
runs one ServerApp (`coordinator.server_app`). The SuperLink runs with `--isolation process`, Flower's own mode for
deployments that start ServerApps themselves: a fresh SuperExec and a fresh Python for each run cost 6 s more.
Handing out that task needs a secret then, which subprocess isolation does without.

What has to be known about Flower 1.41 here:
- Its Control API accepts anybody who reaches the port. Loopback only; the public port is `coordinator.gateway`.
- `GET /health` answers as soon as the port is open: all routes are ready then.
- A host that is killed leaves its run RUNNING for 60 s, until the task's heartbeat has lapsed: `run_state` asks
  the process too.
- Node ids are drawn at random by the SuperLink. `--database` keeps them over restarts, but costs twice the CPU time
  a request. Without it `register_node` after each start gives new ids, and nodes find out by themselves.
- It ends only when its clients let go of their TLS connections: close the gateway before `stop`, or that takes 3 s.
- Run and node ids are unsigned 64-bit: more than a double holds.
flwr is imported inside functions: that takes a second, and a child starts meanwhile.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import httpx

from coordinator.child import Child, Words
from coordinator.errors import TransportError
from coordinator.runs import RunState
from coordinator.tls import TlsFiles
from ledger.durable import write_private

if TYPE_CHECKING:
    from flwr.supercore.control import ControlHttpClient

LOOPBACK = "127.0.0.1"
SHARED_FILE = "superexec-secret"  # file that the SuperLink and its hosts share
POLL_SECONDS = 0.05
ANSWER_SHOWN = 500  # characters of a refusal

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperLinkSettings:
    """What a SuperLink needs to start."""

    directory: Path  # made if absent; holds logs, Flower's home and the secret
    tls: TlsFiles  # valid for 127.0.0.1
    rounds: str  # "module:factory" of the `Rounds` that the ServerApp runs
    database: bool = False  # keep node ids over restarts; twice the CPU time a request
    start_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """A registered hospital's node as the SuperLink sees it."""

    node_id: int
    name: str
    online: bool


class SuperLink:
    """A running SuperLink with its waiting host. Use it as a context manager: leaving it ends every child."""

    def __init__(self, settings: SuperLinkSettings) -> None:
        self._settings = settings
        self._port = 0
        self._superlink: Child | None = None
        self._waiting: Child | None = None
        self._hosts: dict[int, Child] = {}  # by run id
        self._client: ControlHttpClient | None = None

    @property
    def address(self) -> str:
        """Host and port on loopback, for the gateway."""
        return f"{LOOPBACK}:{self._port}"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all children, hosts first, so that a run's last message still finds the SuperLink. Idempotent."""
        if self._client is not None:
            self._client.close()
            self._client = None
        hosts = [*self._hosts.values(), *([self._waiting] if self._waiting else [])]
        for host in hosts:
            host.ask_to_end()
        for host in hosts:
            host.end()
        self._hosts, self._waiting = {}, None
        if self._superlink is not None:
            self._superlink.end()
            self._superlink = None

    def alive(self) -> bool:
        """Whether the SuperLink runs and can run jobs: its process is there, and the folder that hosts read."""
        running = self._superlink is not None and self._superlink.runs()
        return running and (self._settings.directory / SHARED_FILE).exists()

    def register_node(self, name: str, public_key: bytes) -> int:
        """Return the node id of a hospital's key; registering a key twice gives the same id.

        Args:
            name: The hospital's name in the charter.
            public_key: Elliptic-curve key of a NIST curve, PEM.

        Raises:
            TransportError: The SuperLink refused the key or cannot be reached.
        """
        from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest

        wanted = public_key.strip()
        known = self._ask(lambda control: control.ListNodes(ListNodesRequest()))
        for node in known.nodes_info:
            if node.public_key.strip() == wanted and node.status != "unregistered":
                return int(node.node_id)
        request = RegisterNodeRequest(public_key=public_key, name=name)
        return int(self._ask(lambda control: control.RegisterNode(request)).node_id)

    def unregister_node(self, node_id: int) -> None:
        """Remove a node: its key is refused from the next request on. Raises TransportError."""
        from flwr.proto.control_pb2 import UnregisterNodeRequest

        self._ask(lambda control: control.UnregisterNode(UnregisterNodeRequest(node_id=node_id)))

    def nodes(self) -> tuple[NodeState, ...]:
        """Return the registered nodes, in the order of their names. Raises TransportError."""
        from flwr.proto.control_pb2 import ListNodesRequest

        known = self._ask(lambda control: control.ListNodes(ListNodesRequest())).nodes_info
        states = [
            NodeState(node_id=node.node_id, name=node.name, online=node.status == "online")
            for node in known
            if node.status != "unregistered"
        ]
        return tuple(sorted(states, key=lambda node: (node.name, node.node_id)))

    def start_run(self, content: bytes) -> int:
        """Start a Flower run of a `coordinator.bundle` and return its id; the waiting host takes it at once.

        Raises:
            TransportError: The SuperLink refused the bundle or cannot be reached.
        """
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.proto.fab_pb2 import Fab

        if self._waiting is None or not self._waiting.runs():
            self._waiting = self._start_host()
        fab = Fab(hash_str=hashlib.sha256(content).hexdigest(), content=content)
        response = self._ask(lambda control: control.StartRun(StartRunRequest(fab=fab)))
        if not response.HasField("run_id"):
            raise TransportError("the SuperLink refused the run: the job's bundle is too large or malformed")
        run_id = int(response.run_id)
        host, self._waiting = self._waiting, None
        host.tell(b"run")
        self._hosts[run_id] = host
        return run_id

    def run_state(self, run_id: int) -> RunState:
        """Return how far a run is; one whose host died counts as failed at once. Raises TransportError."""
        from flwr.proto.control_pb2 import ListRunsRequest

        run = self._ask(lambda control: control.ListRuns(ListRunsRequest(run_id=run_id))).run_dict[run_id]
        host = self._hosts.get(run_id)
        if run.status.status != "finished" and host is not None and not host.runs():
            return RunState(
                status="finished", outcome="failed", details="the ServerApp's process ended early"
            )
        return RunState(status=run.status.status, outcome=run.status.sub_status, details=run.status.details)

    def stop_run(self, run_id: int) -> None:
        """Stop a run, and its host. Raises TransportError."""
        from flwr.proto.control_pb2 import StopRunRequest

        self._ask(lambda control: control.StopRun(StopRunRequest(run_id=run_id)))
        host = self._hosts.pop(run_id, None)
        if host is not None:
            host.end()

    def _start(self) -> None:
        directory = self._settings.directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            write_private(directory / SHARED_FILE, secrets.token_bytes(32))
            self._port = _free_port()
        except OSError as error:
            raise TransportError(
                f"the SuperLink cannot be started in {directory}: {error.strerror}; see to the disk"
            ) from None
        tls = self._settings.tls
        arguments = [
            *("--host", LOOPBACK, "--port", str(self._port), "--isolation", "process"),
            *("--ssl-ca-certfile", str(tls.authority), "--ssl-certfile", str(tls.certificate)),
            *("--ssl-keyfile", str(tls.key), "--enable-supernode-auth"),
            *("--superexec-auth-secret-file", str(directory / SHARED_FILE)),
            "--disable-runtime-dependency-installation",
        ]
        if self._settings.database:
            arguments += ["--database", str(directory / "superlink.db")]
        self._superlink = self._start_child("superlink", "coordinator.superlink:run_superlink", arguments)
        self._waiting = self._start_host()
        self._client = self._connect()  # imports flwr while the children import theirs
        self._wait_until_ready(self._superlink)

    def _start_host(self) -> Child:
        secret = self._settings.directory / SHARED_FILE
        arguments = [self.address, str(self._settings.tls.authority), str(secret), self._settings.rounds]
        return self._start_child("host", "coordinator.server_app:run_host", arguments)

    def _start_child(self, name: str, main: str, arguments: list[str]) -> Child:
        directory = self._settings.directory
        environment = {
            "FLWR_HOME": str(directory / "flower"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }
        try:
            return Child(main, arguments, environment, directory / f"{name}.log")
        except OSError as error:
            raise TransportError(f"no {name} could be started: {error.strerror}") from None

    def _wait_until_ready(self, child: Child) -> None:
        deadline = time.monotonic() + self._settings.start_seconds
        context = ssl.create_default_context(cafile=self._settings.tls.authority)
        with httpx.Client(verify=context, timeout=2.0) as http:
            while time.monotonic() < deadline:
                if not child.runs():
                    raise TransportError(
                        f"the SuperLink ended while starting; its log says:\n{child.log_tail()}"
                    )
                with suppress(httpx.TransportError):
                    if http.get(f"https://{self.address}/health").is_success:
                        return
                time.sleep(POLL_SECONDS)
        raise TransportError(f"the SuperLink did not answer within {self._settings.start_seconds:.0f} s")

    def _connect(self) -> ControlHttpClient:
        from flwr.supercore.control import ControlHttpClient

        return ControlHttpClient.from_server_address(
            server_address=self.address,
            insecure=False,
            root_certificates=self._settings.tls.authority.read_bytes(),
            interceptors=(),
        )

    def _ask(self, request: Callable[[ControlHttpClient], _Answer]) -> _Answer:
        if self._client is None:
            raise TransportError("the SuperLink is not running; start it first")
        try:
            return request(self._client)
        except httpx.HTTPStatusError as error:
            raise TransportError(f"the SuperLink refused: {error.response.text[:ANSWER_SHOWN]}") from error
        except httpx.HTTPError as error:
            raise TransportError(f"the SuperLink cannot be reached ({type(error).__name__})") from error


def run_superlink(arguments: list[str], _words: Words) -> None:
    """Become Flower's SuperLink: the entry of that child."""
    from flwr.superlink.cli.flower_superlink import flower_superlink

    sys.argv = ["flower-superlink", *arguments]
    flower_superlink()


def _free_port() -> int:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])
