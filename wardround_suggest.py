"""Settings that use the same epsilon better: tried, chosen by some seeds, confirmed by others, or not suggested.

Loss decides: unlike the AUROC it also sees whether probabilities are right; but no change may cost AUROC. Steps are
greedy, one setting at a time: nothing is claimed about combinations that were not tried.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from client import job_problems
from client.errors import PlanError
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
CHOOSING = 0.6  # share of the time that is left, for choosing what is then confirmed
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
    draft: JobDraft,
    rehearsal: Rehearsal,
    *,
    seeds: int,
    seconds: float,
    progress: bool,
    clock: Callable[[], float] = time.monotonic,
) -> Suggestion:
    """Look for better settings at the same epsilon.

    Args:
        draft: The job.
        rehearsal: Where variants are tried.
        seeds: How many choose; at least 5 others confirm.
        seconds: That measuring may take.
        progress: Whether to show a bar.
        clock: Monotonic seconds.
    """
    search = _Search(rehearsal, seeds, clock, clock() + seconds)
    best, changes = draft, dict[str, Any]()
    bar = needed("tqdm.auto", "notebook", "progress is shown").tqdm(
        desc="suggest", unit="trial", disable=not progress, leave=False
    )
    search.told = lambda: bar.update(1)
    try:
        while len(changes) < STEPS and (found := search.step(best, changes)) is not None:
            best = found.variant.draft
            changes[found.variant.field] = found.variant.after
    except KeyboardInterrupt:
        search.sentences.append("The search was interrupted: what it had found until then stands.")
    finally:
        bar.close()
    return Suggestion(
        changes=changes,
        tried=tuple(search.tried),
        sentences=(*search.sentences, *_end(search, changes, seconds)),
    )


class _Search:
    """Steps from one job to a better neighbour."""

    def __init__(self, rehearsal: Rehearsal, seeds: int, clock: Callable[[], float], until: float) -> None:
        self.tried: list[Tried] = []
        self.sentences: list[str] = []
        self.late = False
        self.told: Callable[[], object] = lambda: None
        self._rehearsal, self._clock, self._until = rehearsal, clock, until
        self._choosing = range(seeds)
        self._confirming = range(FRESH, FRESH + max(seeds, CONFIRMING))
        self._known: dict[tuple[JobDraft, int], Outcome] = {}

    def step(self, base: JobDraft, changes: Mapping[str, Any]) -> Tried | None:
        """Return a confirmed improvement on a job, or None, having said why."""
        now = self._clock()
        choosing_ends = now + CHOOSING * (self._until - now)
        screened = []
        for variant in variants(base):
            if variant.field in changes:
                continue
            tried = self._compare(variant, base, self._choosing, choosing_ends)
            if tried is not None:
                screened.append(tried)
                self.tried.append(tried)
        hopeful = [t for t in screened if t.loss.mean < 0 and not t.auroc.below]
        if not hopeful:
            return None
        best = min(hopeful, key=lambda t: t.loss.mean)
        again = self._compare(best.variant, base, self._confirming, self._until, "confirmed")
        if again is None:
            self.sentences.append(
                f"{_capital(best.variant.words)} looked best, and time ran out before other seeds could confirm it."
            )
            return None
        self.tried.append(again)
        self.sentences.append(_sentence(again))
        return again if again.suggested else None

    def _compare(
        self, variant: Variant, base: JobDraft, seeds: Sequence[int], until: float, stage: str = "chosen from"
    ) -> Tried | None:
        """Try a variant and its base with the same seeds; None where it is no sound job, or time runs out."""
        folder = self._rehearsal.folder
        if job_problems.problems(variant.draft, folder.dictionary, folder.source):
            return None
        pairs = []
        for seed in seeds:
            one, other = self._outcome(variant.draft, seed, until), self._outcome(base, seed, until)
            if one is None or other is None:
                return None
            pairs.append((one, other))
        loss = difference([one.loss for one, _ in pairs], [other.loss for _, other in pairs])
        auroc = difference([one.auroc for one, _ in pairs], [other.auroc for _, other in pairs])
        better = stage == "confirmed" and loss.below and not auroc.below
        return Tried(variant=variant, stage=stage, loss=loss, auroc=auroc, suggested=better)

    def _outcome(self, draft: JobDraft, seed: int, until: float) -> Outcome | None:
        if (draft, seed) in self._known:
            return self._known[draft, seed]

        def in_time() -> bool:
            return self._clock() < until

        try:
            found = self._rehearsal.outcome(draft, seed, in_time) if in_time() else None
        except PlanError:  # too few hospitals would take part in this variant: it is no suggestion
            return None
        if found is None:
            self.late = True
            return None
        self.told()
        self._known[draft, seed] = found
        return found


def _sentence(found: Tried) -> str:
    loss, auroc, draft = found.loss, found.auroc, found.variant.draft
    told = (
        f"the loss changes by {loss.mean:+.4f} ({loss.low:+.4f} to {loss.high:+.4f}, 95 % over {loss.seeds} fresh "
        "seeds), "
        f"the AUROC by {auroc.mean:+.4f} ({auroc.low:+.4f} to {auroc.high:+.4f})"
    )
    if not found.suggested:
        why = "costs AUROC" if auroc.below else "makes no difference that the noise does not explain"
        return f"{_capital(found.variant.words)} looked best, and {why}: {told}."
    more = ""
    if found.variant.field in ("rounds", "local_steps"):
        more = f"; the job then takes {draft.rounds} rounds of {draft.local_steps} steps"
    return f"Change {found.variant.words}: at the same epsilon {told}{more}."


def _end(search: _Search, changes: Mapping[str, Any], seconds: float) -> Iterator[str]:
    if search.late:
        yield f"Not everything was tried within {seconds:g} s: suggest(seconds=...) gives more."
    if changes:
        yield "Nothing is claimed about settings that were not tried, or about patients other than the plan's."
    elif search.tried and not math.isnan(search.tried[0].loss.mean):
        fields = dict.fromkeys(WORDS[t.variant.field] for t in search.tried)
        yield f"No change is suggested; tried were {', '.join(fields)}."
    else:
        yield "No change is suggested: nothing could be measured."


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
