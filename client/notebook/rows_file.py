"""What a notebook gives as a hospital's data, as a file that a hospital has: by its path, or written privately."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np

from client.dictionary import Dictionary
from client.errors import DataError, LocalStateError
from client.notebook.in_memory import ImagesInMemory, TableInMemory, from_arrays, from_frame

KINDS = {".csv": "csv", ".parquet": "parquet", ".npz": "npz"}  # by the end of a file's name


def of(name: str, given: object, dictionary: Dictionary, folder: Path) -> tuple[str, Path, bool]:
    """Return how a dataset is read, its file, and whether the file was written here.

    Args:
        name: The hospital.
        given: A DataFrame with the dictionary's columns, a pair of arrays (inputs, labels), or a path.
        dictionary: What the columns are.
        folder: Where a file is written; made if absent, for its owner alone.

    Raises:
        DataError: it is no dataset, a column is missing, or the file is not there; names the hospital.
        LocalStateError: the disk refuses.
    """
    if isinstance(given, str | Path):
        path = Path(given)
        if not path.exists():
            raise DataError(
                f"{name}: {path} is not there: correct the path, which is relative to {Path.cwd()}"
            )
        return ("images" if path.is_dir() else KINDS.get(path.suffix.lower(), "csv")), path, False
    try:
        if isinstance(given, tuple) and len(given) == 2:
            rows, header = from_arrays(given[0], given[1], dictionary), dictionary.columns
        elif hasattr(given, "columns") and hasattr(given, "iloc"):
            frame: Any = given
            rows, header = from_frame(frame, dictionary), tuple(map(str, frame.columns))
        else:
            raise DataError(
                f"a {type(given).__name__} is no dataset: give a DataFrame, a pair of arrays (inputs, labels), or a "
                "path"
            )
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if isinstance(rows, ImagesInMemory):
            return "npz", _images(folder / f"{name}.npz", rows, dictionary), True
        assert isinstance(rows, TableInMemory)  # what both readers of tables return
        return "csv", _table(folder / f"{name}.csv", rows, header), True
    except OSError as error:
        raise LocalStateError(f"cannot write below {folder}: {error.strerror}; see to the disk") from None


def _table(path: Path, rows: TableInMemory, header: tuple[str, ...]) -> Path:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(zip(*rows.whole, strict=True))
    return path


def _images(path: Path, rows: ImagesInMemory, dictionary: Dictionary) -> Path:
    names = (dictionary.label.name, *filter(None, (dictionary.patient, dictionary.split)))
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        np.savez(file, images=rows.images, **dict(zip(names, map(np.array, rows.rest), strict=True)))
    return path
