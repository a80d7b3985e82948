"""What a plan has found: prices, expected utility by privacy, bytes, minutes, and better settings on request.

Every number says where it comes from. A plan is a value to look at; nothing in it was asked of anybody.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from client.job_folder import JobFolder
from client.notebook import job_files, plan_costs
from client.notebook.consortium_tables import table
from client.notebook.job_files import Drafted
from client.notebook.plan_costs import Cost
from wardround_rehearsal import Rehearsal
from wardround_suggest import Suggestion, suggest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MADE_UP_WORDS = (
    "made-up patients, alike at all hospitals: this shows how settings compare under this noise, and says nothing "
    "about how well real patients can be told apart; give data= for that"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One trial of the job at one epsilon."""

    epsilon: float
    seed: int
    auroc: float
    loss: float


@dataclass(slots=True, kw_only=True, eq=False)
class Plan:
    """What a job would cost and what can be expected of it.

    Attributes:
        costs: What each hospital's patients would pay.
        points: Every trial that was measured.
        notes: What a reader must know about the numbers, a sentence each.
    """

    costs: tuple[Cost, ...]
    points: tuple[Point, ...]
    notes: tuple[str, ...]
    _given: Drafted
    _folder: JobFolder
    _rehearsal: Rehearsal
    _seeds: int
    _seconds: float
    _progress: bool
    _suggestion: Suggestion | None = field(default=None)

    @property
    def hospitals(self) -> pd.DataFrame:
        """What the job costs each hospital; see `plan_costs.COLUMNS`. Epsilons are composed over the whole job."""
        return plan_costs.costs_table(self.costs)

    @property
    def curve(self) -> pd.DataFrame:
        """Expected utility by privacy: `epsilon`, `seed`, `auroc` and `loss`, a row for each trial."""
        rows = [(p.epsilon, p.seed, p.auroc, p.loss) for p in self.points]
        return table(("epsilon", "seed", "auroc", "loss"), rows).astype({"seed": "int64"})

    @property
    def bytes_per_round(self) -> tuple[int, int]:
        """Bytes to each hospital in a round, and about those back."""
        down, up, _ = plan_costs.traffic(self._job)
        return down, up

    @property
    def bytes_in_all(self) -> int:
        """About all bytes of the job, at all hospitals together."""
        return plan_costs.traffic(self._job)[2] * sum(not c.refusal for c in self.costs)

    @property
    def minutes(self) -> float:
        """Of training, by a dry run on this machine; NaN where none was measured."""
        return self._rehearsal.seconds_per_round * self._folder.draft.rounds / 60

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the privacy-utility curve, with a band over the seeds. Raises MissingExtraError."""
        from client.notebook.plots import privacy_utility

        return privacy_utility(self.curve, ax)

    def suggest(self, seconds: float | None = None) -> Suggestion:
        """Look for settings that use the same epsilon better, and return what was measured; `job` applies it.

        A change is suggested only if seeds that took no part in choosing it confirm it.

        Args:
            seconds: That measuring may take. Where none is given, the last answer, or as long as the plan had.
        """
        if self._suggestion is None or seconds is not None:
            self._suggestion = suggest(
                self._folder.draft,
                self._rehearsal,
                seeds=self._seeds,
                seconds=self._seconds if seconds is None else seconds,
                progress=self._progress,
            )
        return self._suggestion

    @property
    def job(self) -> Drafted:
        """The job with what `suggest` found applied; the job as it was given where it found nothing."""
        changes = self.suggest().changes
        if not changes:
            return self._given
        return job_files.changed(self._given, changes)

    def __repr__(self) -> str:
        return "\n".join([self._heading(), self.hospitals.to_string(index=False, na_rep=""), *self._words()])

    def _repr_html_(self) -> str:
        words = "".join(f"<li>{html.escape(line)}</li>" for line in self._words())
        found = self.hospitals.to_html(index=False, na_rep="")
        return f"<p>{html.escape(self._heading())}</p>{found}<ul>{words}</ul>"

    @property
    def _job(self) -> Any:
        return self._rehearsal.priced(self._folder.draft).job

    def _heading(self) -> str:
        job, draft = self._job, self._folder.draft
        steps = f"{job.rounds} rounds of {draft.local_steps} step{'s' if draft.local_steps > 1 else ''}"
        return f"plan of {job.name}: {steps} at sample rate {draft.sample_rate}, clipped to {draft.max_grad_norm}"

    def _words(self) -> Iterator[str]:
        job = self._job
        yield (
            f"epsilons are for adding or removing one patient, at delta {job.delta}, composed over the whole job; "
            "patients are trained on or measured on, never both"
        )
        yield self._utility()
        down, up = self.bytes_per_round
        yield f"{down:,} bytes to each hospital in each round, about {up:,} back; about {self.bytes_in_all:,} in all"
        if not math.isnan(self.minutes):
            yield (
                f"about {self.minutes:.2g} minutes of training, by a dry run on this machine; the hospitals' own "
                "machines, the network and the people who approve come on top"
            )
        yield from self.notes

    def _utility(self) -> str:
        epsilon = float(self._folder.draft.epsilon)
        own = [p for p in self.points if p.epsilon == epsilon]
        rows = MADE_UP_WORDS if self._rehearsal.synthetic else "the data that were given"
        if not own:
            return "nothing was measured in the time given: expected utility is not known"
        seeds = f"{len(own)} seed{'s' if len(own) > 1 else ''}"
        spread = [
            f"{name} {fmean(found):.3f} ({min(found):.3f} to {max(found):.3f})"
            for name, found in (("AUROC", [p.auroc for p in own]), ("loss", [p.loss for p in own]))
        ]
        return f"expected at epsilon {epsilon:g}: {', '.join(spread)} over {seeds}, on {rows}"
