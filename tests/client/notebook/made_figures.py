"""Figures as a real run gives them, made from a seed: for the tests of tables, pictures and trackers."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from client.notebook import calibration
from client.notebook.figures import USED, Budget, Estimate, Figures, Measured, Part, Pull, Spent

NAMES = ("brookfield", "eastgate", "hillcrest", "lakeside", "northmoor", "riverside", "st-anne", "westbury")
EMPTY = Figures(name="breast-cancer", digest="ab" * 32, rounds=20, status="proposed", hospitals=())


def made(
    hospitals: int = 4, rounds: int = 20, done: int | None = None, status: str = "", seed: int = 1
) -> Figures:
    """Return the figures of a job that has done so many rounds (None: all, and the final evaluation)."""
    draw = random.Random(seed)
    names = NAMES[:hospitals] if hospitals <= len(NAMES) else tuple(f"site-{i:03}" for i in range(hospitals))
    last = rounds if done is None else done
    parts = tuple(
        _part(draw, number, name, i) for number in range(1, last + 1) for i, name in enumerate(names)
    )
    used = [part for part in parts if part.fate == USED]
    evaluated = {1, *range(5, rounds + 1, 5), rounds + 1}
    return Figures(
        name="breast-cancer",
        digest="ab" * 32,
        rounds=rounds,
        status=status or ("finished" if last == rounds else "running"),
        hospitals=names,
        measured=tuple(_measured(draw, n, rounds) for n in sorted(evaluated) if n <= last + (last == rounds)),
        parts=parts,
        spent=tuple(
            Spent(round=p.round, hospital=p.hospital, side=side, epsilon=_epsilon(p, side, rounds, names))
            for p in used
            for side in ("heldout", "training")
        ),
        budgets=tuple(_budget(name, i) for i, name in enumerate(names)),
        pulls=tuple(_pull(draw, p, names.index(p.hospital), p.round / rounds) for p in used),
    )


def without_measure(figures: Figures, number: int) -> Figures:
    """Return the same, where the noise left nothing to measure of one model."""
    blank = [
        replace(m, auroc=None, log_loss=None, brier=None, calibration=()) if m.round == number else m
        for m in figures.measured
    ]
    return replace(figures, measured=tuple(blank))


def until(figures: Figures, last: int) -> Figures:
    """Return the figures as they were when so many rounds had ended."""
    return replace(
        figures,
        status=figures.status if last > figures.rounds else "running",
        measured=tuple(item for item in figures.measured if item.round <= last),
        parts=tuple(item for item in figures.parts if item.round <= last),
        spent=tuple(item for item in figures.spent if item.round <= last),
        pulls=tuple(item for item in figures.pulls if item.round <= last),
    )


def _part(draw: random.Random, number: int, name: str, place: int) -> Part:
    fate = USED
    if place % 8 == 2 and draw.random() < 0.25:
        fate = "late"
    elif place % 8 == 1 and number in (8, 9, 10):
        fate = "skipped"
    elif place % 8 == 3 and number > 15:
        fate = "withdrawn"
    elif place % 8 == 0 and number == 5:
        fate = "norm"
    elif draw.random() < 0.01:
        fate = "unreachable"
    return Part(round=number, hospital=name, fate=fate)


def _epsilon(part: Part, side: str, rounds: int, names: tuple[str, ...]) -> float:
    target = 2.5 if side == "training" else 1.0
    own = 1 + 0.12 * math.sin(names.index(part.hospital))
    return round(0.2 + (target * own - 0.2) * math.sqrt(part.round / (rounds + 1)), 2)


def _measured(draw: random.Random, number: int, rounds: int) -> Measured:
    grown = 1 - math.exp(-3 * (number - 1) / rounds)
    area, loss = 0.52 + 0.35 * grown + draw.gauss(0, 0.01), 0.69 - 0.24 * grown + draw.gauss(0, 0.005)
    wide = 0.02 if number > rounds else 0.045
    edges = (0.12, 0.28, 0.46, 0.64, 0.82)
    counts: tuple[list[float], list[float]] = ([], [])
    for p in (0.06, 0.2, 0.38, 0.55, 0.72, 0.91):
        there, share = 240 * math.exp(-((p - 0.35) ** 2) / 0.09), 0.5 + (p - 0.5) * (0.4 + 0.7 * grown)
        counts[0].append(there * (1 - share) + draw.gauss(0, 4))
        counts[1].append(there * share + draw.gauss(0, 4))
    bars = calibration.bars(counts, edges, noise_variance=16.0)
    return Measured(
        round=number,
        auroc=Estimate(value=area, low=area - wide, high=min(1.0, area + wide)),
        log_loss=Estimate(value=loss, low=loss - wide, high=loss + wide),
        brier=Estimate(value=loss / 3, low=loss / 3 - wide / 2, high=loss / 3 + wide / 2),
        calibration=bars,
    )


def _budget(name: str, place: int) -> Budget:
    return Budget(
        hospital=name,
        dataset=f"{name}/biopsies",
        patients=256 << place % 4,
        job_epsilon=3.0,
        lifetime_epsilon=(6.0, 10.0, 8.0, 4.5)[place % 4],
        delta=1e-5,
        lifetime_spent=(2.9, 5.0, None, 4.2)[place % 4],
    )


def _pull(draw: random.Random, part: Part, place: int, gone: float) -> Pull:
    outlier = place % 8 == 3
    angle = (1.9 if outlier else 0.5 + 0.12 * (place % 4)) + draw.gauss(0, 0.15)
    size = (1.6 if outlier else 1.0) * (1.2 - 0.5 * gone) * math.exp(draw.gauss(0, 0.1))
    return Pull(round=part.round, hospital=part.hospital, norm=max(0.05, size), cosine=math.cos(angle))
