"""The public plan of a hospital's training in one round, and how its message is read.

Everything here is on the record before the job starts; nothing depends on a row or on how many rows
there are. Modes that are not offered are refused here by their name. Pure arithmetic: no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from client.errors import TrainingRefusedError

_SAMPLING_REFUSED = {
    "shuffle": "its batches are not independent draws, so the charged epsilon would be too small",
    "drop-last": "it lets the number of rows decide the rate",
}
_CLIPPING_REFUSED = {
    "ghost": "its norms are wrong for broadcast losses and shared weights",
    "adaptive": "its clip norm follows the data and would need a budget of its own",
    "per-layer": "its noise is no better and its sensitivity another",
}
_RANGES = {  # field: (least, most), both allowed
    "local_steps": (1, 10**6),
    "learning_rate": (1e-9, 1e6),
    "max_grad_norm": (1e-6, 1e6),
    "noise_multiplier": (0.0, 1e6),
    "sample_rate": (1e-6, 1.0),
    "size_class": (1, 2**30),
    "chunk_size": (16, 2**9),
    "grid_bits": (16, 24),
    "fedprox_mu": (0.0, 1e6),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How one hospital trains in every round of a job; all of it public and fixed in `start`."""

    learning_rate: float
    max_grad_norm: float  # C: the L2 norm to which each example's gradient is clipped
    noise_multiplier: float  # noise's standard deviation divided by C; 0 only with seeded randomness
    size_class: int  # patients, to the nearest power of two
    loss: str  # one of `client.losses.LOSSES`
    local_steps: int = 1
    sampling: str = "full"  # every patient in each step, or "poisson": each with probability sample_rate
    sample_rate: float = 1.0
    chunk_size: int = 256  # examples computed at once: bounds memory, changes no sum
    grid_bits: int = 20  # gradients are rounded to multiples of C / 2^grid_bits
    fedprox_mu: float = 0.0
    clipping: str = "flat"  # the only one offered

    def __post_init__(self) -> None:
        """Raise TrainingRefusedError for a mode or a number that is not offered."""
        if self.clipping != "flat":
            reason = _CLIPPING_REFUSED.get(self.clipping, "it is unknown")
            raise TrainingRefusedError(f"{self.clipping} clipping is not offered: {reason}; use flat")
        if self.sampling not in ("full", "poisson"):
            reason = _SAMPLING_REFUSED.get(self.sampling, "it is unknown")
            raise TrainingRefusedError(
                f"{self.sampling} sampling is not offered: {reason}; use full or poisson"
            )
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not math.isfinite(value) or not least <= value <= most:
                raise TrainingRefusedError(f"{name} must lie between {least:g} and {most:g}, not {value:g}")
        if (self.sampling == "full") != (self.sample_rate == 1.0):
            raise TrainingRefusedError("sample_rate must be 1 with full sampling, and below 1 with poisson")
        if self.chunk_size & (self.chunk_size - 1):
            raise TrainingRefusedError(f"chunk_size must be a power of two, not {self.chunk_size}")

    @property
    def grid(self) -> float:
        """The gradient that the integer 1 stands for: C / 2^grid_bits, exact in float64."""
        return math.ldexp(self.max_grad_norm, -self.grid_bits)

    @property
    def divisor(self) -> float:
        """What gradient sums are divided by: public, never the number of rows that were drawn (P11)."""
        return self.size_class * self.sample_rate

    @property
    def rate(self) -> Fraction:
        """The sampling rate as the decimal it is written as."""
        return Fraction(repr(self.sample_rate))

    @property
    def sigma(self) -> Fraction:
        """The discrete Gaussian's scale in grid units; the multiplier counts as the decimal it is written as."""
        return Fraction(repr(self.noise_multiplier)) * (1 << self.grid_bits)

    @property
    def fedprox_inert(self) -> bool:
        """Whether FedProx is asked for and changes nothing: one step starts where it pulls to. Worth a warning."""
        return self.fedprox_mu > 0 and self.local_steps == 1

    def clip_limit(self, parameters: int) -> float:
        """Return the norm, in grid units, to which examples are clipped in float64: C less what rounding can add.

        Rounding to the grid moves each of d coordinates by at most a half, so a norm by sqrt(d)/2; as
        much again twice over is kept for sums that are rounded once more and for the last bits of float32,
        which may depend on an example's place in its chunk. The factor covers the norm's float64 error.

        Raises:
            TrainingRefusedError: the model has too many parameters for this grid.
        """
        limit: float = ((1 << self.grid_bits) - 1.5 * math.sqrt(parameters)) * (1 - 2.0**-28)
        if limit < 0.9 * (1 << self.grid_bits):
            raise TrainingRefusedError(
                f"grid_bits {self.grid_bits} is too coarse for {parameters} parameters: add 2"
            )
        return limit


def decode_update(update: NDArray[np.int64] | NDArray[np.float32], plan: TrainingPlan) -> NDArray[np.float64]:
    """Return the change in weights that a message stands for.

    For local_steps == 1 the message is the noised integer sum, and

        change[i] = -(scale * float64(update[i])),  scale = ((learning_rate * grid) / divisor)
        grid = max_grad_norm * 2**-grid_bits,       divisor = size_class * sample_rate

    in float64, element by element, in this order of operations: one result on any machine. With more
    local steps the message already is the change, in float32.
    """
    if plan.local_steps > 1:
        return update.astype(np.float64)
    scale = plan.learning_rate * plan.grid / plan.divisor
    change: NDArray[np.float64] = -(scale * update.astype(np.float64))
    return change
