"""The agent's side of the worker: starts the process, asks it, and survives whatever becomes of it.

One question at a time. A worker that dies, hangs past its time or says something unexpected is killed and a new
one is started at once; the question is answered by a `WorkerError`, and what it was for (a round) is lost: the
charge stands, nothing is tried again.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from client import frames
from client.config import Hospital
from client.errors import WorkerError
from client.exchange import Packed
from client.job_spec import JobSpec

CODES = {  # what the worker says, and what a person should do about it
    "crashed": "the worker ended unexpectedly; the round is lost, a new worker was started",
    "disk": "the worker cannot write: see to the disk",
    "file": "the data file cannot be used",
    "malformed": "the worker does not understand: are agent and worker of one version?",
    "model": "the job's model or plan cannot be trained privately",
    "not-open": "the job is not open in this worker",
    "rows": "the data file must be corrected first: `wardround hospital check` says where",
    "secret": "keys/dataset.secret is missing: restore it from a backup",
    "size-class": "dataset.size_class is not the power of two nearest to the number of patients: "
    "`wardround hospital check` says which it is",
    "snapshot": "the job's snapshot is missing, or not the one that was committed to",
    "timeout": "the worker took too long and was ended",
}
PREPARE_SECONDS = 600.0  # reading a file and trying a model
STOP_SECONDS = 2.0
_DTYPES: dict[str, np.dtype[Any]] = {
    "int64": np.dtype("<i8"),
    "float32": np.dtype("<f4"),
}
_log = logging.getLogger(__name__)


class Worker:
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
        self._hospital = hospital
        self._folder = hospital.folder / "worker"
        self._command = list(command) or [sys.executable, "-P", "-m", "client.worker_main", str(self._folder)]
        self._clock = clock
        self._lock = threading.RLock()
        self._opened: set[str] = set()
        self._closed = False
        self._process = self._spawn()

    @property
    def pid(self) -> int:
        """The process id of the worker of now."""
        return self._process.pid

    def close(self) -> None:
        """End the worker; safe to call twice, from any thread, also while it works."""
        self._closed = True
        self._end()

    def survey(self, dictionary: bytes) -> None:
        """Have the data file examined. Raises WorkerError, with a line for the hospital's own screen."""
        self._ask("survey", self._where() | {"size_class": self._hospital.dataset.size_class}, dictionary)

    def warm(self) -> None:
        """Have everything imported that training needs."""
        self._ask("warm", {})

    def commit(self, dictionary: bytes, version: int) -> str:
        """Return a fresh commitment to the dataset, for its record."""
        return str(self._ask("commit", self._where() | {"version": version}, dictionary)[0]["cohort"])

    def _models(self) -> dict[str, str]:
        return {"models": str(self._hospital.models)}

    def prepare(self, spec: JobSpec, dictionary: bytes) -> str:
        """Take a job's one snapshot and try its model; return the commitment to its rows."""
        with self._lock:
            answer, _ = self._ask(
                "prepare", self._where() | {"spec": spec.to_json()} | self._models(), dictionary
            )
            self._opened.add(spec.job)
            return str(answer["cohort"])

    def open(self, spec: JobSpec, cohort: str) -> None:
        """Make sure that the worker of now holds the job's rows."""
        with self._lock:
            if spec.job not in self._opened:
                self._ask("open", {"spec": spec.to_json(), "cohort": cohort} | self._models())
                self._opened.add(spec.job)

    def train(self, spec: JobSpec, parameters: bytes, seconds: float) -> tuple[Packed, bool]:
        """Train one round of an open job; return the update, and whether its noise is fit for production."""
        answer, body = self._ask("train", {"job": spec.job}, parameters, seconds)
        return self._array(answer, body, (spec.parameters,)), answer.get("production") is True

    def histogram(
        self, spec: JobSpec, parameters: bytes, edges: Sequence[str], noise_multiplier: str, seconds: float
    ) -> tuple[Packed, bool]:
        """Return the noised score histogram, shape (2, bins), and whether its noise is fit for production."""
        header = {"job": spec.job, "edges": list(edges), "noise_multiplier": noise_multiplier}
        answer, body = self._ask("histogram", header, parameters, seconds)
        return self._array(answer, body, (2, len(edges) + 1)), answer.get("production") is True

    def forget(self, job: str) -> None:
        """Have a job's rows removed for good."""
        with self._lock:
            self._ask("forget", {"job": job})
            self._opened.discard(job)

    def _where(self) -> dict[str, Any]:
        return {
            **self._hospital.place.to_json(),
            "secret": str(self._hospital.secret_file),
            "one_row_per_patient": self._hospital.dataset.one_row_per_patient,
        }

    def _array(self, answer: dict[str, Any], body: bytes, shape: tuple[int, ...]) -> Packed:
        dtype = _DTYPES.get(str(answer.get("dtype")))
        if dtype is None or len(body) != dtype.itemsize * int(np.prod(shape)):
            self._replace()
            raise WorkerError("crashed", CODES["crashed"])
        values: Packed = np.frombuffer(body, dtype).reshape(shape)
        return values

    def _ask(
        self, command: str, header: dict[str, Any], body: bytes = b"", seconds: float = PREPARE_SECONDS
    ) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            until = self._clock() + seconds
            try:
                frames.send(_end_of(self._process.stdin), {"command": command, **header}, body, until=until)
                answer, content = frames.receive(_end_of(self._process.stdout), until=until)
            except (EOFError, OSError, ValueError) as error:  # ValueError: closed meanwhile
                self._replace()
                code = "timeout" if isinstance(error, TimeoutError) else "crashed"
                raise WorkerError(code, CODES[code]) from None
        code = str(answer.get("code"))
        if code != "ok":
            code = code if code in CODES else "malformed"
            raise WorkerError(code, str(answer.get("line") or CODES[code]))
        return answer, content

    def _replace(self) -> None:
        """End a worker that cannot be trusted any more and start another, which holds nothing yet."""
        self._end()
        self._opened.clear()
        if not self._closed:
            _log.warning("a new worker is started in place of one that failed")
            self._process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
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
