"""The sensitivity harness: no record moves the noiseless integer sum by more than the clip norm.

Over every built-in model, several of a job's own as they are rebuilt from their graphs, and every loss that
fits, on the integers and without tolerance: the sum of squares of the change is compared with
(C / grid)^2 = 2^(2 grid_bits). Add or remove one record are the same comparison read from
either side; the record takes a new place at the end, or another's place while that one moves to the end, which are
the two ways the random places of `client.training` allow.

On another processor: `WARDROUND_TEST_DEVICE=cuda python -m pytest tests/client/test_sensitivity.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from client import dp_sgd, graph_model
from client.model_check import check_model
from client.model_export import export
from client.models import ModelSettings, build, initial_parameters, pack
from client.randomness import seeded_for_tests
from client.training import PatientRows, RoundTraining
from client.training_plan import TrainingPlan

torch.set_num_threads(1)  # two busy threads on two busy cores are many times slower

DEVICE = os.environ.get("WARDROUND_TEST_DEVICE", "cpu")
ROWS = 21  # one full chunk of 16 and one padded
LOGISTIC = ModelSettings(name="logistic-regression", input_shape=(9,))
MLP = ModelSettings(name="mlp", input_shape=(9,), hidden=(16, 8))
CNN = ModelSettings(name="small-cnn", input_shape=(1, 28, 28))
CASES = [
    (settings, loss)
    for settings in (LOGISTIC, MLP, CNN)
    for loss in ("bce-with-logits", "mse", "cross-entropy")
]
PLAN = TrainingPlan(
    learning_rate=0.1, max_grad_norm=0.7, noise_multiplier=1.0, size_class=16, loss="mse", chunk_size=16
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    training: RoundTraining
    plan: TrainingPlan
    features: Tensor
    labels: Tensor


class Tokens(nn.Module):
    """A tabular transformer without embeddings: each feature is a token of its own scale and shift."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(features, 4)), nn.Parameter(torch.zeros(features, 4))
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.out = nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.unsqueeze(-1) * self.scale + self.shift
        out: Tensor = self.out(self.layer(tokens).mean(1))
        return out


