"""The agent's side of the builder: starts it, gives it a job's `model.py`, and names what became of it.

The agent holds keys, so it looks at an answer's length and code only; the graph goes on to the worker, which reads it
as the work of an enemy. How a builder ended depends on the job's code and on this machine's limits, never on a row:
no builder ever meets one. That is why its code may stand on the record.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from client import frames, sandbox
from client.approval import REFUSALS
from client.errors import DeclinedError, WorkerError
from client.model_builder import STATUS
from client.settings import Limits

START_SECONDS = 120.0  # importing torch on a busy machine
MAX_GRAPH = 16 << 20  # bytes, as `client.model_graph`, which needs torch
MAX_LINE = 2000  # characters of what a builder says of a model
_SIGNALS: dict[int, str] = {
    signal.SIGSYS: "model-system",
    signal.SIGXCPU: "model-time",
    signal.SIGKILL: "model-memory",
}
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """A builder process, the leader of a group of its own."""

    pid: int
    reading: int  # what it says
    writing: int  # what it is told


def spawn(limits: Limits) -> Builder:
    """Start a builder: with no environment but where Python finds our sources, and no descriptor but its pipes."""
    reading, its_writing = os.pipe()
    its_reading, writing = os.pipe()
    root = str(Path(__file__).resolve().parent.parent)
    environment = {
        "PYTHONPATH": root,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "USER": "builder",  # torch asks for a name, and would look into the system's list of users
        "TORCHINDUCTOR_CACHE_DIR": "/",  # a folder that is there: torch makes sure of one, and writes nothing
        "LANG": "C.UTF-8",
    }
    command = [sys.executable, "-P", "-s", "-B", "-m", "client.model_builder"]
    try:
        pid = os.posix_spawn(
            sys.executable,
            [*command, str(limits.memory_mib), str(limits.model_seconds)],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, its_reading, 0),
                (os.POSIX_SPAWN_DUP2, its_writing, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,
        )
    finally:
        os.close(its_reading)
        os.close(its_writing)
    os.set_blocking(writing, False)
    return Builder(pid=pid, reading=reading, writing=writing)


def build(
    source: bytes,
    *,
    input_shape: Sequence[int],
    outputs: int,
    limits: Limits,
    start: Callable[[Limits], Builder] = spawn,
) -> bytes:
    """Have a job's `model.py` turned into a graph, which is as trustworthy as the code is.

    Args:
        source: Its bytes, checked against the job's digest.
        input_shape: Of one example; public.
        outputs: As the job says.
        limits: Memory and time that building may take.
        start: Starts the process.

    Raises:
        DeclinedError: the code does what no model may, or this machine cannot confine it; the code names it.
        WorkerError: the builder did not start.
    """
    if lacking := sandbox.available():
        raise DeclinedError("sandbox", lacking[0])
    builder = start(limits)
    try:
        _await_ready(builder)
        until = time.monotonic() + limits.model_seconds
        try:
            header = {"input_shape": list(input_shape), "outputs": outputs}
            frames.send(builder.writing, header, source, until=until)
            answer, graph = frames.receive(builder.reading, until=until, max_body=MAX_GRAPH)
        except TimeoutError:
            raise _declined("model-time") from None
        except (EOFError, OSError):
            raise _declined(_fate(builder.pid, until)) from None
    finally:
        end(builder)
    if answer.get("code") != "ok":
        raise _declined(_of_a_model(answer.get("code")), answer.get("line"))
    return graph


def _await_ready(builder: Builder) -> None:
    try:
        answer, _ = frames.receive(builder.reading, until=time.monotonic() + START_SECONDS, max_body=0)
    except (EOFError, OSError):
        raise WorkerError(
            "builder", "the process that builds a job's model did not start: see to memory"
        ) from None
    if answer.get("code") != "ready":
        raise _declined("sandbox", answer.get("line"))


def _of_a_model(code: object) -> str:
    """Return a code that job code chose, if it is about a model: it says nothing of the hospital on the record."""
    return str(code) if str(code).startswith("model-") else "model-crash"


def _declined(code: str, line: object = None) -> DeclinedError:
    """Return the refusal; its line is for the hospital's own screen, and may be the job's own words."""
    if code not in REFUSALS:
        code = "model-crash"
    words = "".join(c if c.isprintable() else " " for c in str(line or ""))[:MAX_LINE]
    return DeclinedError(code, words or REFUSALS[code])


def _fate(pid: int, until: float) -> str:
    """Return the code for a builder that ended, or closed its pipe, without an answer."""
    while True:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            break
        if time.monotonic() > until:
            return "model-time"
        time.sleep(_POLL_SECONDS)
    if ended.si_code == os.CLD_EXITED:
        return STATUS.get(ended.si_status, "model-crash")
    return _SIGNALS.get(ended.si_status, "model-crash")  # a number: not every signal has a name


def end(builder: Builder) -> None:
    """Kill the whole group, take the exit status, and close the pipes."""
    os.killpg(builder.pid, signal.SIGKILL)  # not yet waited for: the number is still its own
    os.waitpid(builder.pid, 0)
    os.close(builder.reading)
    os.close(builder.writing)
