"""P1 to P13 of the privacy notes: each fault of Opacus 1.6.0, and why it cannot happen here.

Where the fault costs little to show, the test shows it in Opacus or torch first. The bound itself, over all
models, losses and hostile records, is in `test_sensitivity`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.data_loader import DPDataLoader
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from client.dp_sgd import with_example_gradients
from client.errors import TrainingRefusedError
from client.losses import per_example_loss
from client.model_check import check_model
from client.randomness import SystemRandomness, seeded_for_tests, system_randomness
from client.training import RoundTraining, train_round
from client.training_plan import TrainingPlan, decode_update

torch.set_num_threads(1)

PLAN = TrainingPlan(
    learning_rate=0.5,
    max_grad_norm=1.0,
    noise_multiplier=1.0,
    size_class=64,
    loss="bce-with-logits",
    chunk_size=16,
)
QUIET = replace(PLAN, noise_multiplier=0.0)
BOUND = 2 ** (2 * PLAN.grid_bits)


def refused(model: nn.Module, fix: str) -> None:
    with pytest.raises(TrainingRefusedError, match=fix):
        check_model(model, example_shape=(5,), loss="bce-with-logits")


def zeros(model: nn.Module) -> NDArray[np.float32]:
    return np.zeros(sum(p.numel() for p in model.parameters()), dtype=np.float32)


def table(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn((rows, 5), generator=generator), torch.randint(0, 2, (rows,), generator=generator)


def test_p1_one_logit_loss_never_broadcasts_to_b_by_b() -> None:
    features, labels = table(12)
    logits = features[:, :1]
    ghost = functional.binary_cross_entropy_with_logits(logits, labels[:, None].float(), reduction="none")
    assert (ghost * torch.ones(12)).shape == (12, 12)  # (B, 1) losses times (B,) clip factors: the fault
    for outputs in (logits, logits[:, 0]):
        for targets in (labels, labels[:, None]):
            losses = per_example_loss("bce-with-logits", outputs, targets)
            assert losses.shape == (12,)
            assert torch.allclose(losses, ghost[:, 0])
    with pytest.raises(TrainingRefusedError, match="one output per example"):
        per_example_loss("bce-with-logits", torch.zeros(12, 12), labels)


def test_p2_class_weighted_mean_is_refused_by_name() -> None:
    labels, weights = torch.tensor([0, 0, 1]), torch.tensor([1.0, 50.0])
    moved = []
    for rows in (2, 3):
        logits = torch.zeros(rows, 2, requires_grad=True)
        loss = functional.cross_entropy(logits, labels[:rows], weight=weights)
        moved.append(torch.autograd.grad(loss, logits)[0][0].norm())
    assert moved[0] == pytest.approx(26 * moved[1].item())  # the fault: the mean divides by 2, or by 52
    for name in ("weighted-cross-entropy", "cross-entropy-weighted", "nll"):
        with pytest.raises(TrainingRefusedError, match="not offered: use one of"):
            per_example_loss(name, torch.zeros(3, 2), labels)


def test_p3_cox_and_batch_coupled_models_are_refused() -> None:
    with pytest.raises(TrainingRefusedError, match="'cox' is not offered"):
        per_example_loss("cox", torch.zeros(3, 1), torch.zeros(3))

    class Softmax(nn.Module):
        """Risk relative to the batch: what Cox's partial likelihood does, moved into the model."""

        def __init__(self) -> None:
            super().__init__()
            self.risk = nn.Linear(5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.log_softmax(self.risk(x), dim=0)

    assert ModuleValidator.validate(Softmax()) == []  # Opacus sees nothing wrong
    refused(Softmax(), "depends on the other examples")


def test_p4_batchnorm_in_every_form_is_refused() -> None:
    forms: list[Callable[[], nn.Module]] = [
        lambda: nn.BatchNorm1d(8),
        lambda: nn.BatchNorm1d(8, affine=False),
        lambda: nn.BatchNorm1d(8).requires_grad_(False),
        lambda: nn.BatchNorm1d(8, track_running_stats=False),
        lambda: nn.BatchNorm1d(8, affine=False, track_running_stats=False),
        lambda: nn.SyncBatchNorm(8),
        lambda: nn.BatchNorm1d(8, momentum=0.0).eval(),
    ]
    for form in forms:
        refused(nn.Sequential(nn.Linear(5, 8), form(), nn.Linear(8, 1)), "replace BatchNorm by GroupNorm")
    passes = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 1))
    assert ModuleValidator.validate(passes) == []  # the fault
    assert GradSampleModule.validate(passes) == []


