"""Weights that are not trained, written into `model.py`: part of what hospitals review, and of its digest.

They become constants of the model's graph: no gradient is taken of them, no noise is added to them, and an update
holds the trained parameters alone. A file may have 1 MiB, so at most about 190,000 numbers of float32, or twice as
many of float16.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from client.reviewed import MAX_SIZE

IMPORTS = ("import base64", "import torch")
_TYPES = ("float32", "float16")  # others are written as float32, whole numbers as they are
_WHOLE = ("int64", "bool")
_LINE = 4 * 27
_CODE = '''

def _with_frozen(model):
    """Return the model with its frozen weights, which are not trained."""
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, (kind, shape, text) in _FROZEN.items():
        if name not in held or tuple(held[name].shape) != shape:
            raise ValueError(f"frozen holds {name} of shape {shape}, which the model has not")
        numbers = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=getattr(torch, kind))
        held[name].requires_grad_(False)
        held[name].copy_(numbers.reshape(shape))
    return model
'''


def weights(frozen: Mapping[str, object], problems: list[str]) -> str:
    """Return Python text that holds frozen weights and puts them into a model.

    Args:
        frozen: By the name of a part a module or a `state_dict()`; by the name of a parameter a tensor.
        problems: Gets a sentence for what is no weight, or too much.
    """
    entries = []
    for name, tensor in _tensors(frozen, problems):
        entries.append(_entry(name, tensor))
    size = sum(map(len, entries))
    if size > MAX_SIZE - (1 << 15):
        problems.append(
            f"frozen takes {size:,} bytes of model.py, which may have {MAX_SIZE:,}: give fewer weights, "
            "halve them with part.half(), or compute the frozen part's outputs beforehand and give those as columns"
        )
    return "\n\n_FROZEN = {\n" + "".join(entries) + "}\n" + _CODE


def _tensors(frozen: Mapping[str, object], problems: list[str]) -> Iterator[tuple[str, Any]]:
    for name, given in frozen.items():
        held: Any = given.state_dict() if hasattr(given, "state_dict") else given
        if isinstance(held, Mapping):
            yield from _tensors(
                {f"{name}.{key}" if name else key: value for key, value in held.items()}, problems
            )
        elif hasattr(held, "detach"):
            yield name, held
        else:
            problems.append(
                f"frozen {name!r} is a {type(held).__name__}: give a module, its state_dict(), or a tensor"
            )


def _entry(name: str, tensor: Any) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in _TYPES + _WHOLE:
        kind = "float32"
    numbers = tensor.detach().cpu().numpy().astype(kind)
    text = base64.b64encode(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()).decode()
    lines = [text[i : i + _LINE] for i in range(0, len(text), _LINE)] or [""]
    quoted = "\n".join(f'        "{line}"' for line in lines)
    return f'    "{name}": (\n        "{kind}", {tuple(tensor.shape)!r},\n{quoted},\n    ),\n'
