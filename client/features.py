"""Cells to features: one rule a cell, looking at nothing else, that cannot fail on any text.

A numeric cell is clipped to the dictionary's range, then (x - centre) / spread is clipped to +-3; a binary
level is -1 or +1; a categorical one is +-1 for each level but the first. An image's grey values go the way of
numbers, black standing for the lower end of the range and white for the upper. A cell that fits no rule has a
`Fault`, which says why in public words and never holds the cell. Which columns there are is `dictionary`;
which rows are kept is `data`.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.dictionary import Dictionary, Label, Variable

CLIP = 3.0  # features lie in [-3, 3]
MAX_CELL = 200  # characters; a longer cell fits no rule
MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none", "missing", "."})

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII).fullmatch


class Fault(Enum):
    """Why a cell fits no rule."""

    MISSING = "missing"
    NOT_A_NUMBER = "not a number"
    NOT_ALLOWED = "not a value the dictionary allows"
    NOT_AN_IMAGE = "no image of the dictionary's shape"


Values = tuple[float, ...]
CellEncoder = Callable[[str], Values | Fault]


def number(cell: str) -> float | Fault:
    """Read a plain decimal number; words such as "inf", digit groups and decimal commas are refused."""
    if len(cell) > MAX_CELL:
        return Fault.NOT_A_NUMBER
    if _NUMBER(text := cell.strip()) is None:
        return Fault.MISSING if text.lower() in MISSING else Fault.NOT_A_NUMBER
    return value if math.isfinite(value := float(text)) else Fault.NOT_A_NUMBER


def encoder(variable: Variable) -> CellEncoder:
    """Return the function that turns a cell of this column into its features."""
    if variable.kind == "numeric":
        return _numeric(variable)
    index = level_index(variable.levels)
    if variable.kind == "binary":
        rows: list[Values] = [(-1.0,), (1.0,)]
    else:
        width = len(variable.levels) - 1
        rows = [tuple(1.0 if j + 1 == i else -1.0 for j in range(width)) for i in range(width + 1)]

    def encode(cell: str) -> Values | Fault:
        found = index(cell)
        return found if isinstance(found, Fault) else rows[found]

    return encode


def label_encoder(label: Label) -> Callable[[str], int | Fault]:
    """Return the function that turns a label cell into class 0 or 1."""
    index = level_index(label.negative + label.positive)
    negatives = len(label.negative)

    def encode(cell: str) -> int | Fault:
        found = index(cell)
        return found if isinstance(found, Fault) else int(found >= negatives)

    return encode


def level_index(levels: Sequence[str]) -> Callable[[str], int | Fault]:
    """Return the function that finds a cell among levels; "1", "1.0" and "01" are one level.

    A word that is itself a level is never read as a missing value.
    """
    by_text: Mapping[str, int] = {level: i for i, level in enumerate(levels)}
    by_number: dict[float, int] = {}
    for i, level in enumerate(levels):
        value = number(level)
        if not isinstance(value, Fault):
            by_number.setdefault(value, i)

    def find(cell: str) -> int | Fault:
        if len(cell) > MAX_CELL:
            return Fault.NOT_ALLOWED
        text = cell.strip()
        if (i := by_text.get(text)) is not None:
            return i
        value = number(text)
        if value is Fault.MISSING:
            return Fault.MISSING
        if isinstance(value, float) and (i := by_number.get(value)) is not None:
            return i
        return Fault.NOT_ALLOWED

    return find


def row_encoder(dictionary: Dictionary) -> Callable[[Sequence[str]], list[float] | tuple[str, Fault]]:
    """Return the function that turns a row's input cells, in `dictionary.inputs` order, into its features.

    It returns the first column at fault and why when a cell fits no rule.
    """
    steps = [(v.name, encoder(v)) for v in dictionary.variables]

    def encode(cells: Sequence[str]) -> list[float] | tuple[str, Fault]:
        features: list[float] = []
        for (name, step), cell in zip(steps, cells, strict=True):
            values = step(cell)
            if isinstance(values, Fault):
                return name, values
            features.extend(values)
        return features

    return encode


def inputs_encoder(dictionary: Dictionary) -> Callable[[Any], bytes | tuple[str, Fault]]:
    """Return the function that turns a record's inputs into float32 bytes, little-endian, in C order.

    It takes the cells of a row, or an image's grey values as `image_encoder` does, None for no image.
    """
    if dictionary.image is not None:
        return image_encoder(dictionary.image)
    encode, width = row_encoder(dictionary), len(dictionary.feature_names)

    def pack(cells: Sequence[str]) -> bytes | tuple[str, Fault]:
        features = encode(cells)
        return features if isinstance(features, tuple) else struct.pack(f"<{width}f", *features)

    return pack


def image_encoder(variable: Variable) -> Callable[[NDArray[Any] | None], bytes | tuple[str, Fault]]:
    """Return the function that turns grey values into features.

    It takes an array of the variable's shape. Unsigned integers and bools go from 0, black, to the largest of their
    type, white; floats are in the units of the range already, and one that is not finite makes it no image.
    """
    lower, upper = float(variable.lower), float(variable.upper)
    centre, spread = variable.scale

    def encode(pixels: NDArray[Any] | None) -> bytes | tuple[str, Fault]:
        if pixels is None or pixels.shape != variable.shape or pixels.dtype.kind not in "buf":
            return variable.name, Fault.NOT_AN_IMAGE
        values = pixels.astype(np.float64)
        if pixels.dtype.kind == "f":
            if not np.isfinite(values).all():
                return variable.name, Fault.NOT_AN_IMAGE
        else:
            white = 1 if pixels.dtype.kind == "b" else np.iinfo(pixels.dtype).max
            values = lower + values / white * (upper - lower)
        scaled = (np.clip(values, lower, upper) - centre) / spread
        return np.clip(scaled, -CLIP, CLIP).astype("<f4").tobytes()

    return encode


def _numeric(variable: Variable) -> CellEncoder:
    lower, upper = float(variable.lower), float(variable.upper)
    centre, spread = variable.scale

    def encode(cell: str) -> Values | Fault:
        value = number(cell)
        if isinstance(value, Fault):
            return value
        scaled = (min(max(value, lower), upper) - centre) / spread
        return (min(max(scaled, -CLIP), CLIP),)

    return encode
