"""Models that a person of this hospital has read: the Python files in `models/` of its folder, by their digest.

The agent never writes there, and nothing that comes over the network does: a job whose model is not built in is
approved only if somebody has put exactly its `model.py` there beforehand.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from client.errors import LocalStateError, TrainingRefusedError

FOLDER = "models"
MAX_SIZE = 1 << 20  # bytes of one file
CUSTOM = "custom"  # what a job names its model when it brings its own


def reviewed(folder: Path) -> dict[str, Path]:
    """Return every reviewed model file, by the SHA-256 of its bytes in lowercase hex.

    Raises:
        LocalStateError: the folder is there and cannot be read.
    """
    try:
        files = [p for p in sorted(folder.glob("*.py")) if p.stat().st_size <= MAX_SIZE]
        return {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in files}
    except OSError as error:
        raise LocalStateError(f"cannot read {folder}: {error.strerror}") from None


def source_of(folder: Path, digest: str) -> bytes:
    """Return the bytes of a reviewed model file.

    Args:
        folder: The hospital's.
        digest: SHA-256 of the file in lowercase hex, as the job states it.

    Raises:
        TrainingRefusedError: nobody here has read such a file.
        LocalStateError: the folder is there and cannot be read.
    """
    if (path := reviewed(folder).get(digest)) is not None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise LocalStateError(f"cannot read {path}: {error.strerror}") from None
        if hashlib.sha256(data).hexdigest() == digest:  # not what the path held a moment before
            return data
    raise TrainingRefusedError("the job's model.py is not among the files that this hospital has read")
