"""The bar of a run in this process: rounds closed, and what stands now of its quality and its price."""

from __future__ import annotations

from typing import Any

from client.notebook.extras import needed
from client.notebook.figures import Figures


class RunBar:
    """A tqdm bar, of a notebook or a terminal; use it as a context manager."""

    def __init__(self, name: str, exchanges: int, *, shown: bool) -> None:
        """Begin at nothing.

        Args:
            name: What is run.
            exchanges: How many there are, the last evaluation included.
            shown: Whether anything is drawn.

        Raises:
            MissingExtraError: tqdm is not installed.
        """
        self._bar: Any = None
        if shown:
            made = needed("tqdm.auto", "notebook", "progress is shown").tqdm
            self._bar = made(total=exchanges, desc=name, unit="round")

    def __enter__(self) -> RunBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, figures: Figures) -> None:
        """Show the newest figures."""
        if self._bar is None:
            return
        self._bar.set_postfix_str(words(figures), refresh=False)
        self._bar.update(max((part.round for part in figures.parts), default=0) - self._bar.n)

    def count(self, done: int, total: int) -> None:
        """Show how much is done of something that is counted."""
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)


def words(figures: Figures) -> str:
    """Return the newest AUROC, and the largest epsilon of this job at any hospital, in a few words."""
    found = []
    measured = [m.auroc for m in figures.measured if m.auroc is not None]
    if measured:
        found.append(f"AUROC {measured[-1].value:.3f}")
    if figures.spent:
        found.append(f"largest epsilon {max(s.epsilon for s in figures.spent):g}")
    return ", ".join(found)
