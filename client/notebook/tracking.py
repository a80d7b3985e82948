"""A run's events for whoever wants to follow it: what a tracker is, and how it is told.

What runs a job or follows one gives its figures to `Callbacks.update` whenever they have changed, in any portions; a
tracker is told each thing once and in order. A tracker is somebody else's code and network: one that fails is
reported in one sentence and told nothing more, and the run goes on. Three trackers are here to be used as they are.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from client.job_story import ENDS
from client.notebook import scalars
from client.notebook.figures import Figures
from client.notebook.jsonlines_tracker import JsonLinesTracker
from client.notebook.mlflow_tracker import MLflowTracker
from client.notebook.tensorboard_tracker import TensorBoardTracker

__all__ = [
    "Callback",
    "Callbacks",
    "JsonLinesTracker",
    "MLflowTracker",
    "TensorBoardTracker",
    "Tracker",
    "track",
]

logger = logging.getLogger(__name__)

_LONGEST = 300  # characters, of what is said of a failure

Callback = Callable[[Figures], object]  # is called with the figures each time that they have changed


@runtime_checkable
class Tracker(Protocol):
    """Follows a run; the same one may follow several, one after the other."""

    def start(self, figures: Figures) -> None:
        """Begin with a run, which may have figures already."""

    def round(self, figures: Figures, number: int) -> None:
        """Take in what is new of a round; once more for the same one if more of it becomes known."""

    def end(self, figures: Figures) -> None:
        """Come to an end: the job's own if its status says so, else nobody follows it any more for now."""


class Callbacks:
    """Tells trackers, and plain functions of the figures, about one run. Use it as a context manager."""

    def __init__(
        self, callbacks: Iterable[Tracker | Callback] = (), say: Callable[[str], object] = logger.warning
    ) -> None:
        """Tell nothing yet.

        Args:
            callbacks: Who is told.
            say: Is given the one sentence about a callback that failed.
        """
        self._say = say
        self._feeds = [_Feed(callback) for callback in callbacks]
        self._newest: Figures | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, figures: Figures) -> None:
        """Tell what is new; nothing where nothing is. Never raises what a callback raises."""
        if figures == self._newest:
            return
        self._newest = figures
        self._each(lambda feed: feed.update(figures))

    def close(self) -> None:
        """Tell trackers that no more will come; a second time nothing."""
        newest = self._newest
        if newest is not None:
            self._each(lambda feed: feed.end(newest))

    def _each(self, tell: Callable[[_Feed], None]) -> None:
        for feed in list(self._feeds):
            try:
                tell(feed)
            except Exception as error:  # whatever a stranger's code may raise: it must not end a run
                self._feeds.remove(feed)
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]
                self._say(f"{feed.name} failed and is told no more; the run goes on ({reason})")


def track(figures: Figures, *callbacks: Tracker | Callback) -> None:
    """Tell trackers all of a run at once: one that is over, or one whose tracker had failed.

    Args:
        figures: The run's, as in `run.figures`.
        callbacks: Who is told; one that fails is reported by a warning in the log.
    """
    with Callbacks(callbacks) as told:
        told.update(figures)


class _Feed:
    """What one callback was told already."""

    def __init__(self, callback: Tracker | Callback) -> None:
        self._callback = callback
        self._told: Counter[int] | None = None  # of each round; None before the start
        self._ended = False
        self.name = getattr(callback, "__name__", type(callback).__name__)

    def update(self, figures: Figures) -> None:
        """Tell what is new."""
        tracker = self._callback
        if not isinstance(tracker, Tracker):
            tracker(figures)
            return
        if self._told is None:
            self._told = Counter()
            tracker.start(figures)
        there = scalars.rounds(figures)
        for number in sorted(there):
            if there[number] > self._told[number]:
                self._told[number] = there[number]
                tracker.round(figures, number)
        if figures.status in ENDS:
            self.end(figures)

    def end(self, figures: Figures) -> None:
        """Tell the end, once."""
        if isinstance(self._callback, Tracker) and not self._ended:
            self._ended = True
            self._callback.end(figures)
