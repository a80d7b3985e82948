"""Every picture of a run under one name, and `Plot`, which a run hands out as `run.plot`.

The drawing is in `quality_plots`, `hospital_plots` and `crowd_plots`. A picture of a run that has measured nothing
says so in its axes. Colour is never all that tells two things apart, and the user's settings stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from client.notebook import drawing
from client.notebook.extras import needed
from client.notebook.figures import Figures
from client.notebook.hospital_plots import epsilon, geometry, participation
from client.notebook.quality_plots import auroc, calibration, loss, privacy_utility

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Plot",
    "auroc",
    "calibration",
    "epsilon",
    "geometry",
    "loss",
    "overview",
    "participation",
    "privacy_utility",
]

_OVERVIEW = (
    {"auroc": auroc, "loss": loss, "epsilon": epsilon},
    {"participation": participation, "geometry": geometry, "calibration": calibration},
)
_WIDTH = 15.0  # inches, of the overview, with room for names of _ROOM letters
_ROOM = 10
_LETTER = 0.25  # inches more for each letter more, for all three columns


def overview(figures: Figures) -> dict[str, Axes]:
    """Draw all six pictures of a run in a figure of two rows, and return their axes by name.

    The axes, not the figure: a notebook would show a figure that a cell ends with a second time.

    Args:
        figures: Of a run.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    pyplot = needed("matplotlib.pyplot", "notebook", "pictures are drawn")
    longest = max((len(drawing.short(name)) for name in figures.hospitals), default=0)
    width = _WIDTH + _LETTER * max(0, longest - _ROOM)
    made: Figure = pyplot.figure(figsize=(width, 8.4), layout="constrained")
    found: dict[str, Axes] = made.subplot_mosaic([list(row) for row in _OVERVIEW])
    for row in _OVERVIEW:
        for name, draw in row.items():
            draw(figures, found[name])
    done = min(figures.rounds, max((part.round for part in figures.parts), default=0))
    made.suptitle(f"{figures.name}: {figures.status}, round {done} of {figures.rounds}", x=0.01, ha="left")
    return found


class Plot:
    """The pictures of one run, of its newest figures each time; called, all six at once."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        """Draw nothing yet.

        Args:
            figures: Gives the run's figures as they are now.
        """
        self._figures = figures

    def __repr__(self) -> str:
        return "Plot(): auroc, loss, epsilon, participation, geometry, calibration; call it for all of them"

    def __call__(self) -> dict[str, Axes]:
        """Draw all six pictures in one figure, and return their axes by name. Raises MissingExtraError."""
        return overview(self._figures())

    def auroc(self, ax: Axes | None = None) -> Axes:
        """Draw the AUROC by rounds of training, with 95 % intervals. Raises MissingExtraError."""
        return auroc(self._figures(), ax)

    def loss(self, ax: Axes | None = None) -> Axes:
        """Draw the log loss by rounds of training, with 95 % intervals. Raises MissingExtraError."""
        return loss(self._figures(), ax)

    def epsilon(self, ax: Axes | None = None) -> Axes:
        """Draw the privacy spent by hospital against limit and lifetime budget. Raises MissingExtraError."""
        return epsilon(self._figures(), ax)

    def participation(self, ax: Axes | None = None) -> Axes:
        """Draw which hospital is in which round's model. Raises MissingExtraError."""
        return participation(self._figures(), ax)

    def geometry(self, ax: Axes | None = None) -> Axes:
        """Draw where each hospital's updates pull. Raises MissingExtraError."""
        return geometry(self._figures(), ax)

    def calibration(self, ax: Axes | None = None) -> Axes:
        """Draw how often what the newest measured model predicts comes true. Raises MissingExtraError."""
        return calibration(self._figures(), ax)
