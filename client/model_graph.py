"""The graph of a job's model as it leaves the builder: read strictly, because whoever wrote it may be hostile.

    {"type": "wardround-model-graph/1",
     "input": [5],                                    shape of one example
     "parameters": [["0.weight", [1, 5]], ...],       float32, in packed order
     "constants": [{"dtype": "bool", "shape": [5, 5], "values": [...]}, ...],
     "nodes": [{"op": "addmm.default", "args": [{"ref": 2}, {"ref": 0}, {"ref": 3}]}, ...],
     "result": {"ref": 4}}

Values are counted: 0 is one example as a batch of one, then parameters, constants, and what each node gives. A node
may use earlier values only, so there is no cycle. Only the operations of `client.graph_operations` are read. Whether
types fit is the operation's own schema's word, whether shapes fit is tried on torch's meta device, which computes
nothing.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import torch
from torch import Tensor

from client.errors import GraphError
from client.graph import Graph, Node, Ref, Value
from client.graph_operations import DTYPES, ITEM, LEFT_OUT, MAYBE_NUMBER, OPERATIONS, TEXTS

TYPE = "wardround-model-graph/1"
MAX_SIZE = 16 << 20  # bytes of the JSON
MAX_NODES = 4096
MAX_PARAMETERS = 1 << 26  # numbers
MAX_CONSTANTS = 1 << 20  # numbers
MAX_ELEMENTS = 1 << 22  # of all that is computed for one example
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}(?:\.[A-Za-z0-9_]{1,64}){0,15}").fullmatch


def parse(data: bytes) -> Graph:
    """Read a graph.

    Args:
        data: What a builder wrote: anything at all.

    Raises:
        GraphError: it does not follow the format, is too large, or holds an operation that is not offered.
    """
    if len(data) > MAX_SIZE:
        raise GraphError(f"the model's graph is larger than {MAX_SIZE} bytes: use fewer constants")
    try:
        value = json.loads(data, parse_constant=_no_number)
        return _Reader(_fields(value, "type", "input", "parameters", "constants", "nodes", "result")).graph()
    except (ValueError, RecursionError, OverflowError):
        raise GraphError("the model's graph is not written as it must be") from None


def _no_number(text: str) -> float:
    raise ValueError(text)


def _fields(value: object, *names: str) -> dict[str, Any]:
    if not isinstance(value, dict) or sorted(value) != sorted(names):
        raise ValueError("fields")
    return value


def _ints(value: object, limit: int = 1 << 31) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 64:
        raise ValueError("whole numbers")
    return tuple(_int(item, limit) for item in value)


def _int(value: object, limit: int = 1 << 31) -> int:
    if type(value) is not int or abs(value) > limit:
        raise ValueError("whole number")
    return value


def _number(value: object) -> float:
    """Return a number that an operation takes; infinities are spelled."""
    if value in ("inf", "-inf"):
        return float(str(value))
    if type(value) is bool or type(value) is float:
        return value
    return _int(value, 1 << 53)


class _Reader:
    def __init__(self, value: dict[str, Any]) -> None:
        if value["type"] != TYPE:
            raise ValueError("type")
        self._value = value
        self._meta: list[Value] = []  # every value so far, of which the shape alone is known
        self._total = 0

    def graph(self) -> Graph:
        shape = self._shape(self._value["input"])
        self._meta.append(torch.empty((1, *shape), device="meta"))
        parameters = tuple(self._parameter(item) for item in _list(self._value["parameters"], MAX_NODES))
        sizes = sum(math.prod(shape) for _, shape in parameters)
        if sizes > MAX_PARAMETERS or len({name for name, _ in parameters}) < len(parameters):
            raise GraphError(f"the model has more than {MAX_PARAMETERS} parameters, or two of one name")
        self._meta += [torch.empty(shape, device="meta") for _, shape in parameters]
        self._constants = tuple(self._constant(item) for item in _list(self._value["constants"], MAX_NODES))
        if sum(c.numel() for c in self._constants) > MAX_CONSTANTS:
            raise GraphError(f"the model holds more than {MAX_CONSTANTS} constant numbers: compute them")
        self._first = 1 + len(parameters)  # the number of the first constant
        self._meta += [c.to("meta") for c in self._constants]
        nodes = tuple(self._node(item) for item in _list(self._value["nodes"], MAX_NODES))
        result = self._reference(self._value["result"]).index
        last = self._meta[result]
        if not isinstance(last, Tensor) or last.dtype != torch.float32 or last.dim() < 1 or len(last) != 1:
            raise GraphError("the model must return one float32 row of outputs for each example")
        return Graph(
            example_shape=shape,
            parameters=parameters,
            constants=self._constants,
            nodes=nodes,
            result=result,
            elements=self._total,
        )

    def _shape(self, value: object) -> tuple[int, ...]:
        shape = _ints(value)
        if len(shape) > 8 or min(shape, default=1) < 0:
            raise ValueError("shape")
        return shape

    def _parameter(self, value: object) -> tuple[str, tuple[int, ...]]:
        name, shape = _list(value, 2)
        if not isinstance(name, str) or _NAME(name) is None:
            raise GraphError("a parameter's name is not made of words and dots")
        return name, self._shape(shape)

    def _constant(self, value: object) -> Tensor:
        fields = _fields(value, "dtype", "shape", "values")
        shape, dtype = self._shape(fields["shape"]), DTYPES[_one_of(fields["dtype"], tuple(DTYPES))]
        numbers = [_number(item) for item in _list(fields["values"], MAX_CONSTANTS)]
        if len(numbers) != math.prod(shape):
            raise ValueError("constant")
        return torch.tensor(numbers, dtype=dtype).reshape(shape)

    def _reference(self, value: object) -> Ref:
        index = _int(_fields(value, "ref")["ref"])
        if not 0 <= index < len(self._meta):
            raise ValueError("an earlier value")
        return Ref(index)

    def _node(self, value: object) -> Node:
        if not isinstance(value, dict) or not isinstance(name := value.get("op"), str):
            raise ValueError("node")
        args = _list(_fields({"named": {}, **value}, "op", "args", "named")["args"], 64)
        if name == ITEM:
            source, place = args
            several = self._meta[(ref := self._reference(source)).index]
            if not isinstance(several, tuple) or not 0 <= _int(place) < len(several):
                raise ValueError("item")
            node = Node(function=None, args=(ref, place), named={})
        elif name in OPERATIONS:
            node = self._operation(name, args, value.get("named", {}))
        else:
            word = name if _NAME(name) else "?"
            raise GraphError(f"the operation {word} is not offered in a job's own model")
        self._meta.append(self._tried(name, node))
        return node

    def _operation(self, name: str, args: list[Any], named: object) -> Node:
        base, overload = name.split(".")
        function = getattr(getattr(torch.ops.aten, base), overload)
        arguments = [a for a in function._schema.arguments if a.name not in LEFT_OUT]
        if not isinstance(named, dict) or len(args) > sum(not a.kwarg_only for a in arguments):
            raise ValueError("arguments")
        by_name = {a.name: a for a in arguments if a.kwarg_only}
        if name == "index_select.default" and not self._is_index(args):
            raise GraphError("select by fixed places only: an index must be a constant")
        return Node(
            function=function,
            args=tuple(self._argument(a, item) for a, item in zip(arguments, args, strict=False)),
            named={key: self._argument(by_name[key], item) for key, item in named.items() if key in by_name},
        )

    def _is_index(self, args: list[Any]) -> bool:
        """Whether an index is known now and within range: one that a row decides could raise."""
        if len(args) != 3:
            return False
        source, place = (
            self._meta[self._reference(args[0]).index],
            self._reference(args[2]).index - self._first,
        )
        if isinstance(source, tuple) or not 0 <= place < len(self._constants):
            return False
        index, dim = self._constants[place], _int(args[1])
        if not -source.dim() <= dim < source.dim() or index.dtype != torch.int64:
            return False
        return not bool((index.lt(0) | index.ge(source.shape[dim])).any())

    def _argument(self, argument: Any, value: object) -> Any:
        """Return an argument if it is of the type that the operation's schema says."""
        kind, name = str(argument.type), argument.name
        if kind.startswith("Optional["):
            if value is None:
                return None
            kind = kind.removeprefix("Optional[").removesuffix("]")
        if name == "dtype":
            return DTYPES[_one_of(value, tuple(DTYPES))]
        if kind == "Tensor" and name in MAYBE_NUMBER and not isinstance(value, dict):
            return _number(value)
        if kind == "Tensor":
            ref = self._reference(value)
            if isinstance(self._meta[ref.index], tuple):
                raise ValueError("one of several results")
            return ref
        if kind == "List[Tensor]":
            return tuple(self._argument(_OneTensor, item) for item in _list(value, 1024))
        if kind == "List[int]":
            return _ints(value)
        if kind == "str":
            return _one_of(value, TEXTS.get(name, ()))
        if kind == "bool":
            if type(value) is not bool:
                raise ValueError("bool")
            return value
        return _int(value) if kind == "int" else _number(value)

    def _tried(self, name: str, node: Node) -> Value:
        """Return an operation's result on the meta device."""
        try:
            result = node.apply(self._meta)
        except (RuntimeError, IndexError, TypeError, NotImplementedError, ValueError):
            raise GraphError(f"the operation {name} does not fit the shapes that it is given") from None
        parts = result if isinstance(result, tuple) else (result,)
        if any(part.dtype not in DTYPES.values() for part in parts):
            raise GraphError(f"the operation {name} gives another type than float32, int64 or bool")
        self._total += sum(part.numel() for part in parts)
        if self._total > MAX_ELEMENTS:
            raise GraphError(f"the model computes more than {MAX_ELEMENTS} numbers for one example")
        return result


class _OneTensor:
    type = "Tensor"
    name = "tensors"


def _list(value: object, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError("list")
    return value


def _one_of(value: object, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError("word")
    return value
