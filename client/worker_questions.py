"""What an agent asks of a worker, wherever that is: a process of its own at a hospital, this process in a simulation.

Every question may be answered by a `WorkerError`: what it was for (a round) is lost then; the charge stands, nothing
is tried again.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from client import building, reviewed
from client import dictionary as dictionaries
from client.config import Hospital
from client.errors import TrainingRefusedError, WorkerError
from client.exchange import Packed
from client.job_spec import JobSpec

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
PREPARE_SECONDS = 600.0  # reading a file and trying a model
_DTYPES: dict[str, np.dtype[Any]] = {
    "int64": np.dtype("<i8"),
    "float32": np.dtype("<f4"),
}


class Questions(ABC):
    """Asks a worker, one question at a time; may be used from several threads."""

    def __init__(self, hospital: Hospital) -> None:
        """Ask nothing yet.

        Args:
            hospital: Where data file, secret and the worker's own folder are.
        """
        self._hospital = hospital
        self._lock = threading.RLock()
        self._opened: set[str] = set()

    @property
    @abstractmethod
    def pid(self) -> int:
        """The process id of the worker of now."""

    @abstractmethod
    def adopt(self, hospital: Hospital) -> None:
        """Take changed settings."""

    @abstractmethod
    def close(self) -> None:
        """End the worker; safe to call twice, from any thread, also while it works."""

    @abstractmethod
    def _ask(
        self, command: str, header: dict[str, Any], body: bytes = b"", seconds: float = PREPARE_SECONDS
    ) -> tuple[dict[str, Any], bytes]:
        """Return the answer to one question. Raises WorkerError."""

    @abstractmethod
    def _distrust(self) -> None:
        """Go on without a worker that gave a senseless answer."""

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
        return self._graph(code, shape, spec.outputs), shape

    def _graph(self, code: bytes, shape: tuple[int, ...], outputs: int) -> bytes:
        """Return the graph that a job's own model becomes. Raises DeclinedError, WorkerError."""
        return building.build(code, input_shape=shape, outputs=outputs, limits=self._hospital.limits)

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
            self._distrust()
            raise WorkerError("crashed", CODES["crashed"])
        values: Packed = np.frombuffer(body, dtype).reshape(shape)
        return values
