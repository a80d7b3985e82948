"""The file of a released model: safetensors, with the data dictionary and so the scaling in its metadata.

The format is Hugging Face's (8 bytes little-endian header length, a JSON header padded with spaces, the numbers).
It is written here so that the same model gives the same bytes everywhere: the library orders metadata at random.
`client.predict` reads the file. Which numbers are released, and what the card says, is for the release.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.errors import ModelFileError, StorageError

FORMAT = "wardround-model/1"
RESERVED = ("dictionary", "format", "model")  # metadata that the writer fills in
Layout = Sequence[
    tuple[str, tuple[int, ...]]
]  # (name, shape) of each parameter, in `named_parameters()` order


def to_bytes(
    parameters: NDArray[np.float32],
    layout: Layout,
    *,
    model: str,
    dictionary: bytes,
    metadata: Mapping[str, str],
) -> bytes:
    """Return the file's bytes, a function of the arguments alone.

    Args:
        parameters: The packed model, float32, shape (d,).
        layout: How it is made up; sizes add up to d.
        model: The model's name, for example "logistic-regression".
        dictionary: The data dictionary's canonical bytes.
        metadata: Anything else in words: job, round, digests, what is claimed.

    Raises:
        ModelFileError: the layout does not fit the parameters, or a name is taken.
    """
    sizes = [int(np.prod(shape, dtype=np.int64)) for _, shape in layout]
    if parameters.dtype != np.float32 or parameters.shape != (sum(sizes),):
        raise ModelFileError(f"the layout holds {sum(sizes)} float32 numbers, the model {parameters.size}")
    names = [name for name, _ in layout]
    if len(set(names)) < len(names) or "__metadata__" in names:
        raise ModelFileError("a model's parameters must have names that differ")
    if taken := sorted(set(RESERVED) & metadata.keys()):
        raise ModelFileError(f"the metadata's {taken[0]!r} is filled in by the writer: use another name")
    stated = {**metadata, "format": FORMAT, "model": model, "dictionary": dictionary.decode("utf-8")}
    header: dict[str, object] = {"__metadata__": dict(sorted(stated.items()))}
    end = 0
    for (name, shape), size in zip(layout, sizes, strict=True):
        begin, end = end, end + 4 * size
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + parameters.astype("<f4").tobytes()


def save_model(
    path: Path,
    parameters: NDArray[np.float32],
    layout: Layout,
    *,
    model: str,
    dictionary: bytes,
    metadata: Mapping[str, str],
) -> None:
    """Write the file; the arguments are those of `to_bytes`. Readers see the whole file or none.

    Raises:
        ModelFileError: see `to_bytes`.
        StorageError: the disk refused.
    """
    data = to_bytes(parameters, layout, model=model, dictionary=dictionary, metadata=metadata)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(f"cannot write the model {path}: {error.strerror}") from None
