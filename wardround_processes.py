"""A consortium's processes on one machine, started by the commands that its people would type."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from coordinator.errors import ServiceError

STOP_SECONDS = 10
OUTPUT = "output.log"  # in each folder: what its process says


@contextmanager
def running(coordinator: Path, hospitals: Mapping[str, Path]) -> Iterator[Callable[[], None]]:
    """Start the coordinator and the hospitals; yield a check that all still run; stop them at the end.

    Args:
        coordinator: Its folder.
        hospitals: Each hospital's, by name.

    Raises:
        ServiceError: by the check: a process ended by itself; its last line says why.
    """
    folders = {"coordinator": coordinator, **hospitals}
    children: dict[str, subprocess.Popen[bytes]] = {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}

    def check() -> None:
        for name, child in children.items():
            if child.poll() is not None:
                raise ServiceError(f"{name} stopped: {_last_line(folders[name] / OUTPUT)}")

    try:
        for name, folder in folders.items():
            words = ("coordinator", "up") if name == "coordinator" else ("hospital", "run")
            with (folder / OUTPUT).open("wb") as output:
                children[name] = subprocess.Popen(
                    [sys.executable, "-m", "wardround", *words, str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for whoever started them, and stops them in order
                )
        yield check
    finally:
        _stop(list(children.values()))


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for child in children:
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"no word in {log}"
