"""What a person sees of a watched job: a live picture on a terminal, a line an event elsewhere.

Events are the verified log's. Figures of quality before the release are the coordinator's word, and labelled so.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from client.job_story import SHORT, Event, Story

_LAST = 6  # events shown below the table
WORD = "by the coordinator's word, until the release"


class Display:
    """Shows a job's story as it grows; use it as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        """Show nothing yet; on standard output unless a console is given."""
        self._console = console or Console()
        self._live = Live(console=self._console, refresh_per_second=8, transient=False)
        self._lines: list[str] = []
        self._told = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def say(self, line: str) -> None:
        """Say something that is not on the log: that the coordinator is away, for example."""
        self._add(line)

    def event(self, event: Event, story: Story, measured: str) -> None:
        """Show one more event.

        Args:
            event: What happened.
            story: The job so far.
            measured: The newest figures, as `figures` words them.
        """
        if measured and measured != self._told and event.kind == "round":
            self._told = measured
            self._add(f"{event.line}; {measured}")
        else:
            self._add(event.line)
        if self._live.is_started:
            self._live.update(Group(*self._picture(story)))

    def _add(self, line: str) -> None:
        self._lines = [*self._lines, line][-_LAST:]
        if not self._live.is_started:
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _picture(self, story: Story) -> list[Any]:
        job = story.job
        if job is None:
            return [Text(line) for line in self._lines]
        head = Table.grid(padding=(0, 2))
        head.add_row("job", f"{job.name} {story.digest[:SHORT]}")
        bar = ProgressBar(total=job.last_exchange, completed=story.round, width=40)
        head.add_row("round", bar, f"{min(story.round, job.rounds)} of {job.rounds}")
        if self._told:
            head.add_row("quality", self._told)
        table = Table(title="epsilon by hospital (add/remove one patient)", title_style="dim", pad_edge=False)
        for name in ("hospital", "stands", "this job", f"of {job.epsilon}", "dataset, for life"):
            table.add_column(name, justify="left" if name in ("hospital", "stands") else "right")
        for hospital, (stands, spent, lifetime) in _rows(story).items():
            share = f"{100 * float(spent) / float(job.epsilon):.0f} %"
            table.add_row(hospital, stands, spent, share, lifetime)
        return [head, table, *(Text(line) for line in self._lines)]


def figures(status: Mapping[str, Any], job: str) -> str:
    """Word the newest figures that a coordinator's status claims of a job; "" where there are none.

    The status is nobody's signed word: whatever has another form than expected is left out.
    """
    jobs = status.get("jobs")
    own = (
        [j for j in jobs if isinstance(j, dict) and j.get("digest") == job] if isinstance(jobs, list) else []
    )
    done = own[0].get("evaluations") if own else None
    last = done[-1] if isinstance(done, list) and done else None
    parts = []
    for name, label in (("auroc", "AUROC"), ("loss", "loss")):
        value = last.get(name) if isinstance(last, dict) else None
        if not isinstance(value, dict):
            continue
        try:
            low, middle, high = (float(value[key]) for key in ("low", "value", "high"))
        except (TypeError, ValueError, KeyError, OverflowError):
            continue
        parts.append(f"{label} {middle:.3f} ({low:.3f} to {high:.3f})")
    return f"{', '.join(parts)}, {WORD}" if parts else ""


def _rows(story: Story) -> dict[str, tuple[str, str, str]]:
    assert story.job is not None
    rows = {}
    for hospital in (ref.split("/")[0] for ref in story.job.datasets):
        if hospital in story.participants:
            stands = story.left_out.get(hospital, "took part" if story.round else "ready")
        elif hospital in story.refused:
            stands = f"refused: {story.refused[hospital]}"
        else:
            stands = "approved" if hospital in story.approved else "is asked"
        rows[hospital] = (stands, *story.epsilons.get(hospital, ("0", "0")))
    return rows
