"""Pictures of what each hospital gave: privacy spent, rounds taken part in, and where its updates pulled.

A hospital has a row of its own, named at the axis; where the rows would be too low, `crowd_plots` draws all together.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from client.notebook import crowd_plots, drawing, fates, tables
from client.notebook.drawing import ink
from client.notebook.figures import Budget, Figures, Part, Pull

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

_MOST_ARROWS = 24  # in a row; of more rounds, neighbours are averaged
_MOST_LONG = 1 / 0.06  # axes widths over the longest arrow
_THICK = 0.34  # of a bar, in rows
_SIDES = (("training", -0.19, 0.75, ""), ("heldout", 0.19, 0.0, "//////"))  # name, offset, shade, hatch
_SIDE_WORDS = {"training": "training patients", "heldout": "held-out patients"}


def epsilon(figures: Figures, ax: Axes | None = None) -> Axes:
    """Draw what this job has cost each hospital's patients, against its limit for the job and its lifetime budget.

    The two sides are disjoint patients: their epsilons are never added. Where the figures say what all jobs together
    have spent, a hollow diamond shows it.

    Args:
        figures: Of a run.
        ax: Where to draw; None for a figure of its own.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    names = figures.hospitals
    if not drawing.fits(len(names), ax):
        return crowd_plots.epsilon(figures, ax)
    ax = drawing.axes(ax, len(names))
    drawing.plain(ax, "Privacy spent by hospital", "epsilon (add/remove one patient)")
    budgets = {budget.hospital: budget for budget in figures.budgets}
    if not names or not (figures.spent or budgets):
        return drawing.nothing(ax, drawing.NOTHING if names else "no hospital yet")
    drawing.rows(ax, names)
    drawing.beside_title(ax, "spent,\nof limit")
    now = tables.latest_epsilon(figures)
    for row, name in enumerate(names):
        for side, offset, _, _ in _SIDES:
            value = now.get((name, side), 0.0)
            _bar(ax, row + offset, value, side)
        spent = max(now.get((name, side), 0.0) for side, *_ in _SIDES)
        if (budget := budgets.get(name)) is not None:
            _limits(ax, row, budget)
            drawing.beside(ax, row, f"{spent:.2f} of {budget.job_epsilon:g}")
    ax.set_xlim(left=0)
    drawing.legend(ax, _epsilon_signs(ax, figures), 3)
    return ax


