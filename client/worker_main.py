"""The worker: the one process that reads patients' rows. It holds data, model and torch, and answers with codes.

Started by `client.worker`, which tells it over a pipe what to do (`COMMANDS`); the end of that pipe ends it. It
opens no connection, holds no key but the dataset's secret while it reads the file, and has no account. An answer
is a code of a fixed list, public bytes or a commitment; an error that nobody foresaw ends the process, and its
text, which could hold a value of a row, is written nowhere.

It confines itself before it reads anything (`client.sandbox`), and runs no code but ours: a job's own model reaches
it as a graph of numbers, which `client.model_graph` reads as the work of an enemy.

Commands that come before a job (`survey`, `prepare`) may refuse a file. After that no row can: `train` and
`histogram` answer with the same kind and size whatever the rows hold.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from client import dictionary as dictionaries
from client import frames, snapshot_file
from client.data import Snapshot, check_file, snapshot
from client.dictionary import Dictionary
from client.errors import (
    ClientError,
    DataError,
    DictionaryError,
    GraphError,
    LocalStateError,
    TrainingRefusedError,
)
from client.job_spec import JobSpec
from client.private_file import read_private, write_private
from client.reviewed import CUSTOM
from client.sandbox import WorkerRights, confine_worker
from client.source import Place
from ledger import canonical
from ledger.errors import MalformedError

if TYPE_CHECKING:
    from client.trainer import Trainer

SNAPSHOT, SALT, GRAPH = "snapshot", "salt", "graph"
MAX_GRAPH = 16 << 20  # bytes, as `client.model_graph`, which needs torch
OUT_OF_MEMORY = 77  # exit status
_PLAIN = WorkerRights(read=(), network=False, gpu=False, memory_mib=8192, threads=1)
_OK = {"code": "ok"}
_DIGEST = re.compile(r"[0-9a-f]{64}").fullmatch
Answer = tuple[dict[str, Any], bytes]


class _CodeError(ClientError):
    """What is asked cannot be done; the code says why."""


@dataclass(slots=True, kw_only=True)
class Rows:
    """Where the rows are, and how they are read. Never shown."""

    place: Place
    secret: bytes
    one_row_per_patient: bool

    @classmethod
    def of(cls, header: dict[str, Any]) -> Rows:
        """Read the place from a command's header."""
        secret = read_private(Path(header["secret"]), 4096)
        if secret is None:
            raise _CodeError("secret")
        return cls(
            place=Place.from_json(header),
            secret=secret,
            one_row_per_patient=bool(header["one_row_per_patient"]),
        )

    def snapshot(self, dictionary: Dictionary, salt: bytes) -> Snapshot:
        """Read the dataset into a snapshot."""
        return snapshot(
            self.place,
            dictionary,
            secret=self.secret,
            salt=salt,
            one_row_per_patient=self.one_row_per_patient,
        )


