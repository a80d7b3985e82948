"""Pictures: what they show, that they show it without colour, and what they say when there is nothing to show."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.quiver import Quiver

from client.errors import MissingExtraError
from client.notebook import crowd_plots, fates, plots
from client.notebook.figures import USED, Figures, Part, Pull
from tests.client.notebook.made_figures import EMPTY, made, without_measure

Draw = Callable[[Figures, Axes | None], Axes]
ALL: list[Draw] = [
    plots.auroc, plots.loss, plots.epsilon, plots.participation, plots.geometry, plots.calibration,
]  # fmt: skip
pytestmark = pytest.mark.usefixtures("_no_window")


def words(ax: Axes) -> str:
    found = [
        ax.get_title(loc="left"),
        ax.get_xlabel(),
        ax.get_ylabel(),
        *(text.get_text() for text in ax.texts),
    ]
    legend = ax.get_legend()
    return "\n".join([*found, *(text.get_text() for text in (legend.get_texts() if legend else ()))])


def along(line: Line2D, axis: int) -> list[float]:
    return [float(value) for value in np.asarray(line.get_data()[axis])]


@pytest.mark.parametrize("draw", ALL)
def test_a_run_without_figures_says_so(draw: Draw) -> None:
    ax = draw(EMPTY, None)
    assert ("no hospital yet" if draw is plots.epsilon else "nothing measured yet") in words(ax)
    assert not ax.axison or not ax.spines["left"].get_visible()
    ax.figure.canvas.draw()


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize(
    "figures",
    [made(4), made(1, rounds=1), made(3, done=1), made(40, rounds=3)],
    ids=["four", "one", "begun", "crowd"],
)
def test_pictures_are_drawn_where_they_are_told_to_and_change_no_setting(
    draw: Draw, figures: Figures
) -> None:
    settings, backend = dict(mpl.rcParams), mpl.get_backend()
    figure, own = plt.subplots()
    assert draw(figures, own) is own
    assert plt.get_fignums() == [figure.number]
    figure.canvas.draw()
    assert own.get_title(loc="left")
    assert dict(mpl.rcParams) == settings
    assert mpl.get_backend() == backend


def test_a_measurement_lost_in_the_noise_is_marked_and_not_drawn_as_a_number() -> None:
    ax = plots.auroc(without_measure(made(4), 10))
    assert "not measurable" in words(ax)
    line = next(line for line in ax.lines if line.get_color() == "C0")
    assert along(line, 0) == [0, 4, 14, 19, 20]
    lost = replace(made(4), measured=without_measure(made(4), 10).measured[2:3])
    assert "too little left to measure under the noise" in words(plots.auroc(lost))


def test_intervals_are_drawn_as_far_as_they_reach() -> None:
    figures = made(4)
    ax = plots.loss(figures)
    drawn = [tuple(along(line, 1)) for line in ax.lines if line.get_color() != "C0"]
    assert drawn == [(m.log_loss.low, m.log_loss.high) for m in figures.measured if m.log_loss]
    many = plots.loss(made(4, rounds=100))
    assert len(many.collections) == 1
    assert "band: 95 % interval" in words(many)


def test_epsilon_stands_beside_its_limit_and_the_budget() -> None:
    figures = made(4)
    ax = plots.epsilon(figures)
    bars = {
        round(p.get_y() + p.get_height() / 2, 2): p.get_width()
        for p in ax.patches
        if isinstance(p, Rectangle)
    }
    last = {(s.hospital, s.side): s.epsilon for s in figures.spent}
    for row, name in enumerate(figures.hospitals):
        assert bars[row - 0.19] == last[name, "training"]
        assert bars[row + 0.19] == last[name, "heldout"]
    at = [along(line, 0)[0] for line in ax.lines]
    assert at.count(3.0) == 4
    assert {budget.lifetime_epsilon for budget in figures.budgets} <= set(at)
    assert "spent of it so far" in words(ax)
    unknown = replace(figures, budgets=tuple(replace(b, lifetime_spent=None) for b in figures.budgets))
    assert "spent of it so far" not in words(plots.epsilon(unknown))


def test_every_kind_of_fate_looks_different_in_black_and_white() -> None:
    _, ax = plt.subplots()
    looks = set()
    for kind in fates.KINDS:
        field = crowd_plots.sign(ax, kind)
        red, green, blue, _ = mpl.colors.to_rgba(field.get_facecolor())
        assert red == green == blue
        looks.add((round(red, 1), field.get_hatch()))
    assert len(looks) == len(fates.KINDS)


def test_a_field_of_the_map_is_as_long_as_the_rounds_of_one_kind() -> None:
    told = (USED, "late", "unreachable", USED, "norm")
    parts = tuple(Part(round=n, hospital="a", fate=fate) for n, fate in enumerate(told, 1))
    ax = plots.participation(replace(EMPTY, hospitals=("a",), parts=parts, rounds=4))
    fields = [p for p in ax.patches if isinstance(p, Rectangle)]
    assert [round(p.get_width() + 0.08) for p in fields] == [1, 2, 1, 1]
    assert "2 of 5" in words(ax)
    assert "5: the final model is measured" in words(ax)
    assert {fates.TAKEN, fates.AWAY, fates.REJECTED} <= set(words(ax).splitlines())
    assert fates.LEFT not in words(ax)


def test_rounds_in_which_a_hospital_was_not_asked_stay_empty() -> None:
    parts = tuple(Part(round=n, hospital="a", fate=USED) for n in (1, 2, 5))
    ax = plots.participation(replace(EMPTY, hospitals=("a",), parts=parts))
    assert [round(p.get_x() + 0.46) for p in ax.patches if isinstance(p, Rectangle)] == [1, 5]


def test_a_crowd_is_counted_and_not_listed() -> None:
    figures = made(500, rounds=5)
    ax = plots.participation(figures)
    heights: dict[int, float] = {}
    for field in ax.patches:
        assert isinstance(field, Rectangle)
        number = round(field.get_x() + 0.5)
        heights[number] = heights.get(number, 0) + field.get_height()
    assert heights == dict.fromkeys(range(1, 6), 500)
    assert len(words(plots.epsilon(figures)).splitlines()) < 20
    geometry = plots.geometry(figures)
    assert "least along: site-" in words(geometry)
    assert len(along(geometry.lines[0], 0)) == 500


def test_a_crowd_without_known_budgets_has_no_shares() -> None:
    assert "nothing measured yet" in words(plots.epsilon(replace(made(40, rounds=2), budgets=())))


def test_an_arrow_points_as_its_cosine_says() -> None:
    told = ((1.0, 1.0), (2.0, 0.0), (1.0, -1.0))
    pulls = tuple(Pull(round=n, hospital="a", norm=norm, cosine=c) for n, (norm, c) in enumerate(told, 1))
    ax = plots.geometry(replace(EMPTY, hospitals=("a",), pulls=pulls))
    arrows = ax.collections[0]
    assert isinstance(arrows, Quiver)
    assert np.allclose(arrows.U, [1, 0, -1])
    assert np.allclose(arrows.V, [0, 2, 0])
    still = tuple(replace(pull, norm=0.0) for pull in pulls)
    plots.geometry(replace(EMPTY, hospitals=("a",), pulls=still)).figure.canvas.draw()


def test_calibration_shows_the_newest_model_that_has_one() -> None:
    figures = without_measure(made(4), 21)
    ax = plots.calibration(figures)
    assert "after round 19" in words(ax)
    markers = ax.collections[0]
    assert isinstance(markers, PathCollection)
    sizes = markers.get_sizes()
    patients = [bar.patients for bar in figures.measured[-2].calibration]
    assert all((a < b) == (p < q) for (a, b), (p, q) in zip(pairwise(sizes), pairwise(patients), strict=True))
    assert f"{patients[0]:.0f}" in words(ax)


def test_calibration_draws_the_intervals_that_are_known() -> None:
    figures = made(4)
    bars = figures.measured[-1].calibration
    ax = plots.calibration(figures)
    spans = [tuple(along(line, 1)) for line in ax.lines]
    assert {(bar.low, bar.high) for bar in bars} <= set(spans)
    assert "95 % interval" in words(ax)
    blank = tuple(replace(bar, low=None, high=None) for bar in bars)
    ax = plots.calibration(replace(figures, measured=(replace(figures.measured[-1], calibration=blank),)))
    assert len(ax.lines) == len(spans) - len(bars)
    assert "95 % interval" not in words(ax)


def test_rows_that_a_name_does_not_fit_into_are_drawn_together() -> None:
    figures = made(25, rounds=2)
    assert len(plots.participation(figures).get_yticks()) == 25
    low = plt.figure(figsize=(4, 2)).subplots()
    assert plots.participation(figures, low).get_ylabel() == "hospitals"


def test_a_long_name_keeps_its_ends() -> None:
    name = "university-hospital-of-the-northern-islands"
    (label,) = plots.participation(
        replace(EMPTY, hospitals=(name,), parts=(Part(round=1, hospital=name, fate=USED),))
    ).get_yticklabels()
    assert label.get_text() == "university-…hern-islands"


def curve(seeds: int, infinite: bool = True) -> pd.DataFrame:
    levels = [0.5, 1.0, 3.0, *([math.inf] if infinite else [])]
    rows = [(e, s, 0.8 + 0.01 * min(e, 5) + 0.001 * s) for e in levels for s in range(seeds)]
    return pd.DataFrame(rows, columns=["epsilon", "seed", "auroc"])


def test_the_band_of_few_seeds_is_their_range_and_of_many_the_middle() -> None:
    few = plots.privacy_utility(curve(5))
    assert "range of 5 seeds" in words(few)
    assert "without noise" in words(few)
    box = few.collections[0].get_datalim(few.transData)
    assert box.x0 == 0.5
    assert box.x1 == 3.0
    assert box.height == pytest.approx(0.83 + 0.004 - 0.805)
    many = plots.privacy_utility(curve(40, infinite=False))
    assert "middle 95 % of 40 seeds" in words(many)
    assert "without noise" not in words(many)
    many.figure.canvas.draw()


@pytest.mark.parametrize("table", [curve(0), curve(2).assign(auroc=math.nan)], ids=["empty", "nothing known"])
def test_a_curve_without_values_says_so(table: pd.DataFrame) -> None:
    assert "nothing measured yet" in words(plots.privacy_utility(table))


def test_an_accessor_draws_the_newest_figures_one_by_one_or_all_at_once() -> None:
    now = EMPTY
    plot = plots.Plot(lambda: now)
    assert "nothing measured yet" in words(plot.auroc())
    now = made(4)
    for draw in (plot.auroc, plot.loss, plot.epsilon, plot.participation, plot.geometry, plot.calibration):
        assert "nothing measured yet" not in words(draw())
    axes = plot()
    assert list(axes) == ["auroc", "loss", "epsilon", "participation", "geometry", "calibration"]
    assert "AUROC" in words(axes["auroc"])
    assert plt.gcf().get_suptitle() == "breast-cancer: finished, round 20 of 20"
    assert "auroc" in repr(plot)


def test_ink_shows_on_a_dark_ground() -> None:
    with plt.style.context("dark_background"):
        ax = plots.participation(made(4))
        shades = {mpl.colors.to_rgb(p.get_facecolor())[0] for p in ax.patches}
        assert max(shades) > 0.5
        assert min(shades) == 0.0


def test_without_matplotlib_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    wanted = r"^pictures are drawn with matplotlib: pip install 'wardround\[notebook\]'$"
    with pytest.raises(MissingExtraError, match=wanted):
        plots.auroc(EMPTY)
