"""What persons of this hospital decided: one private file for each job, one for a pause, one for a new offer.

    decisions/<job digest>.json   {"job": ..., "size": ..., "verdict": "approve" | "refuse" | "withdraw"}
    decisions/pause.json          {"until": ...}
    decisions/offer.json          {"dataset": ..., "version": ..., ...}

A command writes, the agent reads and makes the record follow. The newest decision about a job stands in its file, so
that it may be acted on again after any crash: what is on the log already is not done twice. Nothing that comes over
the network writes here. `size` is the length of the log that the person had seen: an approval is spent by a
withdrawal that comes later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from client.errors import LocalStateError
from client.private_file import read_private, write_private
from ledger import canonical
from ledger.errors import MalformedError
from ledger.records import Dataset as Record
from ledger.values import Code, Count, DatasetName, Decimal, Digest, Part, Positive, Seconds

FOLDER = "decisions"
VERDICTS = ("approve", "refuse", "withdraw")
FOR_GOOD = canonical.MAX_INTEGER  # a pause that nobody has set an end to
_PAUSE = "pause.json"
_OFFER = "offer.json"
_JOB = re.compile(r"([0-9a-f]{64})\.json")
_MAX_SIZE = 1 << 14
_Kind = TypeVar("_Kind", bound=Part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Part):
    """What a person decided about exactly one job."""

    job: Digest
    verdict: Code  # one of VERDICTS
    size: Count  # of the log as the person saw it

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        if self.verdict not in VERDICTS:
            raise MalformedError(f"verdict must be one of {', '.join(VERDICTS)}")

    @property
    def forbids(self) -> bool:
        """Whether nothing is to be trained for the job here, whatever the log says."""
        return self.verdict != "approve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Part):
    """No training before a time."""

    until: Seconds  # Unix seconds; FOR_GOOD until a person ends it, 0 not at all


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOffer(Part):
    """The next version of the dataset's record, as a person agreed to it; the agent adds the cohort."""

    dataset: DatasetName
    version: Positive
    schema: Digest
    size_class: Positive
    purposes: tuple[Code, ...]
    epsilon: Decimal
    delta: Decimal

    @classmethod
    def of(cls, record: Record) -> NewOffer:
        """Return what a record says, without its cohort."""
        return cls(
            dataset=record.ref,
            version=record.version,
            schema=record.schema,
            size_class=record.size_class,
            purposes=record.purposes,
            epsilon=record.epsilon,
            delta=record.delta,
        )


class Decisions:
    """The folder; nothing is kept in memory, so that what a command wrote holds at once."""

    def __init__(self, folder: Path) -> None:
        """Take a hospital's folder; the files need not be there."""
        self._folder = folder / FOLDER

    def of(self, job: str) -> Decision | None:
        """Return the decision about a job. Raises LocalStateError: its file is damaged."""
        found = self._read(Decision, f"{job}.json")
        if found is not None and found.job != job:
            raise LocalStateError(f"{self._folder / job}.json decides about another job: remove it")
        return found

    def all(self) -> Iterator[Decision]:
        """Yield every decision, by job. Raises LocalStateError."""
        try:
            names = sorted(p.name for p in self._folder.iterdir()) if self._folder.is_dir() else []
        except OSError as error:
            raise LocalStateError(f"cannot read {self._folder}: {error.strerror}") from None
        for match in filter(None, map(_JOB.fullmatch, names)):
            if (found := self.of(match[1])) is not None:
                yield found

    def decide(self, job: str, verdict: str, size: int) -> None:
        """Put a decision in place of any earlier one, durably. Raises LocalStateError."""
        self._write(f"{job}.json", Decision(job=job, verdict=verdict, size=size))

    @property
    def paused_until(self) -> int:
        """When the pause ends, Unix seconds; 0 where there is none."""
        found = self._read(Pause, _PAUSE)
        return found.until if found else 0

    def pause(self, until: int) -> None:
        """Train nothing before `until`; 0 ends the pause."""
        self._write(_PAUSE, Pause(until=until))

    @property
    def offer(self) -> NewOffer | None:
        """The version of the dataset's record that a person wants registered."""
        return self._read(NewOffer, _OFFER)

    def make_offer(self, offer: NewOffer) -> None:
        """Have a new version of the dataset's record registered."""
        self._write(_OFFER, offer)

    def stamp(self) -> int:
        """Return a number that changes whenever a decision is written."""
        try:
            return self._folder.stat().st_mtime_ns
        except OSError:
            return 0

    def _read(self, kind: type[_Kind], name: str) -> _Kind | None:
        data = read_private(self._folder / name, _MAX_SIZE)
        if data is None:
            return None
        try:
            return canonical.build(kind, canonical.loads(data, _MAX_SIZE))
        except MalformedError:
            raise LocalStateError(f"{self._folder / name} is damaged: remove it, then decide again") from None

    def _write(self, name: str, value: Part) -> None:
        write_private(self._folder / name, canonical.dumps(canonical.plain(value)))
