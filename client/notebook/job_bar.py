"""The bar of a job that is followed at a consortium: how far it is, what it has cost, why nothing comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from client.job_display import figures
from client.job_story import Event, Story
from client.notebook.extras import needed


class Bar:
    """A tqdm bar, of a notebook or a terminal; use it as a context manager."""

    def __init__(self, name: str, exchanges: int, *, shown: bool) -> None:
        """Begin at nothing.

        Args:
            name: The job's.
            exchanges: How many the job has, the last evaluation included.
            shown: Whether anything is drawn.

        Raises:
            MissingExtraError: tqdm is not installed.
        """
        made = needed("tqdm.auto", "notebook", "progress is shown").tqdm
        self._bar: Any = made(total=exchanges, desc=name, unit="round", disable=not shown)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def wait(self, reason: str) -> None:
        """Say why nothing comes: that the coordinator is away, for example."""
        self._bar.set_postfix_str(f"waits: {reason}")

    def event(self, event: Event, story: Story, status: Mapping[str, Any]) -> None:
        """Show one more event.

        Args:
            event: What happened.
            story: The job so far.
            status: The coordinator's newest, or nothing.
        """
        if event.kind not in ("round", "abort"):
            self._bar.set_postfix_str(event.line[:100])
            return
        self._bar.update(story.round - self._bar.n)
        spent = max((float(job) for job, _ in story.epsilons.values()), default=0.0)
        told = figures(status, story.digest)
        self._bar.set_postfix_str(f"largest epsilon {spent:g}" + (f", {told}" if told else ""))
