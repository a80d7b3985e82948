"""Pictures of how good a model is: AUROC and loss by round, calibration, and what privacy costs in quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from client.notebook import drawing
from client.notebook.drawing import SMALL, ink
from client.notebook.figures import Estimate, Figures

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_FEW = 12  # measurements that get a bar each for their interval; more get a band
_FEW_SEEDS = 20  # of which the whole range is drawn; of more, the middle 95 %
_LOW = 0.56  # an AUROC axis that begins below shows where chance is
_LARGEST = 420.0  # points squared, of the marker of the largest bin


def auroc(figures: Figures, ax: Axes | None = None) -> Axes:
    """Draw the AUROC on held-out patients by rounds of training, with 95 % intervals.

    Args:
        figures: Of a run.
        ax: Where to draw; None for a figure of its own.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = drawing.axes(ax)
    points = [(m.round - 1, m.auroc) for m in figures.measured]
    drawn = _by_round(ax, points, figures.rounds, "AUROC on held-out patients", "AUROC")
    if drawn and ax.get_ylim()[0] < _LOW:
        ax.axhline(0.5, color=ink(ax, 0.6), linestyle=":", linewidth=1)
        ax.text(
            1,
            0.5,
            "chance",
            transform=ax.get_yaxis_transform(),
            fontsize=SMALL,
            color=ink(ax, 0.7),
            va="bottom",
            ha="right",
        )
    return ax


def loss(figures: Figures, ax: Axes | None = None) -> Axes:
    """Draw the log loss on held-out patients by rounds of training, with 95 % intervals.

    Args:
        figures: Of a run.
        ax: Where to draw; None for a figure of its own.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = drawing.axes(ax)
    points = [(m.round - 1, m.log_loss) for m in figures.measured]
    _by_round(ax, points, figures.rounds, "Log loss on held-out patients", "nats a patient (lower is better)")
    return ax


def calibration(figures: Figures, ax: Axes | None = None) -> Axes:
    """Draw, for the newest model that was measured, how often what it predicts comes true.

    A marker's area goes by the patients in its bin, whose number stands beside it.

    Args:
        figures: Of a run.
        ax: Where to draw; None for a figure of its own.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = drawing.axes(ax)
    newest = next((m for m in reversed(figures.measured) if any(b.patients > 0 for b in m.calibration)), None)
    if newest is None:
        drawing.plain(ax, "Calibration")
        return drawing.nothing(ax)
    bars = [bar for bar in newest.calibration if bar.patients > 0]
    after = newest.round - 1
    drawing.plain(
        ax,
        f"Calibration after round {after}" if after else "Calibration before any training",
        "predicted probability",
        "share of positives" + (" (bars: 95 % interval)" if any(bar.low is not None for bar in bars) else ""),
    )
    ax.plot([0, 1], [0, 1], color=ink(ax, 0.6), linestyle=":", linewidth=1)
    words = "dotted: perfect\nnumbers: patients, about"
    ax.text(0.99, 0.02, words, transform=ax.transAxes, fontsize=SMALL, color=ink(ax, 0.8), ha="right")
    x, y = [bar.predicted for bar in bars], [bar.observed for bar in bars]
    most = max(bar.patients for bar in bars)
    ax.plot(x, y, color=ink(ax, 0.45), linewidth=0.8)
    for bar in bars:
        if bar.low is not None and bar.high is not None:
            ax.plot(
                [bar.predicted] * 2,
                [bar.low, bar.high],
                color=ink(ax, 0.55),
                linewidth=2,
                solid_capstyle="butt",
            )
    ax.scatter(
        x, y, s=[_LARGEST * bar.patients / most for bar in bars], facecolor="C0", alpha=0.35, edgecolor="none"
    )
    ax.scatter(x, y, s=12, color="C0", zorder=3)
    for bar in bars:
        ax.annotate(
            f"{bar.patients:.0f}", (bar.predicted, bar.observed), xytext=(8, -8), textcoords="offset points",
            fontsize=SMALL, ha="left", color=ink(ax, 0.8),
        )  # fmt: skip
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.08, 1.03)
    return ax