class Worker:
    """What the process holds: one trainer for each job that was opened."""

    def __init__(self, folder: Path, rights: WorkerRights = _PLAIN) -> None:
        self._folder = folder
        self._rights = rights
        self._trainers: dict[str, Trainer] = {}

    def answer(self, header: dict[str, Any], body: bytes) -> Answer:
        """Do one command; a refusal is an answer too."""
        try:
            return COMMANDS[header["command"]](self, header, body)
        except DataError as error:
            # Raised by the file or its header alone, never by a row, and before any job: a person must see it.
            return {"code": "file", "line": str(error)}, b""
        except (DictionaryError, MalformedError):
            return {"code": "malformed"}, b""
        except TrainingRefusedError as error:  # about the model and the plan, tried on random numbers
            code = "model-graph" if isinstance(error, GraphError) else "model"
            return {"code": code, "line": str(error)}, b""
        except LocalStateError:
            return {"code": "disk"}, b""
        except _CodeError as error:
            return {"code": str(error)}, b""

    def _warm(self, header: dict[str, Any], body: bytes) -> Answer:
        """Import what training needs, so that the first round does not wait for it."""
        from client import trainer  # seconds: not before the agent asks

        trainer.warm_up()
        return _OK, b""

    def _survey(self, header: dict[str, Any], body: bytes) -> Answer:
        """Look at the file before anything else starts: may it be used, and is the size class right?"""
        dictionary, rows = dictionaries.from_bytes(body), Rows.of(header)
        report = check_file(
            rows.place, dictionary, secret=rows.secret, one_row_per_patient=rows.one_row_per_patient
        )
        if report.refusals:
            return {"code": "rows"}, b""
        return {"code": "ok" if report.size_class == header["size_class"] else "size-class"}, b""

    def _commit(self, header: dict[str, Any], body: bytes) -> Answer:
        """Return a commitment to the dataset as it is now, for its record; the salt stays here."""
        dictionary, rows = dictionaries.from_bytes(body), Rows.of(header)
        salt = secrets.token_bytes(snapshot_file.SALT_SIZE)
        data = snapshot_file.to_bytes(rows.snapshot(dictionary, b""))
        write_private(self._folder / f"dataset-{header['version']}.{SALT}", salt)
        return {"code": "ok", "cohort": snapshot_file.commitment(data, salt)}, b""

    def _model(self, header: dict[str, Any], body: bytes) -> Answer:
        """Try the graph of a job's own model, before any row is read for the job, and keep it."""
        from client import trainer

        spec = JobSpec.from_json(header["spec"])
        trainer.try_graph(spec, body, tuple(header["input_shape"]))
        write_private(self._folder / spec.job / GRAPH, body)
        return _OK, b""

    def _prepare(self, header: dict[str, Any], body: bytes) -> Answer:
        """Take a job's one snapshot and try its model and plan; return the commitment to its rows."""
        from client import trainer

        spec, dictionary, rows = (
            JobSpec.from_json(header["spec"]),
            dictionaries.from_bytes(body),
            Rows.of(header),
        )
        taken = rows.snapshot(dictionary, bytes.fromhex(spec.job))
        made = trainer.Trainer(spec, taken, check=True, **self._means(spec))
        salt = secrets.token_bytes(snapshot_file.SALT_SIZE)
        data = snapshot_file.to_bytes(taken)
        folder = self._folder / spec.job
        write_private(folder / SALT, salt)
        write_private(folder / SNAPSHOT, data)
        self._trainers[spec.job] = made
        return {"code": "ok", "cohort": snapshot_file.commitment(data, salt)}, b""

    def _open(self, header: dict[str, Any], body: bytes) -> Answer:
        """Load a job's snapshot after a restart; only the one that the approval committed to."""
        spec = JobSpec.from_json(header["spec"])
        data = read_private(self._folder / spec.job / SNAPSHOT, snapshot_file.MAX_SIZE)
        salt = read_private(self._folder / spec.job / SALT, snapshot_file.SALT_SIZE)
        if data is None or salt is None or snapshot_file.commitment(data, salt) != header["cohort"]:
            raise _CodeError("snapshot")
        from client import trainer

        self._trainers[spec.job] = trainer.Trainer(
            spec, snapshot_file.from_bytes(data), check=False, **self._means(spec)
        )
        return _OK, b""

    def _means(self, spec: JobSpec) -> dict[str, Any]:
        """Return what a trainer works with besides the rows."""
        graph = read_private(self._folder / spec.job / GRAPH, MAX_GRAPH) if spec.model == CUSTOM else None
        return {"graph": graph or b"", "gpu": self._rights.gpu, "threads": self._rights.threads}

    def _train(self, header: dict[str, Any], body: bytes) -> Answer:
        """Train one round."""
        trainer = self._trainer(header)
        update, production = trainer.train(_parameters(trainer, body))
        return {"code": "ok", "dtype": update.dtype.name, "production": production}, _little_endian(update)

    def _histogram(self, header: dict[str, Any], body: bytes) -> Answer:
        """Score the held-out patients."""
        trainer = self._trainer(header)
        edges = [float(e) for e in header["edges"]]
        counts, production = trainer.histogram(_parameters(trainer, body), edges, header["noise_multiplier"])
        return {"code": "ok", "dtype": counts.dtype.name, "production": production}, _little_endian(counts)

    def _forget(self, header: dict[str, Any], body: bytes) -> Answer:
        """Remove a job's rows for good."""
        job = str(header["job"])
        if _DIGEST(job) is None:  # it becomes a path
            raise _CodeError("malformed")
        self._trainers.pop(job, None)
        try:
            for name in (SNAPSHOT, SALT, GRAPH):
                (self._folder / job / name).unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                (self._folder / job).rmdir()
        except OSError:
            raise _CodeError("disk") from None
        return _OK, b""

    def _trainer(self, header: dict[str, Any]) -> Trainer:
        if (found := self._trainers.get(header["job"])) is None:
            raise _CodeError("not-open")
        return found


COMMANDS: dict[str, Callable[[Worker, dict[str, Any], bytes], Answer]] = {
    "warm": Worker._warm,
    "survey": Worker._survey,
    "commit": Worker._commit,
    "model": Worker._model,
    "prepare": Worker._prepare,
    "open": Worker._open,
    "train": Worker._train,
    "histogram": Worker._histogram,
    "forget": Worker._forget,
}


def _parameters(trainer: Trainer, body: bytes) -> NDArray[np.float32]:
    if len(body) != 4 * trainer.parameters:
        raise _CodeError("malformed")
    return np.frombuffer(body, "<f4").astype(np.float32)


def _little_endian(values: NDArray[Any]) -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def serve(folder: Path, rights: WorkerRights, reading: int, writing: int) -> None:
    """Answer commands until the pipe ends."""
    worker = Worker(folder, rights)
    while True:
        try:
            header, body = frames.receive(reading)
        except EOFError:
            return
        frames.send(writing, *worker.answer(header, body))


def _say_where(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Name the kind and the place of a fault, and nothing of what it says: that could hold a value."""
    places = traceback.extract_tb(trace)
    where = f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else "start"
    os.write(_SCREEN, f"the worker ended: {kind.__name__} at {where}\n".encode())


_SCREEN = 2


def main() -> None:
    """Become the worker: commands on standard input, answers on standard output, nothing else on either."""
    global _SCREEN
    writing, _SCREEN = os.dup(1), os.dup(2)
    sys.excepthook = _say_where
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what a library prints goes nowhere
    os.dup2(nowhere, 2)
    os.umask(0o077)
    folder = Path(sys.argv[1]).resolve()
    rights = canonical.build(WorkerRights, json.loads(sys.argv[2])) if len(sys.argv) > 2 else _PLAIN
    tempfile.tempdir = os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)  # torch asks for both
    try:
        confine_worker(folder, rights)
        serve(folder, rights, 0, writing)
    except (BrokenPipeError, KeyboardInterrupt):
        return
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate memory" not in str(error):  # torch says it so
            raise
        sys.exit(OUT_OF_MEMORY)


if __name__ == "__main__":
    main()
