"""`Rounds` across two processes: the ServerApp asks over a UNIX socket, the coordinator's runner answers.

A request is a frame of `coordinator.frames`. By "call": "begin" (job), "next" (answered), "sent", "receive" (not
answered: frames arrive in order, and a failure closes the connection), "close". The socket lies in a folder that
only this user may enter.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from coordinator.errors import BridgeError, CoordinatorError
from coordinator.exchange import Arrival, Exchange, Rounds, RoundsFactory
from coordinator.frames import Arrays, Stream, read_config, receive, send, write_config
from ledger.errors import LedgerError

SOCKET = "WARDROUND_ROUNDS_SOCKET"  # environment variable of the ServerApp's process
FACTORY = "coordinator.remote_rounds:connect"
_MAX_PATH = 100  # bytes; a UNIX socket's path is limited to about this on every system
_log = logging.getLogger(__name__)


def connect(job: str) -> Rounds:
    """Return the running coordinator's rounds of a job: the `RoundsFactory` of the ServerApp's process.

    Raises:
        BridgeError: the coordinator cannot be reached.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.connect(os.environ[SOCKET])
        return RemoteRounds(client, job)
    except (OSError, KeyError, BridgeError) as error:
        client.close()
        raise BridgeError(f"the coordinator cannot be reached ({type(error).__name__})") from error


class RemoteRounds:
    """The asking side."""

    def __init__(self, client: socket.socket, job: str) -> None:
        self._socket = client
        self._stream = client.makefile("rwb")
        self._send({"call": "begin", "job": job}, {})

    def next_exchange(self) -> Exchange | None:
        """See `Rounds`. Raises BridgeError when the coordinator ends the conversation."""
        self._send({"call": "next"}, {})
        header, arrays = receive(self._stream)
        if header.get("over"):
            return None
        try:
            configs = {int(node): read_config(config) for node, config in header["configs"]}
            return Exchange(
                round=header["round"], model=arrays["model"], configs=configs, deadline=header["deadline"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BridgeError(f"the coordinator's answer is malformed ({type(error).__name__})") from error

    def sent(self) -> None:
        """See `Rounds`."""
        self._send({"call": "sent"}, {})

    def receive(self, arrival: Arrival) -> None:
        """See `Rounds`."""
        header = {
            "call": "receive",
            "node": arrival.node_id,
            "config": write_config(arrival.config),
            "failure": arrival.failure,
        }
        arrays = {"update": arrival.update, "metrics": arrival.metrics}
        self._send(header, {name: array for name, array in arrays.items() if array is not None})

    def close(self) -> None:
        """See `Rounds`."""
        with suppress(BridgeError, OSError):
            self._send({"call": "close"}, {})
        with suppress(OSError):
            self._stream.close()
        self._socket.close()

    def _send(self, header: Mapping[str, Any], arrays: Arrays) -> None:
        send(self._stream, header, arrays)


class RoundsServer:
    """The answering side: one thread a connection. A context manager: leaving it ends every conversation."""

    def __init__(self, folder: Path, factory: RoundsFactory) -> None:
        """Open the socket and answer at once.

        Args:
            folder: Where the socket lies, if its path is short enough; a private temporary folder otherwise.
            factory: Makes the `Rounds` of a job.

        Raises:
            BridgeError: no socket can be opened.
        """
        self._factory = factory
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._temporary: str = ""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.path = self._bind(folder)
            self._listener.listen()
        except OSError as error:
            self._listener.close()
            raise BridgeError(f"cannot open a socket in {folder}: {error.strerror}") from error
        threading.Thread(target=self._accept, name="rounds", daemon=True).start()

    def __enter__(self) -> RoundsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every conversation and remove the socket. Idempotent."""
        with self._lock:
            self._closed = True
            connections = list(self._open)
        for end in (self._listener, *connections):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            if self._temporary:
                Path(self._temporary).rmdir()

    def _bind(self, folder: Path) -> Path:
        path = folder.resolve() / "rounds" / "socket"
        if len(os.fsencode(path)) > _MAX_PATH:
            self._temporary = tempfile.mkdtemp(prefix="wardround-")  # 0700
            path = Path(self._temporary) / "socket"
        else:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.parent.chmod(0o700)
            path.unlink(missing_ok=True)  # of a killed predecessor: the log's lock keeps living ones out
        self._listener.bind(str(path))
        return path

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            with self._lock:
                if self._closed:
                    connection.close()
                    return
                self._open.add(connection)
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rwb") as stream:
                _answer(stream, self._factory)
        except (CoordinatorError, LedgerError, OSError) as error:
            if not self._closed:
                _log.warning("the ServerApp's conversation ended: %s", error)
        finally:
            with self._lock:
                self._open.discard(connection)


def _answer(stream: Stream, factory: RoundsFactory) -> None:
    """Answer one ServerApp until it closes."""
    header, _ = receive(stream)
    if header.get("call") != "begin" or not isinstance(header.get("job"), str):
        raise BridgeError("the conversation does not begin with a job")
    rounds = factory(header["job"])
    try:
        _serve(stream, rounds)
    finally:
        rounds.close()


def _serve(stream: Stream, rounds: Rounds) -> None:
    while True:
        header, arrays = receive(stream)
        match header.get("call"):
            case "next":
                _send_exchange(stream, rounds.next_exchange())
            case "sent":
                rounds.sent()
            case "receive":
                rounds.receive(_arrival(header, arrays))
            case "close":
                return
            case _:
                raise BridgeError("an unknown request")


def _send_exchange(stream: Stream, exchange: Exchange | None) -> None:
    if exchange is None:
        send(stream, {"over": True}, {})
        return
    configs = [[node, write_config(config)] for node, config in exchange.configs.items()]
    header = {"round": exchange.round, "deadline": exchange.deadline, "configs": configs}
    send(stream, header, {"model": exchange.model})


def _arrival(header: Mapping[str, Any], arrays: Arrays) -> Arrival:
    try:
        return Arrival(
            node_id=int(header["node"]),
            config=read_config(header["config"]),
            update=arrays.get("update"),
            metrics=arrays.get("metrics"),
            failure=str(header["failure"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BridgeError(f"an arrival is malformed ({type(error).__name__})") from error
