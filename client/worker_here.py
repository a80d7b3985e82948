"""A worker in this process: for simulations, whose rows are the data scientist's own. A hospital never uses it.

It does what the worker's process does, by the same commands; what is missing is the wall around it. A job's own
`model.py` is confined all the same: it is built in a process of its own (`client.building`).
"""

from __future__ import annotations

import os
from typing import Any

from client import job_initial
from client.config import Hospital
from client.errors import WorkerError
from client.worker_main import Worker
from client.worker_questions import CODES, PREPARE_SECONDS, Questions


class WorkerHere(Questions):
    """Answers in the thread that asks."""

    def __init__(self, hospital: Hospital) -> None:
        """Hold no rows yet.

        Args:
            hospital: Where data file and secret are, and where the snapshots go.
        """
        super().__init__(hospital)
        self._worker = Worker(hospital.folder / "worker")

    @property
    def pid(self) -> int:
        """This process."""
        return os.getpid()

    def adopt(self, hospital: Hospital) -> None:
        """Take changed settings."""
        with self._lock:
            self._hospital = hospital

    def close(self) -> None:
        """Forget the rows."""
        with self._lock:
            self._opened.clear()
            self._worker = Worker(self._hospital.folder / "worker")

    def _ask(
        self, command: str, header: dict[str, Any], body: bytes = b"", seconds: float = PREPARE_SECONDS
    ) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            answer, content = self._worker.answer({"command": command, **header}, body)
        code = str(answer["code"])
        if code != "ok":
            raise WorkerError(code, str(answer.get("line") or CODES[code]))
        return answer, content

    def _graph(self, code: bytes, shape: tuple[int, ...], outputs: int) -> bytes:
        return job_initial.built(code, shape, outputs)  # all simulated hospitals have one

    def _distrust(self) -> None:
        raise AssertionError("the worker of this process gave a senseless answer")
