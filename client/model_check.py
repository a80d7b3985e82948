"""Whether a model may be trained under differential privacy: one clear refusal, with the fix, or nothing.

Opacus 1.6.0 accepts models on which its guarantee is silently wrong (P1 to P5 of the privacy notes),
so this page asks by experiment, on random numbers and never on a patient: does a forward pass change
anything, is it repeatable, does one example's result depend on the others, is each example's gradient what
autograd says when the example stands alone. It finds mistakes, not malice: code written to
misbehave on real data only is kept out by people who read it before they approve its digest.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from client import bookkeeping
from client.dp_sgd import example_gradients, layer_objections, with_example_gradients
from client.errors import TrainingRefusedError
from client.losses import per_example_loss
from client.models import JOB_CODE_ERRORS

_EXAMPLES = 6  # in the microbatch
_TOLERANCE = 1e-4  # relative to the gradient's norm: float32 against float32, in another order


def _random(
    generator: torch.Generator, example_shape: tuple[int, ...], loss: str, outputs: int
) -> tuple[Tensor, Tensor]:
    """Return a microbatch of random features and labels that fit the loss."""
    features = torch.randn((_EXAMPLES, *example_shape), generator=generator)
    labels = torch.randint(0, max(2, outputs), (_EXAMPLES,), generator=generator).float()
    return features, labels if loss != "mse" else labels + 0.5


def _check_layers(module: nn.Module) -> None:
    """Refuse what can be told from the layers alone."""
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm | nn.CrossMapLRN2d) and not isinstance(layer, _InstanceNorm):
            kind = type(layer).__name__
            raise TrainingRefusedError(
                f"layer {name or kind}: {kind} mixes patients: replace BatchNorm by GroupNorm"
            )
        if isinstance(layer, _InstanceNorm) and layer.track_running_stats:
            raise TrainingRefusedError(
                f"layer {name}: running statistics store patients: set track_running_stats=False"
            )
    named = list(module.named_parameters(remove_duplicate=False))
    if not named:
        raise TrainingRefusedError("the model has no parameters: nothing can be trained")
    if len({id(p) for _, p in named}) < len(named):
        raise TrainingRefusedError("two layers share one parameter: give each layer weights of its own")
    for name, p in named:
        if p.dtype != torch.float32:
            raise TrainingRefusedError(f"parameter {name} is {p.dtype}: build the model in torch.float32")
        if not p.requires_grad:
            raise TrainingRefusedError(f"parameter {name} is frozen: make it a buffer, or let it be trained")


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of every parameter and buffer, those left out of state_dict included."""
    return {name: t.detach().clone() for name, t in (*module.named_parameters(), *module.named_buffers())}


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))


def _check_forward(module: nn.Module, loss: str, features: Tensor, labels: Tensor, others: Tensor) -> None:
    """Refuse a forward pass that leaves traces, is random, or mixes examples.

    Args:
        module: The model, in training mode.
        loss: Name of a per-example loss.
        features: A microbatch.
        labels: Its labels.
        others: Another microbatch of the same shape.
    """
    before = _state(module)
    first = module(features)
    per_example_loss(loss, first, labels)  # refuses outputs of a wrong shape
    module(others)
    after = _state(module)
    if before.keys() != after.keys() or not all(_same(before[name], after[name]) for name in before):
        raise TrainingRefusedError(
            "forward changes the model's own state: drop the buffer, or use GroupNorm for BatchNorm"
        )
    if not _same(first, module(features)):
        raise TrainingRefusedError(
            "forward is not repeatable: remove dropout and other randomness, keep no memory"
        )
    for stranger in (others, others * 1e3, torch.full_like(others, float("nan"))):
        mixed = torch.cat([features[:1], stranger[1:]])
        if not _same(first[:1], module(mixed)[:1]):
            raise TrainingRefusedError(
                "one example's output depends on the other examples: compute each row by itself"
            )


def _check_gradients(module: nn.Module, loss: str, features: Tensor, labels: Tensor) -> None:
    """Refuse a model of which Opacus's or our gradients of single examples are not autograd's."""
    alone = []
    for i in range(len(features)):
        value = per_example_loss(loss, module(features[i : i + 1]), labels[i : i + 1]).sum()
        parts = torch.autograd.grad(value, list(module.parameters()), allow_unused=True)
        unused = [
            name for (name, _), part in zip(module.named_parameters(), parts, strict=True) if part is None
        ]
        if unused:
            raise TrainingRefusedError(f"parameter {unused[0]} is never used: remove it")
        alone.append(torch.cat([part.reshape(-1) for part in parts]).double())
    expected = torch.stack(alone)
    scale = expected.norm(dim=1).clamp(min=1e-6)
    hooks = example_gradients(with_example_gradients(copy.deepcopy(module)), loss, features, labels)
    if ((hooks.double() - expected).norm(dim=1) / scale).max() > _TOLERANCE:
        raise TrainingRefusedError(
            "an example's gradient differs from autograd's: use each weight through its layer only"
        )
    if bookkeeping.applies(module, torch.zeros_like(features)):
        norm = float(expected.norm(dim=1).sum()) + 1.0  # nothing is clipped
        exact = bookkeeping.clipped_sum(
            module, loss, features, labels, len(features), limit=1.0, max_grad_norm=norm
        )
        difference = exact.double() * (norm / 2.0**bookkeeping.FINE_BITS) - expected.sum(0)
        if difference.norm() > _TOLERANCE * scale.sum():
            raise TrainingRefusedError(
                "the sum of gradients differs from autograd's: use no in-place operations"
            )


def check_model(module: nn.Module, *, example_shape: tuple[int, ...], loss: str, outputs: int = 1) -> None:
    """Accept a model for private training, or refuse it in one line that names the fix.

    Args:
        module: The model; it is copied, not changed.
        example_shape: Shape of one example's features.
        loss: One of `client.losses.LOSSES`.
        outputs: Classes for cross-entropy, else 1.

    Raises:
        TrainingRefusedError: the first reason found.
    """
    _check_layers(module)
    generator = torch.Generator().manual_seed(0)  # public numbers: nothing here is a patient
    features, labels = _random(generator, example_shape, loss, outputs)
    others, _ = _random(generator, example_shape, loss, outputs)
    try:
        model = copy.deepcopy(module).train()
        if objections := layer_objections(model):
            raise TrainingRefusedError(f"Opacus cannot give gradients per example: {objections[0][:200]}")
        _check_forward(model, loss, features, labels, others)
        _check_gradients(model, loss, features, labels)
    except JOB_CODE_ERRORS as error:
        reason = " ".join(str(error).split())[:160]
        raise TrainingRefusedError(f"the model fails on rows of shape {example_shape}: {reason}") from error
