"""The tables of `hospital.toml`: what the hospital offers, whom it lets train on it, how much machine that may take.

Nothing here can come from outside: no message changes a policy, only the person who edits the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal as Number
from typing import Annotated

from client import hours
from ledger.canonical import Text, Within
from ledger.errors import MalformedError
from ledger.values import Code, Decimal, Name, Part, Positive

APPROVE = ("ask", "built-in", "never")
KINDS = ("csv", "fhir", "images", "npz", "parquet", "sql")
Line = Annotated[str, Text(r"[^\x00-\x1f]{1,4096}", "one line of text")]
MaybeLine = Annotated[str, Text(r"[^\x00-\x1f]{0,4096}", "one line of text")]
Mebibytes = Annotated[int, Within(1, 1 << 24)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset(Part):
    """What the hospital offers."""

    name: Name
    kind: Code  # one of KINDS: how `file` is read
    file: Line
    mapping: (
        MaybeLine  # file that maps this hospital's columns, units and codes to the dictionary's, or empty
    )
    dictionary: Line
    epsilon: Decimal
    delta: Decimal
    size_class: Positive
    purposes: tuple[Code, ...]
    one_row_per_patient: bool

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        if self.kind not in KINDS:
            raise MalformedError(f"dataset.kind must be one of {', '.join(KINDS)}")
        if not Number(self.epsilon) > 0 or Number(self.epsilon) % Number("0.01"):
            raise MalformedError("dataset.epsilon must be a multiple of 0.01 above 0")
        if self.size_class & (self.size_class - 1):
            raise MalformedError(
                "dataset.size_class must be a power of two: `wardround hospital check` says which"
            )
        if not 0 < Number(self.delta) * 10 * self.size_class <= 1:
            raise MalformedError(
                f"dataset.delta must be above 0 and at most 1/{10 * self.size_class} for this size class"
            )
        if not self.purposes or list(self.purposes) != sorted(set(self.purposes)):
            raise MalformedError("dataset.purposes must name at least one purpose, sorted, each once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy(Part):
    """Which jobs the hospital takes part in, and which of them without asking a person.

    `smallest_cohort` is compared with the size class on the record, never with a count of rows: a refusal is public.
    """

    approve: Code  # one of APPROVE
    researchers: tuple[Name, ...]  # who may propose; empty: any researcher of the consortium
    purposes: tuple[Code, ...]
    max_epsilon_per_job: Decimal
    min_participants: Positive  # hospitals that a job must require
    smallest_cohort: Positive  # patients, as a size class
    hours: tuple[Line, ...]  # local time when it may train, such as "mon-fri 19:00-06:00"; empty: always

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        if self.approve not in APPROVE:
            raise MalformedError(f"policy.approve must be one of {', '.join(APPROVE)}")
        if not Number(self.max_epsilon_per_job) > 0 or Number(self.max_epsilon_per_job) % Number("0.01"):
            raise MalformedError("policy.max_epsilon_per_job must be a multiple of 0.01 above 0")
        for span in self.hours:
            hours.parse(span)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Part):
    """How much of the machine the worker, and the building of a job's model, may take."""

    threads: Annotated[int, Within(1, 1024)]
    memory_mib: Mebibytes
    model_seconds: Annotated[int, Within(1, 3600)]  # how long a job's model.py may take to build its model
    gpu: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal(Part):
    """The agent's own log file; empty leaves it to whoever started the agent, such as systemd."""

    file: MaybeLine
    max_mib: Mebibytes
    keep: Annotated[int, Within(1, 1000)]  # rotated files
