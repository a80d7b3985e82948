"""Which datasets and agreements of the log a job fits, and what about it no hospital could accept. Pure.

The choice is made from the researcher's own verified copy of the log. The rules are `ledger.rules_jobs`' for the
proposal and the start, and those by which a hospital decides (`client.approval`), as far as they are public.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from client import accounting, approval, job_problems
from client.accounting import Lifetime
from client.approval import Offer, Terms
from client.dictionary import Dictionary
from client.errors import DeclinedError
from client.job_toml import JobDraft
from client.settings import Policy
from ledger.consortium_records import Agreement, Dataset
from ledger.job_records import Job
from ledger.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a job will name, and what stands in its way."""

    datasets: tuple[Dataset, ...]  # sorted by reference
    agreements: tuple[str, ...]  # digests, sorted
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a job would cost the patients of one dataset, by the decision of a hospital with a budget of its own."""

    dataset: str
    size_class: int
    terms: Terms | None
    refusal: str  # why it would decline, or ""


def match(draft: JobDraft, dictionary: Dictionary, state: State, researcher: str, now: int) -> Match:
    """Choose a job's datasets and agreements.

    Args:
        draft: The job.
        dictionary: Its data dictionary.
        state: The log's, as the researcher verified it.
        researcher: Who proposes.
        now: Unix seconds.
    """
    problems = [*_standing(state, researcher), *job_problems.before_submitting(dictionary)]
    now = max(now, state.time)
    held = {
        digest: a
        for digest, a in sorted(state.agreements.items())
        if researcher in a.parties and a.expires_at > now and draft.purpose in a.purposes
    }
    if draft.agreements:
        problems += [
            f"agreement {digest[:16]} is not on the log, has expired, does not name {researcher}, or does not "
            f"permit {draft.purpose}"
            for digest in draft.agreements
            if digest not in held
        ]
        held = {digest: a for digest, a in held.items() if digest in draft.agreements}
    datasets = _datasets(draft, dictionary, state, held, problems)
    covering = _newest(draft, datasets, held)
    count = len(datasets)
    if not problems and count < draft.min_participants:
        problems.append(
            f"min_participants is {draft.min_participants}, {count} datasets fit dictionary, purpose and agreements: "
            "ask for fewer, or wait for more hospitals"
        )
    problems += [
        f"privacy.delta is {draft.delta}, {d.ref} has about {d.size_class} patients: at most 1/{10 * d.size_class}"
        for d in datasets
        if Decimal(draft.delta) * 10 * d.size_class > 1
    ]
    return Match(datasets=datasets, agreements=covering, problems=tuple(problems))


def prices(job: Job, datasets: Sequence[Dataset], state: State) -> tuple[Price, ...]:
    """Return what a job costs at each dataset, with what the log knows of its budget.

    The log shows no account, so the newest receipt's epsilon stands for what is spent: a hospital's own decision
    may add more noise, or none.
    """
    return tuple(price(job, d, _spent(state, d.ref)) for d in datasets)


def price(job: Job, dataset: Dataset, spent: str = "0", limit: str = "") -> Price:
    """Return what a job costs at a dataset that has spent some of its epsilon already.

    Args:
        job: The job as it would be proposed.
        dataset: The dataset's record.
        spent: Its lifetime epsilon so far, a decimal.
        limit: The most that the hospital lets one job spend, a decimal; its whole budget where none is given.
    """
    policy = Policy(
        approve="built-in",
        researchers=(),
        purposes=dataset.purposes,
        max_epsilon_per_job=limit or dataset.epsilon,
        min_participants=1,
        smallest_cohort=1,
        hours=(),
    )
    left, delta = float(Decimal(dataset.epsilon) - Decimal(spent)), float(dataset.delta)
    terms, refusal = None, approval.REFUSALS["budget"]
    if left <= 0:
        return Price(dataset=dataset.ref, size_class=dataset.size_class, terms=None, refusal=refusal)
    # Subtracting is pessimistic: Rényi divergences add up to less than epsilons do.
    lifetime = Lifetime(epsilon=left, delta=delta, order=accounting.filter_order(left, delta))
    offer = Offer(
        dataset=dataset,
        policy=policy,
        software=job.software,
        lifetime=lifetime,
        training=(),
        heldout=(),
        reviewed=(job.training.model_code,),  # a person decides about code; here is the price
    )
    try:
        terms, refusal = approval.decide(job, offer), ""
    except DeclinedError as error:
        refusal = str(error)
    return Price(dataset=dataset.ref, size_class=dataset.size_class, terms=terms, refusal=refusal)


def _standing(state: State, researcher: str) -> list[str]:
    member = state.member(researcher)
    if member is None:
        return [f"{researcher} is no member of this consortium: ask its members for an amendment"]
    if member.role != "researcher":
        return [f"{researcher} is a {member.role}: only a researcher proposes jobs"]
    return []


def _datasets(
    draft: JobDraft,
    dictionary: Dictionary,
    state: State,
    held: dict[str, Agreement],
    problems: list[str],
) -> tuple[Dataset, ...]:
    """Return the datasets that a job names, sorted; what does not fit is a problem only where it was named."""
    covered = {
        ref
        for a in held.values()
        for ref in a.datasets
        if ref.split("/")[0] in a.parties
    }  # fmt: skip
    found = []
    for ref in draft.datasets or sorted(state.datasets):
        known = state.datasets.get(ref)
        wrong = _misfit(draft, dictionary, known.record if known else None, ref in covered)
        if wrong and draft.datasets:
            problems.append(f"{ref}: {wrong}")
        elif not wrong and known is not None:
            found.append(known.record)
    hospitals = [d.hospital for d in found]
    if twice := sorted({h for h in hospitals if hospitals.count(h) > 1}):
        problems.append(f"several datasets of {twice[0]} fit: name one of each hospital in datasets")
    if not found and not problems:
        problems.append(
            f"no dataset on the log fits: it must have dictionary {dictionary.name} ({dictionary.digest[:16]}), "
            f"permit {draft.purpose}, and stand in an agreement with you"
        )
    return tuple(found)


def _misfit(draft: JobDraft, dictionary: Dictionary, record: Dataset | None, covered: bool) -> str:
    if record is None:
        return "it is not on the log"
    if record.schema != dictionary.digest:
        return (
            f"it has another data dictionary ({record.schema[:16]}) than the job ({dictionary.digest[:16]})"
        )
    if draft.purpose not in record.purposes:
        return f"it permits {', '.join(record.purposes)}, not {draft.purpose}"
    return "" if covered else "no agreement in force between you and the hospital covers it for this purpose"


def _newest(draft: JobDraft, datasets: Sequence[Dataset], held: dict[str, Agreement]) -> tuple[str, ...]:
    """Return the agreements to rely on: those named, else for each dataset the one that lasts longest."""
    if draft.agreements:
        return tuple(sorted(held))
    chosen = set()
    for d in datasets:
        fitting = [
            (a.expires_at, digest)
            for digest, a in held.items()
            if d.ref in a.datasets and d.hospital in a.parties
        ]
        if fitting:
            chosen.add(max(fitting)[1])
    return tuple(sorted(chosen))


def _spent(state: State, ref: str) -> str:
    found = state.datasets.get(ref)
    return found.epsilon if found is not None and found.epsilon else "0"
