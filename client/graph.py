"""A job's model as a graph: one operation after another, on one example and the model's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Value = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Ref:
    """An earlier value, by its number."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation."""

    function: Any  # of torch.ops.aten, or None for ITEM
    args: tuple[Any, ...]
    named: dict[str, Any]

    def apply(self, values: list[Value]) -> Value:
        """Return what the operation gives for the values before it."""
        args = [_filled(a, values) for a in self.args]
        if self.function is None:
            found: Tensor = args[0][args[1]]
            return found
        result: Any = self.function(*args, **self.named)
        return tuple(result) if isinstance(result, list) else result


def _filled(arg: Any, values: list[Value]) -> Any:
    if isinstance(arg, Ref):
        return values[arg.index]
    if isinstance(arg, tuple):
        return [_filled(a, values) for a in arg]
    return arg


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graph:
    """A model as a function of one example and its parameters."""

    example_shape: tuple[int, ...]
    parameters: tuple[tuple[str, tuple[int, ...]], ...]
    constants: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    result: int
    elements: int  # of all that is computed for one example

    def run(self, parameters: Sequence[Tensor], example: Tensor, constants: Sequence[Tensor]) -> Tensor:
        """Return the model's output for one example, without its dimension of the batch."""
        values: list[Value] = [example.unsqueeze(0), *parameters, *constants]
        for node in self.nodes:
            values.append(node.apply(values))
        result = values[self.result]
        assert isinstance(result, Tensor)  # `parse` has seen it
        return result[0]
