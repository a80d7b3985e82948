"""One process, or thread, at a time: whoever comes later waits for its turn at a file or folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client.errors import LocalStateError

_STEP = 0.02  # seconds between tries


@contextmanager
def turn(path: Path, *, seconds: float, make: bool = False) -> Iterator[None]:
    """Hold a file or folder alone; the end of the process ends that, too.

    Args:
        path: The file or folder.
        seconds: How long to wait for whoever holds it.
        make: Whether it is a file, to be made where there is none.

    Raises:
        LocalStateError: it cannot be opened, or was held for longer.
    """
    flags = os.O_RDWR | os.O_CREAT if make else os.O_RDONLY
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LocalStateError(f"cannot write {path}: {error.strerror}; see to the disk") from None
    try:
        until = time.monotonic() + seconds
        while not _taken(descriptor):
            if time.monotonic() > until:
                raise LocalStateError(f"{path} is held by another command: end that one first")
            time.sleep(_STEP)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
