"""Settings that use the same epsilon better: tried, chosen by some seeds, confirmed by others, or not suggested.

Loss decides: unlike the AUROC it also sees whether probabilities are right. Steps are greedy, one setting at a time:
nothing is claimed about combinations that were not tried.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from client import job_problems
from client.errors import ClientError
from client.job_toml import JobDraft
from client.notebook.comparing import Difference, difference
from client.notebook.consortium_tables import table
from client.notebook.extras import needed
from client.notebook.variants import WORDS, Variant, variants
from wardround_rehearsal import Rehearsal
from wardround_trial import Outcome

if TYPE_CHECKING:
    import pandas as pd

STEPS = 3  # changes at most, one after the other
CONFIRMING = 5  # seeds at least that confirm a change
FRESH = 1000  # the first of them: none has chosen it
COLUMNS = (
    "change", "stage", "seeds", "loss_change", "loss_change_low", "loss_change_high", "auroc_change", "suggested",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A variant, against the best job so far."""

    variant: Variant
    stage: str  # "chosen from", by the plan's seeds, or "confirmed", by fresh ones
    loss: Difference
    auroc: Difference
    suggested: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """What was tried and what came of it.

    Attributes:
        changes: By field of the job's draft; empty where no change is suggested.
        tried: Everything that was measured, in order.
        sentences: What is suggested and why, or why nothing is.
    """

    changes: Mapping[str, Any]
    tried: tuple[Tried, ...]
    sentences: tuple[str, ...] = field(default=())

    @property
    def table(self) -> pd.DataFrame:
        """Every comparison: changes of loss (lower is better) and AUROC, loss with its 95 % interval over seeds."""
        rows = [
            (
                t.variant.words, t.stage, t.loss.seeds, t.loss.mean, t.loss.low, t.loss.high, t.auroc.mean,
                t.suggested,
            )
            for t in self.tried
        ]  # fmt: skip
        return table(COLUMNS, rows)

    def __repr__(self) -> str:
        return "\n".join([*self.sentences, self.table.round(4).to_string(index=False)])

    def _repr_html_(self) -> str:
        words = "".join(f"<p>{html.escape(line)}</p>" for line in self.sentences)
        return words + str(self.table.round(4).to_html(index=False))


def suggest(
    draft: JobDraft, rehearsal: Rehearsal, *, seeds: int, seconds: float, progress: bool
) -> Suggestion:
    """Look for better settings at the same epsilon.

    Args:
        draft: The job.
        rehearsal: Where variants are tried.
        seeds: How many choose; at least 5 others confirm.
        seconds: That measuring may take.
        progress: Whether to show a bar.
    """
    until = time.monotonic() + seconds
    search = _Search(rehearsal, seeds, lambda: time.monotonic() < until)
    best, changes, sentences = draft, dict[str, Any](), list[str]()
    bar = needed("tqdm.auto", "notebook", "progress is shown").tqdm(
        desc="suggest", unit="trial", disable=not progress, leave=False
    )
    search.told = lambda: bar.update(rehearsal.tried - bar.n)
    try:
        while len(changes) < STEPS and (found := search.step(best, changes)) is not None:
            best = found.variant.draft
            changes[found.variant.field] = found.variant.after
            sentences.append(_sentence(found))
    except KeyboardInterrupt:
        sentences.append("The search was interrupted: what it had found until then stands.")
    finally:
        bar.close()
    return Suggestion(
        changes=changes,
        tried=tuple(search.tried),
        sentences=(*sentences, *_end(search, changes, seconds)),
    )


class _Search:
    """Steps from one job to a better neighbour."""

    def __init__(self, rehearsal: Rehearsal, seeds: int, in_time: Callable[[], bool]) -> None:
        self.tried: list[Tried] = []
        self.late = False
        self.told: Callable[[], object] = lambda: None
        self._rehearsal, self._in_time = rehearsal, in_time
        self._choosing = range(seeds)
        self._confirming = range(FRESH, FRESH + max(seeds, CONFIRMING))
        self._known: dict[tuple[JobDraft, int], Outcome] = {}

    def step(self, base: JobDraft, changes: Mapping[str, Any]) -> Tried | None:
        """Return a confirmed improvement on a job, or None."""
        screened = [
            tried
            for variant in variants(base)
            if variant.field not in changes
            and (tried := self._compare(variant, base, self._choosing)) is not None
        ]
        self.tried += screened
        hopeful = [t for t in screened if t.loss.mean < 0]
        if not hopeful:
            return None
        best = min(hopeful, key=lambda t: t.loss.mean)
        again = self._compare(best.variant, base, self._confirming, "confirmed")
        if again is None:
            return None
        self.tried.append(again)
        return again if again.suggested else None

    def _compare(
        self, variant: Variant, base: JobDraft, seeds: Sequence[int], stage: str = "chosen from"
    ) -> Tried | None:
        """Try a variant and its base with the same seeds; None where it is no sound job, or time runs out."""
        folder = self._rehearsal.folder
        if job_problems.problems(variant.draft, folder.dictionary, folder.source):
            return None
        pairs = [(self._outcome(variant.draft, seed), self._outcome(base, seed)) for seed in seeds]
        done = [(one, other) for one, other in pairs if one is not None and other is not None]
        if len(done) < len(pairs):
            return None
        loss = difference([one.loss for one, _ in done], [other.loss for _, other in done])
        return Tried(
            variant=variant,
            stage=stage,
            loss=loss,
            auroc=difference([one.auroc for one, _ in done], [other.auroc for _, other in done]),
            suggested=stage == "confirmed" and loss.below,
        )

    def _outcome(self, draft: JobDraft, seed: int) -> Outcome | None:
        if (draft, seed) in self._known:
            return self._known[draft, seed]
        if not self._in_time():
            self.late = True
            return None
        try:
            found = self._rehearsal.outcome(draft, seed, self._in_time)
        except ClientError:  # some hospital's rules refuse this variant: it is no suggestion
            return None
        self.told()
        if found is None:
            self.late = True
        else:
            self._known[draft, seed] = found
        return found


def _sentence(found: Tried) -> str:
    loss, auroc, draft = found.loss, found.auroc, found.variant.draft
    more = ""
    if found.variant.field in ("rounds", "local_steps"):
        more = f"; it takes {draft.rounds} rounds of {draft.local_steps}"
    return (
        f"Change {found.variant.words}: at the same epsilon the loss changes by {loss.mean:+.4f} ({loss.low:+.4f} to "
        f"{loss.high:+.4f}, 95 % over {loss.seeds} fresh seeds), the AUROC by {auroc.mean:+.4f}{more}."
    )


def _end(search: _Search, changes: Mapping[str, Any], seconds: float) -> Iterator[str]:
    if search.late:
        yield f"Time ran out after {seconds:g} s: some settings were not tried; suggest(seconds=...) gives more."
    if changes:
        yield "Nothing is claimed about settings that were not tried, or about patients other than the plan's."
    elif search.tried and not math.isnan(search.tried[0].loss.mean):
        fields = dict.fromkeys(WORDS[t.variant.field] for t in search.tried)
        yield (
            f"No change is suggested: no other {', '.join(fields)} that was tried makes a difference at this epsilon "
            "that the noise does not explain."
        )
    else:
        yield "No change is suggested: nothing could be measured."
