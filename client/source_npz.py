"""Arrays of a NumPy .npz file as a source: the image's, the label's, and the patient's where there is one.

Arrays are named as the dictionary's columns, or as the mapping's `from` says; "train_images, val_images" are
several, one after the other. A row is known by its image's bytes alone, whichever label is asked for: without a
patient's array, another array of images is another file, and equal images stand on one side. Images are read one at
a time; nothing is unpickled, and an array whose header claims more than its bytes is refused before it is read.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from client.cell_text import text_of
from client.dictionary import Dictionary, Variable
from client.errors import DataError
from client.mapping import Mapping
from client.source import Record

MAX_TEXTS = 1 << 28  # bytes of a label's or patient's array
_BROKEN = (
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayFile:
    """The images of an .npz file with their labels."""

    path: Path
    image: Variable
    arrays: tuple[str, ...]  # of images, in order
    rest: tuple[tuple[str, ...], ...] = field(
        repr=False
    )  # cells of label, patient and split, one row an image
    mapping: Mapping = field(repr=False)
    torn: str = "no image"

    @classmethod
    def open(cls, path: Path, dictionary: Dictionary, mapping: Mapping) -> ArrayFile:
        """Read all but the images, and check that those have the dictionary's shape.

        Raises:
            DataError: the file cannot be read, an array is missing, of another length or shape, or damaged.
        """
        if dictionary.image is None:
            raise AssertionError("opened for a dictionary of images")
        names = [tuple(part.strip() for part in rule.local.split(",")) for rule in mapping.rules]
        with _archive(path) as archive:
            images = sum(_length(archive, name, dictionary.image, path) for name in names[0])
            columns = [
                [text for name in several for text in _texts(archive, name, path)] for several in names[1:]
            ]
        for rule, column in zip(mapping.rules[1:], columns, strict=True):
            if len(column) != images:
                raise DataError(
                    f"{path}: column {rule.column!r} has {len(column)} values for {images} images"
                )
        rest = tuple(zip(*columns, strict=True))
        return cls(path=path, image=dictionary.image, arrays=names[0], rest=rest, mapping=mapping)

    def records(self) -> Iterator[Record | None]:
        """Yield each image with its label."""
        for (pixels, identity), cells in zip(self._pixels(), self.rest, strict=True):
            _, *rest = self.mapping.apply(("", *cells))
            yield Record(pixels, rest, identity)

    def _pixels(self) -> Iterator[tuple[NDArray[Any], bytes]]:
        """Yield each image's values, and the SHA-256 of its bytes as they lie."""
        channels, height, width = self.image.shape
        with _archive(self.path) as archive:
            for name in self.arrays:
                with _member(archive, name, self.path) as (file, shape, dtype):
                    size = math.prod(shape[1:]) * dtype.itemsize
                    for _ in range(shape[0]):
                        data = file.read(size)
                        values = np.frombuffer(data, dtype).reshape(shape[1:])
                        if channels > 1 and shape[1:] == (height, width, channels):
                            values = values.transpose(2, 0, 1)
                        yield values.reshape(self.image.shape), hashlib.sha256(data).digest()


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or "damaged, or no .npz file"
        raise DataError(f"cannot read {path}: {reason}") from None


@contextmanager
def _member(
    archive: zipfile.ZipFile, name: str, path: Path
) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
    """Open an array behind its header, which must claim exactly the bytes that are there."""
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise DataError(f"{path}: there is no array {name!r}: name it in the mapping's `from`") from None
    with archive.open(info) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject or fortran or not shape:
            raise DataError(
                f"{path}: array {name!r} holds objects or lies column by column: save it in C order"
            )
        if info.file_size - file.tell() != math.prod(shape) * dtype.itemsize:
            raise DataError(f"{path}: array {name!r} is not as long as its header says")
        yield file, shape, dtype


def _length(archive: zipfile.ZipFile, name: str, image: Variable, path: Path) -> int:
    channels, height, width = image.shape
    fitting = [(channels, height, width), (height, width, channels)] + [(height, width)] * (channels == 1)
    with _member(archive, name, path) as (_, shape, dtype):
        if shape[1:] not in fitting or dtype.kind not in "buf":
            raise DataError(
                f"{path}: array {name!r} holds no images of {channels} x {height} x {width}: correct the dictionary"
            )
        return shape[0]


def _texts(archive: zipfile.ZipFile, name: str, path: Path) -> list[str]:
    """Return an array of one value a row as texts."""
    with _member(archive, name, path) as (file, shape, dtype):
        size = math.prod(shape) * dtype.itemsize
        if math.prod(shape[1:]) != 1 or dtype.kind not in "biufSU" or size > MAX_TEXTS:
            raise DataError(f"{path}: array {name!r} does not hold one value for each image")
        data = file.read(size)
    if dtype.kind != "U":
        return [text_of(value) for value in np.frombuffer(data, dtype).tolist()]
    code = "utf-32-be" if dtype.byteorder == ">" else "utf-32-le"  # numpy itself trips over what is no text
    pieces = (data[i : i + dtype.itemsize] for i in range(0, size, dtype.itemsize or 1))
    return [text_of(piece.decode(code, "replace").rstrip("\0")) for piece in pieces]
