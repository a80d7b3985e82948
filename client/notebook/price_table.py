"""What a submitted job costs at each hospital asked, and what later jobs have left: shown before it is paid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from client.approval import REFUSALS
from client.job_match import Price
from client.job_story import ENDS, SHORT, Story
from client.notebook.consortium_tables import table, when
from client.researcher import OPEN
from ledger.job_records import Job
from ledger.state import JobState, State

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "hospital", "patients", "answer", "noise_multiplier", "epsilon_at_most", "heldout_epsilon_at_most",
    "epsilon_spent", "lifetime_epsilon", "left_at_least",
)  # fmt: skip
WORDS = (
    "Epsilons are for adding or removing one patient, those of the job at delta {delta}. Each hospital decides for "
    "itself: it may approve with a lower limit and more noise, or refuse. What was spent stays spent; left_at_least "
    "is what later jobs will find of the lifetime budget."
)


def prices(story: Story, state: State, estimated: Mapping[str, Price]) -> pd.DataFrame:
    """Return a job's price, one row for each hospital asked.

    Columns: `hospital`; `patients`, about how many; `answer`, where its decision stands; `noise_multiplier` of its
    training, `epsilon_at_most` for patients trained on and `heldout_epsilon_at_most` for those measured on (two
    disjoint groups), by its approval, or as its published budget makes likely; `epsilon_spent` on this job so far;
    `lifetime_epsilon` of the dataset; `left_at_least` of it once this job has spent all that it may.

    Args:
        story: The job's.
        state: The log's.
        estimated: What hospitals that have not answered would decide, by dataset.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    assert story.job is not None
    return table(
        COLUMNS, [_row(story, story.job, ref, state, estimated.get(ref)) for ref in story.job.datasets]
    )


def heading(story: Story, found: JobState) -> str:
    """Return where a job stands, in a sentence."""
    job, status = found.record, found.status
    name = f"job {job.name} ({story.digest[:SHORT]}) of {job.researcher} is {status}"
    if status == "proposed":
        end = f"{when(job.expires_at):%Y-%m-%d %H:%M} UTC"
        return f"{name}: at least {job.min_participants} of those asked must approve, by {end}"
    if status in OPEN:
        return f"{name}: round {min(story.round, job.rounds)} of {job.rounds} has closed"
    return f"{name}: {ENDS.get(status, status)}"


def _row(story: Story, job: Job, ref: str, state: State, price: Price | None) -> tuple[object, ...]:
    hospital, dataset = ref.split("/")[0], state.datasets[ref]
    approval = story.approved.get(hospital)
    terms = price.terms if price is not None else None
    if approval is not None:
        limit, noise = float(approval.epsilon), float(approval.training.noise_multiplier)
    elif hospital in story.refused or terms is None:
        limit, noise = 0.0, float("nan")
    else:
        limit, noise = float(terms.epsilon), float(terms.training.noise_multiplier)
    spent = float(story.epsilons.get(hospital, ("0", "0"))[0])
    open_ = state.jobs[story.digest].status in OPEN
    lifetime, all_spent = float(dataset.record.epsilon), float(dataset.epsilon or "0")
    left = lifetime - all_spent - (max(limit - spent, 0.0) if open_ else 0.0)
    return (
        hospital,
        dataset.record.size_class,
        _answer(story, hospital, price),
        noise,
        min(float(job.epsilon), limit),
        min(float(job.heldout_epsilon), limit),
        spent,
        lifetime,
        round(max(left, 0.0), 9),
    )


def _answer(story: Story, hospital: str, price: Price | None) -> str:
    if hospital in story.participants:
        return "takes part"
    if hospital in story.approved:
        return "approved"
    if hospital in story.refused:
        code = story.refused[hospital]
        return f"refused: {REFUSALS.get(code, code)}"
    if price is not None and price.refusal:
        return f"is asked, and would refuse: {price.refusal}"
    return "is asked"
