"""Made-up images: two classes that a small model tells apart, as a folder of files and as one .npz file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client import dictionary
from client.source import Place


def describe(shape: tuple[int, int, int] = (1, 28, 28), patient: str = "patient") -> dictionary.Dictionary:
    value = {
        "type": dictionary.TYPE,
        "name": "made-up-images",
        "variables": [
            {"name": "image", "kind": "image", "shape": list(shape), "lower": "0", "upper": "255", "centre": "128",
             "spread": "64", "source": "made up"}
        ],
        "label": {"name": "label", "negative": ["0"], "positive": ["1"]},
        "patient": patient,
    }  # fmt: skip
    return dictionary.parse(json.dumps(value).encode())


DICTIONARY = describe()


def pixels(count: int, seed: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    values = random.integers(0, 160, (count, 28, 28), dtype=np.uint8)
    values[labels == 1, 8:20, 8:20] += 90
    return values, labels


def write_npz(path: Path, count: int, **further: Any) -> Place:
    values, labels = pixels(count)
    arrays = {
        "image": values,
        "label": labels,
        "patient": np.array([f"P{i}" for i in range(count)]),
        **further,
    }
    np.savez(path, **{name: a for name, a in arrays.items() if a is not None})
    return Place(kind="npz", file=path)


def write_folder(folder: Path, count: int, *lines: str, suffix: str = "png") -> Place:
    folder.mkdir(exist_ok=True)
    values, labels = pixels(count)
    rows = ["file,patient,label"]
    for i, (value, label) in enumerate(zip(values, labels, strict=True)):
        Image.fromarray(value).save(folder / f"{i}.{suffix}")
        rows.append(f"{i}.{suffix},P{i},{label}")
    (folder / "labels.csv").write_text("\n".join([*rows, *lines]) + "\n")
    return Place(kind="images", file=folder)
