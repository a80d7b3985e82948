"""A model of one's own: from a class to the file that hospitals read; what is refused, by name, and mended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client import building, graph_model, model_builder, model_check
from client.errors import JobFileError, ModelRefusedError
from client.model_export import export
from client.model_faults import SEPARATOR
from client.notebook import job_checked, mending
from client.notebook.job import Job
from tests.client import warm_builder
from tests.client.notebook import own_models
from tests.client.notebook.own_models import CHOSEN, MENDED, Last, Net

TABLE = np.zeros(3)


@pytest.fixture(scope="module")
def warm() -> None:
    model_builder.warm_up()


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch, warm: None) -> None:
    """Builders by fork: the same confinement, without importing torch each time."""
    real = building.build

    def build(source: bytes, **settings: Any) -> bytes:
        return real(source, **{**settings, "limits": warm_builder.LIMITS, "start": warm_builder.fork})

    monkeypatch.setattr(building, "build", build)


def job(model: object, **changes: Any) -> Job:
    return Job(**{"dictionary": "breast-cancer", "model": model, "rounds": 2, **changes})


def wrong(model: object, **changes: Any) -> tuple[str, ...]:
    with pytest.raises(JobFileError) as caught:
        job(model, **changes)
    return caught.value.problems


def refusal(module: nn.Module, shape: tuple[int, ...]) -> str:
    with pytest.raises(ModelRefusedError) as caught:
        export(module, shape)
    return str(caught.value)


def in_a_file(module: nn.Module) -> nn.Module:
    """Mend a built module as the end of a `model.py` does."""
    made = ModuleType("model")
    made.build_model = lambda *, input_shape, outputs: module  # type: ignore[attr-defined]
    exec(mending._CODE, made.__dict__)
    found: nn.Module = made.build_model(input_shape=(1,), outputs=1)
    return found


def with_head(shape: tuple[int, ...], layer: nn.Module) -> nn.Module:
    like = torch.zeros((2, *shape), dtype=next((p.dtype for p in layer.parameters()), torch.float32))
    return Last(layer, layer(like).flatten(1).shape[1])


@pytest.mark.parametrize("kind", MENDED)
def test_what_can_be_mended_is_named_with_its_fix_and_mended(kind: str) -> None:
    shape, make, fix = MENDED[kind]
    module = with_head(shape, make())
    said = refusal(module, shape)
    assert fix in said
    found = [f for part in said.split(SEPARATOR) for f in job_checked.findings(_as_reported(part))]
    assert found
    assert all(f.mendable for f in found)
    mended = graph_model.from_bytes(export(in_a_file(module), shape), shape)
    model_check.check_model(mended, example_shape=shape, loss="bce-with-logits", outputs=1)


@pytest.mark.parametrize("kind", CHOSEN)
def test_what_its_author_must_choose_is_named_with_its_fix(kind: str) -> None:
    shape, make, fix = CHOSEN[kind]
    said = refusal(nn.Sequential(make(), nn.Flatten()), shape)
    assert said.startswith("0 is ")
    assert fix in said
    (found,) = job_checked.findings(_as_reported(said))
    assert not found.mendable
    assert found.fix


def test_a_shared_parameter_is_named_with_both_its_places() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 1))
    module[1].weight = module[0].weight
    assert "1.weight is the same parameter as 0.weight" in refusal(module, (8,))


def test_in_place_activations_need_no_mending() -> None:
    module = nn.Sequential(nn.Linear(8, 4), nn.ReLU(inplace=True), nn.SiLU(inplace=True), nn.Linear(4, 1))
    model = graph_model.from_bytes(export(module, (8,)), (8,))
    model_check.check_model(model, example_shape=(8,), loss="bce-with-logits", outputs=1)


@pytest.mark.usefixtures("builder")
def test_a_class_with_what_it_uses_is_checked_fixed_and_trained() -> None:
    made = job(Net)
    assert made.draft.model == "custom"
    text = (made.source or b"").decode()
    assert "WIDTH = 8" in text
    assert "def block" in text
    assert "Net(features=input_shape[0], outputs=outputs)" in text
    found = made.check(dry=False)
    assert [f.problem for f in found.findings] == [
        "body.1 is BatchNorm1d, which mixes patients",
        "body.3 is Dropout, which is random",
    ]
    assert found.findings[0].fix == "use GroupNorm(2, 8), or job.fixed() does it"
    assert "what to do" in found._repr_html_()
    fixed = made.check(fix=True, dry=False)
    assert fixed.ok
    assert fixed.job == made.fixed() == made.fixed().fixed()
    assert fixed.report.job is not None
    assert fixed.report.job.training.parameters == (30 * 8 + 8) + 16 + 9
    assert made.source != fixed.job.source


@pytest.mark.usefixtures("builder")
def test_a_function_a_file_and_a_text_are_the_same_model(tmp_path: Path) -> None:
    text = (job(own_models.Net).source or b"").decode()
    (tmp_path / "model.py").write_text(text)
    assert job(text) == job(tmp_path / "model.py") == job(str(tmp_path / "model.py")) == job(Net)
    built = job(build_model).check(dry=False)
    assert built.ok
    assert (built.job.source or b"").count(b"def build_model") == 1


def build_model(*, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Linear(input_shape[0], outputs)


class WithTable(nn.Module):
    def forward(self, x: Any) -> Any:
        return x + TABLE.sum()


class WithUnknown(nn.Module):
    def forward(self, x: Any) -> Any:
        return nowhere(x)  # type: ignore[name-defined]  # noqa: F821 - the mistake


class WithPackage(nn.Module):
    def forward(self, x: Any) -> Any:
        return pytest.approx(x)


class Deep(nn.Module):
    def __init__(self, features: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(features, 1) for _ in range(depth))


WRONG: dict[str, tuple[object, str]] = {
    "a module": (nn.Linear(30, 1), "model is a Linear that is built already: give the class, or a function"),
    "no module": (dict, "model dict is no torch.nn.Module"),
    "a number": (
        3,
        "model must be one of logistic-regression, mlp, small-cnn, a model.py, a class or a function",
    ),
    "a lambda": (lambda: nn.Linear(30, 1), "the source of <lambda> cannot be found"),
    "an array": (
        WithTable,
        "WithTable uses TABLE, a ndarray that cannot be written down: make it inside WithTable",
    ),
    "a name": (WithUnknown, "WithUnknown uses nowhere, which is defined nowhere"),
    "a package": (WithPackage, "WithPackage uses pytest of pytest, which is not there when hospitals build"),
    "an argument": (Deep, "model Deep needs depth, which hospitals cannot know: give it a default"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_what_cannot_be_found_is_one_sentence(mistake: str) -> None:
    model, sentence = WRONG[mistake]
    found = wrong(model)
    assert len(found) == 1
    assert sentence in found[0]


def test_what_surrounds_a_class_in_a_function_is_found() -> None:
    inner = 5

    class Local(nn.Module):
        def __init__(self, features: int) -> None:
            super().__init__()
            self.layer = nn.Linear(features, inner)

    text = (job(Local).source or b"").decode()
    assert "inner = 5" in text
    assert "\nclass Local(nn.Module):\n    def" in text


CELL = """
import torch.nn as tnn
from torch.nn import functional as F
SIZE = 4
class Cell(tnn.Module):
    def __init__(self, outputs=1):
        super().__init__()
        self.a, self.b = tnn.Linear(30, SIZE), tnn.Linear(SIZE, outputs)
    def forward(self, x):
        return self.b(F.gelu(self.a(x)))
