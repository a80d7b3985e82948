"""Rows that a notebook holds in memory, as a source: a DataFrame, or a pair of arrays with inputs and labels.

They go the way of a file's rows (`client.data`): each value becomes the text that a CSV file of them would hold, so
the same rules keep or drop a row, the same public ranges scale it, and the same patients stand on the same side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.cell_text import identity, text_of
from client.dictionary import Dictionary
from client.errors import DataError
from client.source import Record, Source

TORN = "no row"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInMemory:
    """Columns of text, in the dictionary's order. Never printed."""

    columns: tuple[Sequence[str], ...] = field(repr=False)  # the dictionary's, one text a row
    whole: tuple[Sequence[str], ...] = field(repr=False)  # all columns: what a row is known by
    inputs: int
    torn: str = TORN

    def records(self) -> Iterator[Record | None]:
        """Yield each row."""
        for cells, everything in zip(
            zip(*self.columns, strict=True), zip(*self.whole, strict=True), strict=True
        ):
            yield Record(cells[: self.inputs], cells[self.inputs :], identity(everything))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesInMemory:
    """Images with a label each. Never printed."""

    images: NDArray[Any] = field(repr=False)
    rest: tuple[Sequence[str], ...] = field(repr=False)
    torn: str = TORN

    def records(self) -> Iterator[Record | None]:
        """Yield each image."""
        for image, rest in zip(self.images, zip(*self.rest, strict=True), strict=True):
            yield Record(image, rest, hashlib.sha256(image.tobytes()).digest())  # as in an .npz file


def from_frame(frame: Any, dictionary: Dictionary) -> Source:
    """Return a DataFrame's rows.

    Args:
        frame: A pandas DataFrame whose columns are the dictionary's; further ones are not used.
        dictionary: Of a table.

    Raises:
        DataError: a column is missing, or the dictionary describes images.
    """
    if dictionary.image is not None:
        raise DataError("the data dictionary describes images: give a pair of arrays, (images, labels)")
    names = [str(name) for name in frame.columns]
    for column in dictionary.columns:
        if (found := names.count(column)) != 1:
            raise DataError(
                f"column {column!r} is {'there twice' if found else 'missing'}: the data dictionary "
                f"{dictionary.name!r} needs {', '.join(dictionary.columns)}"
            )
    found = [texts(frame.iloc[:, place]) for place in range(len(names))]
    return TableInMemory(
        columns=tuple(found[names.index(column)] for column in dictionary.columns),
        whole=tuple(found),
        inputs=len(dictionary.inputs),
    )


def from_arrays(inputs: object, labels: object, dictionary: Dictionary) -> Source:
    """Return the rows of two arrays; every row is another patient.

    Args:
        inputs: (patients, columns), raw values in the order of the dictionary's inputs; or (patients, channels,
            height, width) where it describes images.
        labels: (patients,), values that the dictionary's label lists.
        dictionary: Without a published split, for which arrays have no column.

    Raises:
        DataError: a shape is another.
    """
    values, known = np.asarray(inputs), np.asarray(labels).reshape(-1)
    shape = dictionary.image.shape if dictionary.image is not None else (len(dictionary.inputs),)
    if values.shape[1:] != shape or len(values) != len(known):
        raise DataError(
            f"arrays of shapes {values.shape} and {known.shape} do not fit: the data dictionary {dictionary.name!r} "
            f"needs {('patients', *shape)} and one label each".replace("'", "")
        )
    if dictionary.split:
        raise DataError(
            f"the data dictionary {dictionary.name!r} has a split of its own in column {dictionary.split!r}: "
            "give a DataFrame with that column"
        )
    label = [text_of(value) for value in known.tolist()]
    patient = ([str(i + 1) for i in range(len(known))],) if dictionary.patient else ()
    if dictionary.image is not None:
        return ImagesInMemory(images=values, rest=(label, *patient))
    cells = [[text_of(value) for value in column] for column in values.T.tolist()]
    columns = (*cells, label, *patient)
    return TableInMemory(columns=columns, whole=columns, inputs=len(cells))


def texts(column: Any) -> list[str]:
    """Return a DataFrame's column as the text that a CSV file would hold; "" where a value is missing."""
    missing = column.isna().tolist()
    return ["" if gone else text_of(value) for gone, value in zip(missing, column.tolist(), strict=True)]
