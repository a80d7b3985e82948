"""Clipped gradient sums of models made of Linear layers, in one backward pass and exact integers.

The gradient of a Linear layer for one example is the outer product of what came in (with a 1 for the
bias) and of the gradient of what went out, so its norm is the product of two norms, and a sum over
examples is one matrix product: no per-example gradient is ever stored (Goodfellow 2015, arXiv
1510.01799; Bu et al. 2023, "book-keeping", arXiv 2210.00038). What is new here is that the sum is exact:
both factors are cut to 22-bit integers, toward zero so that no norm grows, and a float64 product
of such integers over at most 512 examples stays below 2^53, where every partial sum is an integer that
float64 holds. So the sum does not depend on order, on chunks or on the processor. The tests hold it
equal to Opacus's hooks; layers of any other kind take those.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from client.losses import per_example_loss

_FACTOR_BITS = 22  # of each factor; 22 + 22 + 9 bits for 512 examples make 53
FINE_BITS = 2 * _FACTOR_BITS  # sums are multiples of C / 2^FINE_BITS
MAX_EXAMPLES = 512  # in one product
MAX_SIZE_CLASS = 2**18  # up to twice as many examples fit in an int64 sum


class _Tape:
    """Records what each Linear layer took in and gave out during forward passes."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.seen: list[nn.Module] = []
        self._handles = [layer.register_forward_hook(self._record) for layer in layers]

    def _record(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.seen.append(layer)
        self.inputs.append(inputs[0].detach())
        self.outputs.append(output)

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def applies(module: nn.Module, examples: Tensor) -> bool:
    """Tell whether every parameter belongs to a Linear layer that is called once, on flat rows.

    Args:
        module: A model that `client.model_check` accepted (so no weight is used outside its layer).
        examples: Public examples of the right shape, (B, ...), zeros for instance.
    """
    owners = [m for m in module.modules() if next(m.parameters(recurse=False), None) is not None]
    layers = [m for m in owners if type(m) is nn.Linear]
    if not layers or len(layers) != len(owners):
        return False
    tape = _Tape(layers)
    with torch.no_grad():
        module(examples)
    tape.close()
    return len(tape.seen) == len(layers) == len(set(tape.seen)) and all(x.dim() == 2 for x in tape.inputs)


def _factors(
    inputs: list[Tensor], gradients: list[Tensor], biased: list[bool], limit: float, max_grad_norm: float
) -> list[tuple[Tensor, Tensor]]:
    """Return each layer's two factors as whole numbers in float64, clipped together to `limit` * C."""
    pairs: list[tuple[Tensor, Tensor]] = []
    squared = torch.zeros(len(inputs[0]), dtype=torch.float64, device=inputs[0].device)
    for x, g, bias in zip(inputs, gradients, biased, strict=True):
        x = torch.nan_to_num(x.double(), 0.0, 0.0, 0.0)
        if bias:
            x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        out = torch.nan_to_num(g.double(), 0.0, 0.0, 0.0) * length
        squared += torch.linalg.vecdot(out, out)
        pairs.append((x / length.clamp(min=1e-300), out))
    # A norm of 0 gives inf, which the minimum removes; float32 values cannot overflow a float64 norm.
    factor = (limit / squared.sqrt()).clamp(max=1 / max_grad_norm)[:, None]
    size = 2.0**_FACTOR_BITS
    return [((x * size).trunc(), (out * factor * size).trunc()) for x, out in pairs]


def clipped_sum(
    module: nn.Module,
    loss: str,
    features: Tensor,
    labels: Tensor,
    kept: int,
    *,
    limit: float,
    max_grad_norm: float,
) -> Tensor:
    """Return the sum of the first `kept` examples' clipped gradients.

    Args:
        module: A model to which `applies`.
        loss: A per-example loss.
        features: (B, ...) float32, B <= MAX_EXAMPLES.
        labels: (B,).
        kept: How many rows are examples; the rest is padding.
        limit: Norm each example is clipped to, in units of C, at most 1.
        max_grad_norm: C.

    Returns:
        int64 of shape (d,), in units of C / 2^FINE_BITS, in the order of packed parameters. Each
        example's part has a norm of at most limit * 2^FINE_BITS, up to float64's error in the norm.
    """
    layers = [m for m in module.modules() if type(m) is nn.Linear]
    tape = _Tape(layers)
    losses = per_example_loss(loss, module(features), labels)
    tape.close()
    gradients = torch.autograd.grad(losses.sum(), tape.outputs)
    order = [tape.seen.index(layer) for layer in layers]  # called in any order, packed in that of modules()
    inputs, outputs = [tape.inputs[i] for i in order], [gradients[i] for i in order]
    biased = [layer.bias is not None for layer in layers]
    pairs = _factors(inputs, outputs, biased, limit, max_grad_norm)  # of padding too: always the same shape
    parts: list[Tensor] = []
    for (x, out), bias in zip(pairs, biased, strict=True):
        product = out[:kept].T @ x[:kept]  # (outputs, inputs + 1): exact
        parts += [product[:, :-1].reshape(-1), product[:, -1]] if bias else [product.reshape(-1)]
    return torch.cat(parts).long()


def to_grid(fine: Tensor, grid_bits: int) -> Tensor:
    """Round a whole sum from units of C / 2^FINE_BITS to units of C / 2^grid_bits, halves upwards, in int64."""
    shift = FINE_BITS - grid_bits
    return (fine + (1 << (shift - 1))) >> shift
