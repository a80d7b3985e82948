"""Files that belong to the hospital alone: whole or absent after a crash, readable by their owner only."""

from __future__ import annotations

import os
from pathlib import Path

from client.errors import LocalStateError


def write_private(path: Path, data: bytes) -> None:
    """Replace a file's content in one step, on the disk when this returns.

    Raises:
        LocalStateError: the disk refuses; the file is as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # a file that a crash left keeps its old mode otherwise
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise LocalStateError(f"cannot write {path}: {error.strerror}; see to the disk") from None


def read_private(path: Path, max_size: int) -> bytes | None:
    """Return a file's content, or None where there is no such file.

    Raises:
        LocalStateError: it cannot be read, or is larger than `max_size` bytes.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size  # reading takes as much memory as is asked for
            data = file.read(min(size, max_size) + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LocalStateError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > max_size:
        raise LocalStateError(f"{path} is larger than {max_size} bytes: it is not what it should be")
    return data


def remove_private(path: Path) -> None:
    """Remove a file, if it is there; it is gone from the disk when this returns. Raises LocalStateError."""
    try:
        path.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise LocalStateError(f"cannot remove {path}: {error.strerror}; see to the disk") from None