def privacy_utility(curve_table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw what quality can be expected at each epsilon, with a band over the seeds.

    The band is the range of the seeds, or the middle 95 % of more than 20. An infinite epsilon, training without
    noise, becomes a dashed line.

    Args:
        curve_table: Columns `epsilon` (above 0), `seed` and `auroc`, a row for each simulated job; NaN is left out.
        ax: Where to draw; None for a figure of its own.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ax = drawing.axes(ax)
    known = curve_table.dropna(subset=["epsilon", "auroc"])
    groups = {
        float(epsilon): sorted(map(float, group)) for epsilon, group in known.groupby("epsilon")["auroc"]
    }
    without = groups.pop(math.inf, [])
    if not groups:
        drawing.plain(ax, "Expected AUROC by privacy")
        return drawing.nothing(ax)
    seeds = int(known["seed"].nunique())
    drawing.plain(
        ax,
        "Expected AUROC by privacy",
        "epsilon of the job (add/remove one patient); smaller is more private",
        "AUROC in simulation",
    )
    x, bands = list(groups), [_band(values) for values in groups.values()]
    means = [sum(values) / len(values) for values in groups.values()]
    ax.set_xscale("log")
    ax.fill_between(
        x, [low for low, _ in bands], [high for _, high in bands], color=ink(ax, 0.18), linewidth=0
    )
    ax.plot(
        [epsilon for epsilon, values in groups.items() for _ in values],
        [value for values in groups.values() for value in values],
        linestyle="none", marker=".", markersize=3, color=ink(ax, 0.6),
    )  # fmt: skip
    ax.plot(x, means, color="C0", marker="o", markersize=5)
    if without:
        level = sum(without) / len(without)
        ax.axhline(level, color=ink(ax, 0.7), linestyle="--", linewidth=1)
        ax.text(x[0], level, "without noise", fontsize=SMALL, color=ink(ax, 0.8), va="bottom", ha="left")
    ax.set_xticks(x, [f"{epsilon:g}" for epsilon in x])
    ax.minorticks_off()
    band = "range" if all(len(values) <= _FEW_SEEDS for values in groups.values()) else "middle 95 %"
    words = f"line: mean; band: {band} of {seeds} seeds" if seeds > 1 else "one seed: no band"
    ax.text(0.99, 0.03, words, transform=ax.transAxes, ha="right", fontsize=SMALL, color=ink(ax, 0.8))
    return ax


def _by_round(
    ax: Axes, points: Sequence[tuple[int, Estimate | None]], rounds: int, title: str, y: str
) -> bool:
    """Draw estimates by rounds of training; return whether there was one."""
    known = [(x, estimate) for x, estimate in points if estimate is not None]
    few = len(known) <= _FEW
    drawing.plain(ax, title, f"rounds of training ({'bars' if few else 'band'}: 95 % interval)", y)
    if not known:
        drawing.nothing(ax, "too little left to measure under the noise" if points else drawing.NOTHING)
        return False
    x = [place for place, _ in known]
    values = [e.value for _, e in known]
    low, high = [e.low for _, e in known], [e.high for _, e in known]
    if few:
        for place, bottom, top in zip(x, low, high, strict=True):
            ax.plot([place, place], [bottom, top], color=ink(ax, 0.55), linewidth=2, solid_capstyle="butt")
        ax.plot(x, values, color="C0", marker="o", markersize=5)
    else:
        ax.fill_between(x, low, high, color=ink(ax, 0.18), linewidth=0)
        ax.plot(x, values, color="C0", marker="o", markersize=3)
    last = known[-1][1]
    ax.annotate(
        f"{last.value:.3f}\n({last.low:.3f} to {last.high:.3f})", (x[-1], last.value), xytext=(8, 0),
        textcoords="offset points", va="center", fontsize=SMALL, annotation_clip=False,
    )  # fmt: skip
    _unmeasured(ax, [place for place, estimate in points if estimate is None])
    span = max(rounds, x[-1], 1)
    ax.set_xlim(-0.03 * span, 1.03 * span)
    drawing.whole_numbers(ax)
    return True


def _unmeasured(ax: Axes, places: list[int]) -> None:
    """Mark on the x axis the models of which the noise left too little to measure."""
    if not places:
        return
    ax.plot(
        places, [0.02] * len(places), transform=ax.get_xaxis_transform(), linestyle="none", marker="x",
        color=ink(ax, 0.7), clip_on=False,
    )  # fmt: skip
    ax.annotate(
        "not measurable", (places[-1], 0.02), xycoords=ax.get_xaxis_transform(), xytext=(6, 0),
        textcoords="offset points", va="center", fontsize=SMALL, color=ink(ax, 0.7),
    )  # fmt: skip


def _band(values: list[float]) -> tuple[float, float]:
    """Return the range of sorted values, or of the middle 95 % of many."""
    cut = 0 if len(values) <= _FEW_SEEDS else max(1, round(0.025 * len(values)))
    return values[cut], values[-1 - cut]
