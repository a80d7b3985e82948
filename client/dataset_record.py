"""The dataset's record as `hospital.toml` has it, and what would change on the log. Pure.

Budgets never rise: what was once promised to patients is kept (`dataset.budget`, one of the ledger's rules).
"""

from __future__ import annotations

from decimal import Decimal

from client.config import Hospital
from client.errors import ConfigError
from ledger.records import Dataset

_SHOWN = ("schema", "size_class", "purposes", "epsilon", "delta")


def record_of(hospital: Hospital, schema: str, *, origin: str, version: int, cohort: str) -> Dataset:
    """Return the record.

    Args:
        hospital: The settings.
        schema: Digest of the data dictionary.
        origin: The log's.
        version: From 1.
        cohort: Commitment to the rows.
    """
    data = hospital.dataset
    return Dataset(
        origin=origin,
        hospital=hospital.name,
        name=data.name,
        version=version,
        schema=schema,
        cohort=cohort,
        size_class=data.size_class,
        purposes=data.purposes,
        epsilon=data.epsilon,
        delta=data.delta,
    )


def next_version(hospital: Hospital, schema: str, old: Dataset) -> Dataset:
    """Return the version that would follow, with the old cohort in its place. Raises ConfigError: a budget rises."""
    new = record_of(hospital, schema, origin=old.origin, version=old.version + 1, cohort=old.cohort)
    for name in ("epsilon", "delta"):
        before, after = getattr(old, name), getattr(new, name)
        if Decimal(after) > Decimal(before):
            raise ConfigError(
                f"dataset.{name} may not rise from {before} to {after}: what was once promised to patients is kept"
            )
    return new


def changes(old: Dataset, new: Dataset) -> list[tuple[str, str, str]]:
    """Return (field, before, after) of all that differs, besides version and cohort."""
    pairs = [(name, _shown(getattr(old, name)), _shown(getattr(new, name))) for name in _SHOWN]
    return [(name.replace("_", " "), before, after) for name, before, after in pairs if before != after]


def _shown(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
