"""A small crowd for the tests: a job's folder, and made-up hospitals as arrays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client import job_templates, job_toml
from client.dictionary import Dictionary
from client.job_folder import JobFolder, load
from client.synthetic import rows

Arrays = tuple[NDArray[np.float64], NDArray[np.str_]]


def job(path: Path, **changes: Any) -> JobFolder:
    """Two rounds of a logistic regression, measured after the first and at the end."""
    standard: dict[str, Any] = {"rounds": 2, "min_participants": 2, "live_evaluations": 1, "epsilon": "8"}
    draft = replace(job_templates.DRAFTS["breast-cancer"], **{**standard, **changes})
    path.mkdir(exist_ok=True)
    (path / job_toml.FILE).write_text(job_toml.to_toml(draft))
    return load(path)


def arrays(dictionary: Dictionary, patients: int, seed: int) -> Arrays:
    """Raw inputs and labels of made-up patients."""
    columns = dictionary.columns
    places, label = [columns.index(n) for n in dictionary.inputs], columns.index(dictionary.label.name)
    made = rows(dictionary, patients, seed)
    return np.array([[float(row[i]) for i in places] for row in made]), np.array([row[label] for row in made])


def hospitals(dictionary: Dictionary, count: int) -> dict[str, Arrays]:
    """Hospitals of 20, 27, 34 ... patients."""
    return {f"hospital-{i}": arrays(dictionary, 20 + 7 * i, i) for i in range(count)}
