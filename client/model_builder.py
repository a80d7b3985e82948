"""The builder: a process that runs a job's `model.py` once, without data, keys, files or network, and ends.

Started by `client.building`. It imports all that a model may use, gives up every right, says that it is ready, and
only then reads the job's bytes from its pipe. What it writes back is a graph that whoever reads it must check: after
the first line of the job's code nothing here can be relied on but the kernel.

A model may import what was imported before: torch, numpy, and of the standard library what `_MODULES` lists.

The audit hook and the exit status put a name to what the job's code tried, for the record; code that gets round them
is stopped by the kernel all the same, and is then named less exactly.
"""

from __future__ import annotations

import importlib
import linecache
import os
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from types import CodeType, ModuleType
from typing import Any

from client import frames, sandbox
from client.approval import REFUSALS
from client.errors import ModelRefusedError, SandboxError

STATUS = {  # exit status: what the job's code tried
    71: "model-network",
    72: "model-file",
    73: "model-process",
    74: "model-system",
}
_CAUSES = {"allocate memory": "model-memory", "can't start new thread": "model-process"}  # words of an error
_MODULES = (
    "__future__", "abc", "array", "base64", "bisect", "cmath", "collections", "collections.abc", "contextlib", "copy",
    "dataclasses", "decimal", "enum", "fractions", "functools", "heapq", "inspect", "itertools", "json", "logging",
    "math", "numbers", "numpy", "operator", "random", "re", "statistics", "string", "textwrap", "types", "typing",
    "warnings", "torch.nn.functional", "torch.nn.init", "torch.nn.utils.parametrizations",
)  # fmt: skip
_EVENTS = (  # beginnings of the names of Python's audit events, and what each means
    (("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "imaplib.", "poplib.", "telnetlib."), 71),
    (("open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link"), 72),
    (
        ("os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime", "os.chdir", "shutil.", "tempfile."),
        72,
    ),
    (("os.walk", "os.fwalk", "glob.", "pathlib.", "sqlite3.", "os.getxattr", "os.setxattr"), 72),
    (("os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.", "pty."), 73),
    (("os.kill", "os.killpg", "signal.pthread_kill", "os.startfile"), 73),
    (("ctypes.dlopen", "ctypes.dlsym", "ctypes.call_function", "ctypes.string_at", "ctypes.cdata"), 74),
)


def warm_up() -> None:
    """Import and use once all that building needs: afterwards nothing can be imported."""
    import torch
    from torch import nn

    from client import model_export, models

    torch.set_num_threads(1)
    for name in _MODULES:
        importlib.import_module(name)
    settings = models.ModelSettings(name="small-cnn", input_shape=models.IMAGE_SHAPE)
    model_export.export(models.build(settings), models.IMAGE_SHAPE)
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    model_export.export(nn.Sequential(nn.Unflatten(1, (2, 4)), layer, nn.Flatten(), nn.Linear(8, 1)), (8,))


def compiled(source: bytes) -> CodeType:
    """Return a job's `model.py` ready to run. Raises ModelRefusedError: it is no Python."""
    try:
        return compile(source, "model.py", "exec")
    except (SyntaxError, ValueError) as error:
        raise _named(error, "model-crash", "model.py is no Python") from None


def build(code: CodeType, input_shape: Sequence[int], outputs: int) -> bytes:
    """Run a job's `model.py` and return the graph of `build_model(input_shape=..., outputs=...)` of it.

    Raises:
        ModelRefusedError: it gives no model, or one that cannot be trained privately; any other error is the code's.
    """
    import torch
    from torch import nn

    from client.model_export import export
    from client.models import JOB_CODE_ERRORS

    torch.manual_seed(0)  # so that constants that a model draws are the same at every hospital
    random.seed(0)
    module = ModuleType("model")
    try:
        exec(code, module.__dict__)  # noqa: S102  # what this process is for
        model = module.build_model(input_shape=tuple(input_shape), outputs=outputs)
    except JOB_CODE_ERRORS as error:
        raise _named(error, "model-crash", "model.py does not build a model") from None
    if not isinstance(model, nn.Module):
        raise ModelRefusedError("model-crash", "model.py: build_model must return a torch.nn.Module")
    try:
        return export(model, tuple(input_shape))
    except JOB_CODE_ERRORS as error:
        raise _named(
            error, "model-graph", "the model cannot be written as a graph of torch's operations"
        ) from None


def _named(error: Exception, code: str, words: str) -> ModelRefusedError:
    for part, cause in _CAUSES.items():
        if part in str(error):
            return ModelRefusedError(cause, REFUSALS[cause])
    reason = "" if isinstance(error, RecursionError) else f": {' '.join(str(error).split())[:160]}"
    return ModelRefusedError(code, f"{words}: {type(error).__name__}{reason}")


def answer(reading: int, writing: int, sizes: int, memory_mib: int, seconds: int) -> None:
    """Give up every right, take one job's code from a pipe, and write its graph, or why there is none.

    Args:
        reading: The pipe that the code comes from.
        writing: The pipe that the graph goes into.
        sizes: What `sandbox.confine_files` returned.
        memory_mib: What building may take, MiB.
        seconds: Processor time that it may take.

    Raises:
        SandboxError: this machine cannot confine it; nothing was read.
    """
    sandbox.confine_calls(sizes, memory_mib=memory_mib, seconds=seconds)
    frames.send(writing, {"code": "ready"})
    header, source = frames.receive(reading)
    linecache.updatecache = _no_lines
    try:
        code = compiled(source)
        sys.addaudithook(_watcher(os._exit))
        graph = build(code, header["input_shape"], header["outputs"])
    except ModelRefusedError as error:
        frames.send(writing, {"code": error.code, "line": str(error)})
    except MemoryError:
        frames.send(writing, {"code": "model-memory"})
    else:
        frames.send(writing, {"code": "ok"}, graph)


def _no_lines(filename: str, module_globals: dict[str, Any] | None = None) -> list[str]:
    """Stand in for `linecache`: torch notes where a node comes from, and would open our sources to quote it."""
    return []


def _watcher(leave: Callable[[int], object]) -> Callable[[str, tuple[Any, ...]], None]:
    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and args and isinstance(args[0], int):
            return  # a descriptor that it has already
        if event in ("open", "os.listdir") and sys._getframe(1).f_code.co_filename.startswith(
            "<frozen importlib"
        ):
            return  # an import: it finds nothing, and says so
        for beginnings, status in _EVENTS:
            if event.startswith(beginnings):
                leave(status)

    return watch


def main() -> None:
    """Become the builder: a job's code on standard input, an answer on standard output."""
    memory_mib, seconds = int(sys.argv[1]), int(sys.argv[2])
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # whatever a library of the agent's left to be inherited
    writing = os.dup(1)
    os.dup2(2, 1)  # standard error is nowhere: what the code prints goes there
    os.chdir("/")
    tempfile.tempdir = "/"  # torch asks for a name, and writes nothing there
    try:
        sizes = sandbox.confine_files()
        warm_up()
        answer(0, writing, sizes, memory_mib, seconds)
    except SandboxError as error:
        frames.send(writing, {"code": "sandbox", "line": str(error)})
    os._exit(0)  # no handler of the job's code runs


if __name__ == "__main__":
    main()
