"""Graphs of models: what an honest one computes, and every way in which a forged one is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from client import model_graph
from client.dp_sgd import example_gradients, with_example_gradients
from client.errors import GraphError
from client.graph_model import GraphModel, from_bytes
from client.model_export import export
from client.model_graph import parse
from client.models import ModelSettings, build, initial_parameters, pack, unpack
from client.randomness import seeded_for_tests
from client.training import chunk_size_for, train_round
from client.training_plan import TrainingPlan

torch.set_num_threads(1)

SHAPE = (5,)


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 1))


@pytest.fixture(scope="module")
def written() -> bytes:
    return export(layers(), SHAPE)


def test_a_rebuilt_model_computes_what_the_original_does(written: bytes) -> None:
    original, rebuilt = layers(), from_bytes(written, SHAPE)
    unpack(pack(original), rebuilt)
    assert [n for n, _ in rebuilt.named_parameters()] == [n for n, _ in original.named_parameters()]
    examples, labels = torch.randn(7, 5), torch.ones(7)
    assert torch.allclose(rebuilt(examples), original(examples), atol=1e-6)
    for loss in ("bce-with-logits", "mse"):
        hooks = example_gradients(with_example_gradients(copy.deepcopy(original)), loss, examples, labels)
        assert torch.allclose(example_gradients(rebuilt, loss, examples, labels), hooks, atol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "small-cnn"])
def test_a_round_is_the_same_through_the_graph_and_through_the_built_in_path(name: str) -> None:
    shape = (1, 28, 28) if name == "small-cnn" else (6,)
    settings = ModelSettings(name=name, input_shape=shape, hidden=(8, 4))
    original = build(settings)
    parameters = initial_parameters(original, settings, seed=5)
    rebuilt = from_bytes(export(build(settings), shape), shape)
    plan = TrainingPlan(learning_rate=0.1, max_grad_norm=0.5, noise_multiplier=1.0, size_class=16, loss="mse",
                        local_steps=3, chunk_size=16)  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    features, labels = torch.randn((20, *shape), generator=generator), torch.ones(20)
    results = [
        train_round(m, parameters, features, labels, plan, seeded_for_tests(3)) for m in (original, rebuilt)
    ]
    assert np.linalg.norm(results[0]) > 0.01
    assert np.allclose(results[0], results[1], atol=1e-5)


class Masked(nn.Module):
    """Constants of every kind, a choice of columns, a split, an infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 1)
        self.mask: Tensor
        self.register_buffer("mask", torch.tril(torch.ones(4, 4)).bool())

    def forward(self, x: Tensor) -> Tensor:
        y = x[:, [0, 3, 1, 2]] + torch.arange(4)
        scores = (y.unsqueeze(-1) * y.unsqueeze(1)).masked_fill(~self.mask, float("-inf")).softmax(-1)
        left, right = scores.mean(1).chunk(2, dim=1)
        out: Tensor = self.out(torch.cat([right, left], dim=1).clamp(max=float("inf")))
        return out


def test_constants_choices_splits_and_infinities_survive() -> None:
    original = Masked()
    rebuilt = from_bytes(export(original, SHAPE), SHAPE)
    unpack(pack(original), rebuilt)
    examples = torch.randn(3, 5)
    assert torch.allclose(rebuilt(examples), original(examples), atol=1e-6)
    assert len(rebuilt.graph.constants) >= 2


def test_large_models_are_trained_in_small_chunks(written: bytes) -> None:
    assert chunk_size_for(from_bytes(written, SHAPE), SHAPE) == 256
    wide = nn.Sequential(nn.Linear(5, 400), nn.Tanh(), nn.Linear(400, 400), nn.Tanh(), nn.Linear(400, 1))
    assert chunk_size_for(from_bytes(export(wide, SHAPE), SHAPE), SHAPE) == 16


def node(graph: dict[str, Any], op: str, *args: object, **named: object) -> None:
    """Add a node that uses the input, and make its value the result."""
    graph["nodes"].append({"op": op, "args": list(args)} | ({"named": named} if named else {}))
    graph["result"] = {"ref": len(graph["parameters"]) + len(graph["constants"]) + len(graph["nodes"])}


