"""A released model as a torch module, and the scores that it gives to the rows of a DataFrame.

Rows are read by the rules that training used (`features`): a row that cannot be scored says why, and never raises.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from client import job_initial
from client.errors import ClientError, DataError, JobFileError, ModelFileError
from client.features import row_encoder
from client.job_folder import JobFolder
from client.notebook.extras import needed
from client.notebook.in_memory import texts

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

WHOLE = "parameters"  # the one array of a job's own model, as `coordinator.layouts` releases it
_BATCH = 1024  # rows at a time


def load(path: Path, job: JobFolder) -> nn.Module:
    """Return a released model, ready to score.

    Args:
        path: The file, `model.safetensors`.
        job: The job that trained it.

    Raises:
        ModelFileError: the file cannot be read, or is not of this job.
        JobFileError: the job's own model.py cannot be built here.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from client import models

    module = _module(job)
    try:
        tensors = load_file(path)
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from None
    except SafetensorError:
        raise ModelFileError(f"{path} is damaged or no safetensors file") from None
    names = [WHOLE] if job.source is not None else [name for name, _ in module.named_parameters()]
    if sorted(names) != sorted(tensors):
        raise ModelFileError(f"{path} holds another model than the job's")
    packed = np.concatenate([tensors[name].reshape(-1) for name in names])
    try:
        models.unpack(packed, module)
    except ClientError as error:
        raise ModelFileError(f"{path}: {error}") from None
    return module.eval()


def of_parameters(parameters: bytes, job: JobFolder) -> nn.Module:
    """Return the model of a crowd, ready to score.

    Args:
        parameters: Packed float32, little-endian.
        job: The job that trained it.

    Raises:
        JobFileError: the job's own model.py cannot be built here.
    """
    from client import models

    module = _module(job)
    models.unpack(np.frombuffer(parameters, "<f4"), module)
    return module.eval()


def predict(module: nn.Module, job: JobFolder, frame: Any) -> pd.DataFrame:
    """Score every row of a DataFrame that has the model's input columns; the label need not be there.

    Returns:
        A row for each row, under the same index: `probability` of the positive class (NaN: it cannot be scored), and
        `problem`, why not.

    Raises:
        DataError: a column is missing, or the job's dictionary describes images.
    """
    pandas = needed("pandas", "notebook", "rows are scored")
    dictionary = job.dictionary
    if dictionary.image is not None:
        raise DataError("the data dictionary describes images: call run.model() on a tensor of them")
    names = [str(name) for name in frame.columns]
    if missing := [column for column in dictionary.inputs if names.count(column) != 1]:
        raise DataError(
            f"column {missing[0]!r} is {'there twice' if missing[0] in names else 'missing'}: the model needs "
            f"{', '.join(dictionary.inputs)}"
        )
    encode = row_encoder(dictionary)
    cells = [texts(frame.iloc[:, names.index(column)]) for column in dictionary.inputs]
    encoded = [encode(row) for row in zip(*cells, strict=True)]
    problems = [f"{e[0]}: {e[1].value}" if isinstance(e, tuple) else "" for e in encoded]
    usable = [e for e in encoded if not isinstance(e, tuple)]
    scores = np.full(len(encoded), np.nan)
    if usable:
        features = np.array(usable, dtype=np.float32).reshape(len(usable), *dictionary.input_shape)
        scores[[not problem for problem in problems]] = _probabilities(module, features)
    return pandas.DataFrame({"probability": scores, "problem": problems}, index=frame.index)


def _probabilities(module: nn.Module, features: NDArray[np.float32]) -> NDArray[np.float64]:
    import torch

    found = []
    with torch.no_grad():
        for start in range(0, len(features), _BATCH):
            outputs = module(torch.from_numpy(features[start : start + _BATCH])).double()
            one = outputs.shape[-1] == 1
            chances = torch.sigmoid(outputs.reshape(-1)) if one else torch.softmax(outputs, dim=1)[:, 1]
            found.append(chances.numpy())
    return np.concatenate(found)


def _module(job: JobFolder) -> nn.Module:
    from client import graph_model, models

    draft, shape = job.draft, job.dictionary.input_shape
    if job.source is None:
        settings = models.ModelSettings(
            name=draft.model, input_shape=shape, outputs=draft.outputs, hidden=draft.widths
        )
        return models.build(settings)
    try:
        graph = job_initial.built(job.source, shape, draft.outputs)
        return graph_model.from_bytes(graph, shape)
    except ClientError as error:
        raise JobFileError(f"model.py: {error}") from None
