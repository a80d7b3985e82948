"""From a round's admitted updates to the next model: the live path, and every auditor's recomputation of it.

The result is a pure function of `RoundInputs` and of blobs named by digest, and the same bits on every machine:
- updates are taken in the order of their hospitals' names, whatever order they arrived in;
- each coordinate is computed on its own, in float64, by +, -, *, / and square root alone. IEEE 754 (2019,
  clause 5.4.1) defines the one right result of each, and every numpy ufunc, a loop of its own, rounds after
  each. There is no fused multiply-add, no BLAS, no `sum` or `mean`, whose order of addition depends on the
  processor, and no power, exponential or logarithm, which no standard defines to the last bit;
- the next model is rounded once, to float32. `_require_ieee_754` refuses a process that was switched to flush
  small numbers to zero or to round otherwise, as some libraries do when they are loaded.
Memory is one model, its server state and a few blocks: updates are read block by block, and hashed by the same
read that averages them. Krum is the exception: see `flower_krum`. Which updates come here is `admission`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator import flower_krum, robust
from coordinator.errors import AggregationError, IntegrityError
from coordinator.strategies import FedAdam, FedAvgM, FedMedian, FedTrimmedAvg, FedYogi, Krum, Strategy
from coordinator.updates import Floats, Readable, Update, VerifiedReader
from ledger.records import inputs_digest

BLOCK = 2**13  # coordinates at a time: 64 KiB of float64 stay in a core's cache; any size gives the same bits
MAX_STEPS = 10**6  # rounds that a server state may have seen
_HEADER = 64  # bytes before the numbers of a server state
_MODEL = np.dtype("<f4")
_STATE = np.dtype("<f8")
OpenBlob = Callable[[str], Readable]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundInputs:
    """All that a round's result depends on: public, and on the record or named by it."""

    strategy: Strategy
    parameters: int  # how many float32 numbers the model has
    model_before: str  # digest
    server_state_before: str = ""  # digest; "" before the first round, and for strategies without memory
    updates: tuple[Update, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be averaged. Raises AggregationError."""
        object.__setattr__(self, "updates", tuple(sorted(self.updates, key=lambda u: u.hospital)))
        names = [u.hospital for u in self.updates]
        if len(names) < self.strategy.minimum_updates:
            raise AggregationError(
                f"{self.strategy.code} needs {self.strategy.minimum_updates} updates and has {len(names)}"
            )
        if len(set(names)) < len(names):
            raise AggregationError("a hospital has two updates in one round: admit its first only")
        if any(u.plan.parameters != self.parameters for u in self.updates):
            raise AggregationError("an update is of another size than the model: leave it out")
        if self.server_state_before and not self.strategy.columns:
            raise AggregationError(f"{self.strategy.code} carries no state: give it none")
        if any(type(u.weight) is not int or u.weight < 1 for u in self.updates):
            raise AggregationError("a weight is not a positive integer: take weights from the start record")

    def digest(self) -> str:
        """The round record's `inputs`."""
        used = [(u.hospital, u.digest, u.metrics, u.weight) for u in self.updates]
        return inputs_digest(self.model_before, self.server_state_before, used)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the round record says of a result. Recomputing the round gives an equal one."""

    model_after: str
    server_state_after: str  # "" for strategies without memory
    inputs: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Aggregate:
    """A round's result. The model and the state are stored, then `outcome` goes on the record."""

    model: NDArray[np.float32]  # shape (parameters,), little-endian
    server_state: bytes  # b"" for strategies without memory
    outcome: Outcome


def aggregate(inputs: RoundInputs, open_blob: OpenBlob, *, block: int = BLOCK) -> Aggregate:
    """Compute the next model.

    Args:
        inputs: What is averaged, and how.
        open_blob: Opens model, server state and updates by digest.
        block: Coordinates held in memory at a time.

    Raises:
        IntegrityError: a blob is not the one that its digest names.
        AggregationError: the result is not finite, or this process does not compute as IEEE 754 says.
    """
    _require_ieee_754()
    with ExitStack() as stack, np.errstate(all="ignore"):  # whatever overflows is found by its result
        sources = _open(inputs, open_blob, stack)
        model, state, steps = _compute(
            inputs, sources, inputs.parameters if isinstance(inputs.strategy, Krum) else block
        )
        for reader in (sources.model, *sources.memory, *sources.updates):
            reader.finish()  # from here on, what was averaged is known to be what the digests name
    if not (np.isfinite(model).all() and np.isfinite(state).all()):
        raise AggregationError("the next model is not finite: abort the round; the job's settings diverge")
    stored = b""
    if inputs.strategy.columns:
        stored = b"".join((_header(inputs.strategy, inputs.parameters, steps + 1), state.data))
    outcome = Outcome(
        model_after=hashlib.sha256(model.data).hexdigest(),
        server_state_after=hashlib.sha256(stored).hexdigest() if stored else "",
        inputs=inputs.digest(),
    )
    return Aggregate(model=model, server_state=stored, outcome=outcome)


def recompute(inputs: RoundInputs, open_blob: OpenBlob) -> Outcome:
    """Compute a recorded round again, by the code that computed it first; compare with the record.

    Raises:
        IntegrityError: a blob is not the one that its digest names.
        AggregationError: these inputs give no model.
    """
    return aggregate(inputs, open_blob).outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sources:
    model: VerifiedReader
    memory: tuple[VerifiedReader, ...]  # the server state, where there is one
    updates: tuple[VerifiedReader, ...]  # in the order of `RoundInputs.updates`


def _open(inputs: RoundInputs, open_blob: OpenBlob, stack: ExitStack) -> _Sources:
    def reader(digest: str, what: str) -> VerifiedReader:
        return VerifiedReader(stack.enter_context(closing(open_blob(digest))), digest, what)

    state = inputs.server_state_before
    return _Sources(
        model=reader(inputs.model_before, "the model before the round"),
        memory=(reader(state, "the server state"),) if state else (),
        updates=tuple(reader(u.digest, f"the update of {u.hospital}") for u in inputs.updates),
    )


def _compute(inputs: RoundInputs, sources: _Sources, block: int) -> tuple[NDArray[np.float32], Floats, int]:
    """Return the next model, the next state of shape (parameters, columns), and the steps before this one."""
    strategy, total, steps = inputs.strategy, inputs.parameters, 0
    model = np.empty(total, dtype=_MODEL)
    state = np.zeros((total, strategy.columns), dtype=_STATE)
    for memory in sources.memory:
        steps = _read_header(memory, strategy, total)
    for start in range(0, total, block):
        count = min(block, total - start)
        part = slice(start, start + count)
        for memory in sources.memory:
            state[part] = memory.array(count * strategy.columns, _STATE).reshape(count, strategy.columns)
        change = _combine(strategy, inputs.updates, sources.updates, count)
        weights = sources.model.array(count, _MODEL).astype(np.float64)
        model[part] = weights + _server_step(strategy, change, state[part], steps)
    return model, state, steps


def _combine(
    strategy: Strategy, updates: Sequence[Update], readers: Sequence[VerifiedReader], count: int
) -> Floats:
    """Return one change in the weights for the next `count` coordinates of all updates."""
    changes = (_decoded(u, r, count) for u, r in zip(updates, readers, strict=True))
    match strategy:
        case FedMedian():
            return robust.median(np.stack(list(changes)))
        case FedTrimmedAvg():
            return robust.trimmed_mean(np.stack(list(changes)), strategy.beta)
        case Krum():
            return flower_krum.krum(
                np.stack(list(changes)), [u.weight for u in updates], strategy.num_malicious_nodes
            )
    return _weighted_mean(changes, [u.weight for u in updates], count)


def _decoded(update: Update, reader: VerifiedReader, count: int) -> Floats:
    return update.plan.decode(reader.array(count, update.plan.dtype))


def _weighted_mean(changes: Iterator[Floats], weights: Sequence[int], count: int) -> Floats:
    """Return (w1 c1 + w2 c2 + ...) / (w1 + w2 + ...), added from left to right."""
    total: Floats = np.zeros(count, dtype=np.float64)
    for weight, change in zip(weights, changes, strict=True):
        np.multiply(change, float(weight), out=change)
        np.add(total, change, out=total)
    return np.divide(total, float(sum(weights)), out=total)


def _server_step(strategy: Strategy, change: Floats, state: Floats, steps: int) -> Floats:
    """Return how far the weights move, and update the block of `state`, shape (count, columns), in place.

    Source: Hsu et al. 2019, section 4.3; Reddi et al. 2021, Algorithm 2; signs, bias correction and exponents
    as in Flower 1.41, whose first round is 1 and whose exponent is the round plus 1.
    """
    if isinstance(strategy, FedAvgM):
        momentum = state[:, 0] = strategy.server_momentum * state[:, 0] + change
        return strategy.server_learning_rate * momentum
    if not isinstance(strategy, FedAdam):
        return change
    square = change * change
    first = state[:, 0] = strategy.beta_1 * state[:, 0] + (1.0 - strategy.beta_1) * change
    if isinstance(strategy, FedYogi):
        rate = strategy.eta
        second = state[:, 1] - (1.0 - strategy.beta_2) * square * np.sign(state[:, 1] - square)
    else:
        power = steps + 2
        unbias = float(np.sqrt(1.0 - _power(strategy.beta_2, power)))
        rate = strategy.eta * unbias / (1.0 - _power(strategy.beta_1, power))
        second = strategy.beta_2 * state[:, 1] + (1.0 - strategy.beta_2) * square
    state[:, 1] = second
    return rate * first / (np.sqrt(second) + strategy.tau)


def _power(base: float, exponent: int) -> float:
    """Multiply from left to right: the last bit of `base ** exponent` depends on the C library."""
    result = 1.0
    for _ in range(exponent):
        result *= base
    return result


def _header(strategy: Strategy, parameters: int, steps: int) -> bytes:
    """The first 64 bytes of a server state; float64 rows follow, one a parameter, `columns` numbers each."""
    text = f"wardround-state-v1 {strategy.code} {strategy.columns} {parameters} {steps}"
    return text.ljust(_HEADER - 1).encode("ascii") + b"\n"


def _read_header(reader: VerifiedReader, strategy: Strategy, parameters: int) -> int:
    """Return how many rounds a server state has seen. Raises IntegrityError for any other state's header."""
    header = bytes(reader.bytes(_HEADER))
    last = header.split()[-1:]
    steps = int(last[0]) if last and last[0].isdigit() and len(last[0]) <= len(str(MAX_STEPS)) else 0
    if not 1 <= steps <= MAX_STEPS or header != _header(strategy, parameters, steps):
        raise IntegrityError(f"the server state is not one of {strategy.code} for {parameters} parameters")
    return steps


def _require_ieee_754() -> None:
    """Refuse to compute where small numbers are flushed to zero or rounding is not to nearest, ties to even."""
    tiny = np.array([2.0**-1074, 2.0**-149, 1.0 + 2.0**-52, -1.0 - 2.0**-52, 1.0, -1.0])
    half = np.array([0.0, 0.0, 2.0**-53, -(2.0**-53), 2.0**-53, -(2.0**-53)])
    wanted = [2.0**-1074, 2.0**-149, 1.0 + 2.0**-51, -1.0 - 2.0**-51, 1.0, -1.0]
    narrow = np.array([2.0**-149]).astype(np.float32)
    if (tiny + half).tolist() != wanted or (tiny * 1.0).tolist()[0] == 0.0 or float(narrow[0]) == 0.0:
        raise AggregationError(
            "this process does not round as IEEE 754 says (a loaded library changed it): results would "
            "differ from everybody else's; aggregate in a fresh process"
        )
