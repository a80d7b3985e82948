"""From a module to the graph that leaves the builder: `torch.export`, cut down to what `client.model_graph` reads.

Runs in the builder, beside the job's own code, so nothing here is a check that anybody relies on: whoever reads the
graph checks it. What this page adds is a clear word about an honest mistake. A part that depends on neither example
nor trained parameter is computed here and leaves as numbers: so does a parameter that is frozen (`requires_grad` is
false), with the value that `model.py` gave it.
"""

from __future__ import annotations

import json
import operator
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind, OutputKind

from client import model_faults
from client.errors import ModelRefusedError
from client.graph_operations import DTYPES, ITEM, LEFT_OUT
from client.model_graph import TYPE
from client.models import JOB_CODE_ERRORS

_SAME = ("alias.default", "clone.default", "contiguous.default", "detach.default", "lift_fresh_copy.default")
_RANDOM = ("bernoulli", "dropout", "multinomial", "normal", "poisson", "rand")
_WORDS = {dtype: word for word, dtype in DTYPES.items()}
_MUTATIONS = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION, OutputKind.USER_INPUT_MUTATION)


def export(module: nn.Module, example_shape: tuple[int, ...]) -> bytes:
    """Return a module's graph as JSON.

    Args:
        module: What `build_model` returned.
        example_shape: Of one example.

    Raises:
        ModelRefusedError: it changes its own state, is random, or cannot be written as a graph.
    """
    module.train()
    model_faults.require_none(module)
    _try(module, example_shape)
    frozen = frozenset(name for name, p in module.named_parameters() if not p.requires_grad)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (torch.zeros((1, *example_shape)),), strict=False)
        program = program.run_decompositions()
    return json.dumps(_Writer(program, example_shape, frozen).graph(), allow_nan=False).encode()


def _state(module: nn.Module) -> list[Tensor]:
    return [t.detach().clone() for t in (*module.parameters(), *module.buffers())]


def _try(module: nn.Module, example_shape: tuple[int, ...]) -> None:
    """Run the model on made-up examples, and name what it must not do."""
    first, other = torch.randn((1, *example_shape)), torch.randn((1, *example_shape))
    before = _state(module)
    outputs: list[Tensor] = []
    with torch.no_grad():
        for seed, example in ((1, first), (2, other), (1, first), (3, first)):
            torch.manual_seed(seed)
            outputs.append(module(example.clone()))
        mixes = _mixes(module, torch.cat([first, other, other]), torch.cat([outputs[0], *2 * [outputs[1]]]))
    after = _state(module)
    if len(before) != len(after) or not all(map(torch.equal, before, after)):
        raise ModelRefusedError("model-state", "forward changes a parameter or a buffer: drop that line")
    if not torch.equal(outputs[0], outputs[2]):
        raise ModelRefusedError(
            "model-state", "forward gives another output when it is called again: keep no memory"
        )
    if not torch.equal(outputs[0], outputs[3]):
        raise ModelRefusedError("model-randomness", "forward is random: remove dropout and other randomness")
    if mixes:
        raise ModelRefusedError(
            "model-graph",
            "one row's output depends on the other rows of its batch: compute each row by itself",
        )


def _mixes(module: nn.Module, batch: Tensor, alone: Tensor) -> bool:
    """Whether a batch gives anything else than its rows do one by one, which is how they will be trained.

    The graph is of one row, so a mean over the batch would quietly be that row itself.
    """
    torch.manual_seed(1)
    try:
        together = module(batch)
    except JOB_CODE_ERRORS:  # it takes one row at a time
        return False
    return together.shape != alone.shape or not torch.allclose(
        together, alone, rtol=1e-3, atol=1e-4, equal_nan=True
    )


