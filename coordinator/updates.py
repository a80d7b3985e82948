"""What an update's bytes mean: the plan that fixes them, and a reader that hashes exactly what it hands out.

An update is one packed little-endian array, parameters in the model's order. After one local step it is int64:
the noised sum of clipped gradients in grid units; its change in the weights is

    change = float64(integer) * scale        scale = -((learning_rate * grid) / divisor)

in float64, one rounding an operation. After several local steps it is float32: the change itself. Whether an
update is used at all is `admission`; what becomes of it is `aggregation`.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from coordinator.errors import IntegrityError, SettingError
from ledger.values import Mechanism, Training

Floats = NDArray[np.float64]
MAX_INTEGER = 2**53 - 1  # float64 holds every integer up to here
GRID_BITS = 20
_SLACK = 1.001  # for the float32 rounding of a change; nothing to a sender who would gain from a factor
_TAIL = 8.0  # sqrt(2 t) at t = 32: passed by one honest update in 10**13


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one hospital makes its updates in one job. Every field is public: it is in `start` or what it names."""

    parameters: int  # d: how many numbers the model has
    local_steps: int
    learning_rate: float
    max_grad_norm: float  # C: each patient's gradient is clipped to this
    noise_multiplier: float  # sigma, in units of C
    size_class: int  # the power of two nearest to the patient count
    divisor: float  # the gradient sum is divided by this, never by a private count
    grid: float  # one integer step of the gradient sum; unused when local_steps > 1

    def __post_init__(self) -> None:
        for name in ("parameters", "local_steps", "size_class"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be 1 or more: correct the plan")
        for name in ("learning_rate", "max_grad_norm", "divisor", "grid"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingError(f"{name} must be finite and above 0: correct the plan")
        if not 0 <= self.noise_multiplier < math.inf:
            raise SettingError("noise_multiplier must be finite and 0 or more: correct the plan")
        if self.local_steps == 1 and self.sum_limit / self.grid > MAX_INTEGER:
            raise SettingError("the grid is too fine: sums could pass 2**53, choose a coarser grid")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The update's element type, little-endian."""
        return np.dtype("<i8") if self.local_steps == 1 else np.dtype("<f4")

    @property
    def size(self) -> int:
        """The update's size in bytes."""
        return self.parameters * self.dtype.itemsize

    @property
    def scale(self) -> float:
        """The change in a weight for one integer step."""
        return -((self.learning_rate * self.grid) / self.divisor)

    @property
    def most_patients(self) -> int:
        """The largest patient count whose nearest power of two is the size class: n <= 3/2 of the class."""
        return (3 * self.size_class + 1) // 2

    @property
    def sum_limit(self) -> float:
        """The largest L2 norm of one step's noised gradient sum that an honest hospital can send.

        Clipped gradients sum to at most C n. Noise of deviation sigma C in d coordinates exceeds sigma C
        (sqrt(d) + sqrt(2 t)) with probability at most exp(-t): Hsu, Kakade and Zhang 2012, Theorem 1, which
        asks for sub-Gaussian tails; the discrete Gaussian has them (Canonne, Kamath and Steinke 2020). 1.5
        sqrt(d) alone is too little for a small model: one normal number exceeds 1.5 in 13 of 100 draws.
        """
        root = math.sqrt(self.parameters)
        noise = self.noise_multiplier * max(1.5 * root, root + _TAIL)
        return self.max_grad_norm * (self.most_patients + noise)

    @property
    def norm_limit(self) -> float:
        """The largest L2 norm of a whole update's change in the weights; above it the update is left out."""
        return self.local_steps * self.learning_rate * self.sum_limit / self.divisor * _SLACK

    @property
    def integer_limit(self) -> int:
        """The largest absolute integer in an update; at most 2**53 - 1, so that decoding rounds nothing."""
        return min(math.ceil(self.sum_limit / self.grid * _SLACK), MAX_INTEGER)

    def decode(self, numbers: NDArray[Any]) -> Floats:
        """Return the changes in the weights that these elements of an update stand for."""
        with np.errstate(
            invalid="ignore"
        ):  # a signalling NaN stays a NaN; that it was one is for `admission`
            changes = numbers.astype(np.float64)
        if self.local_steps == 1:
            np.multiply(changes, self.scale, out=changes)
        return changes


def plan_of(training: Training, mechanism: Mechanism, size_class: int) -> Plan:
    """Return a hospital's plan from the job's and its approval's public records; `client.training_plan` agrees.

    Args:
        training: The job's; its setting `grid-bits` (20 where it is left out) makes the grid C / 2**grid-bits.
        mechanism: The approved one of the training side.
        size_class: The dataset's.

    Raises:
        SettingError: numbers that make no plan.
    """
    grid_bits = next((float(s.value) for s in training.settings if s.name == "grid-bits"), GRID_BITS)
    if not 0 <= grid_bits <= 60 or grid_bits != int(grid_bits):
        raise SettingError("grid-bits must be a whole number from 0 to 60: correct the job's settings")
    max_grad_norm = float(training.max_grad_norm)
    return Plan(
        parameters=training.parameters,
        local_steps=training.local_steps,
        learning_rate=float(training.learning_rate),
        max_grad_norm=max_grad_norm,
        noise_multiplier=float(mechanism.noise_multiplier),
        size_class=size_class,
        divisor=size_class * float(training.sample_rate),
        grid=math.ldexp(max_grad_norm, -int(grid_bits)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One admitted update, as the record names it."""

    hospital: str
    digest: str  # hex SHA-256 of its bytes
    metrics: str = ""  # hex SHA-256 of the histogram that came with it, or ""
    weight: int  # from `start`
    plan: Plan


class Readable(Protocol):
    """An open blob: a file, or bytes in memory."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill as much of the buffer as comes at once."""

    def close(self) -> None:
        """Let go of it."""


class VerifiedReader:
    """Reads a blob once, front to back. What it handed out may be used only after `finish` returned."""

    def __init__(self, stream: Readable, digest: str, what: str) -> None:
        """Read from `stream` what should have `digest`; `what` names it in errors."""
        self._stream = stream
        self._digest = digest
        self._what = what
        self._hash = hashlib.sha256()

    def bytes(self, count: int) -> bytearray:
        """Return the next `count` bytes. Raises IntegrityError where the blob ends before."""
        data = bytearray(count)
        view = memoryview(data)
        while view:
            if not (got := self._stream.readinto(view)):
                raise self._wrong()
            view = view[got:]
        self._hash.update(data)
        return data

    def array(self, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the next `count` numbers. Raises IntegrityError where the blob ends before."""
        return np.frombuffer(self.bytes(count * dtype.itemsize), dtype=dtype)

    def finish(self) -> None:
        """Confirm what was read.

        Raises:
            IntegrityError: the blob is longer, or is not the one that the digest names.
        """
        if self._stream.readinto(memoryview(bytearray(1))) or self._hash.hexdigest() != self._digest:
            raise self._wrong()

    def _wrong(self) -> IntegrityError:
        return IntegrityError(
            f"{self._what} is not what digest {self._digest[:12]} names: fetch it again, use nothing of it"
        )
