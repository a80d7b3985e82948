"""Made-up patients of a data dictionary: a table, or images, that every rule accepts and a model can learn from.

A function of the dictionary, a count and a seed, and of nothing else: the same bytes everywhere. For dry runs of a
job where there is no patient; the values are spread as the dictionary's public centres and spreads say, and the
label leans on all inputs together, so that training on it must show something.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np

from client.dictionary import Dictionary, Variable
from client.errors import DataError
from client.features import row_encoder
from client.source import Place

HELD_OUT_EACH = 3  # where the dictionary has a split: every third patient is held out
_STRENGTH = 3.0  # how far the inputs decide the label, against noise of about 1


def rows(dictionary: Dictionary, count: int, seed: int) -> list[list[str]]:
    """Return the cells of `count` made-up patients, in the order of `dictionary.columns`.

    Args:
        dictionary: A table's.
        count: Patients, at least 0; each is another one.
        seed: Any number; another one makes up others.

    Raises:
        DataError: the dictionary describes images.
    """
    if dictionary.image is not None:
        raise DataError(f"data dictionary {dictionary.name!r} describes images, which are no rows")
    random = Random(f"wardround synthetic rows {seed}")  # noqa: S311 - nobody's secret depends on it
    encode = row_encoder(dictionary)
    made = [[_cell(variable, random) for variable in dictionary.variables] for _ in range(count)]
    return [_row(dictionary, cells, encode(cells), place, random) for place, cells in enumerate(made)]


def write_synthetic(path: Path, dictionary: Dictionary, patients: int, seed: int) -> Place:
    """Write made-up patients that `client.data.check_file` accepts: a CSV file, or an .npz file of images.

    Without a patient column in the dictionary they must be read with `one_row_per_patient`.

    Args:
        path: The file to write.
        dictionary: Of a table or of images.
        patients: Rows or images, at least 1.
        seed: Any number.

    Returns:
        How to read the file.

    Raises:
        DataError: the file cannot be written.
    """
    if dictionary.image is not None:
        return _write_images(path, dictionary, dictionary.image, patients, seed)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(dictionary.columns)
    writer.writerows(rows(dictionary, patients, seed))
    try:
        path.write_bytes(text.getvalue().encode())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from None
    return Place.csv(path)


def _write_images(path: Path, dictionary: Dictionary, image: Variable, patients: int, seed: int) -> Place:
    """Write noise, with a brighter square in the middle where the label is positive."""
    random = Random(f"wardround synthetic images {seed}")  # noqa: S311 - as above
    size, (_, height, width) = math.prod(image.shape), image.shape
    grey = np.frombuffer(random.randbytes(patients * size), np.uint8).reshape(patients, *image.shape) // 2
    labels = [random.random() > 0.5 for _ in range(patients)]
    grey[labels, :, height // 4 : height - height // 4, width // 4 : width - width // 4] += 96
    sides = {True: dictionary.label.positive, False: dictionary.label.negative}
    columns = {
        image.name: grey,
        dictionary.label.name: np.array([_level(sides[positive], random) for positive in labels]),
        dictionary.patient: np.array([f"S{i + 1:06d}" for i in range(patients)]),
        dictionary.split: np.array(["test" if i % HELD_OUT_EACH == 0 else "train" for i in range(patients)]),
    }
    try:
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **{name: c for name, c in columns.items() if name})
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from None
    return Place(kind="npz", file=path)


def _cell(variable: Variable, random: Random) -> str:
    if variable.kind != "numeric":
        return variable.levels[int(random.random() * len(variable.levels))]
    centre, spread = variable.scale
    bell = sum(random.random() for _ in range(12)) - 6  # normal enough, by additions alone
    value = min(max(centre + spread * bell, float(variable.lower)), float(variable.upper))
    return f"{value:.6g}"


def _row(dictionary: Dictionary, cells: list[str], features: object, place: int, random: Random) -> list[str]:
    if not isinstance(features, list):
        raise AssertionError("a made-up cell fits its variable")
    signs = [1.0 if i % 3 else -1.0 for i in range(len(features))]
    lean = sum(s * f for s, f in zip(signs, features, strict=True)) / math.sqrt(len(features))
    chance = _STRENGTH * lean + 2 * (random.random() + random.random() - 1)
    label = _level(dictionary.label.positive if chance > 0 else dictionary.label.negative, random)
    patient = [f"S{place + 1:06d}"] if dictionary.patient else []
    split = [] if not dictionary.split else ["test" if place % HELD_OUT_EACH == 0 else "train"]
    return [*cells, label, *patient, *split]


def _level(levels: Sequence[str], random: Random) -> str:
    return levels[int(random.random() * len(levels))]
