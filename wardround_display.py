"""What a person sees of a running job: a live table on a terminal, a line a round elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_SHORT = 12  # hex digits of a digest

Json = dict[str, Any]


class Display:
    """Shows a coordinator's status as it changes; use it as a context manager."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Show nothing yet; never anything where `quiet`: standard output belongs to a program."""
        self._console = Console(quiet=quiet)
        self._round = -1
        self._word = ""
        self._live = Live(console=self._console, refresh_per_second=8, transient=False)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def say(self, word: str) -> None:
        """Say what is happening before the rounds."""
        self._word = word
        if self._live.is_started:
            self._live.update(Text(word))
        else:
            self._console.print(word)

    def update(self, status: Json, seconds: float) -> None:
        """Show a status.

        Args:
            status: As the coordinator gives it.
            seconds: Since the beginning.
        """
        job = status["jobs"][-1] if status["jobs"] else None
        if self._live.is_started:
            self._live.update(Group(*self._picture(job, status["log"], seconds)))
        elif job is not None and job["round"] != self._round and job["participants"]:
            self._round = job["round"]
            self._console.print(self._line(job, status["log"], seconds), highlight=False, soft_wrap=True)

    def _line(self, job: Json, log: Json, seconds: float) -> str:
        most = max(job["epsilons"].values(), key=lambda e: float(e["job"]))
        spent = f"{most['job']} at delta {most['job_delta']} (add/remove one patient)"
        return (
            f"{seconds:5.1f} s  round {job['round']:>2} of {job['exchanges']}  "
            f"{len(job['participants']) - len(job['left_out'])} hospitals  model {job['model'][:_SHORT]}  "
            f"{_measured(job)}  largest epsilon {spent}  log {log['size']} entries, {_cosigned(log)}"
        )

    def _picture(self, job: Json | None, log: Json, seconds: float) -> list[Any]:
        head = Table.grid(padding=(0, 2))
        if job is None:
            return [Text(self._word), Text(f"log {log['size']} entries, {_cosigned(log)}")]
        head.add_row(
            "job", f"{job['name']} {job['digest'][:_SHORT]}", f"{job['status']} {job['problem']}".strip()
        )
        head.add_row(
            "round",
            ProgressBar(total=job["exchanges"], completed=job["round"], width=40),
            f"{min(job['round'], job['rounds'])} of {job['rounds']}, {seconds:.0f} s",
        )
        head.add_row("model", job["model"][:_SHORT], f"log {log['size']} entries, {_cosigned(log)}")
        head.add_row("quality", _measured(job), "")
        table = Table(
            title="epsilon spent of budget (add/remove one patient)", title_style="dim", pad_edge=False
        )
        for name in (
            "hospital",
            "last round",
            "this job",
            "its limit",
            "dataset, for life",
            "budget",
            "delta",
        ):
            table.add_column(name, justify="left" if name in ("hospital", "last round") else "right")
        for name, spent in job["epsilons"].items():
            state = job["left_out"].get(name, "took part" if job["round"] else "ready")
            table.add_row(
                name, state, spent["job"], spent["limit"], spent["dataset"], spent["budget"], spent["delta"]
            )
        waiting = sorted(set(job["wanted"]) - set(job["participants"]))
        notes = [Text(f"waiting for {', '.join(waiting)}")] if waiting and not job["participants"] else []
        return [head, table, *notes]


def _measured(job: Json) -> str:
    """The newest published figures with their intervals, and when the next ones come."""
    done = job["evaluations"]
    following = next((r for r in job["evaluate"] if r > job["round"]), None)
    later = f"next at round {following}" if following and job["status"] == "running" else ""
    if not done:
        return later or "not measured"
    parts = [
        f"{label} {_figure(done[-1][name])}"
        for name, label in (("auroc", "AUROC"), ("loss", "loss"))
        if name in done[-1]
    ] or ["not measurable under this noise"]
    return ", ".join([*parts, *([later] if later else [])])


def _figure(value: Json) -> str:
    low, middle, high = (float(value[key]) for key in ("low", "value", "high"))
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def _cosigned(log: Json) -> str:
    return f"{log['cosignatures']} of {log['witnesses']} cosignatures, {log['final_size']} final"
