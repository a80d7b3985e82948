"""How a packed model is made up: names and shapes of the built-in models' parameters, from public settings alone.

A model travels as one array, parameters in the order of torch's `named_parameters()`. The coordinator never loads
torch, so the shapes that `client.models` builds are written out here; a test compares the two. The layout of a
job's own `model.py` is not known here: such a model is released as one array, as it travelled.
"""

from __future__ import annotations

from itertools import pairwise

from coordinator import terms
from coordinator.errors import JobError
from ledger.job_records import Job

WHOLE = "parameters"  # name of the one array of a custom model
CUSTOM = "custom"
_HIDDEN = (64, 32)  # widths of the mlp's hidden layers where a job does not say

_Layout = tuple[tuple[str, tuple[int, ...]], ...]


def layout(job: Job) -> _Layout:
    """Return (name, shape) of each parameter of a job's model, in packed order.

    Raises:
        JobError: the job's number of parameters is not that of the model that it names.
    """
    name, total = job.training.model, job.training.parameters
    outputs = terms.setting(job, "outputs", 1)
    if name == "logistic-regression":
        found = _linear("", _inputs(total, outputs, 0, outputs), outputs)
    elif name == "mlp":
        found = _mlp(job, total, outputs)
    elif name == "small-cnn":
        found = _small_cnn(outputs)
    elif name == CUSTOM:
        return ((WHOLE, (total,)),)
    else:
        raise JobError(f"no model {name!r} is built in: name one that is, or {CUSTOM!r} with a model.py")
    if parameters(found) != total:
        raise JobError(f"a {name} of these settings has {parameters(found)} parameters, the job says {total}")
    return found


def parameters(found: _Layout) -> int:
    """Return how many numbers a layout holds."""
    total = 0
    for _, shape in found:
        size = 1
        for length in shape:
            size *= length
        total += size
    return total


def _inputs(total: int, width: int, rest: int, biases: int) -> int:
    """Return how many features a first layer of `width` units takes if the model has `total` parameters."""
    return max(1, (total - rest - biases) // width)


def _linear(prefix: str, inputs: int, outputs: int) -> _Layout:
    return ((f"{prefix}weight", (outputs, inputs)), (f"{prefix}bias", (outputs,)))


def _mlp(job: Job, total: int, outputs: int) -> _Layout:
    hidden: list[int] = []
    while (width := terms.setting(job, f"hidden-{len(hidden) + 1}", 0)) > 0:
        hidden.append(width)
    widths = (*(hidden or _HIDDEN), outputs)
    rest = sum(a * b + b for a, b in pairwise(widths))
    found: _Layout = _linear("0.", _inputs(total, widths[0], rest, widths[0]), widths[0])
    for place, (before, after) in enumerate(pairwise(widths), start=1):
        found += _linear(f"{2 * place}.", before, after)  # a ReLU stands between two layers
    return found


def _small_cnn(outputs: int) -> _Layout:
    return (
        ("0.weight", (16, 1, 3, 3)),
        ("0.bias", (16,)),
        ("1.weight", (16,)),
        ("1.bias", (16,)),
        ("3.weight", (32, 16, 3, 3)),
        ("3.bias", (32,)),
        ("4.weight", (32,)),
        ("4.bias", (32,)),
        *_linear("8.", 288, 32),
        *_linear("10.", 32, outputs),
    )