X = {"ref": 0}
FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another type": lambda g: g.update(type="wardround-model-graph/2"),
    "a field more": lambda g: g.update(code="import os"),
    "a field less": lambda g: g.pop("constants"),
    "a value from the future": lambda g: node(g, "relu.default", {"ref": 99}),
    "a value of itself": lambda g: node(g, "relu.default", {"ref": 7 + len(g["nodes"])}),
    "a negative value": lambda g: node(g, "relu.default", {"ref": -1}),
    "no such operation": lambda g: node(g, "no_such.default", X),
    "an operation of another library": lambda g: node(g, "prims.add.default", X),
    "an attribute of ours": lambda g: node(g, "__class__.default", X),
    "a file": lambda g: node(g, "from_file.default", "/etc/passwd"),
    "an operation in place": lambda g: node(g, "relu_.default", X),
    "randomness": lambda g: node(g, "rand_like.default", X),
    "a dropout": lambda g: node(g, "native_dropout.default", X, 0.5, True),
    "a strided view": lambda g: node(g, "as_strided.default", X, [1, 1000000], [0, 1]),
    "memory never written": lambda g: node(g, "empty_like.default", X),
    "a shape that values decide": lambda g: node(g, "nonzero.default", X),
    "an index that a row decides": lambda g: node(g, "index_select.default", X, 1, X),
    "an index out of range": lambda g: g.update(
        constants=[{"dtype": "int64", "shape": [1], "values": [9]}],
        nodes=[{"op": "index_select.default", "args": [X, 1, {"ref": 7}]}],
        result={"ref": 8},
    ),
    "a branch": lambda g: node(g, "_local_scalar_dense.default", X),
    "text for a number": lambda g: node(g, "add.Scalar", X, "1"),
    "an object for a number": lambda g: node(g, "add.Scalar", X, {"__reduce__": "os.system"}),
    "a flag for a number": lambda g: node(g, "select.int", X, True, 0),
    "a number too large": lambda g: node(g, "select.int", X, 1 << 40, 0),
    "a device": lambda g: node(g, "full_like.default", X, 1.0, "cuda"),
    "too many arguments": lambda g: node(g, "relu.default", X, X),
    "too few arguments": lambda g: node(g, "mm.default", X),
    "shapes that do not fit": lambda g: node(g, "mm.default", X, X),
    "doubles": lambda g: node(g, "_to_copy.default", X, dtype="float64"),
    "a result that is no float": lambda g: node(g, "gt.Scalar", X, 0),
    "a result of several": lambda g: node(g, "split_with_sizes.default", X, [2, 3], 1),
    "a place out of range": lambda g: node(g, "item", X, 0),
    "a result without the batch": lambda g: node(g, "sum.default", X),
    "a result of two rows": lambda g: node(g, "cat.default", [X, X]),
    "gigabytes": lambda g: node(g, "repeat.default", X, [1, 1 << 28]),
    "gigabytes by padding": lambda g: node(g, "constant_pad_nd.default", X, [0, 1 << 30], 0),
    "too many nodes": lambda g: g["nodes"].extend(
        [{"op": "relu.default", "args": [X]}] * model_graph.MAX_NODES
    ),
    "too many parameters": lambda g: g["parameters"].append(["w", [1 << 13, 1 << 14]]),
    "a parameter of negative size": lambda g: g["parameters"].append(["w", [-1, 5]]),
    "two parameters of one name": lambda g: g["parameters"].append(g["parameters"][0]),
    "a parameter's name with a path": lambda g: g["parameters"].append(["../../w", [1]]),
    "a parameter called forward": lambda g: g["parameters"].append(["forward", [1]]),
    "a parameter within a parameter": lambda g: g["parameters"].append(["0.weight.x", [1]]),
    "a constant of the wrong size": lambda g: g["constants"].append(
        {"dtype": "float32", "shape": [9], "values": [1.0]}
    ),
    "a constant that is not a number": lambda g: g["constants"].append(
        {"dtype": "float32", "shape": [1], "values": ["nan"]}
    ),
    "a constant of objects": lambda g: g["constants"].append(
        {"dtype": "object", "shape": [1], "values": [{"a": 1}]}
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_graph_is_refused_in_one_line(written: bytes, name: str) -> None:
    graph = json.loads(written)
    FORGERIES[name](graph)
    with pytest.raises(GraphError) as caught:
        GraphModel(parse(json.dumps(graph).encode()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"\xff", b"[" * 100_000, b'{"a": NaN}', b'{"type": 1e999}', b"x" * (17 << 20)],
)
def test_what_is_no_graph_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(GraphError):
        parse(data)


@given(st.data())
def test_a_graph_with_any_part_replaced_is_read_or_refused(written: bytes, data: st.DataObject) -> None:
    """Nothing but a graph or GraphError comes of it, whatever stands anywhere."""
    graph = json.loads(written)
    strange = st.one_of(
        st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(["inf", "float32", "relu.default", "item", ""]), st.just([]), st.just({}),
        st.builds(lambda i: {"ref": i}, st.integers(-1, 20)),
    )  # fmt: skip
    at: Any = graph
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if isinstance(at[key], dict | list) and at[key] and data.draw(st.integers(0, 3)):
            at = at[key]
            continue
        at[key] = data.draw(strange)
        break
    try:
        made = parse(json.dumps(graph).encode())
    except GraphError:
        return
    assert made.elements <= model_graph.MAX_ELEMENTS
