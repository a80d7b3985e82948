"""The strategies that a coordinator offers, with the bounds of their settings, as far as a researcher must know them.

The coordinator's `strategies` decides; the client never imports it, so the names and bounds are written out here. A
test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from ledger.values import Setting

MALICIOUS = "num-malicious-nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a setting may be."""

    above: str | None = None  # excluded
    least: str | None = None
    below: str | None = None  # excluded
    whole: bool = False

    def admits(self, value: Decimal) -> bool:
        """Whether a value is within."""
        return (
            (self.above is None or value > Decimal(self.above))
            and (self.least is None or value >= Decimal(self.least))
            and (self.below is None or value < Decimal(self.below))
            and (not self.whole or value == value.to_integral_value())
        )

    def __str__(self) -> str:
        parts = [
            "a whole number" if self.whole else "",
            f"above {self.above}" if self.above is not None else "",
            f"at least {self.least}" if self.least is not None else "",
            f"below {self.below}" if self.below is not None else "",
        ]
        return " and ".join(p for p in parts if p)


_POSITIVE = Bound(above="0")
_SHARE = Bound(least="0", below="1")
_ADAM = {"beta-1": _SHARE, "beta-2": _SHARE, "eta": _POSITIVE, "tau": _POSITIVE}
STRATEGIES: dict[str, dict[str, Bound]] = {
    "fedadam": _ADAM,
    "fedavg": {},
    "fedavgm": {"server-learning-rate": _POSITIVE, "server-momentum": _SHARE},
    "fedmedian": {},
    "fedtrimmedavg": {"beta": Bound(least="0", below="0.5")},
    "fedyogi": _ADAM,
    "krum": {MALICIOUS: Bound(least="0", whole=True)},
}


def minimum_updates(code: str, settings: Sequence[Setting]) -> int:
    """Return how many hospitals a known strategy needs in each round."""
    if code != "krum":
        return 1
    malicious = next((s.value for s in settings if s.name == MALICIOUS), "0")
    return 2 * int(Decimal(malicious)) + 3


def problems(code: str, settings: Sequence[Setting]) -> list[str]:
    """Return what is wrong with a strategy and its settings, a line each."""
    if (known := STRATEGIES.get(code)) is None:
        return [f"aggregation.strategy {code!r} is not offered: choose one of {', '.join(STRATEGIES)}"]
    found = []
    for item in settings:
        bound = known.get(item.name)
        if bound is None:
            offered = ", ".join(known) or "it has none"
            found.append(f"aggregation.{item.name} is no setting of {code}: {offered}")
        elif not bound.admits(Decimal(item.value)):
            found.append(f"aggregation.{item.name} must be {bound}, not {item.value}")
    return found