"""


@pytest.mark.usefixtures("builder")
def test_a_class_of_a_notebooks_cell_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    main = sys.modules["__main__"]
    make: Any = InteractiveShell
    shell = make(user_ns={"__name__": "__main__"})
    shell.run_cell(CELL, store_history=True).raise_error()
    monkeypatch.setitem(sys.modules, "__main__", main)
    model: Callable[..., Any] = shell.user_ns["Cell"]
    made = job(model)
    text = (made.source or b"").decode()
    assert "import torch.nn as tnn" in text
    assert "import torch.nn.functional as F" in text
    assert "SIZE = 4" in text
    assert made.check(dry=False).ok


def _as_reported(part: str) -> str:
    return f"model.py: every hospital would refuse it (model-state: {part})"


class Centred(nn.Module):
    """A mean over the batch: of one row it is the row itself, so a graph of one row would train nothing of it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layer(x - x.mean(0)))


class RowByRow(nn.Module):
    """Takes one row at a time: so it is trained, so it may be."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layer(x.reshape(1, self.layer.in_features)))


def test_a_computation_over_the_batch_is_named_and_one_of_a_row_is_not() -> None:
    assert "one row's output depends on the other rows of its batch" in refusal(Centred(8, 1), (8,))
    assert export(RowByRow(8, 1), (8,))
