"""Records about who the consortium is, what it agreed on, and what it observed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ledger.record import Record
from ledger.values import (
    Code,
    Count,
    DatasetName,
    Decimal,
    Digest,
    Key,
    KeyChange,
    MaybeVerifierKey,
    Member,
    Name,
    Positive,
    Previous,
    Seconds,
    Terms,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charter(Record):
    """Entry 0: who founds the consortium. Signed by all founding members."""

    TYPE: ClassVar[str] = "charter"
    name: Name
    founded_at: Seconds
    terms: Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession(Record):
    """Entry 0 of a log that follows a dead one; what the dead log holds after `previous.size` is void.

    Signed by a quorum of the dead log's witnesses' members or by its recovery keys, and by every new key.
    """

    TYPE: ClassVar[str] = "succession"
    name: Name
    founded_at: Seconds
    previous: Previous
    terms: Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment(Record):
    """A change of the charter. Signed by a quorum of witnesses' members, and by every new key it brings in."""

    TYPE: ClassVar[str] = "amendment"
    SORTED: ClassVar[tuple[str, ...]] = ("add", "remove", "revoke", "rotate")
    replaces: Positive  # the charter version that this one follows
    add: tuple[Member, ...]
    remove: tuple[Name, ...]
    rotate: tuple[KeyChange, ...]
    revoke: tuple[Key, ...]  # stolen keys: void from this entry on, also for receipts under way
    max_dishonest: Count
    quorum: Positive
    log: MaybeVerifierKey  # a new log key, or empty
    rules: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement(Record):
    """A data use agreement. Signed by every party."""

    TYPE: ClassVar[str] = "agreement"
    SORTED: ClassVar[tuple[str, ...]] = ("parties", "datasets", "purposes")
    text: Digest
    parties: tuple[Name, ...]
    datasets: tuple[DatasetName, ...]
    purposes: tuple[Code, ...]
    expires_at: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset(Record):
    """What a hospital offers, and the budget it will ever spend on it. Signed by the hospital."""

    TYPE: ClassVar[str] = "dataset"
    SORTED: ClassVar[tuple[str, ...]] = ("purposes",)
    hospital: Name
    name: Name
    version: Positive
    schema: Digest  # of the data dictionary
    cohort: Digest  # commitment under a secret salt of 32 bytes
    size_class: Positive  # nearest power of two of the number of patients
    purposes: tuple[Code, ...]
    epsilon: Decimal  # lifetime, add/remove one patient
    delta: Decimal

    @property
    def ref(self) -> str:
        """The dataset's name in other records."""
        return f"{self.hospital}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick(Record):
    """Hourly time. Signed by the coordinator."""

    TYPE: ClassVar[str] = "tick"
    time: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Access(Record):
    """Who was handed what, under which right. Signed by the coordinator."""

    TYPE: ClassVar[str] = "access"
    number: Positive  # 1, 2, 3 ... so that two like deliveries are two records
    job: Digest
    member: Name
    item: Code
    content: Digest
    right: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident(Record):
    """Something that must not have happened, with the digest of the evidence. Signed by any member."""

    TYPE: ClassVar[str] = "incident"
    member: Name
    code: Code
    evidence: Digest
