"""A consortium as tables: its members, datasets, agreements and jobs, from a member's own verified copy of the log.

A row for each, sorted as a person would look for them. Epsilons are for adding or removing one patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from client.job_story import SHORT
from client.notebook.extras import needed
from ledger.state import JobState, State

if TYPE_CHECKING:
    import pandas as pd

MEMBERS = ("member", "role", "key", "witness")
DATASETS = (
    "hospital", "dataset", "version", "patients", "epsilon", "epsilon_spent", "epsilon_left", "delta", "purposes",
    "dictionary", "in_job",
)  # fmt: skip
AGREEMENTS = ("agreement", "parties", "datasets", "purposes", "expires", "in_force")
JOBS = (
    "job", "name", "researcher", "status", "round", "rounds", "epsilon", "delta", "purpose", "asked", "taking_part",
    "expires",
)  # fmt: skip


def members(state: State) -> pd.DataFrame:
    """Return who is in the consortium now.

    Columns: `member`, `role`, `key` (the beginning of the public key that signs the member's records), `witness`
    (whether it cosigns the log). Raises MissingExtraError: pandas is not installed.
    """
    found = [state.member(name) for name in sorted(state.members)]
    return table(MEMBERS, [(m.name, m.role, m.key[:SHORT], bool(m.witness)) for m in found if m is not None])


def datasets(state: State) -> pd.DataFrame:
    """Return what hospitals offer.

    Columns: `hospital`; `dataset`; `version`; `patients`, about how many; `epsilon`, the most that all jobs together
    may ever spend of them, at `delta`; `epsilon_spent`, as the hospital's newest receipt states; `epsilon_left`;
    `purposes`; `dictionary`, the beginning of its digest; `in_job`, the running job that uses it.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    rows = []
    for _, found in sorted(state.datasets.items()):
        record, spent = found.record, float(found.epsilon or "0")
        rows.append(
            (
                record.hospital,
                record.name,
                record.version,
                record.size_class,
                float(record.epsilon),
                spent,
                round(float(record.epsilon) - spent, 9),
                float(record.delta),
                ", ".join(record.purposes),
                record.schema[:SHORT],
                found.job[:SHORT],
            )
        )
    return table(DATASETS, rows)


def agreements(state: State, now: float) -> pd.DataFrame:
    """Return the data use agreements.

    Columns: `agreement`, the beginning of its digest; `parties`; `datasets`; `purposes`; `expires` (UTC); `in_force`.

    Args:
        state: The log's.
        now: Unix seconds.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    rows = [
        (
            digest[:SHORT],
            ", ".join(a.parties),
            ", ".join(a.datasets),
            ", ".join(a.purposes),
            when(a.expires_at),
            a.expires_at > now,
        )
        for digest, a in sorted(state.agreements.items(), key=lambda item: (-item[1].expires_at, item[0]))
    ]
    return table(AGREEMENTS, rows)


def jobs(state: State, order: Mapping[str, int]) -> pd.DataFrame:
    """Return every job ever proposed, the newest first.

    Columns: `job`, the beginning of its digest; `name`; `researcher`; `status`; `round`, how many have closed, of
    `rounds`; `epsilon`, its target at `delta`; `purpose`; `asked` and `taking_part`, hospitals; `expires` (UTC).

    Args:
        state: The log's.
        order: Each job's entry on the log, by digest.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    found = sorted(state.jobs.items(), key=lambda item: -order[item[0]])
    return table(JOBS, [_job(digest, job) for digest, job in found])


def when(seconds: int) -> datetime:
    """Return a time of the log."""
    return datetime.fromtimestamp(seconds, UTC)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """Return a table. Raises MissingExtraError: pandas is not installed."""
    made: pd.DataFrame = needed("pandas", "notebook", "tables are made").DataFrame(
        rows, columns=list(columns)
    )
    return made


def _job(digest: str, found: JobState) -> tuple[Any, ...]:
    job = found.record
    return (
        digest[:SHORT],
        job.name,
        job.researcher,
        found.status,
        min(found.next_round - 1, job.rounds),
        job.rounds,
        float(job.epsilon),
        float(job.delta),
        job.purpose,
        ", ".join(ref.split("/")[0] for ref in job.datasets),
        ", ".join(found.participants),
        when(job.expires_at),
    )
