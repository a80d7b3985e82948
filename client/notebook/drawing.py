"""The look that all pictures share: sober, readable in black and white, and in whatever style the user has chosen.

Shades are mixed from the colour of the user's text and of the axes' ground, so that a dark style works too; nothing
here reads as colour alone. The user's settings and backend are never changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from client.notebook.extras import needed
from client.notebook.figures import Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Transform

Colour = tuple[float, float, float]

NOTHING = "nothing measured yet"
SMALL = "small"  # of text in the axes
_MOST_ROWS = 30  # hospitals that a picture names each on a row of its own; more are drawn together
_ROW = 0.18  # inches, of the lowest row that a name fits into
_LONGEST_NAME = 24  # characters; the middle of a longer one is left out
_LEAST_ROWS = 4  # that a picture has room for: one row alone is not made huge
_SIZE = (6.4, 4.0)  # inches
_BELOW = 38  # points from the axes to the legend: ticks and a label lie between


def axes(ax: Axes | None, rows: int = 0) -> Axes:
    """Return the axes given, or those of a new figure, high enough for so many rows.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if ax is not None:
        return ax
    width, height = _SIZE
    pyplot = needed("matplotlib.pyplot", "notebook", "pictures are drawn")
    made: Axes = pyplot.subplots(figsize=(width, max(height, 1.2 + 0.27 * rows)), layout="constrained")[1]
    return made


def fits(count: int, ax: Axes | None) -> bool:
    """Return whether so many hospitals can each have a row of its own, in the axes given or in new ones."""
    if ax is None:
        return count <= _MOST_ROWS
    figure = ax.get_figure(root=True)
    assert figure is not None
    return count <= min(_MOST_ROWS, max(_LEAST_ROWS, ax.bbox.height / figure.dpi / _ROW))


def ink(ax: Axes, strength: float = 1.0) -> Colour:
    """Return a shade between the axes' ground (0) and the user's text (1)."""
    from matplotlib import colors, rcParams

    dark, light = colors.to_rgb(rcParams["text.color"]), colors.to_rgb(ax.get_facecolor())
    red, green, blue = (strength * d + (1 - strength) * one for d, one in zip(dark, light, strict=True))
    return red, green, blue


def plain(ax: Axes, title: str, x: str = "", y: str = "") -> None:
    """Title the axes and their units, and take away what says nothing."""
    ax.set_title(title, loc="left")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)


def nothing(ax: Axes, words: str = NOTHING) -> Axes:
    """Say in the axes that there is nothing to show."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlabel("")
    ax.set_ylabel("")
    ax.spines[:].set_visible(False)
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color=ink(ax, 0.7))
    return ax


def whole_numbers(ax: Axes) -> None:
    """Tick the x axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins="auto", min_n_ticks=1))


def by_round(ax: Axes, figures: Figures, last: int) -> None:
    """Let the x axis be the rounds, those planned and the last one shown."""
    end = figures.rounds + 1
    ax.set_xlabel(f"round ({end}: the final model is measured)" if last >= end else "round")
    ax.set_xlim(0.3, max(figures.rounds, last) + 0.7)
    whole_numbers(ax)


def rows(ax: Axes, names: tuple[str, ...]) -> None:
    """Name the rows, the first one on top."""
    ax.set_yticks(range(len(names)), [short(name) for name in names])
    ax.set_ylim(max(len(names), _LEAST_ROWS) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def short(name: str) -> str:
    """Return a name without its middle if it is long; its end tells more than its middle."""
    if len(name) <= _LONGEST_NAME:
        return name
    half = _LONGEST_NAME // 2
    return f"{name[: half - 1]}…{name[-half:]}"


def beside(ax: Axes, row: float, words: str) -> None:
    """Write something right of a row."""
    ax.text(
        1.01,
        row,
        words,
        transform=ax.get_yaxis_transform(),
        va="center",
        ha="left",
        fontsize=SMALL,
        color=ink(ax, 0.8),
    )


def beside_title(ax: Axes, words: str) -> None:
    """Say, above them, what is written right of the rows."""
    ax.text(
        1.01, 1.0, words, transform=ax.transAxes, va="bottom", ha="left", fontsize=SMALL, color=ink(ax, 0.8)
    )


def legend(ax: Axes, handles: list[Any], columns: int = 3) -> None:
    """Explain the signs below the axes and their label, outside of what they show."""
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=_below(ax),
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
        handlelength=1.8,
        columnspacing=1.4,
        borderaxespad=0,
    )


def note(ax: Axes, words: str) -> None:
    """Explain in words, where `legend` explains in signs."""
    ax.text(0.5, 0, words, transform=_below(ax), ha="center", va="top", fontsize=SMALL, color=ink(ax, 0.8))


def _below(ax: Axes) -> Transform:
    """Return the transform of a place at the axes' foot, under the ticks and the label."""
    from matplotlib.transforms import ScaledTranslation

    figure = ax.get_figure(root=True)
    assert figure is not None
    return ax.transAxes + ScaledTranslation(0, -_BELOW / 72, figure.dpi_scale_trans)