class Attention(nn.Module):
    """One block of attention over the features, and a branch that only large values take."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.ones(4))
        self.q, self.k, self.v, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4)
        self.out = nn.Linear(4 * features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        t = self.norm(torch.where(x.abs().sum() > 100, x * 7, x).unsqueeze(-1) * self.up)
        mixed = nn.functional.scaled_dot_product_attention(self.q(t), self.k(t), self.v(t))
        out: Tensor = self.out((t + mixed).flatten(1))
        return out


def _normed_mlp(outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(9, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 8), nn.GroupNorm(2, 8), nn.SiLU(),
        nn.Linear(8, outputs),
    )  # fmt: skip


def _image_cnn(outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs),
    )  # fmt: skip


OWN: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "mlp with norms": (_normed_mlp, (9,)),
    "cnn": (_image_cnn, (1, 12, 12)),
    "attention": (lambda outputs: Attention(9, outputs), (9,)),
    "tabular transformer": (lambda outputs: Tokens(9, outputs), (9,)),
}


def prepare_own(name: str, loss: str) -> Case:
    make, shape = OWN[name]
    outputs = 3 if loss == "cross-entropy" else 1
    torch.manual_seed(3)
    original = make(outputs)
    model = graph_model.from_bytes(export(original, shape), shape)
    check_model(model, example_shape=shape, loss=loss, outputs=outputs)
    plan = replace(PLAN, loss=loss)
    training = RoundTraining(
        model, pack(original), plan, seeded_for_tests(1), example_shape=shape, device=DEVICE
    )
    generator = torch.Generator().manual_seed(2)
    features = torch.randn((ROWS, *shape), generator=generator)
    labels = torch.randint(0, max(2, outputs), (ROWS,), generator=generator).float()
    return Case(training=training, plan=plan, features=features, labels=labels)


def prepare(settings: ModelSettings, loss: str, plan: TrainingPlan, *, linear: bool = True) -> Case:
    settings = replace(settings, outputs=3 if loss == "cross-entropy" else 1)
    model = build(settings)
    parameters = initial_parameters(model, settings, seed=4, prevalence=0.3)
    plan = replace(plan, loss=loss, size_class=plan.size_class if linear else 2**19)  # above: hooks for all
    training = RoundTraining(
        model, parameters, plan, seeded_for_tests(1), example_shape=settings.input_shape, device=DEVICE
    )
    generator = torch.Generator().manual_seed(2)
    features = torch.randn((ROWS, *settings.input_shape), generator=generator)
    labels = torch.randint(0, 3 if loss == "cross-entropy" else 2, (ROWS,), generator=generator).float()
    return Case(training=training, plan=plan, features=features, labels=labels)


def hostile_records(features: Tensor, labels: Tensor) -> list[tuple[str, Tensor, float]]:
    """Records as an attacker would choose them: (name, features, label)."""
    usual = features[0]
    generator = torch.Generator().manual_seed(9)
    records = [("duplicate", usual, float(labels[0])), ("flipped label", usual, 1.0 - float(labels[0]))]
    records += [(f"random {i}", torch.randn(usual.shape, generator=generator), 0.0) for i in range(3)]
    records += [(f"times {size:g}", usual * size, 1.0) for size in (1e-30, 10.0, 1e4, 1e15, 1e30, 1e38)]
    records += [(f"minus {size:g}", usual * -size, 0.0) for size in (1e4, 1e30)]
    for value in (float("nan"), float("inf"), -float("inf"), 3e38, 0.0):
        records.append((f"all {value}", torch.full_like(usual, value), 1.0))
        one = usual.clone()
        one.view(-1)[0] = value
        records.append((f"one {value}", one, 0.0))
    records += [(f"label {label}", usual, label) for label in (-1e30, 1e30, float("nan"), float("inf"), 57.0)]
    return records


def noiseless(case: Case, features: Tensor, labels: Tensor) -> NDArray[np.int64]:
    case.training.optimizer.forget()
    case.training.add_rows(features, labels, np.arange(len(features)))
    return case.training.optimizer.noiseless_sum().cpu().numpy().copy()


def squared_norm(change: NDArray[np.int64]) -> int:
    return sum(x * x for x in change.tolist())  # Python's integers: no overflow can hide a violation


def largest_change(case: Case) -> tuple[int, str]:
    """Return the largest squared change any record makes, in either place, and that record's name."""
    without = noiseless(case, case.features, case.labels)
    found: list[tuple[int, str]] = []
    for i, (name, row, label) in enumerate(hostile_records(case.features, case.labels)):
        features = torch.cat([case.features, row[None]])
        labels = torch.cat([case.labels, torch.tensor([label])])
        found.append((squared_norm(noiseless(case, features, labels) - without), name))
        if row.dim() > 1 and i % 4:
            continue  # images are slow: every fourth record takes another's place
        swapped = torch.arange(len(features))
        swapped[3], swapped[-1] = len(features) - 1, 3
        found.append((squared_norm(noiseless(case, features[swapped], labels[swapped]) - without), name))
    return max(found)


@pytest.mark.parametrize(
    ("settings", "loss", "linear"),
    [(s, loss, linear) for s, loss in CASES for linear in (True, False) if not (linear and s is CNN)],
    ids=lambda value: (
        {True: "exact", False: "hooks"}.get(value)
        if isinstance(value, bool)
        else getattr(value, "name", value)
    ),
)
def test_no_record_moves_the_sum_by_more_than_the_clip_norm(
    settings: ModelSettings, loss: str, linear: bool
) -> None:
    case = prepare(settings, loss, PLAN, linear=linear)
    largest, name = largest_change(case)
    bound = 2 ** (2 * case.plan.grid_bits)
    assert largest <= bound, f"{name} moves the sum by {(largest / bound) ** 0.5} C"
    assert largest > 0.99 * bound  # some record does reach the clip: the bound is not idle


@pytest.mark.parametrize(
    ("name", "loss"),
    [("mlp with norms", "mse"), ("cnn", "bce-with-logits"), ("attention", "cross-entropy"),
     ("tabular transformer", "bce-with-logits")],
)  # fmt: skip
def test_no_record_moves_the_sum_of_a_jobs_own_model_by_more_than_the_clip_norm(name: str, loss: str) -> None:
    case = prepare_own(name, loss)
    largest, record = largest_change(case)
    bound = 2 ** (2 * case.plan.grid_bits)
    assert largest <= bound, f"{record} moves the sum by {(largest / bound) ** 0.5} C"
    assert largest > 0.99 * bound


@pytest.mark.parametrize("settings", [LOGISTIC, MLP], ids=lambda s: s.name)
def test_every_record_stays_within_the_bound_at_every_clip_norm_and_grid(settings: ModelSettings) -> None:
    for max_grad_norm in (1e-6, 0.1, 3.3, 1e6):
        for bits in (16, 24):
            case = prepare(
                settings, "bce-with-logits", replace(PLAN, max_grad_norm=max_grad_norm, grid_bits=bits)
            )
            assert largest_change(case)[0] <= 2 ** (2 * bits)