def participation(figures: Figures, ax: Axes | None = None) -> Axes:
    """Draw which hospital's update is in the model of which round, and in kinds why the others are not.

    Args:
        figures: Of a run.
        ax: Where to draw; None for a figure of its own.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    names = figures.hospitals
    if not drawing.fits(len(names), ax):
        return crowd_plots.participation(figures, ax)
    ax = drawing.axes(ax, len(names))
    drawing.plain(ax, "Who is in which round's model")
    if not figures.parts:
        return drawing.nothing(ax)
    drawing.rows(ax, names)
    drawing.beside_title(ax, "in the\nmodel")
    drawn: set[str] = set()
    for row, name in enumerate(names):
        parts = [part for part in figures.parts if part.hospital == name]
        drawn |= {fates.kind(part.fate) for part in parts}
        _strip(ax, row, parts)
        taken = sum(fates.kind(part.fate) == fates.TAKEN for part in parts)
        drawing.beside(ax, row, f"{taken} of {len(parts)}")
    ax.spines[["left", "bottom"]].set_visible(False)
    drawing.by_round(ax, figures, figures.parts[-1].round)
    drawing.legend(ax, [crowd_plots.sign(ax, kind) for kind in fates.KINDS if kind in drawn])
    return ax


def geometry(figures: Figures, ax: Axes | None = None) -> Axes:
    """Draw each noised update as an arrow: who pulls where.

    An arrow to the right pulls with the weighted mean of its round, upwards across it, to the left against it; the
    angle's cosine is that of the figures, and the arrow's length is the update's norm. In long runs neighbouring
    rounds are averaged. Beside a row stands the mean cosine over all rounds.

    Args:
        figures: Of a run.
        ax: Where to draw; None for a figure of its own.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    names = figures.hospitals
    if not drawing.fits(len(names), ax):
        return crowd_plots.geometry(figures, ax)
    ax = drawing.axes(ax, len(names))
    drawing.plain(ax, "Who pulls where")
    if not figures.pulls:
        return drawing.nothing(ax)
    drawing.rows(ax, names)
    width = -(-figures.pulls[-1].round // _MOST_ARROWS)  # rounds in a column
    longest = max(pull.norm for pull in figures.pulls) or 1.0
    span = max(figures.rounds, figures.pulls[-1].round)
    for row, name in enumerate(names):
        pulls = [pull for pull in figures.pulls if pull.hospital == name]
        ax.axhline(row, color=ink(ax, 0.15), linewidth=0.5, zorder=0)
        if not pulls:
            continue
        _arrows(ax, row, pulls, width, longest * max(span / (1.2 * width), _MOST_LONG))
        drawing.beside(ax, row, f"{sum(p.cosine for p in pulls) / len(pulls):+.2f}")
    drawing.beside_title(ax, "mean\ncosine")
    averaged = f"; mean of {width} rounds" if width > 1 else ""
    ax.spines["left"].set_visible(False)
    drawing.by_round(ax, figures, figures.pulls[-1].round)
    drawing.note(
        ax, f"arrow right: with the others; up: across; left: against\nlongest: norm {longest:.2g}{averaged}"
    )
    return ax


def _bar(ax: Axes, row: float, value: float, side: str) -> None:
    shade, hatch = next((s, h) for name, _, s, h in _SIDES if name == side)
    ax.barh(
        row,
        value,
        height=_THICK,
        facecolor=ink(ax, shade),
        edgecolor=ink(ax, 0.75),
        hatch=hatch,
        linewidth=0.8,
    )


def _limits(ax: Axes, row: float, budget: Budget) -> None:
    """Draw a line for the job's limit, a double one for the lifetime budget, a diamond for what is gone of it."""
    top, bottom = row - 0.42, row + 0.42
    ax.plot([budget.job_epsilon] * 2, [top, bottom], color=ink(ax), linewidth=2)
    ax.plot(
        [budget.lifetime_epsilon] * 2, [top, bottom], color=ink(ax), linewidth=1.2, linestyle=(0, (2, 1.2))
    )
    if budget.lifetime_spent is not None:
        ax.plot(budget.lifetime_spent, row, marker="D", markersize=6, markerfacecolor=ax.get_facecolor(),
                markeredgecolor=ink(ax), linestyle="none")  # fmt: skip


def _epsilon_signs(ax: Axes, figures: Figures) -> list[object]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    sides = {spent.side for spent in figures.spent}
    signs: list[object] = [
        Patch(facecolor=ink(ax, shade), edgecolor=ink(ax, 0.75), hatch=hatch, label=_SIDE_WORDS[side])
        for side, _, shade, hatch in _SIDES
        if side in sides
    ]
    signs.append(Line2D([], [], color=ink(ax), linewidth=2, label="limit of this job"))
    signs.append(
        Line2D(
            [], [], color=ink(ax), linewidth=1.2, linestyle=(0, (2, 1.2)), label="lifetime budget, all jobs"
        )
    )
    if any(budget.lifetime_spent is not None for budget in figures.budgets):
        signs.append(
            Line2D([], [], marker="D", markersize=6, markerfacecolor="none", markeredgecolor=ink(ax),
                   linestyle="none", label="spent of it so far")
        )  # fmt: skip
    return signs


def _strip(ax: Axes, row: int, parts: list[Part]) -> None:
    """Draw a hospital's rounds; neighbours of one kind as one field, in which a hatch can be read."""
    runs = groupby(enumerate(parts), lambda p: (fates.kind(p[1].fate), p[1].round - p[0]))
    for (kind, _), run in runs:
        numbers = [part.round for _, part in run]
        patch: Patch = crowd_plots.sign(
            ax, kind, (numbers[0] - 0.46, row - 0.36), numbers[-1] - numbers[0] + 0.92, 0.72
        )
        ax.add_patch(patch)


def _arrows(ax: Axes, row: int, pulls: list[Pull], width: int, scale: float) -> None:
    """Draw a hospital's arrows, one for each `width` rounds; `scale` is the norm as long as the axes are wide."""
    columns = [list(group) for _, group in groupby(pulls, lambda pull: (pull.round - 1) // width)]
    x = [sum(p.round for p in column) / len(column) for column in columns]
    norms = [sum(p.norm for p in column) / len(column) for column in columns]
    cosines = [max(-1.0, min(1.0, sum(p.cosine for p in column) / len(column))) for column in columns]
    ax.quiver(
        x,
        [row] * len(x),
        [norm * cosine for norm, cosine in zip(norms, cosines, strict=True)],
        [norm * (1 - cosine * cosine) ** 0.5 for norm, cosine in zip(norms, cosines, strict=True)],
        angles="uv",
        pivot="mid",
        scale_units="width",
        scale=scale,
        color=ink(ax, 0.85),
        width=0.003,
        headwidth=4.5,
        headlength=5,
        headaxislength=4.5,
    )
