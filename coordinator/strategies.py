"""Which strategies a job may name, their settings with bounds, and what each promises about recomputation.

Names and defaults are those of Flower 1.41's strategies, spelled as the record spells them: lowercase, words
joined by hyphens. What a strategy computes is `aggregation`, `robust` and `flower_krum`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from coordinator.errors import SettingError
from ledger.values import Aggregation

_DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,40})?([eE]-?[0-9]{1,2})?")
Recomputation = Literal["bit-exact", "pinned-versions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg:
    """The weighted mean of the changes (McMahan et al. 2017)."""

    code: ClassVar[str] = "fedavg"
    columns: ClassVar[int] = 0  # float64 numbers a parameter that it carries from round to round
    recomputation: ClassVar[Recomputation] = "bit-exact"

    @property
    def minimum_updates(self) -> int:
        """With fewer updates than this the round is aborted."""
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvgM(FedAvg):
    """The weighted mean with momentum at the server (Hsu et al. 2019)."""

    code: ClassVar[str] = "fedavgm"
    columns: ClassVar[int] = 1  # momentum
    server_learning_rate: float = 1.0
    server_momentum: float = 0.0

    def __post_init__(self) -> None:
        _require(self.server_learning_rate > 0, "server-learning-rate", "above 0")
        _require(0 <= self.server_momentum < 1, "server-momentum", "at least 0 and below 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAdam(FedAvg):
    """Adam at the server on the mean change (Reddi et al. 2021, Algorithm 2; Flower corrects the bias)."""

    code: ClassVar[str] = "fedadam"
    columns: ClassVar[int] = 2  # first and second moment
    eta: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 0.001

    def __post_init__(self) -> None:
        _require(self.eta > 0, "eta", "above 0")
        _require(0 <= self.beta_1 < 1, "beta-1", "at least 0 and below 1")
        _require(0 <= self.beta_2 < 1, "beta-2", "at least 0 and below 1")
        _require(self.tau > 0, "tau", "above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class FedYogi(FedAdam):
    """Yogi at the server on the mean change (Reddi et al. 2021, Algorithm 2)."""

    code: ClassVar[str] = "fedyogi"
    eta: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class FedMedian(FedAvg):
    """The median of the changes, coordinate by coordinate, without weights (Yin et al. 2018)."""

    code: ClassVar[str] = "fedmedian"


@dataclass(frozen=True, slots=True, kw_only=True)
class FedTrimmedAvg(FedAvg):
    """The mean without the int(beta n) smallest and largest of each coordinate, without weights (Yin 2018)."""

    code: ClassVar[str] = "fedtrimmedavg"
    beta: float = 0.2

    def __post_init__(self) -> None:
        _require(0 <= self.beta < 0.5, "beta", "at least 0 and below 0.5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Krum(FedAvg):
    """The one change that lies closest to its neighbours (Blanchard et al. 2017), as Flower computes it."""

    code: ClassVar[str] = "krum"
    recomputation: ClassVar[Recomputation] = "pinned-versions"  # its distances are a BLAS product
    num_malicious_nodes: int = 0

    def __post_init__(self) -> None:
        _require(self.num_malicious_nodes >= 0, "num-malicious-nodes", "0 or more")

    @property
    def minimum_updates(self) -> int:
        """Blanchard et al. 2017, Proposition 4.2: 2 f + 2 < n."""
        return 2 * self.num_malicious_nodes + 3


Strategy = FedAvg  # the common root: every strategy is one of the classes above
_BY_CODE: dict[str, type[Strategy]] = {
    c.code: c for c in (FedAvg, FedAvgM, FedAdam, FedYogi, FedMedian, FedTrimmedAvg, Krum)
}


def parse_strategy(code: str, settings: Mapping[str, str | float]) -> Strategy:
    """Return the strategy that a job names.

    Args:
        code: For example `fedadam`.
        settings: By name, for example `{"eta": "0.1", "beta-1": "0.9"}`; what is left out has its default.

    Raises:
        SettingError: an unknown strategy or setting, or a value out of its range.
    """
    if (cls := _BY_CODE.get(code)) is None:
        raise SettingError(f"unknown strategy {code[:40]!r}: choose one of {', '.join(sorted(_BY_CODE))}")
    known = {f.name.replace("_", "-"): f for f in fields(cls)}
    if unknown := sorted(set(settings) - set(known)):
        offered = ", ".join(sorted(known)) or "none"
        raise SettingError(f"{code} has no setting {unknown[0][:40]!r}; its settings: {offered}")
    values: dict[str, float | int] = {}
    for name, value in settings.items():
        number = parse_number(value, name)
        if known[name].type == "int":
            _require(number == int(number), name, "a whole number")
            number = int(number)
        values[known[name].name] = number
    return cls(**values)


def strategy_of(aggregation: Aggregation) -> Strategy:
    """Return the strategy of a job record's `aggregation`. Raises SettingError: see `parse_strategy`."""
    return parse_strategy(aggregation.strategy, {s.name: s.value for s in aggregation.settings})


def parse_number(value: str | float, name: str) -> float:
    """Return a setting as the float64 nearest to its decimal; Python rounds it alike on every machine.

    Raises:
        SettingError: not a decimal, or not finite.
    """
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        raise SettingError(f"{name} must be a decimal number such as 0.1, not {value[:40]!r}")
    try:
        number = float(value)
    except OverflowError:  # an int of more than 308 digits
        number = math.inf
    _require(math.isfinite(number), name, "finite")
    return number


def _require(holds: bool, name: str, what: str) -> None:
    if not holds:
        raise SettingError(f"{name} must be {what}: correct the job's settings")
