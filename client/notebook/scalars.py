"""A run's figures as named numbers over steps, which is all that MLflow and TensorBoard know. Pure.

A step is a number of rounds of training: what stands at step 7 is the epsilon after round 7, and the quality of the
model that seven rounds have made. Up to MOST_HOSPITALS hospitals have numbers of their own; the largest and the
smallest among all are always there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from client.notebook.figures import USED, Figures

MOST_HOSPITALS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """One number."""

    name: str  # such as "auroc", "epsilon/training/hillcrest"
    value: float
    step: int  # rounds of training


def rounds(figures: Figures) -> Counter[int]:
    """Return how much there is of each round; figures only ever grow, so more means something new."""
    found: Counter[int] = Counter()
    for part in (figures.measured, figures.parts, figures.spent, figures.pulls):
        found.update(item.round for item in part)
    return found


def of_round(figures: Figures, number: int) -> tuple[Scalar, ...]:
    """Return the numbers of one round, and of the model that it began with."""
    named = len(figures.hospitals) <= MOST_HOSPITALS
    return (*_quality(figures, number), *_fates(figures, number), *_privacy(figures, number, named),
            *_geometry(figures, number, named))  # fmt: skip


def of_run(figures: Figures) -> tuple[Scalar, ...]:
    """Return all numbers, round by round."""
    return tuple(scalar for number in sorted(rounds(figures)) for scalar in of_round(figures, number))


def _quality(figures: Figures, number: int) -> Iterator[Scalar]:
    for measured in figures.measured:
        if measured.round != number:
            continue
        for name in ("auroc", "log_loss", "brier"):
            estimate = getattr(measured, name)
            if estimate is not None:
                yield Scalar(name=name, value=estimate.value, step=number - 1)
                yield Scalar(name=f"{name}_low", value=estimate.low, step=number - 1)
                yield Scalar(name=f"{name}_high", value=estimate.high, step=number - 1)


def _fates(figures: Figures, number: int) -> Iterator[Scalar]:
    fates = [part.fate == USED for part in figures.parts if part.round == number]
    if fates:
        yield Scalar(name="hospitals/used", value=sum(fates), step=number)
        yield Scalar(name="hospitals/left_out", value=len(fates) - sum(fates), step=number)


def _privacy(figures: Figures, number: int, named: bool) -> Iterator[Scalar]:
    largest: dict[str, float] = {}
    new: set[str] = set()
    for spent in figures.spent:
        if spent.round > number:
            continue
        largest[spent.side] = max(spent.epsilon, largest.get(spent.side, 0.0))
        if spent.round == number:
            new.add(spent.side)
            if named:
                name = f"epsilon/{spent.side}/{spent.hospital}"
                yield Scalar(name=name, value=spent.epsilon, step=number)
    for side in sorted(new):
        yield Scalar(name=f"epsilon/{side}_largest", value=largest[side], step=number)


def _geometry(figures: Figures, number: int, named: bool) -> Iterator[Scalar]:
    pulls = [pull for pull in figures.pulls if pull.round == number]
    for pull in pulls if named else ():
        yield Scalar(name=f"pull/norm/{pull.hospital}", value=pull.norm, step=number)
        yield Scalar(name=f"pull/cosine/{pull.hospital}", value=pull.cosine, step=number)
    if pulls:
        yield Scalar(name="pull/norm_largest", value=max(pull.norm for pull in pulls), step=number)
        yield Scalar(name="pull/cosine_smallest", value=min(pull.cosine for pull in pulls), step=number)
