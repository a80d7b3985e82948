"""Which other settings of a job are worth a try at the same epsilon: one changed at a time. Pure.

Epsilon, delta, the model and the strategy are the researcher's to decide and are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from client.accounting import spell
from client.job_toml import JobDraft

WORDS = {
    "learning_rate": "learning rate",
    "local_steps": "local steps",
    "max_grad_norm": "clipping norm",
    "rounds": "rounds",
    "sample_rate": "sample rate",
}
_RATES = ("1", "0.5", "0.25", "0.1")
_STEPS = (1, 2, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A job with one setting changed."""

    field: str  # of `JobDraft`
    before: Any
    after: Any
    draft: JobDraft

    @property
    def words(self) -> str:
        """The change, for a person."""
        return f"{WORDS[self.field]} {self.before} to {self.after}"


def variants(draft: JobDraft) -> Iterator[Variant]:
    """Yield the neighbours of a job."""
    for field in ("learning_rate", "max_grad_norm"):
        value = Decimal(getattr(draft, field))
        for factor in (Decimal("0.5"), Decimal(2)):
            yield _changed(draft, field, spell(value * factor))
    for rounds in {draft.rounds // 2, 2 * draft.rounds}:
        if rounds >= 1:
            yield _changed(draft, "rounds", rounds)
    for rate in _RATES:
        if Decimal(rate) != Decimal(draft.sample_rate):
            yield _changed(draft, "sample_rate", rate)
    for steps in _STEPS:
        if steps != draft.local_steps:
            yield _changed(draft, "local_steps", steps)


def _changed(draft: JobDraft, field: str, value: Any) -> Variant:
    changed: dict[str, Any] = {field: value}
    return Variant(field=field, before=getattr(draft, field), after=value, draft=replace(draft, **changed))