def test_harness_finds_a_missing_rounding_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingPlan, "clip_limit", lambda plan, _: 2.0**plan.grid_bits * 1.00001)
    for linear in (True, False):
        case = prepare(MLP, "mse", PLAN, linear=linear)
        assert largest_change(case)[0] > 2 ** (2 * PLAN.grid_bits)


def test_harness_finds_a_loss_reduced_over_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def coupled(loss: str, outputs: Tensor, labels: Tensor) -> Tensor:
        del loss
        risk = outputs.reshape(-1)
        return torch.logcumsumexp(risk, 0) - risk + 0 * labels  # Cox's partial likelihood

    monkeypatch.setattr(dp_sgd, "per_example_loss", coupled)
    case = prepare(LOGISTIC, "mse", PLAN, linear=False)
    assert largest_change(case)[0] > 2 ** (2 * PLAN.grid_bits)


def test_harness_finds_a_gradient_that_is_not_zeroed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "nan_to_num", lambda x, *_: x)
    case = prepare(LOGISTIC, "mse", PLAN, linear=False)
    assert largest_change(case)[0] > 2 ** (2 * PLAN.grid_bits)


@pytest.mark.parametrize(
    ("settings", "linear"),
    [(LOGISTIC, True), (LOGISTIC, False), (MLP, True), (MLP, False), (CNN, False)],
    ids=["logistic-exact", "logistic-hooks", "mlp-exact", "mlp-hooks", "cnn-hooks"],
)
def test_a_row_in_another_place_gives_the_same_sum(settings: ModelSettings, linear: bool) -> None:
    """What the last bits of float32 do to a moved row; the clip limit keeps sqrt(d) grid units for it."""
    case = prepare(settings, "bce-with-logits", PLAN, linear=linear)
    for place in (0, 7, 15, 20):
        order = torch.arange(ROWS)
        order[place], order[2] = 2, place
        change = noiseless(case, case.features[order], case.labels[order]) - noiseless(
            case, case.features, case.labels
        )
        assert squared_norm(change) <= len(change)


def binomial_pvalue(sizes: list[int], patients: int, rate: float) -> float:
    """Chi-square test of batch sizes against the binomial law that Poisson sampling gives."""
    edges = stats.binom.ppf([0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9], patients, rate)
    observed = np.bincount(np.searchsorted(edges, sizes), minlength=len(edges) + 1)
    cumulative = np.concatenate([[0.0], stats.binom.cdf(edges, patients, rate), [1.0]])
    return float(stats.chisquare(observed, np.diff(cumulative) * len(sizes)).pvalue)


def test_batch_sizes_are_binomial_so_sampling_is_poisson_not_shuffled() -> None:
    plan = replace(PLAN, sampling="poisson", sample_rate=0.1)
    people, stream = PatientRows(np.arange(640)), seeded_for_tests(8)
    batches = [people.draw(plan, stream) for _ in range(3000)]
    assert binomial_pvalue([len(rows) for rows in batches], 640, 0.1) > 1e-3
    assert binomial_pvalue([64] * 3000, 640, 0.1) < 1e-9  # what shuffled batches of 64 would show
    seen = np.bincount(np.concatenate(batches), minlength=640)
    assert stats.chisquare(seen).pvalue > 1e-3
    together = sum(bool(np.isin([3, 4], rows).all()) for rows in batches)
    assert abs(together - 3000 * float(Fraction("0.01"))) < 4 * (3000 * 0.01) ** 0.5


def test_patient_with_many_rows_is_drawn_as_one() -> None:
    owners = np.array([5] * 50 + [7] + [9] * 2)
    people, stream = PatientRows(owners), seeded_for_tests(8)
    full = [people.draw(PLAN, stream) for _ in range(400)]
    assert all(sorted(owners[rows]) == [5, 7, 9] for rows in full)
    chosen = np.bincount(np.concatenate(full), minlength=53)
    assert chosen[50] == 400
    assert stats.chisquare(chosen[:50]).pvalue > 1e-3
    assert stats.chisquare(chosen[51:]).pvalue > 1e-3
    half = [people.draw(replace(PLAN, sampling="poisson", sample_rate=0.5), stream) for _ in range(2000)]
    counts = [sum(int((owners[rows] == patient).sum()) for rows in half) for patient in (5, 7, 9)]
    assert all(abs(count - 1000) < 4 * 500**0.5 for count in counts)
