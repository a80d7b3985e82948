"""A job's own model as a data scientist names it, and the `model.py` that hospitals read and run in confinement.

A class or a function of a notebook becomes a file that stands by itself: its source, that of what it uses from the
same notebook, the imports that both need, plain constants, and `build_model` at the end. Nothing is run here, and
torch is not imported.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from client.errors import JobFileError
from client.job_spec import BUILT_IN
from client.notebook import frozen_text, own_source
from client.notebook.job_values import MODELS
from client.reviewed import CUSTOM, MAX_SIZE

BUILDER = "build_model"
_HEADING = '"""A model for Wardround, {what}; hospitals read this file before it runs."""\n\n'
_FEATURES = (
    "features", "in_features", "n_features", "num_features", "inputs", "n_inputs", "num_inputs", "input_size",
    "input_dim", "in_dim", "in_channels", "channels",
)  # fmt: skip
_OUTPUTS = (
    "outputs", "out_features", "n_outputs", "num_outputs", "output_size", "output_dim", "out_dim", "classes",
    "n_classes", "num_classes",
)  # fmt: skip


def read(given: object, frozen: Mapping[str, object]) -> tuple[str, bytes | None]:
    """Return what `job.toml` calls a model, and the bytes of its `model.py` unless it is built in.

    Args:
        given: A built-in model's name, a path, a text, or a class or function.
        frozen: Weights that are not trained, by name; only for a class or a function.

    Raises:
        JobFileError: it is none of these, or its source cannot be made to stand by itself; all reasons.
    """
    if isinstance(given, str | Path | bytes):
        if frozen:
            raise JobFileError(
                "frozen is for a model that you give as a class or a function, not as a file or a name"
            )
        return _named(given)
    if hasattr(given, "state_dict") and not isinstance(given, type):
        raise JobFileError(
            f"model is a {type(given).__name__} that is built already: give the class, or a function that returns "
            "one, and weights that it must keep as frozen={...}"
        )
    if not callable(given):
        raise JobFileError(f"model must be one of {', '.join(BUILT_IN)}, a model.py, a class or a function")
    if isinstance(given, type) and not hasattr(given, "state_dict"):
        raise JobFileError(f"model {given.__name__} is no torch.nn.Module: give a class that is one")
    return CUSTOM, _written(given, frozen)


def _named(given: str | Path | bytes) -> tuple[str, bytes | None]:
    if isinstance(given, bytes):
        return CUSTOM, given
    if isinstance(given, Path) or given.endswith(".py"):
        try:
            with Path(given).open("rb") as file:
                return CUSTOM, file.read(MAX_SIZE + 1)
        except OSError as error:
            raise JobFileError(f"model {str(given)!r} cannot be read: {error.strerror}") from None
    if "\n" in given:
        return CUSTOM, given.encode()
    name = MODELS.get(given, given)
    if name not in BUILT_IN:
        near = difflib.get_close_matches(given, (*BUILT_IN, *MODELS), 1)
        hint = (
            f"did you mean {near[0]}?"
            if near
            else f"use {', '.join(BUILT_IN)}, or your own class or model.py"
        )
        raise JobFileError(f"model {given[:60]!r} is not built in: {hint}")
    return name, None


def _written(given: Callable[..., Any], frozen: Mapping[str, object]) -> bytes:
    """Return the `model.py` of a class or a function."""
    problems: list[str] = []
    parts = own_source.gather(given, problems)
    weights = frozen_text.weights(frozen, problems) if frozen else ""
    call = _call(given, problems)
    if problems:
        raise JobFileError(*problems)
    what = f"made from {given.__name__}" + (" and weights that stay as they are" if frozen else "")
    imports = sorted({*parts.imports, *(frozen_text.IMPORTS if frozen else ())})
    text = _HEADING.format(what=what) + "from __future__ import annotations\n\n" + "\n".join(imports) + "\n"
    text += "".join(f"\n{line}" for line in parts.constants) + ("\n" if parts.constants else "")
    text += "".join(f"\n\n{source}\n" for source in parts.sources) + weights
    if given.__name__ != BUILDER or frozen:
        inner = f"_{BUILDER}" if given.__name__ == BUILDER else given.__name__
        if inner != given.__name__:
            text += f"\n\n{inner} = {BUILDER}\n"
        made = f"{inner}({call})"
        text += f"\n\ndef {BUILDER}(*, input_shape, outputs):\n"
        text += f"    return {f'_with_frozen({made})' if frozen else made}\n"
    return text.encode()


def _call(given: Callable[..., Any], problems: list[str]) -> str:
    """Return the arguments that `build_model` gives a class or a function, by their names."""
    try:
        parameters = inspect.signature(given).parameters.values()
    except (TypeError, ValueError):
        problems.append(f"model {given.__name__} does not say what it takes: write it in Python")
        return ""
    found = []
    for p in parameters:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        value = "input_shape" if p.name == "input_shape" else "outputs" if p.name in _OUTPUTS else ""
        value = value or ("input_shape[0]" if p.name in _FEATURES else "")
        if value and (p.default is p.empty or p.name in ("input_shape", "outputs")):
            found.append(value if p.kind is p.POSITIONAL_ONLY else f"{p.name}={value}")
        elif p.default is p.empty:
            problems.append(
                f"model {given.__name__} needs {p.name}, which hospitals cannot know: give it a default (known are "
                "input_shape, features and outputs)"
            )
    return ", ".join(found)
