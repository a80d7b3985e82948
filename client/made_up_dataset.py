"""A dataset's record for a hospital that was not asked: for prices and trials before anybody is."""

from __future__ import annotations

from client.dictionary import Dictionary
from client.job_toml import JobDraft
from ledger.consortium_records import Dataset


def record(
    draft: JobDraft, dictionary: Dictionary, *, origin: str, hospital: str, size_class: int, epsilon: str
) -> Dataset:
    """Return the record of a dataset that fits a job.

    Args:
        draft: The job.
        dictionary: Its data dictionary.
        origin: Of a log that does not exist.
        hospital: Its name.
        size_class: About how many patients.
        epsilon: Lifetime budget.

    Raises:
        MalformedError: a value is none that a record can hold.
    """
    return Dataset(
        origin=origin,
        hospital=hospital,
        name=dictionary.name,
        version=1,
        schema=dictionary.digest,
        cohort="0" * 64,
        size_class=size_class,
        purposes=(draft.purpose,),
        epsilon=epsilon,
        delta=draft.delta,
    )
