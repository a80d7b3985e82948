"""A job in plain words and numbers, for the person who decides about it. Pure: facts in, lines out.

Whatever the researcher wrote (a model.py) is passed through `client.visible`. Names, codes and numbers on the record
are of characters that a terminal prints as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from client import accounting, visible
from client.decisions import FOR_GOOD
from client.dictionary import Dictionary, Variable
from client.history import Answer
from client.hours import local
from client.job_facts import Cost, Covering, Own
from ledger.records import Job

_DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A job's own model.py, as fetched, beside the version that this hospital approved last."""

    text: bytes | None  # None: it could not be fetched
    problem: str  # why not
    before: bytes | None
    before_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Everything about one job that is shown."""

    digest: str
    job: Job
    status: str
    next_round: int
    own: Own
    answers: Sequence[Answer]
    agreements: Sequence[Covering]
    dictionary: Dictionary
    same_dictionary: bool
    cost: Cost | None
    declined: str  # why this hospital cannot take part, where `cost` is None
    code: Code | None  # None for a built-in model
    now: int  # Unix seconds


def lines_of(shown: Shown, folder: str, width: int) -> Iterator[str]:
    """Yield what is printed, for the hospital of a folder and a screen of `width` columns."""
    job = shown.job
    yield f"job {job.name} ({shown.digest})"
    yield f"  proposed by     {job.researcher}"
    yield f"  purpose         {job.purpose}"
    number = min(shown.next_round, job.last_exchange)
    place = f", round {number} of {job.last_exchange}" if shown.status == "running" else ""
    yield f"  status          {shown.status}{place}"
    yield f"  this hospital   {shown.own.word}: {shown.own.why}"
    yield f"  expires         {_until(job.expires_at, shown.now)}"
    for agreement in shown.agreements:
        covers = (
            "covers this dataset and purpose" if agreement.covers else "does NOT cover this hospital's part"
        )
        until = _until(agreement.expires_at, shown.now)
        yield f"  agreement       {agreement.digest[:16]}, {covers}; expires {until}"
    yield f"  hospitals       {len(job.datasets)} asked, at least {job.min_participants} needed"
    for answer in shown.answers:
        yield f"    {answer.hospital:<14}{_answered(answer)}"
    yield ""
    yield from map(visible.shown, _data(shown))
    yield ""
    yield from _model(shown, width)
    yield ""
    yield from _cost(shown)
    if shown.own.waits:
        yield ""
        yield f"to decide: wardround hospital approve {folder} {shown.digest[:12]}"
        yield f"       or: wardround hospital refuse {folder} {shown.digest[:12]}"


def _data(shown: Shown) -> Iterator[str]:
    dictionary = shown.dictionary
    if not shown.same_dictionary:
        yield f"data: the job names another data dictionary ({shown.job.dictionary[:16]}) than this dataset"
        return
    yield f"data: {len(dictionary.variables)} columns and the label, by the data dictionary {dictionary.name}"
    width = max(map(len, dictionary.columns))
    label = dictionary.label
    meaning = f", {label.meaning}" if label.meaning else ""
    for variable in dictionary.variables:
        yield f"  {variable.name:<{width}}  {_meaning(variable)}"
    yield f"  {label.name:<{width}}  the label to predict{meaning}"
    for name, use in (
        (dictionary.patient, "tells patients apart"),
        (dictionary.split, "the published split"),
    ):
        if name:
            yield f"  {name:<{width}}  {use}; never part of the model"


def _meaning(variable: Variable) -> str:
    if variable.kind == "numeric":
        unit = f" {variable.unit}" if variable.unit not in ("", "1") else ""  # UCUM: "1" is none
        text = f"numeric, {variable.lower} to {variable.upper}{unit}"
    else:
        text = f"{variable.kind}, {' / '.join(variable.levels)}"
    return f"{text}; {variable.code}" if variable.code else text


def _model(shown: Shown, width: int) -> Iterator[str]:
    training = shown.job.training
    yield f"model: {_model_in_words(shown)}"
    yield f"  {training.parameters} parameters, loss {training.loss}"
    settings = ", ".join(f"{s.name} {s.value}" for s in training.settings)
    yield (
        f"  {shown.job.rounds} rounds of {training.local_steps} steps, learning rate {training.learning_rate}, "
        f"clip norm {training.max_grad_norm}, sample rate {training.sample_rate}"
        + (f"; {settings}" if settings else "")
    )
    if shown.code is None:
        return
    if shown.code.text is None:
        yield f"  its text cannot be shown: {shown.code.problem}"
        return
    if strange := visible.strange_lines(shown.code.text):
        yield f"  characters beyond ASCII, which may look like others, on lines {_listed(strange)}"
    if shown.code.before is None:
        yield "  no earlier model.py of this researcher was approved here; the whole text:"
        yield from visible.block(visible.decode(shown.code.text), width)
        return
    difference = visible.difference(shown.code.before, shown.code.text)
    yield f"  changes since {shown.code.before_digest[:16]}, which this hospital approved last:"
    yield from visible.block(difference or ["(none)"], width)


def _model_in_words(shown: Shown) -> str:
    training = shown.job.training
    if shown.code is None:
        return f"{training.model}, built in: its code is part of the software installed here"
    return (
        f"the job's own model.py, which runs here only if a person approves it ({training.model_code[:16]})"
    )


def _cost(shown: Shown) -> Iterator[str]:
    cost = shown.cost
    if cost is None:
        yield f"privacy: this hospital cannot take part: {shown.declined}"
        return
    lifetime, (used, after) = cost.lifetime, cost.used
    size = f"noise multiplier {cost.training.noise_multiplier}"
    yield "privacy: what the patients of this hospital pay (add/remove one patient)"
    yield f"  training patients   epsilon {cost.epsilon_training} at delta {cost.delta}, {size}"
    if cost.evaluation:
        noise = ", ".join(dict.fromkeys(m.noise_multiplier for m in cost.evaluation))
        count = len(cost.evaluation)
        yield (
            f"  held-out patients   epsilon {cost.epsilon_heldout} at delta {cost.delta}, "
            f"{count} histograms, noise multiplier {noise}"
        )
    yield "  In words: whatever anybody may learn from this job, its chance with one patient's record and its chance"
    yield f"  without it differ by at most a factor of e^epsilon = {cost.factor:.3g}, apart from a chance of delta."
    yield f"  limit in the approval: epsilon {cost.limit}"
    yield f"  lifetime budget       epsilon {lifetime.epsilon:g} at delta {lifetime.delta:g}"
    yield f"  spent so far          epsilon {cost.spent} ({used:.1%} of the budget)"
    yield f"  after this job        at most epsilon {cost.after} ({after:.1%}), other approved jobs included"
    yield f"  left then             at least epsilon {cost.left} ({1 - after:.1%}); percentages add up, not epsilons"


def pause_in_words(until: int) -> str:
    """Return until when training is paused."""
    return "until a person ends it" if until == FOR_GOOD else f"until {_time(local(until))}"


def _answered(answer: Answer) -> str:
    words = {"approval": "has approved", "refusal": "has refused", "withdrawal": "has withdrawn"}
    return words[answer.kind] + (f" ({answer.code})" if answer.code else "")


def _until(seconds: int, now: int) -> str:
    days = (seconds - now) // _DAY
    left = f"in {days} days" if days > 0 else "within a day" if seconds > now else "over"
    return f"{_time(local(seconds))} ({left})"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M %Z")


def _listed(numbers: Sequence[int]) -> str:
    text = ", ".join(map(str, numbers[:10]))
    return f"{text} and {len(numbers) - 10} more" if len(numbers) > 10 else text


def as_json(shown: Shown) -> dict[str, Any]:
    """Return the same for a program."""
    job, cost = shown.job, shown.cost
    return {
        "job": shown.digest,
        "name": job.name,
        "researcher": job.researcher,
        "purpose": job.purpose,
        "status": shown.status,
        "next_round": shown.next_round,
        "rounds": job.rounds,
        "steps": job.rounds * job.training.local_steps,
        "expires_at": job.expires_at,
        "own": shown.own.word,
        "why": shown.own.why,
        "agreements": [
            {"digest": a.digest, "expires_at": a.expires_at, "covers": a.covers} for a in shown.agreements
        ],
        "answers": [{"hospital": a.hospital, "answer": a.kind, "code": a.code} for a in shown.answers],
        "same_dictionary": shown.same_dictionary,
        "columns": list(shown.dictionary.columns) if shown.same_dictionary else [],
        "model": job.training.model,
        "model_code": job.training.model_code,
        "declined": shown.declined,
        "cost": None if cost is None else _cost_json(cost),
    }


def _cost_json(cost: Cost) -> dict[str, Any]:
    return {
        "relation": "add/remove one patient",
        "limit": cost.limit,
        "noise_multiplier": cost.training.noise_multiplier,
        "evaluation_noise_multipliers": [m.noise_multiplier for m in cost.evaluation],
        "epsilon_training": cost.epsilon_training,
        "epsilon_heldout": cost.epsilon_heldout,
        "delta": cost.delta,
        "factor": round(cost.factor, 4),
        "lifetime_epsilon": accounting.round_up(cost.lifetime.epsilon),
        "lifetime_delta": cost.lifetime.delta,
        "spent": cost.spent,
        "after": cost.after,
        "left": cost.left,
        "used": [round(part, 6) for part in cost.used],
    }
