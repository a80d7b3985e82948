"""This hospital's own copy of the log, read from its published files while the agent, which has it locked, may run.

The agent has judged every entry before it wrote them, so they are replayed here without their signatures, up to the
newest checkpoint that was accepted, final or not.
"""

from __future__ import annotations

from dataclasses import dataclass

from client.config import Hospital
from client.errors import DecisionError
from client.history import History
from ledger import audit, envelope
from ledger.checkpoint import Checkpoint
from ledger.errors import VerificationError
from ledger.note import Note
from ledger.records import Job
from ledger.source import Read, open_source
from ledger.state import JobState, State
from ledger.store import PENDING
from ledger.view import NOTHING

_ATTEMPTS = 5  # at reading files that the agent replaces meanwhile
MIN_PREFIX = 4  # digits of a job's digest


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLog:
    """The log as the hospital has accepted it."""

    state: State
    history: History

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.state.size

    def find(self, name: str) -> tuple[str, JobState]:
        """Return the job that a person means: by the first digits of its digest, or by its name.

        A name is the researcher's choice, so one that looks like another job's digits is ambiguous.

        Raises:
            DecisionError: no job, or several.
        """
        jobs = self.state.jobs
        if name in jobs:
            return name, jobs[name]
        begins = len(name) >= MIN_PREFIX
        found = [d for d in jobs if jobs[d].record.name == name or (begins and d.startswith(name))]
        if not found:
            raise DecisionError(
                f"no job on this hospital's copy of the log is {name[:70]!r}: give its name, or {MIN_PREFIX} or more "
                "of its digits, as `wardround hospital jobs` lists them"
            )
        if len(found) > 1:
            several = ", ".join(sorted(d[:12] for d in found)[:4])
            raise DecisionError(
                f"{len(found)} jobs are meant by {name[:70]!r} ({several} ...): give more digits"
            )
        return found[0], jobs[found[0]]


def read_log(hospital: Hospital) -> LocalLog:
    """Read the hospital's copy.

    Raises:
        DecisionError: there is none yet.
        LedgerError: it cannot be read, or is damaged.
    """
    read = open_source(str(hospital.mirror)) if hospital.mirror.is_dir() else None
    for attempt in range(_ATTEMPTS):
        try:
            if read is not None:
                return _read(read)
        except FileNotFoundError:
            break
        except VerificationError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise DecisionError(
        f"there is no copy of the log at {hospital.mirror} yet: start the agent with `wardround hospital run` first"
    )


def _read(read: Read) -> LocalLog:
    size = Checkpoint.from_text(Note.from_bytes(read(PENDING)).text).size
    entries = [envelope.parse_entry(data) for data in audit.entries(read, size)]
    history = History()
    history.read(entries)
    return LocalLog(state=NOTHING.extend(entries).state, history=history)


def concerns(hospital: Hospital, job: Job) -> bool:
    """Whether a job asks for this hospital's dataset."""
    return hospital.ref in job.datasets
