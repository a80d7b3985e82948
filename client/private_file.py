"""Files that belong to the hospital alone: whole or absent after a crash, readable by their owner only."""

from __future__ import annotations

import os
from pathlib import Path

from client.errors import LocalStateError
from ledger import durable


def write_private(path: Path, data: bytes) -> None:
    """Replace a file's content in one step, on the disk when this returns.

    Raises:
        LocalStateError: the disk refuses; the file is as it was.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.write_private(path, data)
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
        durable.sync_folder(path.parent)
    except OSError as error:
        raise LocalStateError(f"cannot remove {path}: {error.strerror}; see to the disk") from None
