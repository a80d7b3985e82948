"""What can be mended in a model without asking its author: a few lines at the end of `model.py`.

Hospitals read them like the rest of the file. Each kind is replaced by what computes the most alike for one patient
by himself; where there is a choice to make, nothing is done and `Job.check` says what is wrong.
"""

from __future__ import annotations

import re

from client.notebook.model_text import BUILDER

MENDABLE = re.compile(
    r"\S+(?: model)? (?:is (?:\w*BatchNorm\w*|InstanceNorm\dd|\w*Dropout\w*|MultiheadAttention|LSTM|GRU|RNN|RReLU), |"
    r"has a weight or spectral norm|is float(?:16|64), |is bfloat16, ).*"
).fullmatch
_MARK = f"_unmended_{BUILDER}"
_CODE = f'''

# What follows was added by job.fixed(): each layer that mixes patients, or is random, gives way to one that does not.
import torch
from torch.nn.utils import parametrize


def _mended(layer):
    """Return a layer, and all in it, as it can be trained privately."""
    from torch import nn

    kind, channels = type(layer).__name__, getattr(layer, "num_features", 0)
    if "BatchNorm" in kind and channels:
        groups = max((g for g in range(1, min(32, channels // 4) + 1) if channels % g == 0), default=1)
        return nn.GroupNorm(groups, channels, eps=layer.eps, affine=layer.affine)
    if "InstanceNorm" in kind and channels:
        return nn.GroupNorm(channels, channels, eps=layer.eps, affine=layer.affine)
    if "Dropout" in kind:
        return nn.Identity()
    if kind == "RReLU":
        return nn.LeakyReLU((layer.lower + layer.upper) / 2)
    if isinstance(layer, (nn.MultiheadAttention, nn.RNNBase)):
        layer.dropout = 0.0
    for name in list(getattr(layer, "parametrizations", ())):
        parametrize.remove_parametrizations(layer, name)
    for name, part in list(layer.named_children()):
        setattr(layer, name, _mended(part))
    return layer


{_MARK} = {BUILDER}


def {BUILDER}(*, input_shape, outputs):
    return _mended({_MARK}(input_shape=input_shape, outputs=outputs)).to(torch.float32)
'''


def mended(source: bytes) -> bytes:
    """Return a `model.py` that mends what it builds; one that does so already is returned as it is."""
    return source if _MARK.encode() in source else source.rstrip() + b"\n" + _CODE.encode()
