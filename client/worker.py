"""The agent's side of the worker: starts the process, asks it, and survives whatever becomes of it.

One question at a time. A worker that dies, hangs past its time or says something unexpected is killed and a new
one is started at once; the question is answered by a `WorkerError`, and what it was for (a round) is lost: the
charge stands, nothing is tried again.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from client import frames, sandbox, source
from client.config import Hospital
from client.errors import WorkerError
from client.worker_questions import CODES, PREPARE_SECONDS, Questions
from ledger import canonical

OUT_OF_MEMORY = 77  # exit status, as `client.worker_main`
STOP_SECONDS = 2.0
_log = logging.getLogger(__name__)


class Worker(Questions):
    """A warm worker process; may be used from several threads, one after the other."""

    def __init__(
        self, hospital: Hospital, command: Sequence[str] = (), clock: Callable[[], float] = time.monotonic
    ):
        """Start the process.

        Args:
            hospital: Where data file, secret and the worker's own folder are.
            command: The process to start instead, for tests.
            clock: Monotonic seconds.
        """
        super().__init__(hospital)
        self._folder = hospital.folder / "worker"
        self._command = list(command)
        self._clock = clock
        self._fate = "crashed"  # of the worker before this one
        self._closed = False
        if lacking := sandbox.available():
            _log.warning("the worker runs less confined than it could: %s", lacking[0])
        self._process = self._spawn()

    @property
    def pid(self) -> int:
        """The process id of the worker of now."""
        return self._process.pid

    def adopt(self, hospital: Hospital) -> None:
        """Take changed settings; where limits changed, the worker is replaced once it has nothing in hand."""
        with self._lock:
            changed = hospital.limits != self._hospital.limits
            self._hospital = hospital
            if changed and not self._closed:
                self._end()
                self._opened.clear()
                self._process = self._spawn()

    def close(self) -> None:
        """End the worker; safe to call twice, from any thread, also while it works."""
        self._closed = True
        self._end()
        with suppress(OSError):  # an agent that could not start leaves nothing behind
            self._folder.rmdir()

    def _ask(
        self, command: str, header: dict[str, Any], body: bytes = b"", seconds: float = PREPARE_SECONDS
    ) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            until = self._clock() + seconds
            if "file" in header and self._places() != self._allowed:
                self._replace("its files were replaced by others")
            try:
                frames.send(_end_of(self._process.stdin), {"command": command, **header}, body, until=until)
                answer, content = frames.receive(_end_of(self._process.stdout), until=until)
            except (EOFError, OSError, ValueError) as error:  # ValueError: closed meanwhile
                self._replace()
                code = "timeout" if isinstance(error, TimeoutError) else self._fate
                raise WorkerError(code, CODES[code]) from None
        code = str(answer.get("code"))
        if code != "ok":
            code = code if code in CODES else "malformed"
            words = "".join(c if c.isprintable() else " " for c in str(answer.get("line") or ""))[:500]
            raise WorkerError(code, words or CODES[code])  # the words are for the hospital's own screen
        return answer, content

    def _distrust(self) -> None:
        self._replace()

    def _replace(self, why: str = "it failed") -> None:
        """End a worker that cannot be trusted any more and start another, which holds nothing yet."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)  # one that has closed its pipe is about to say how it ended
        self._end()
        self._fate = "memory" if self._process.returncode == OUT_OF_MEMORY else "crashed"
        self._opened.clear()
        if not self._closed:
            _log.warning("a new worker is started: %s", why)
            self._process = self._spawn()

    def _rights(self) -> sandbox.WorkerRights:
        hospital, limits = self._hospital, self._hospital.limits
        places = [*source.needed(hospital.place), hospital.secret_file]
        return sandbox.WorkerRights(
            read=tuple(map(str, places)),
            network=hospital.dataset.kind == "sql",
            gpu=limits.gpu,
            memory_mib=limits.memory_mib,
            threads=limits.threads,
        )

    def _places(self) -> list[tuple[int, int] | None]:
        """Return which files the worker may read: the kernel's right is to a file, not to its name."""
        found: list[tuple[int, int] | None] = []
        for place in self._rights().read:
            try:
                status = Path(place).stat()
            except OSError:
                found.append(None)
            else:
                found.append((status.st_dev, status.st_ino))
        return found

    def _spawn(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        self._allowed, rights = self._places(), self._rights()
        standard = [sys.executable, "-P", "-m", "client.worker_main", str(self._folder)]
        threads = str(rights.threads)
        environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        environment["OPENBLAS_NUM_THREADS"] = "1"  # numpy's would start before the worker is confined
        if not rights.gpu:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        process = subprocess.Popen(
            self._command or [*standard, json.dumps(canonical.plain(rights))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=os.environ | environment,
            start_new_session=True,  # Ctrl-C is for the agent, which ends its worker in order
        )
        os.set_blocking(_end_of(process.stdin), False)
        return process

    def _end(self) -> None:
        process = self._process
        process.kill()  # it holds nothing that a kill could damage: every file is whole or absent
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _end_of(pipe: IO[bytes] | None) -> int:
    if pipe is None:
        raise AssertionError("started with pipes")
    return pipe.fileno()
