"""The pictures of `hospital_plots` for more hospitals than rows: shares and spreads instead of names.

The signs for what became of a reply are here, since both use them.
"""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import TYPE_CHECKING

from client.notebook import drawing, fates
from client.notebook.drawing import SMALL, ink
from client.notebook.figures import Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

_SIGNS = {  # shade of the ground, hatch
    fates.TAKEN: (0.7, ""),
    fates.AWAY: (0.0, ""),
    fates.DECLINED: (0.0, "////"),
    fates.REJECTED: (0.0, "xxxx"),
    fates.LEFT: (0.0, "...."),
    fates.ABORTED: (0.25, "||||"),
    fates.OTHER: (0.0, "oo"),
}
_NAMED = 3  # hospitals that pull least with the others


def sign(
    ax: Axes, kind: str, corner: tuple[float, float] = (0, 0), width: float = 1, height: float = 1
) -> Rectangle:
    """Return the field that stands for a kind of fate, labelled for a legend."""
    from matplotlib.patches import Rectangle

    shade, hatch = _SIGNS[kind]
    return Rectangle(
        corner,
        width,
        height,
        facecolor=ink(ax, shade),
        edgecolor=ink(ax, 0.7),  # as dark as what is in the model: no lines show between its rounds
        hatch=hatch,
        linewidth=0.6,
        label=kind,
    )


def participation(figures: Figures, ax: Axes | None) -> Axes:
    """Draw how many hospitals each fate had, by round."""
    ax = drawing.axes(ax)
    drawing.plain(ax, f"Who is in which round's model, of {len(figures.hospitals)}", y="hospitals")
    if not figures.parts:
        return drawing.nothing(ax)
    counts: dict[int, Counter[str]] = {}
    for part in figures.parts:
        counts.setdefault(part.round, Counter())[fates.kind(part.fate)] += 1
    for number, found in counts.items():
        floor = 0
        for kind in fates.KINDS:
            if found[kind]:
                ax.add_patch(sign(ax, kind, (number - 0.5, floor), 1, found[kind]))
                floor += found[kind]
    drawn = set().union(*counts.values())
    ax.set_ylim(0, 1.02 * len(figures.hospitals))
    drawing.by_round(ax, figures, max(counts))
    drawing.legend(ax, [sign(ax, kind) for kind in fates.KINDS if kind in drawn])
    return ax


def epsilon(figures: Figures, ax: Axes | None) -> Axes:
    """Draw how much of its own limit and of its own lifetime budget hospitals have spent on this job, by round."""
    ax = drawing.axes(ax)
    title = f"Privacy spent by this job at {len(figures.hospitals)} hospitals"
    drawing.plain(ax, title, y="% of a hospital's own")
    budgets = {budget.hospital: budget for budget in figures.budgets}
    worst: dict[str, float] = {}
    rows: list[tuple[int, list[float], list[float]]] = []
    rounds = sorted({spent.round for spent in figures.spent})
    by_round = {number: [s for s in figures.spent if s.round == number] for number in rounds}
    for number, spents in by_round.items():
        for spent in spents:
            worst[spent.hospital] = max(spent.epsilon, worst.get(spent.hospital, 0.0))
        known = [(value, budgets[name]) for name, value in worst.items() if name in budgets]
        if known:
            job = [100 * value / budget.job_epsilon for value, budget in known]
            rows.append((number, job, [100 * value / budget.lifetime_epsilon for value, budget in known]))
    if not rows:
        return drawing.nothing(ax)
    x = [number for number, _, _ in rows]
    _spread(ax, x, [job for _, job, _ in rows], "limit for this job", "-", 0.22)
    _spread(ax, x, [life for _, _, life in rows], "lifetime budget", "--", 0.4)
    ax.axhline(100, color=ink(ax), linewidth=1, linestyle=":")
    ax.text(0.01, 100, "nothing left", transform=ax.get_yaxis_transform(), va="bottom", fontsize=SMALL)
    ax.set_ylim(0, max(112.0, *(1.05 * max(job) for _, job, _ in rows)))
    drawing.by_round(ax, figures, x[-1])
    drawing.note(ax, "lines: median hospital; bands: all hospitals")
    return ax


def geometry(figures: Figures, ax: Axes | None) -> Axes:
    """Draw each hospital once, at the median norm and cosine of its updates; say who pull least along."""
    ax = drawing.axes(ax)
    drawing.plain(
        ax,
        f"Who pulls where, of {len(figures.hospitals)}",
        "cosine with the round's mean (median over rounds)",
        "norm of updates (median)",
    )
    pulls: dict[str, tuple[list[float], list[float]]] = {}
    for pull in figures.pulls:
        cosines, norms = pulls.setdefault(pull.hospital, ([], []))
        cosines.append(pull.cosine)
        norms.append(pull.norm)
    if not pulls:
        return drawing.nothing(ax)
    points = sorted((median(cosines), median(norms), name) for name, (cosines, norms) in pulls.items())
    ax.plot(
        [x for x, _, _ in points], [y for _, y, _ in points], linestyle="none", marker="o", markersize=4,
        markerfacecolor="none", markeredgecolor=ink(ax, 0.6),
    )  # fmt: skip
    drawing.note(ax, "least along: " + ", ".join(name for _, _, name in points[:_NAMED]))
    ax.axvline(0, color=ink(ax, 0.6), linestyle=":", linewidth=1)
    ax.set_ylim(bottom=0)
    return ax


def _spread(ax: Axes, x: list[int], values: list[list[float]], words: str, style: str, shade: float) -> None:
    """Draw the median of the hospitals and their whole range."""
    middle = [median(found) for found in values]
    ax.fill_between(
        x, [min(found) for found in values], [max(found) for found in values], color=ink(ax, shade), linewidth=0,
        alpha=0.7,
    )  # fmt: skip
    ax.plot(x, middle, linestyle=style, color=ink(ax), marker="o" if len(x) == 1 else "")
    ax.annotate(
        f"{words}\n{middle[-1]:.0f} %", (x[-1], middle[-1]), xytext=(8, 0), textcoords="offset points", va="center",
        fontsize=SMALL, annotation_clip=False,
    )  # fmt: skip
