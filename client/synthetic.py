"""Made-up patients of a data dictionary: a table that every rule accepts and a model can learn from.

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

from client.dictionary import Dictionary, Variable
from client.errors import DataError
from client.features import row_encoder

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
    random = Random(f"wardround synthetic rows {seed}")  # noqa: S311 - nobody's secret depends on it
    encode = row_encoder(dictionary)
    made = [[_cell(variable, random) for variable in dictionary.variables] for _ in range(count)]
    return [_row(dictionary, cells, encode(cells), place, random) for place, cells in enumerate(made)]


def write_synthetic(path: Path, dictionary: Dictionary, patients: int, seed: int) -> None:
    """Write made-up patients as a CSV file that `client.data.check_file` accepts.

    Without a patient column in the dictionary it must be read with `one_row_per_patient`.

    Args:
        path: The file to write.
        dictionary: A table's.
        patients: Rows, at least 1.
        seed: Any number.

    Raises:
        DataError: the file cannot be written, or the dictionary describes images.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(dictionary.columns)
    writer.writerows(rows(dictionary, patients, seed))
    try:
        path.write_bytes(text.getvalue().encode())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from None


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
