"""Losses that return one number per example; our code, never the job's, adds them up.

A loss that reduces over the batch couples examples: a weighted mean divides by the others' weights
(P2 of the privacy notes), Cox sums over them (P3), and a (B, 1) output against (B,) labels broadcasts
to (B, B) (P1). Each breaks the bound on what one patient can move. So a job names a loss of this list.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from client.errors import TrainingRefusedError

LOSSES = ("bce-with-logits", "cross-entropy", "mse")


def _one_output(outputs: Tensor, loss: str) -> Tensor:
    if outputs.numel() != len(outputs):
        shape = tuple(outputs.shape)
        raise TrainingRefusedError(
            f"{loss} needs one output per example, the model gives {shape}: return (B, 1)"
        )
    return outputs.reshape(-1)


def _cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    if outputs.dim() != 2 or outputs.shape[1] < 2:
        shape = tuple(outputs.shape)
        raise TrainingRefusedError(f"cross-entropy needs outputs (B, classes), the model gives {shape}")
    # A label that is no class must not raise: an error would tell that its row is there.
    classes = torch.nan_to_num(labels.double(), 0.0, 0.0, 0.0).clamp(0, outputs.shape[1] - 1).long()
    return functional.cross_entropy(outputs, classes, reduction="none")


def per_example_loss(loss: str, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of every example.

    Args:
        loss: One of LOSSES.
        outputs: What the model returned: (B,) or (B, 1), for cross-entropy (B, classes).
        labels: (B,) or (B, 1): 0 or 1, a class number, or for mse any number.

    Returns:
        Tensor of shape (B,).

    Raises:
        TrainingRefusedError: unknown loss, or shapes that do not give one loss per example.
    """
    if loss not in LOSSES:
        raise TrainingRefusedError(f"loss {loss!r} is not offered: use one of {', '.join(LOSSES)}")
    batch = len(labels)
    if labels.numel() != batch or outputs.dim() == 0 or len(outputs) != batch:
        shapes = f"{tuple(outputs.shape)} and {tuple(labels.shape)}"
        raise TrainingRefusedError(f"outputs and labels must have one row per example, they are {shapes}")
    labels = labels.reshape(-1)
    if loss == "cross-entropy":
        losses = _cross_entropy(outputs, labels)
    else:
        function = functional.mse_loss if loss == "mse" else functional.binary_cross_entropy_with_logits
        logits = _one_output(outputs, loss)
        losses = function(logits, labels.to(logits.dtype), reduction="none")
    if losses.dim() != 1 or len(losses) != batch:  # one loss per example, whatever the shapes above
        raise TrainingRefusedError(f"{loss} gave losses of shape {tuple(losses.shape)} for {batch} examples")
    return losses