class _Writer:
    def __init__(self, program: Any, example_shape: tuple[int, ...], frozen: frozenset[str]) -> None:
        self._program = program
        self._frozen = frozen
        self._shape = list(example_shape)
        self._numbers: dict[Any, int] = {}  # of a torch.fx node's value
        self._folded: dict[Any, Any] = {}  # values that are known now
        self._constants: list[tuple[Any, Tensor]] = []
        self._nodes: list[dict[str, Any]] = []

    def graph(self) -> dict[str, Any]:
        signature = self._program.graph_signature
        for output in signature.output_specs:
            if output.kind in _MUTATIONS:
                raise ModelRefusedError(
                    "model-state", f"forward changes {output.target} in place: make a new tensor"
                )
        parameters: list[tuple[Any, str, Tensor]] = []
        places = [n for n in self._program.graph.nodes if n.op == "placeholder"]
        for place, spec in zip(places, signature.input_specs, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                self._numbers[place] = 0
            elif spec.kind is InputKind.PARAMETER and spec.target not in self._frozen:
                parameters.append((place, spec.target, self._program.state_dict[spec.target]))
            elif spec.kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR, InputKind.PARAMETER):
                held = self._program.constants.get(spec.target)
                self._folded[place] = self._program.state_dict[spec.target] if held is None else held
            else:
                raise ModelRefusedError("model-graph", "the model holds something that is no tensor")
        for number, (place, _, _) in enumerate(parameters, start=1):
            self._numbers[place] = number
        calls = [n for n in self._program.graph.nodes if n.op == "call_function"]
        rest = [n for n in calls if not self._fold(n)]
        (result,) = next(n for n in self._program.graph.nodes if n.op == "output").args[0]
        used = {a for n in (*rest,) for a in n.all_input_nodes} | {result}
        for node in (n for n in self._folded if n in used):
            self._numbers[node] = 1 + len(parameters) + len(self._constants)
            self._constants.append((node, self._folded[node]))
        for node in rest:
            self._write(node, 1 + len(parameters) + len(self._constants))
        return {
            "type": TYPE,
            "input": self._shape,
            "parameters": [[name, list(p.shape)] for _, name, p in parameters],
            "constants": [_constant(value) for _, value in self._constants],
            "nodes": self._nodes,
            "result": {"ref": self._numbers[result]},
        }

    def _fold(self, node: Any) -> bool:
        """Compute what no example and no parameter changes; tell whether the node is done with."""
        name = _name(node.target)
        if any(name.startswith(word) or f"_{word}" in name for word in _RANDOM):
            raise ModelRefusedError("model-randomness", f"forward is random ({name}): remove it")
        if name.startswith(("_assert", "sym_size")) or name == "_local_scalar_dense.default":
            if name == "_assert_tensor_metadata.default":
                return True  # about types: nothing is computed
            raise ModelRefusedError("model-graph", "a shape or a branch depends on values: use torch.where")
        if not all(source in self._folded for source in node.all_input_nodes):
            return False
        args = torch.fx.map_arg((node.args, node.kwargs), self._folded.__getitem__)
        self._folded[node] = node.target(*args[0], **args[1])
        return True

    def _write(self, node: Any, first: int) -> None:
        name, args = _name(node.target), list(node.args)
        if name in _SAME:
            self._numbers[node] = self._numbers[args[0]]
            return
        if node.target is operator.getitem:
            name = ITEM
        elif name in ("view.default", "_unsafe_view.default"):
            name = "reshape.default"
        elif name == "index.Tensor":
            name, args = "index_select.default", _selection(args)
        written: dict[str, Any] = {"op": name, "args": [self._argument(a) for a in args]}
        named = {key: self._argument(value) for key, value in node.kwargs.items() if _is_ours(key, value)}
        self._nodes.append(written | ({"named": named} if named else {}))
        self._numbers[node] = first + len(self._nodes) - 1

    def _argument(self, value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return {"ref": self._numbers[value]}
        if isinstance(value, list | tuple):
            return [self._argument(v) for v in value]
        if isinstance(value, torch.dtype):
            return _WORDS.get(value, str(value))
        return str(value) if value in (float("inf"), float("-inf")) else value


def _is_ours(key: str, value: Any) -> bool:
    return value is not None and key not in LEFT_OUT


def _name(target: Any) -> str:
    return str(target).removeprefix("aten.") if isinstance(target, torch._ops.OpOverload) else str(target)


def _selection(args: list[Any]) -> list[Any]:
    """Return `index_select`'s arguments for an `index` by one list of places."""
    source, indices = args
    given = [i for i, index in enumerate(indices) if index is not None]
    if len(given) != 1:
        raise ModelRefusedError("model-graph", "select along one dimension at a time")
    return [source, given[0], indices[given[0]]]


def _constant(value: Tensor) -> dict[str, Any]:
    if value.dtype not in _WORDS:
        raise ModelRefusedError("model-graph", f"a constant is {value.dtype}: use float32, int64 or bool")
    numbers = value.detach().reshape(-1).tolist()
    values = [str(v) if v in (float("inf"), float("-inf")) else v for v in numbers]
    return {"dtype": _WORDS[value.dtype], "shape": list(value.shape), "values": values}