class Functional(nn.Module):
    """Uses the weight of a layer outside the layer as well."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(functional.linear(self.a(x), self.a.weight))
        return out


def test_p5_weight_used_functionally_is_refused() -> None:
    assert ModuleValidator.validate(Functional()) == []  # the fault
    refused(Functional(), "use each weight through its layer only")
    tied = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 1))
    tied[2].weight = tied[0].weight
    refused(tied, "share one parameter")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, 1e38])
@pytest.mark.parametrize("size_class", [64, 2**19], ids=["exact", "hooks"])
def test_p6_non_finite_record_neither_poisons_the_sum_nor_shows_itself(value: float, size_class: int) -> None:
    model = nn.Linear(5, 1)
    features, labels = table(20)
    plan = replace(QUIET, size_class=size_class)
    # the record sits last, so no other changes place; its own part may be anything within the clip
    before = _sum(model, features, labels, plan)
    row = torch.full((1, 5), value)
    after = _sum(model, torch.cat([features, row]), torch.cat([labels, labels[:1]]), plan)
    assert sum(x * x for x in (after - before).tolist()) <= BOUND
    noised = train_round(
        model,
        zeros(model),
        torch.cat([features, row]),
        torch.cat([labels, labels[:1]]),
        PLAN,
        system_randomness(),
    )
    assert noised.shape == (6,)
    assert np.abs(noised).max() < 40 * 2**20


def _sum(model: nn.Module, features: Tensor, labels: Tensor, plan: TrainingPlan) -> NDArray[np.int64]:
    ready = RoundTraining(model, zeros(model), plan, seeded_for_tests(1), example_shape=(5,))
    ready.add_rows(features, labels, np.arange(len(features)))
    return ready.optimizer.noiseless_sum().numpy().copy()


def test_p7_fedprox_is_outside_the_loss_and_never_clipped() -> None:
    model = nn.Linear(5, 1)
    features, labels = torch.full((8, 5), math.nan), torch.zeros(8)  # no gradient at all
    plan = replace(PLAN, local_steps=2, fedprox_mu=1.5)
    pulled = train_round(model, zeros(model), features, labels, plan, seeded_for_tests(4))
    free = train_round(
        model, zeros(model), features, labels, replace(plan, fedprox_mu=0.0), seeded_for_tests(4)
    )
    first = train_round(
        model, zeros(model), features, labels, replace(PLAN, local_steps=1), seeded_for_tests(4)
    )
    step = decode_update(first, PLAN)
    # the second step pulls back by lr * mu * (w - w_global), all of it, whatever the clip norm is
    assert np.allclose(pulled, free - 0.5 * 1.5 * step, atol=1e-6)
    assert np.abs(step).max() > 0.01
    assert replace(PLAN, fedprox_mu=1.5).fedprox_inert


def test_p8_every_drawn_record_enters_a_step_exactly_once() -> None:
    rows = 77  # five chunks of 16, the last one padded
    model = nn.Linear(rows, 1, bias=False)
    one_hot, labels = torch.eye(rows), torch.zeros(rows)
    plan = replace(QUIET, size_class=64)
    for size_class in (64, 2**19):
        ready = RoundTraining(
            model,
            zeros(model),
            replace(plan, size_class=size_class),
            seeded_for_tests(1),
            example_shape=(rows,),
        )
        ready.add_rows(one_hot, labels, np.arange(40))  # an interrupted loop ...
        ready.optimizer.forget()
        ready.add_rows(one_hot, labels, seeded_for_tests(2).shuffled(rows))  # ... leaves nothing behind
        total = ready.optimizer.noiseless_sum().numpy()
        assert total.tolist() == [2**19] * rows  # sigmoid(0) = 1/2, once each
        ready.step()
        assert ready.optimizer.message.tolist() == [2**19] * rows
        assert not ready.optimizer.noiseless_sum().any()


def test_p9_noise_is_new_in_every_run_whatever_torch_is_seeded_with() -> None:
    module = GradSampleModule(nn.Linear(5, 1), loss_reduction="sum")
    opacus_noise = []
    for _ in range(2):
        optimizer = DPOptimizer(
            torch.optim.SGD(module.parameters(), lr=0.0),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            expected_batch_size=1,
            generator=torch.Generator(),
        )
        for p in module.parameters():
            p.summed_grad = torch.zeros_like(p)
        optimizer.add_noise()
        opacus_noise.append(torch.cat([p.grad.reshape(-1) for p in module.parameters()]))
    assert (opacus_noise[0] == opacus_noise[1]).all()  # the fault: an unseeded generator is always the same
    model = nn.Linear(5, 1)
    features, labels = table(10)
    runs = []
    for _ in range(3):
        torch.manual_seed(0)
        np.random.seed(0)
        runs.append(train_round(model, zeros(model), features, labels, PLAN, system_randomness()))
    assert not (runs[0] == runs[1]).any()
    assert not (runs[1] == runs[2]).any()


def test_p10_no_generator_of_torch_or_numpy_is_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def urandom(size: int) -> bytes:
        sizes.append(size)
        return bytes(size)

    monkeypatch.setattr("os.urandom", urandom)
    model = nn.Linear(5, 1)
    features, labels = table(30)
    before = torch.get_rng_state(), np.random.get_state(legacy=False)
    plan = replace(PLAN, sampling="poisson", sample_rate=0.5, local_steps=2)
    update = train_round(model, zeros(model), features, labels, plan, system_randomness())
    assert sizes == [32]  # one key of 256 bits: 2^256 streams, not 2^32
    assert (torch.get_rng_state() == before[0]).all()
    assert str(np.random.get_state(legacy=False)) == str(before[1])
    assert (update == train_round(model, zeros(model), features, labels, plan, system_randomness())).all()
    assert not SystemRandomness.__init__.__code__.co_varnames[1:]  # takes no seed


@pytest.mark.parametrize("rows", [49, 50, 51, 64])
def test_p11_divisor_does_not_tell_the_number_of_rows(rows: int) -> None:
    """One row with a gradient, the rest with none: the weights must move alike for every table size."""
    model = nn.Linear(5, 1)
    features, labels = torch.full((rows, 5), math.nan), torch.zeros(rows)
    features[0] = 1.0
    plan = replace(QUIET, local_steps=2, size_class=64)
    change = train_round(model, zeros(model), features, labels, plan, seeded_for_tests(1))
    expected = train_round(model, zeros(model), features[:1], labels[:1], plan, seeded_for_tests(1))
    assert np.allclose(change, expected, atol=1e-7)
    assert np.abs(change).max() > 1e-4
    poisson = replace(PLAN, sampling="poisson", sample_rate=0.1)
    assert poisson.divisor == pytest.approx(6.4)


def test_p12_empty_poisson_batches_send_pure_noise() -> None:
    model = nn.Sequential(nn.Linear(5, 40), nn.ReLU(), nn.Linear(40, 1))
    features, labels = table(20)
    plan = replace(PLAN, sampling="poisson", sample_rate=1e-6, size_class=2**19)
    update = train_round(model, zeros(model), features, labels, plan, seeded_for_tests(1))
    noise = update / float(plan.sigma)
    assert update.dtype == np.int64
    assert abs(noise.mean()) < 4 / math.sqrt(len(noise))
    assert abs(noise.var() - 1) < 4 * math.sqrt(2 / len(noise))
    steps = train_round(
        model, zeros(model), features, labels, replace(plan, local_steps=3), seeded_for_tests(1)
    )
    assert steps.dtype == np.float32
    assert steps.any()


def test_p13_drop_last_is_refused_and_no_table_size_breaks_the_rate() -> None:
    loader = DataLoader(TensorDataset(torch.zeros(100, 5)), batch_size=64, drop_last=True)
    assert DPDataLoader.from_data_loader(loader).sample_rate == 1.0  # the fault: the rate should be .64
    with pytest.raises(TrainingRefusedError, match="drop-last sampling is not offered"):
        replace(PLAN, sampling="drop-last")
    model = nn.Linear(5, 1)
    plan = replace(PLAN, sampling="poisson", sample_rate=0.64)
    for rows in (1, 2, 63, 64, 100):
        assert plan.rate == Fraction(16, 25)
        assert train_round(model, zeros(model), *table(rows), plan, seeded_for_tests(1)).shape == (6,)


def test_second_wrapping_of_one_model_raises_in_opacus_and_cannot_happen_here() -> None:
    model = nn.Linear(5, 1)
    wrapped = with_example_gradients(model)
    with pytest.raises(ValueError, match="hooks twice"):
        with_example_gradients(model)
    del wrapped
    fresh = nn.Linear(5, 1)
    for _ in range(2):
        train_round(fresh, zeros(fresh), *table(4), replace(PLAN, size_class=2**19), seeded_for_tests(1))
