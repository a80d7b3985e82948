"""Scoring new patients with a released model: the file holds the weights and the scaling, a CSV the patients.

    from pathlib import Path
    from client.predict import load_model, predict
    model = load_model(Path("model.safetensors"))
    for score in predict(model, Path("patients.csv")):
        print(score.row, score.probability)

Reads what `coordinator.model_file` writes, by the safetensors library; logistic regression and the MLP run in
numpy. Rows are read by the rules that training used (`table`, `features`); the label need not be there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from client import dictionary as dictionaries
from client.dictionary import Dictionary
from client.errors import DataError, DictionaryError, ModelFileError
from client.features import row_encoder
from client.table import Table

FORMAT = "wardround-model/1"
MAX_SIZE = 1 << 30  # bytes of a model file
_WEIGHT = re.compile(r"(?:([0-9]{1,4})\.)?weight", re.ASCII).fullmatch

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A released model of a binary label, ready to score rows."""

    name: str  # "logistic-regression" or "mlp"
    dictionary: Dictionary
    layers: tuple[tuple[Matrix, Matrix], ...] = field(
        repr=False
    )  # (outputs, inputs) weights, (outputs,) biases
    metadata: Mapping[str, str]  # everything that the file says of itself

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probability of the positive class for each row of scaled features, shape (n, d)."""
        values = features.astype(np.float64)
        for i, (weight, bias) in enumerate(self.layers):
            values = (np.maximum(values, 0.0) if i else values) @ weight.T.astype(np.float64) + bias
        logits = values[:, 0]
        smaller = np.exp(-np.abs(logits))  # never overflows
        scores: NDArray[np.float64] = np.where(logits >= 0, 1.0, smaller) / (1.0 + smaller)
        return scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What the model says of one row."""

    row: int  # counted from 1, the header not counted
    probability: float | None  # of the positive class; None: the row cannot be scored
    problem: str  # why not, "" when it can


def load_model(path: Path) -> Model:
    """Read a released model.

    Raises:
        ModelFileError: the file cannot be read, is no model of ours, or is not scored from a table.
    """
    try:
        if path.stat().st_size > MAX_SIZE:
            raise ModelFileError(f"{path} is larger than any model this version reads")
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            names = file.keys()
            if any(file.get_slice(name).get_dtype() != "F32" for name in names):
                raise ModelFileError(f"{path} holds numbers that are not float32")
            tensors = {name: file.get_tensor(name) for name in names}
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from None
    except SafetensorError:
        raise ModelFileError(
            f"{path} is damaged or no safetensors file: ask for the released file again"
        ) from None
    if metadata.get("format") != FORMAT:
        raise ModelFileError(f"{path} is not a {FORMAT} file: it does not say so in its metadata")
    try:
        dictionary = dictionaries.from_bytes(metadata.get("dictionary", "").encode())
    except DictionaryError as error:
        raise ModelFileError(f"{path}: {error}") from None
    name = metadata.get("model", "")
    layers = _layers(path, name, tensors, len(dictionary.feature_names))
    return Model(name=name, dictionary=dictionary, layers=layers, metadata=metadata)


def predict(model: Model, path: Path) -> list[Score]:
    """Score every row of a CSV file that has the model's input columns.

    Raises:
        DataError: the file cannot be read or lacks a column. Rows never raise.
    """
    try:
        table = Table.parse(path.read_bytes(), model.dictionary.inputs, str(path))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    return list(_scores(model, table))


def _scores(model: Model, table: Table) -> Iterator[Score]:
    encode = row_encoder(model.dictionary)
    for row, cells in enumerate(table.rows(), start=1):
        if cells is None:
            yield Score(row=row, probability=None, problem="not a row with the header's number of cells")
            continue
        features = encode(table.pick(cells))
        if isinstance(features, tuple):
            column, fault = features
            yield Score(row=row, probability=None, problem=f"{column}: {fault.value}")
        else:
            [probability] = model.probabilities(np.array([features], dtype=np.float32))
            yield Score(row=row, probability=float(probability), problem="")


def _layers(
    path: Path, name: str, tensors: Mapping[str, Matrix], width: int
) -> tuple[tuple[Matrix, Matrix], ...]:
    """Return the linear layers from input to output, checked to fit each other and the dictionary."""
    if name not in ("logistic-regression", "mlp"):
        raise ModelFileError(f"{path} holds a {name or 'nameless'} model, which is not scored from a table")
    found = {}
    for key in tensors:
        if match := _WEIGHT(key):
            found[int(match[1] or 0)] = (tensors[key], tensors.get(key.removesuffix("weight") + "bias"))
    layers: list[tuple[Matrix, Matrix]] = []
    for _, (weight, bias) in sorted(found.items()):
        if weight.ndim != 2 or weight.shape[1] != width:
            raise ModelFileError(f"{path}: a layer's weights do not fit the {width} values before it")
        width = weight.shape[0]
        if bias is None or bias.shape != (width,):
            raise ModelFileError(f"{path}: a layer's biases do not fit its weights")
        layers.append((weight, bias))
    if width != 1 or 2 * len(layers) != len(tensors) or (name == "logistic-regression" and len(layers) != 1):
        raise ModelFileError(f"{path}: its parameters are not those of a {name} model of a binary label")
    return tuple(layers)
