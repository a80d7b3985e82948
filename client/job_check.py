"""Everything that can be known of a job before anybody is asked: its problems, its price, and a dry run.

With a member's folder the log's own datasets are priced; without one, hospitals of usual sizes. No printing:
`lines` turns a report into sentences, `to_json` into plain values.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from client import job_dry_run, job_initial, job_match, job_record, made_up_dataset
from client.accounting import round_up
from client.errors import JobFileError, TrainingRefusedError
from client.follower import Sight
from client.job_dry_run import SIZE_CLASS, DryRun
from client.job_folder import JobContent
from client.job_match import Price
from client.job_spec import JobSpec
from ledger.consortium_records import Dataset
from ledger.job_records import Job

SIZES = (64, 256, 1024)  # patients, of hospitals that are priced where no log is at hand
NOWHERE = "not.proposed/yet"  # origin of a record that is made for the check alone
LABEL = "on made-up patients: it shows that the job works, and says nothing about real ones"
_COLUMNS = 12  # named in a summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a check found."""

    folder: JobContent
    problems: tuple[str, ...]
    job: Job | None  # as it would be proposed; None where there is a problem
    prices: tuple[Price, ...]
    dry: DryRun | None

    def to_json(self) -> dict[str, Any]:
        """Return it for a program."""
        return {
            "job": self.folder.draft.name,
            "problems": list(self.problems),
            "parameters": self.job.training.parameters if self.job is not None else None,
            "prices": [_price_json(p, self.folder) for p in self.prices],
            "dry_run": asdict(self.dry) | {"meaning": LABEL} if self.dry is not None else None,
            "hospitals_see": list(summary(self.folder, self.job)) if self.job is not None else [],
        }


def check(
    folder: JobContent,
    *,
    sight: Sight | None = None,
    researcher: str = "researcher",
    now: int | None = None,
    dry: bool = True,
) -> Report:
    """Check a job.

    Args:
        folder: The job.
        sight: The log as the researcher verified it, or None.
        researcher: The member who would propose.
        now: Unix seconds; this machine's where none is given.
        dry: Whether to try it on made-up patients.

    Raises:
        DataError: no patients can be made up from this dictionary.
        ConfigError: a package that hospitals train with is not installed here.
    """
    now = int(time.time()) if now is None else now
    problems = folder.problems()
    datasets, agreements = _made_up(folder), tuple[str, ...]()
    if sight is not None:
        found = job_match.match(folder.draft, folder.dictionary, sight.state, researcher, now)
        problems += found.problems
        datasets, agreements = found.datasets, found.agreements
    if problems:
        return Report(folder=folder, problems=tuple(problems), job=None, prices=(), dry=None)
    try:
        initial = job_initial.compute(folder.draft, folder.dictionary, folder.source)
        job = job_record.build(
            folder,
            initial,
            origin=sight.state.origin if sight is not None else NOWHERE,
            researcher=researcher,
            datasets=[d.ref for d in datasets],
            agreements=agreements,
            now=now,
        )
        prices = _prices(job, datasets, sight)
        problems += _unpaid(prices, folder)
        tried = job_dry_run.run(folder, initial, _spec(job, prices)) if dry and not problems else None
    except JobFileError as error:
        return Report(folder=folder, problems=error.problems, job=None, prices=(), dry=None)
    return Report(folder=folder, problems=tuple(problems), job=job, prices=prices, dry=tried)


def lines(report: Report) -> Iterator[str]:
    """Yield a report as sentences for a person."""
    for problem in report.problems:
        yield f"problem: {problem}"
    job = report.job
    if job is None:
        return
    yield "Hospitals will see:"
    yield from (f"  {line}" for line in summary(report.folder, job))
    yield "The price, for each patient (add/remove one patient):"
    yield from (f"  {_price_line(p, report.folder)}" for p in report.prices)
    if (dry := report.dry) is not None:
        yield "The dry run:"
        yield (
            f"  {dry.rounds} rounds of {dry.hospitals} made-up hospitals, {SIZE_CLASS} patients each; one hospital "
            f"takes {dry.seconds_per_round:.3f} s a round here"
        )
        yield f"  {dry.bytes_down:,} bytes to each hospital in each round, about {dry.bytes_up:,} back"
        yield (
            f"  AUROC {dry.before.auroc:.2f} -> {dry.after.auroc:.2f}, loss {dry.before.log_loss:.2f} -> "
            f"{dry.after.log_loss:.2f} {LABEL}"
        )


