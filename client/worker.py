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
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from client import building, frames, reviewed, sandbox, source
from client import dictionary as dictionaries
from client.config import Hospital
from client.errors import TrainingRefusedError, WorkerError
from client.exchange import Packed
from client.job_spec import JobSpec
from ledger import canonical

CODES = {  # what the worker says, and what a person should do about it
    "builder": "the process that builds a job's own model did not start",
    "crashed": "the worker ended unexpectedly; the round is lost, a new worker was started",
    "disk": "the worker cannot write: see to the disk",
    "file": "the data file cannot be used",
    "malformed": "the worker does not understand: are agent and worker of one version?",
    "memory": "the worker took more than limits.memory_mib and was ended: raise it, or refuse such jobs",
    "model": "the job's model or plan cannot be trained privately",
    "model-graph": "the job's own model is not one that is offered",
    "not-open": "the job is not open in this worker",
    "rows": "the data file must be corrected first: `wardround hospital check` says where",
    "secret": "keys/dataset.secret is missing: restore it from a backup",
    "size-class": "dataset.size_class is not the power of two nearest to the number of patients: "
    "`wardround hospital check` says which it is",
    "snapshot": "the job's snapshot is missing, or not the one that was committed to",
    "timeout": "the worker took too long and was ended",
}
OUT_OF_MEMORY = 77  # exit status, as `client.worker_main`
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
        self._command = list(command)
        self._clock = clock
        self._lock = threading.RLock()
        self._opened: set[str] = set()
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

    def is_free_within(self, seconds: float) -> bool:
        """Wait for the worker to have nothing in hand; tell whether it came to that in time."""
        free = self._lock.acquire(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))
        if free:
            self._lock.release()
        return free

    def survey(self, dictionary: bytes) -> None:
        """Have the data file examined. Raises WorkerError, with a line for the hospital's own screen."""
        self._ask("survey", self._where() | {"size_class": self._hospital.dataset.size_class}, dictionary)

    def warm(self) -> None:
        """Have everything imported that training needs."""
        self._ask("warm", {})

    def commit(self, dictionary: bytes, version: int) -> str:
        """Return a fresh commitment to the dataset, for its record."""
        return str(self._ask("commit", self._where() | {"version": version}, dictionary)[0]["cohort"])

    def prepare(self, spec: JobSpec, dictionary: bytes) -> str:
        """Take a job's one snapshot and try its model; return the commitment to its rows.

        Raises:
            DeclinedError: the job's own model.py does what no model may, or cannot be confined here.
            WorkerError: anything else.
        """
        header = {"spec": spec.to_json()}
        graph, shape = self._build(spec, dictionary)  # without the lock: rounds of other jobs go on meanwhile
        with self._lock:
            if graph:
                self._ask("model", header | {"input_shape": list(shape)}, graph)
            answer, _ = self._ask("prepare", self._where() | header, dictionary)
            self._opened.add(spec.job)
            return str(answer["cohort"])

    def open(self, spec: JobSpec, cohort: str) -> None:
        """Make sure that the worker of now holds the job's rows."""
        with self._lock:
            if spec.job not in self._opened:
                self._ask("open", {"spec": spec.to_json(), "cohort": cohort})
                self._opened.add(spec.job)

    def train(self, spec: JobSpec, parameters: bytes, seconds: float) -> tuple[Packed, bool]:
        """Train one round of an open job; return the update, and whether its noise is fit for production."""
        answer, body = self._ask("train", {"job": spec.job}, parameters, seconds)
        dtype = "int64" if spec.local_steps == 1 else "float32"
        return self._array(answer, body, dtype, (spec.parameters,)), answer.get("production") is True

    def histogram(
        self, spec: JobSpec, parameters: bytes, edges: Sequence[str], noise_multiplier: str, seconds: float
    ) -> tuple[Packed, bool]:
        """Return the noised score histogram, shape (2, bins), and whether its noise is fit for production."""
        header = {"job": spec.job, "edges": list(edges), "noise_multiplier": noise_multiplier}
        answer, body = self._ask("histogram", header, parameters, seconds)
        return self._array(answer, body, "int64", (2, len(edges) + 1)), answer.get("production") is True

    def forget(self, job: str) -> None:
        """Have a job's rows removed for good."""
        with self._lock:
            self._ask("forget", {"job": job})
            self._opened.discard(job)

    def _build(self, spec: JobSpec, dictionary: bytes) -> tuple[bytes, tuple[int, ...]]:
        """Return the graph of a job's own model, or nothing for a built-in one, and the shape of an example."""
        shape = dictionaries.from_bytes(dictionary).input_shape
        if spec.model != reviewed.CUSTOM:
            return b"", shape
        try:
            code = reviewed.source_of(self._hospital.models, spec.model_code)
        except TrainingRefusedError as error:
            raise WorkerError("model", str(error)) from None
        limits = self._hospital.limits
        return building.build(code, input_shape=shape, outputs=spec.outputs, limits=limits), shape

    def _where(self) -> dict[str, Any]:
        return {
            **self._hospital.place.to_json(),
            "secret": str(self._hospital.secret_file),
            "one_row_per_patient": self._hospital.dataset.one_row_per_patient,
        }

    def _array(self, answer: dict[str, Any], body: bytes, kind: str, shape: tuple[int, ...]) -> Packed:
        """Return an answer's numbers: of the one kind and size that this question has, or none."""
        dtype = _DTYPES[kind]
        if answer.get("dtype") != kind or len(body) != dtype.itemsize * int(np.prod(shape)):
            self._replace()
            raise WorkerError("crashed", CODES["crashed"])
        values: Packed = np.frombuffer(body, dtype).reshape(shape)
        return values

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
