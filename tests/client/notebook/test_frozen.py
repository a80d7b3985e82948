"""Fine-tuning: what is frozen is part of model.py and of no update; gradients per example are of the rest."""

from __future__ import annotations

import hashlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from client import graph_model, model_builder, model_check, models
from client.dictionary import Dictionary, Label, Variable
from client.dp_sgd import example_gradients
from client.errors import JobFileError
from client.model_export import export
from client.notebook.job import Job
from tests.client.notebook.own_models import Tuned

DIGIT = Dictionary(
    name="digits",
    variables=(
        Variable(
            name="digit", kind="image", unit="", lower="0", upper="16", centre="", spread="", levels=(),
            source="scikit-learn's digits", code="", shape=(1, 8, 8),
        ),
    ),
    label=Label(name="even", negative=("0",), positive=("1",), meaning="an even digit", code=""),
    patient="",
    split="",
    source="scikit-learn",
)  # fmt: skip
TRAINED = ("down", "up", "head.weight", "head.bias")


@pytest.fixture(scope="module")
def backbone() -> nn.Module:
    """A backbone that was trained to tell ten digits apart: public data, before the job."""
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    model = nn.Sequential(body, nn.Linear(16, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    assert (model(x).argmax(1) == y).float().mean() > 0.8
    return body


def job(backbone: Any, **changes: Any) -> Job:
    return Job(
        **{"dictionary": DIGIT, "model": Tuned, "frozen": {"backbone": backbone}, "rounds": 2, **changes}
    )


def built(source: bytes | None) -> nn.Module:
    made = ModuleType("model")
    exec(source or b"", made.__dict__)
    found: nn.Module = made.build_model(input_shape=(1, 8, 8), outputs=1)
    return found


@pytest.fixture(scope="module")
def graph(backbone: nn.Module) -> graph_model.GraphModel:
    return graph_model.from_bytes(export(built(job(backbone).source), (1, 8, 8)), (1, 8, 8))


def test_only_what_is_trained_is_in_the_update(graph: graph_model.GraphModel, backbone: nn.Module) -> None:
    assert tuple(name for name, _ in graph.named_parameters()) == TRAINED
    assert sum(p.numel() for p in graph.parameters()) == 2 * 64 + 16 * 2 + 16 + 1
    assert len(models.pack(graph)) < sum(p.numel() for p in backbone.parameters())
    held = [c for c in graph.graph.constants if c.shape == (16, 64) or c.shape == (64, 16)]
    assert any(torch.equal(c if c.shape == (16, 64) else c.T, backbone[0].weight) for c in held)  # type: ignore[index]
    model_check.check_model(graph, example_shape=(1, 8, 8), loss="bce-with-logits", outputs=1)


def test_gradients_per_example_are_those_of_the_module(
    graph: graph_model.GraphModel, backbone: nn.Module
) -> None:
    torch.manual_seed(1)
    module = built(job(backbone).source)
    with torch.no_grad():
        for p, q in zip(graph.parameters(), (p for p in module.parameters() if p.requires_grad), strict=True):
            p.copy_(torch.randn_like(p) / 4)
            q.copy_(p)
    x, y = torch.rand(5, 1, 8, 8), torch.tensor([0.0, 1, 1, 0, 1])
    found = example_gradients(graph, "bce-with-logits", x, y)
    trained = [p for p in module.parameters() if p.requires_grad]
    for i in range(len(x)):
        loss = nn.functional.binary_cross_entropy_with_logits(module(x[i : i + 1])[:, 0], y[i : i + 1])
        expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, trained)])
        assert torch.allclose(found[i], expected, atol=1e-6)
    assert found.abs().sum() > 0


def test_training_begins_with_the_backbone_as_it_was(
    graph: graph_model.GraphModel, backbone: nn.Module
) -> None:
    settings = models.ModelSettings(name="model.py", input_shape=(1, 8, 8))
    models.unpack(models.initial_parameters(graph, settings, seed=0), graph)
    x = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        expected = graph.get_parameter("head.weight") @ backbone(x.flatten(1)).T
        assert torch.allclose(graph(x)[:, 0], expected[0], atol=1e-5)


def test_a_frozen_weight_is_part_of_what_hospitals_review(backbone: nn.Module) -> None:
    first, again = job(backbone), job(backbone.state_dict())
    assert first == again
    changed = {name: value.clone() for name, value in backbone.state_dict().items()}
    changed["0.weight"][0, 0] += 1
    other = job(changed)
    assert other.content != first.content
    assert hashlib.sha256(other.source or b"").digest() != hashlib.sha256(first.source or b"").digest()


def test_half_precision_takes_half_the_room(backbone: nn.Module) -> None:
    half = {name: value.half() for name, value in backbone.state_dict().items()}
    numbers = sum(p.numel() for p in backbone.parameters())
    saved = len(job(backbone).source or b"") - len(job(half).source or b"")
    assert saved >= 2 * numbers * 4 / 3  # base64
    module = built(job(half).source)
    assert module.get_parameter("backbone.0.weight").dtype == torch.float32
    assert not module.get_parameter("backbone.0.weight").requires_grad


def test_what_is_no_weight_or_too_much_is_one_sentence(backbone: nn.Module) -> None:
    for frozen, sentence in (
        ({"backbone": 3}, "frozen 'backbone' is a int: give a module, its state_dict(), or a tensor"),
        ({"backbone": nn.Linear(1000, 300)}, "bytes of model.py, which may have 1,048,576"),
    ):
        with pytest.raises(JobFileError) as caught:
            Job(dictionary=DIGIT, model=Tuned, frozen=frozen)
        assert len(caught.value.problems) == 1
        assert sentence in caught.value.problems[0]


def test_a_weight_that_the_model_has_not_is_named(backbone: nn.Module) -> None:
    with pytest.raises(
        ValueError, match=r"frozen holds body.0.weight of shape \(16, 64\), which the model has not"
    ):
        built(Job(dictionary=DIGIT, model=Tuned, frozen={"body": backbone}).source)


def test_the_confined_builder_makes_the_same_graph(backbone: nn.Module) -> None:
    from client import building
    from tests.client import warm_builder

    model_builder.warm_up()
    source = job(backbone).source or b""
    found = building.build(
        source, input_shape=(1, 8, 8), outputs=1, limits=warm_builder.LIMITS, start=warm_builder.fork
    )
    assert found == export(built(source), (1, 8, 8))
    assert np.isfinite(models.pack(graph_model.from_bytes(found, (1, 8, 8)))).all()
