"""Trackers: told each thing once, in whatever portions the figures come, and unable to stop a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.notebook import scalars
from client.notebook.figures import Figures
from client.notebook.tracking import Callbacks
from tests.client.notebook.made_figures import made, until

RUN = made(3, rounds=4)


@dataclass
class Book:
    """A tracker that writes down what it is told."""

    told: list[object] = field(default_factory=list)

    def start(self, figures: Figures) -> None:
        self.told.append("start")

    def round(self, figures: Figures, number: int) -> None:
        self.told.append(number)

    def end(self, figures: Figures) -> None:
        self.told.append(f"end {figures.status}")


@dataclass
class Broken(Book):
    """One that fails in a given round."""

    at: int = 2

    def round(self, figures: Figures, number: int) -> None:
        super().round(figures, number)
        if number == self.at:
            raise ConnectionError("no route\nto the server")


@given(st.lists(st.integers(0, 6), max_size=8))
def test_each_round_is_told_once_whatever_the_portions(cuts: list[int]) -> None:
    book = Book()
    with Callbacks([book]) as told:
        for cut in [*sorted(cuts), 6]:
            told.update(until(RUN, cut))
            told.update(until(RUN, cut))
    assert book.told == ["start", 1, 2, 3, 4, 5, "end finished"]


def test_what_becomes_known_later_of_a_round_is_told_again() -> None:
    book = Book()
    told = Callbacks([book])
    told.update(replace(until(RUN, 1), measured=()))
    told.update(until(RUN, 1))
    assert book.told == ["start", 1, 1]


def test_a_run_that_nobody_follows_any_more_ends_as_it_stands() -> None:
    book = Book()
    with Callbacks([book]) as told:
        told.update(until(RUN, 2))
    told.close()
    assert book.told == ["start", 1, 2, "end running"]


def test_a_run_that_never_began_has_no_end() -> None:
    book = Book()
    with Callbacks([book]):
        pass
    assert book.told == []


def test_a_tracker_that_fails_is_reported_once_and_the_others_go_on() -> None:
    broken, book, said = Broken(), Book(), list[str]()
    told = Callbacks([broken, book], said.append)
    for last in range(1, 7):
        told.update(until(RUN, last))
    told.close()
    assert said == [
        "Broken failed and is told no more; the run goes on (ConnectionError: no route to the server)"
    ]
    assert broken.told == ["start", 1, 2]
    assert book.told == ["start", 1, 2, 3, 4, 5, "end finished"]


def test_ctrl_c_in_a_tracker_is_no_failure_of_it() -> None:
    def stop(_: Figures) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Callbacks([stop]).update(RUN)


def test_a_function_is_given_the_figures_whenever_they_have_changed() -> None:
    seen: list[Figures] = []
    with Callbacks([seen.append]) as told:
        for last in (1, 1, 2, 2, 3):
            told.update(until(RUN, last))
    assert seen == [until(RUN, n) for n in (1, 2, 3)]


def test_steps_count_rounds_of_training_and_largest_epsilons_never_fall() -> None:
    found = scalars.of_run(RUN)
    assert [s.step for s in found if s.name == "auroc"] == [m.round - 1 for m in RUN.measured]
    assert not [name for name, count in Counter((s.name, s.step) for s in found).items() if count > 1]
    largest = [s.value for s in found if s.name == "epsilon/training_largest"]
    assert largest == sorted(largest)
    assert largest[-1] == max(s.epsilon for s in RUN.spent if s.side == "training")


def test_a_crowd_has_few_numbers() -> None:
    names = {scalar.name for scalar in scalars.of_run(made(scalars.MOST_HOSPITALS + 1, rounds=2))}
    assert "pull/cosine_smallest" in names
    assert len(names) < 20
