"""Files that belong to their owner alone: whole or absent after a crash, and on the disk when a call returns.

Both sides keep keys, approvals and decisions in such files. What a failure means is for the caller: here it stays an
OSError. The files of a log have rules of their own (`ledger.disk`).
"""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE = 0o600


def write_private(path: Path, content: bytes) -> None:
    """Replace a file's content in one step; it is readable by its owner alone from its first byte.

    Raises:
        OSError: the disk refuses; the file is as it was, unless only the sync of its folder failed.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, PRIVATE)
    try:
        os.fchmod(descriptor, PRIVATE)  # a file left by a crash keeps its old mode otherwise
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power failure. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
