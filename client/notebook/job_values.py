"""A job's settings as Python says them, read into what `JobDraft` holds: every mistake named at once.

Numbers may be floats, NumPy's too, where a record spells decimals: they are read to twelve digits, so that
0.1 + 0.2 is 0.3. What each field may be is `client.job_fields`' word; what fields mean together is
`client.job_problems`'.
"""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal as Number
from typing import Any

from client import job_fields
from client.errors import JobFileError
from client.job_fields import FIELDS, Field
from ledger.values import Setting

BY_ATTRIBUTE = {field.attribute: field for field in FIELDS}
SETTINGS = "strategy_settings"  # of `JobDraft`, but of no one field
MODELS = {"logistic": "logistic-regression", "cnn": "small-cnn", "neural-network": "mlp"}
_ELSEWHERE = {  # what other programs call it -> what to say here
    "batch_size": "sample_rate is the share of patients in a step, 1 for all",
    "clip": "it is max_grad_norm",
    "epochs": "rounds times local_steps is how often the model is changed",
    "expires": "it is expires_seconds",
    "final": "it is final_evaluation",
    "live": "it is live_evaluations",
    "lr": "it is learning_rate",
    "max_norm": "it is max_grad_norm",
    "min_clients": "it is min_participants",
    "noise_multiplier": "each hospital finds its noise from epsilon, delta and rounds",
    "num_rounds": "it is rounds",
    "optimizer": "hospitals take plain steps of learning_rate; strategy chooses how the coordinator combines them",
}


def read(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what can be read of settings by `JobDraft`'s names, and a sentence for each that cannot.

    Args:
        given: By name; the model and the dictionary are text by now.
    """
    found: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in given.items():
        field = BY_ATTRIBUTE.get(name)
        try:
            if name == SETTINGS:
                found[name] = _settings(value)
            elif field is not None:
                found[name] = field.read(_as_a_file_says(field, value))
            else:
                problems.append(unknown(name))
        except JobFileError as error:
            problems.append(f"{name} must be {error}, not {_shown(value)}")
    return found, problems


def unknown(name: str) -> str:
    """Return a sentence about a setting that there is not, with the one that may be meant."""
    if name in _ELSEWHERE:
        return f"{name} is no setting of a job: {_ELSEWHERE[name]}"
    near = difflib.get_close_matches(name, (*BY_ATTRIBUTE, SETTINGS, "frozen"), 1)
    return f"{name[:60]} is no setting of a job" + (
        f": did you mean {near[0]}?" if near else ": leave it out"
    )


def in_python(problem: str) -> str:
    """Return a sentence about a line of `job.toml` with the names that Python uses."""
    for field in _LONGEST_FIRST:
        problem = problem.replace(field.where, field.attribute)
        problem = problem.replace(f"{field.attribute}: {field.attribute} ", f"{field.attribute} ")
    return problem


_LONGEST_FIRST = sorted((f for f in FIELDS if f.table), key=lambda f: -len(f.where))


def _as_a_file_says(field: Field, value: Any) -> Any:
    """Return a Python value as `tomllib` would have given it."""
    if field.read is job_fields.duration:
        return _duration(value)
    if isinstance(value, tuple | set | frozenset):
        value = list(value)
    if isinstance(value, list):
        if not value and field.attribute in ("datasets", "agreements"):
            return job_fields.ALL if field.attribute == "datasets" else job_fields.NEWEST
        return [_number(item) for item in value]
    return _number(value)


def _number(value: Any) -> Any:
    """Return NumPy's numbers as Python's, and a float as a decimal of at most twelve digits."""
    if isinstance(value, bool | Number):
        return value
    if type(value).__name__ in ("bool_", "bool"):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    return Number(f"{float(value):.12g}") if isinstance(value, numbers.Real) else value


def _duration(value: Any) -> Any:
    """Return seconds, or a `timedelta`, as the text that a file holds; text stays."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, str) or not isinstance(value, numbers.Real):
        return value
    value = float(value)
    text = job_fields.spell_duration(int(value)) if value >= 1 else ""
    if not text or job_fields.duration(text) != value:  # a file cannot say it
        raise JobFileError('whole minutes, in seconds, or a time such as "12h" or "7d"')
    return text


def _settings(value: Any) -> tuple[Setting, ...]:
    """Read a strategy's settings: numbers by name, or `Setting`s as a draft holds them."""
    if isinstance(value, tuple) and all(isinstance(item, Setting) for item in value):
        return tuple(sorted(value, key=lambda s: s.name))
    if not isinstance(value, Mapping):
        raise JobFileError('numbers by name, such as {"eta": 0.1}')
    return tuple(
        Setting(name=job_fields.code(key), value=job_fields.setting(_number(value[key])))
        for key in sorted(value, key=str)
    )


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."
