"""A builder by fork, for tests with many model files: all is imported once, then each file has its own process.

The child does what `client.model_builder` does after its imports: the same confinement, the same words on the pipe.
What differs: it starts with a copy of the tests' memory, where the real one starts with nothing.
"""

from __future__ import annotations

import os
import sys

from client import building, model_builder, sandbox
from client.building import Builder
from client.settings import Limits

LIMITS = Limits(threads=1, memory_mib=512, model_seconds=60, gpu=False)
SHAPE = (5,)
_PIPE = 3


def fork(limits: Limits) -> Builder:
    """Start a builder; `model_builder.warm_up` was called before."""
    reading, its_writing = os.pipe()
    its_reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _become(its_reading, its_writing, limits)
        finally:
            os._exit(1)
    os.setpgid(pid, pid)  # the child does it too: whichever comes first
    os.close(its_reading)
    os.close(its_writing)
    os.set_blocking(writing, False)
    return Builder(pid=pid, reading=reading, writing=writing)


def _become(reading: int, writing: int, limits: Limits) -> None:
    os.setpgid(0, 0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    kept = [os.dup(fd) for fd in (reading, nowhere, nowhere, writing)]
    for fd, source in enumerate(kept):
        os.dup2(source, fd)
    os.closerange(_PIPE + 1, 4096)
    sys.stdout = sys.stderr = os.fdopen(2, "w")  # the tests' own are closed now
    os.chdir("/")
    sizes = sandbox.confine_files()
    model_builder.answer(0, _PIPE, sizes, limits.memory_mib, limits.model_seconds)
    os._exit(0)


def build(source: str, limits: Limits = LIMITS) -> bytes:
    """Return the graph of a model file. Raises what `client.building.build` does."""
    return building.build(source.encode(), input_shape=SHAPE, outputs=1, limits=limits, start=fork)
