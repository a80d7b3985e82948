"""What a module must not hold if it is to be trained privately: each part by its name, with what to use instead.

Asked in the builder before the graph is made, and only to give a clear word: what a graph may hold is decided by
whoever reads it (`client.model_graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from client.errors import ModelRefusedError

SEPARATOR = "; "  # between faults; in none of them
_MIXES, _RANDOM, _LACKS = "which mixes patients", "which is random", "whose operation is not offered"


def groups(channels: int) -> int:
    """Return into how many groups GroupNorm divides channels: of at least four each where they can be divided."""
    return max((g for g in range(1, min(32, channels // 4) + 1) if channels % g == 0), default=1)


@dataclass(frozen=True, slots=True)
class _Fault:
    """A kind of layer that is refused."""

    kinds: tuple[Any, ...]
    code: str  # of client.approval.REFUSALS
    why: str
    remedy: str | Callable[[Any], str]
    when: Callable[[Any], bool] = lambda layer: True


def _group_norm(layer: Any) -> str:
    return f"use GroupNorm({groups(layer.num_features)}, {layer.num_features})"


_FAULTS = (  # the first that fits is said
    _Fault(
        (LazyModuleMixin,),
        "model-graph",
        "whose sizes are not known yet",
        "use the kind that is given its sizes",
    ),
    _Fault((_BatchNorm,), "model-state", _MIXES, _group_norm),
    _Fault(
        (_InstanceNorm,),
        "model-graph",
        _LACKS,
        lambda layer: f"use GroupNorm({layer.num_features}, {layer.num_features})",
    ),
    _Fault((nn.LocalResponseNorm, nn.CrossMapLRN2d), "model-graph", _LACKS, "use GroupNorm"),
    _Fault(
        (_DropoutNd,),
        "model-randomness",
        _RANDOM,
        "leave it out, the noise regularises",
        lambda layer: layer.p > 0,
    ),
    _Fault(
        (nn.MultiheadAttention, nn.RNNBase),
        "model-randomness",
        "whose dropout is random",
        "say dropout=0.0",
        lambda layer: layer.dropout > 0,
    ),
    _Fault(
        (nn.RReLU,), "model-randomness", _RANDOM, "use LeakyReLU", lambda layer: layer.lower < layer.upper
    ),
    _Fault((nn.FractionalMaxPool2d, nn.FractionalMaxPool3d), "model-randomness", _RANDOM, "use MaxPool2d"),
    _Fault(
        (nn.Embedding, nn.EmbeddingBag),
        "model-graph",
        "which fails on a value out of range",
        "use Linear: the dictionary's categories come as zeros and ones",
    ),
    _Fault(
        (nn.MaxPool3d, nn.AvgPool3d),
        "model-graph",
        _LACKS,
        "use Conv3d with a stride, or AdaptiveAvgPool3d(1)",
    ),
    _Fault(
        (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
        "model-graph",
        _LACKS,
        "use AdaptiveAvgPool of the same size",
    ),
    _Fault((nn.Upsample,), "model-graph", _LACKS, "use ConvTranspose2d or PixelShuffle"),
    _Fault((nn.Unfold, nn.Fold), "model-graph", _LACKS, "use Conv2d"),
    _Fault(
        (nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
        "model-graph",
        _LACKS,
        "use ZeroPad2d or ReflectionPad2d",
    ),
    _Fault(
        (_ConvNd,),
        "model-graph",
        "whose circular padding is not offered",
        'say padding_mode="reflect" or "zeros"',
        lambda layer: layer.padding_mode == "circular",
    ),
)


def faults(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield (refusal code, sentence) for each part of a module that cannot be trained privately."""
    for name, layer in module.named_modules():
        called, kind = name or "the model", type(layer).__name__
        for fault in _FAULTS:
            if isinstance(layer, fault.kinds) and fault.when(layer):
                remedy = fault.remedy if isinstance(fault.remedy, str) else fault.remedy(layer)
                yield fault.code, f"{called} is {kind}, {fault.why}: {remedy}"
                break
        if parametrize.is_parametrized(layer):
            yield "model-graph", f"{called} has a weight or spectral norm, which is not offered: leave it out"
    yield from _of_parameters(module)


def _of_parameters(module: nn.Module) -> Iterator[tuple[str, str]]:
    names: dict[int, str] = {}
    for name, p in module.named_parameters(remove_duplicate=False):
        if id(p) in names:
            yield (
                "model-graph",
                f"{name} is the same parameter as {names[id(p)]}: give each layer weights of its own",
            )
        elif p.dtype != torch.float32:
            yield (
                "model-graph",
                f"{name} is {str(p.dtype).removeprefix('torch.')}, not float32: call .float()",
            )
        names.setdefault(id(p), name)


def require_none(module: nn.Module) -> None:
    """Refuse a module with faults. Raises ModelRefusedError, with all of them."""
    if found := list(faults(module)):
        raise ModelRefusedError(found[0][0], SEPARATOR.join(sentence for _, sentence in found))