def summary(folder: JobContent, job: Job) -> Iterator[str]:
    """Yield what a hospital's person is shown of a job."""
    training, columns = job.training, folder.dictionary.columns
    more = f" and {len(columns) - _COLUMNS} more" if len(columns) > _COLUMNS else ""
    yield f"{job.name}, for {job.purpose}: predicts {folder.dictionary.label.meaning or folder.dictionary.label.name}"
    yield f"model {training.model}, {training.parameters} parameters, code {training.model_code[:16]}"
    yield f"reads {len(columns)} columns: {', '.join(columns[:_COLUMNS])}{more}"
    yield (
        f"{job.rounds} rounds of {training.local_steps} steps at sample rate {training.sample_rate}, each patient's "
        f"gradient clipped to {training.max_grad_norm}; measured {len(job.evaluate)} times"
    )
    means = job.aggregation
    yield f"at least {job.min_participants} hospitals, {means.strategy} weighted by {means.weighting}"


def _made_up(folder: JobContent) -> tuple[Dataset, ...]:
    """Return datasets of usual sizes for a job that nobody was asked about."""
    draft = folder.draft
    epsilon = round_up(2 * max(float(draft.epsilon), float(draft.heldout_epsilon), 1.0))
    return tuple(
        made_up_dataset.record(
            draft,
            folder.dictionary,
            origin=NOWHERE,
            hospital=f"about-{size}-patients",
            size_class=size,
            epsilon=epsilon,
        )
        for size in SIZES
        if float(draft.delta) * 10 * size <= 1 or size == SIZES[0]
    )


def _prices(job: Job, datasets: Sequence[Dataset], sight: Sight | None) -> tuple[Price, ...]:
    if sight is not None:
        return job_match.prices(job, datasets, sight.state)
    return tuple(job_match.price(job, d) for d in datasets)


def _unpaid(prices: Sequence[Price], folder: JobContent) -> list[str]:
    """Name a job that too few hospitals could afford."""
    able = [p for p in prices if p.terms is not None]
    refused = "; ".join(f"{p.dataset}: {p.refusal}" for p in prices if p.terms is None)
    if not able or (refused and len(able) < folder.draft.min_participants <= len(prices)):
        return [f"{len(able)} of {len(prices)} hospitals could take part: {refused}"]
    return []


def _spec(job: Job, prices: Sequence[Price]) -> JobSpec:
    """Return how a made-up hospital trains: with the largest noise among those who could take part."""
    noises = [p.terms.training.noise_multiplier for p in prices if p.terms is not None]
    try:
        return JobSpec.of(job.digest(), job.training, max(noises, key=float), SIZE_CLASS)
    except TrainingRefusedError as error:
        raise JobFileError(str(error)) from None


def _price_json(price: Price, folder: JobContent) -> dict[str, Any]:
    terms = price.terms
    return {
        "dataset": price.dataset,
        "size_class": price.size_class,
        "noise_multiplier": terms.training.noise_multiplier if terms is not None else None,
        "epsilon_limit": terms.epsilon if terms is not None else None,
        "delta": folder.draft.delta,
        "evaluation_noise": [m.noise_multiplier for m in terms.evaluation] if terms is not None else [],
        "refusal": price.refusal,
    }


def _price_line(price: Price, folder: JobContent) -> str:
    if price.terms is None:
        return f"{price.dataset}: would decline, {price.refusal}"
    draft = folder.draft
    costs = f"epsilon at most {min((draft.epsilon, price.terms.epsilon), key=float)} for training"
    if draft.evaluate:
        costs += (
            f", {min((draft.heldout_epsilon, price.terms.epsilon), key=float)} for those it is measured on"
        )
    return (
        f"{price.dataset}: {costs}, at delta {draft.delta}; noise multiplier "
        f"{price.terms.training.noise_multiplier}, about {price.size_class} patients"
    )
