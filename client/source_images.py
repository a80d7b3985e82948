"""A folder of greyscale or RGB images as a source: `labels.csv` names each file, its patient and its label.

The column of files is "file" unless the mapping's `from` for the image says otherwise; label and patient are columns
of the dictionary. A row is known by its whole line of `labels.csv`: without a patient column, a file renamed there
is a new patient. An image must have exactly the dictionary's size and number of channels: none is resized, so one
whose header claims another size is never unpacked. A file that is missing, outside the folder, truncated or no PNG,
JPEG or TIFF makes its row one without an image, never an error; of a file nothing but its values is read. Needs
Pillow (`wardround[images]`).
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.dictionary import Dictionary, Variable
from client.errors import DataError
from client.mapping import Mapping
from client.source import Record
from client.source_csv import CsvFile

LABELS = "labels.csv"
FORMATS = ("JPEG", "PNG", "TIFF")
MAX_FILE = 256 << 20  # bytes; a larger file is no image
_MODES = {1: ("1", "I;16", "I;16B", "I;16L", "L"), 3: ("RGB",)}  # Pillow's, by channels
_BROKEN = (  # what Pillow's decoders raise on hostile files
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFolder:
    """The images that a folder's labels.csv names."""

    folder: Path  # resolved
    labels: CsvFile
    image: Variable
    mapping: Mapping = field(repr=False)
    torn: str = "not a row with the header's number of cells"

    @classmethod
    def open(cls, folder: Path, dictionary: Dictionary, mapping: Mapping) -> ImageFolder:
        """Read labels.csv.

        Raises:
            DataError: Pillow is not installed, or labels.csv cannot be read or lacks a column.
        """
        _pillow()
        if dictionary.image is None:
            raise AssertionError("opened for a dictionary of images")
        columns = (mapping.rules[0].source or "file", *mapping.columns[1:])
        labels = CsvFile.open(folder / LABELS, columns)
        return cls(folder=folder.resolve(), labels=labels, image=dictionary.image, mapping=mapping)

    def records(self) -> Iterator[Record | None]:
        """Yield each line's image with its label."""
        for line in self.labels.lines():
            if line is None:
                yield None
            else:
                _, *rest = self.mapping.apply(line.cells)
                yield Record(self._pixels(line.cells[0]), rest, line.identity)

    def _pixels(self, name: str) -> NDArray[Any] | None:
        """Return an image's values, shape (channels, height, width), or None where there is no such image."""
        try:
            path = (self.folder / name).resolve()
            if not path.is_relative_to(self.folder) or not path.is_file() or path.stat().st_size > MAX_FILE:
                return None  # outside, through ".." or a link, or nothing that a person put there as an image
        except (OSError, ValueError, RuntimeError):  # a name that no file can have; links in a circle
            return None
        channels, height, width = self.image.shape
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with _pillow().open(path, formats=FORMATS) as image:
                    if image.size != (width, height) or image.mode not in _MODES.get(channels, ()):
                        return None
                    values: NDArray[Any] = np.asarray(image)
        except _BROKEN:
            return None
        except _pillow().DecompressionBombError:
            return None
        return values[np.newaxis] if channels == 1 else values.transpose(2, 0, 1)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise DataError("images are read with Pillow: install wardround[images]") from None
    return Image
