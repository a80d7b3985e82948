"""The first parameters of a job's model: a function of public settings, so that anybody finds the same bytes again.

A built-in model is made in this process. A researcher's own `model.py` runs in a process of its own, which is ended
when it takes too long; what it returns is the shapes of its parameters, never their values.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client import software
from client.dictionary import Dictionary
from client.errors import JobFileError, TrainingRefusedError
from client.job_toml import JobDraft
from client.reviewed import CUSTOM

MODEL_SECONDS = 60.0  # for a model.py to build its model


@dataclass(frozen=True, slots=True, kw_only=True)
class Initial:
    """What a job begins with."""

    parameters: bytes  # packed float32, little-endian
    model_code: str  # digest of the model's source text

    @property
    def count(self) -> int:
        """How many numbers the model has."""
        return len(self.parameters) // 4

    @property
    def digest(self) -> str:
        """How the record names them."""
        return hashlib.sha256(self.parameters).hexdigest()


def compute(draft: JobDraft, dictionary: Dictionary, source: bytes | None) -> Initial:
    """Build a job's model, try whether it may be trained privately, and return its first parameters.

    Args:
        draft: A job without problems of its own.
        dictionary: Its data dictionary.
        source: Bytes of its model.py; None for a built-in model.

    Raises:
        JobFileError: the model cannot be built or trained; says why and what to do.
    """
    request = {
        "name": draft.model,
        "features": len(dictionary.feature_names),
        "outputs": draft.outputs,
        "hidden": list(draft.widths),
        "loss": draft.loss,
        "seed": draft.seed,
        "prevalence": draft.prevalence,
        "source": base64.b64encode(source).decode() if source is not None else "",
    }
    if draft.model != CUSTOM:
        try:
            return Initial(parameters=_build(request), model_code=software.models_digest())
        except TrainingRefusedError as error:
            raise JobFileError(f"model: {error}") from None
    assert source is not None  # a job without problems of its own has one
    return Initial(parameters=_elsewhere(request), model_code=hashlib.sha256(source).hexdigest())


def _build(request: dict[str, Any]) -> bytes:
    """Build the model here. Raises TrainingRefusedError."""
    from client import models  # torch: seconds
    from client.model_check import check_model

    shape = (int(request["features"]),)
    custom = request["name"] == CUSTOM
    settings = models.ModelSettings(
        name="model.py" if custom else request["name"],
        input_shape=shape,
        outputs=request["outputs"],
        hidden=tuple(request["hidden"]),
    )
    if custom:
        source = base64.b64decode(request["source"])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.py"
            path.write_bytes(source)
            module = models.load_source(path, hashlib.sha256(source).hexdigest(), settings)
    else:
        module = models.build(settings)
    check_model(module, example_shape=shape, loss=request["loss"], outputs=request["outputs"])
    found = models.initial_parameters(
        module, settings, seed=request["seed"], prevalence=float(request["prevalence"])
    )
    return found.astype("<f4").tobytes()


def _elsewhere(request: dict[str, Any]) -> bytes:
    """Build the model in a process of its own. Raises JobFileError."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "client.job_initial"],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=MODEL_SECONDS,
            cwd=Path(__file__).resolve().parent.parent,
            env=_environment(),
        )
    except subprocess.TimeoutExpired:
        raise JobFileError(
            f"model.py takes longer than {MODEL_SECONDS:.0f} s to build its model: a hospital would end it too"
        ) from None
    try:
        answer = json.loads(done.stdout)
        if "refused" in answer:
            raise JobFileError(f"model.py: {answer['refused']}")
        return base64.b64decode(answer["parameters"])
    except (ValueError, KeyError, TypeError):
        raise JobFileError(
            f"model.py ended its process (status {done.returncode}) instead of building a model"
        ) from None


def _environment() -> dict[str, str]:

    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Answer one request on standard input: the entry of the process that runs a `model.py`."""
    answer: dict[str, str]
    writing = sys.stdout
    sys.stdout = sys.stderr  # what the model prints is no answer
    try:
        answer = {"parameters": base64.b64encode(_build(json.load(sys.stdin))).decode()}
    except TrainingRefusedError as error:
        answer = {"refused": " ".join(str(error).split())[:1000]}
    writing.write(json.dumps(answer))


if __name__ == "__main__":
    main()
