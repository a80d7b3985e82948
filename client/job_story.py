"""What the verified log tells of one job, as events: each a sentence for a person and plain values for a program.

Pure: entries in, events out. Only codes, names, digests and published epsilons are on the log; the words for the
codes are here and in `client.approval`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from client.approval import REFUSALS
from ledger.envelope import Entry
from ledger.records import (
    Abort,
    Approval,
    Ended,
    Job,
    Receipt,
    Refusal,
    Release,
    Round,
    Skip,
    Start,
    Withdrawal,
)

REASONS: dict[str, str] = {  # why a hospital's update is not in a round's model
    "digest": "its bytes are not those of its receipt",
    "dtype": "its update has another type of numbers",
    "expired": "its agreement has expired",
    "late": "its answer did not come in time",
    "metrics": "its histogram is not one",
    "name": "its answer holds other arrays than were asked for",
    "non-finite": "its update holds numbers that are none",
    "norm": "its update is larger than an honest one can be",
    "receipt": "its receipt is missing or against the rules",
    "refused": "it refused this round",
    "removed": "it is no member any more",
    "revoked": "its key was revoked",
    "shape": "its update has another size",
    "skipped": "it skipped this round",
    "unreachable": "it was not connected",
    "withdrawn": "it withdrew its approval",
}
ABORTS: dict[str, str] = {
    "aggregation": "the updates could not be averaged",
    "below-minimum": "too few hospitals answered",
    "deadline": "the time was over",
    "finality": "the witnesses did not cosign",
    "restart": "the coordinator was restarted",
}
ENDS: dict[str, str] = {
    "below-minimum": "too few hospitals are left",
    "cancelled": "it was cancelled, or no round gave a model",
    "expired": "its time was over",
    "finished": "the model is released",
}
SHORT = 12  # hex digits of a digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to a job, as the log has it."""

    kind: str  # proposed, approved, refused, withdrawn, started, skip, round, abort, released, ended
    index: int  # of the log's entry
    line: str
    data: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return it for a program."""
        return {"event": self.kind, "index": self.index, **self.data}


@dataclass(slots=True, kw_only=True)
class Story:
    """Reads a log in order and tells what concerns one job.

    Attributes:
        digest: The job's.
        job: Its record, once it was read.
        approved: Hospitals whose approval stands.
        refused: Hospitals that refused last, and their code.
        participants: Hospitals of the start.
        round: The last closed one; the evaluation of the final model counts as one more.
        left_out: Hospitals left out of it, and the code.
        epsilons: Each hospital's newest (of the job, of the dataset), as its receipts state them.
        release: The release record, if there is one, and its entry.
    """

    digest: str
    job: Job | None = None
    approved: dict[str, Approval] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    participants: tuple[str, ...] = ()
    round: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    epsilons: dict[str, tuple[str, str]] = field(default_factory=dict)
    release: Release | None = None
    release_index: int = 0
    _given: dict[str, str] = field(default_factory=dict)  # approval -> hospital
    _receipts: list[Receipt] = field(default_factory=list)

    def follow(self, entries: Iterable[Entry], start: int) -> list[Event]:
        """Return what happened to the job in the entries from `start` on."""
        found = (self._next(index, entry) for index, entry in enumerate(entries, start))
        return [event for event in found if event is not None]

    def _next(self, index: int, entry: Entry) -> Event | None:
        record = entry.record
        if isinstance(record, Job) and entry.digest == self.digest:
            self.job = record
            return _event(
                index,
                "proposed",
                f"{record.researcher} proposes {record.name}",
                {"job": entry.digest, "name": record.name, "datasets": list(record.datasets)},
            )
        if isinstance(record, Withdrawal) and (hospital := self._given.pop(record.approval, "")):
            self.approved.pop(hospital, None)
            return _event(index, "withdrawn", f"{hospital} takes its approval back", {"hospital": hospital})
        if getattr(record, "job", "") != self.digest:
            return None
        match record:
            case Approval() | Refusal():
                return self._answer(index, entry.digest, record)
            case Receipt():
                self._receipts.append(record)
                self.epsilons[record.hospital] = (record.epsilon_job, record.epsilon_dataset)
            case Skip():
                line = f"{record.hospital} skips round {record.round} ({record.code})"
                told = {"hospital": record.hospital, "round": record.round, "code": record.code}
                return _event(index, "skip", line, told)
            case Round() | Abort():
                return self._closed(index, record)
            case Start() | Release() | Ended():
                return self._turn(index, record)
        return None

    def _answer(self, index: int, digest: str, record: Approval | Refusal) -> Event:
        if isinstance(record, Refusal):
            self.refused[record.hospital] = record.code
            why = REFUSALS.get(record.code, record.code)
            told = {"hospital": record.hospital, "code": record.code, "reason": why}
            return _event(index, "refused", f"{record.hospital} refuses ({record.code}): {why}", told)
        self.refused.pop(record.hospital, None)
        self.approved[record.hospital] = record
        self._given[digest] = record.hospital
        noise = record.training.noise_multiplier
        line = f"{record.hospital} approves, with noise {noise} and at most epsilon {record.epsilon}"
        told = {"hospital": record.hospital, "noise_multiplier": noise, "epsilon_limit": record.epsilon}
        return _event(index, "approved", line, told)

    def _closed(self, index: int, record: Round | Abort) -> Event:
        receipts, self._receipts = self._receipts, []
        left = {item.hospital: item.code for item in record.left_out}
        self.round, self.left_out = record.round, left
        took = sorted(r.hospital for r in receipts if r.hospital not in left)
        told: dict[str, Any] = {
            "round": record.round,
            "took_part": took,
            "left_out": left,
            "epsilons": {r.hospital: {"job": r.epsilon_job, "dataset": r.epsilon_dataset} for r in receipts},
        }
        away = "".join(f"; without {name}: {REASONS.get(code, code)}" for name, code in sorted(left.items()))
        if isinstance(record, Abort):
            why = ABORTS.get(record.code, record.code)
            told |= {"code": record.code, "reason": why}
            return _event(index, "abort", f"{self._numbered(record.round)} gives no model: {why}{away}", told)
        told["model"] = record.model_after
        spent = max((float(r.epsilon_job) for r in receipts), default=0.0)
        line = (
            f"{self._numbered(record.round)}: {len(took)} hospitals, model {record.model_after[:SHORT]}, "
            f"largest epsilon {spent:g}{self._delta()}{away}"
        )
        return _event(index, "round", line, told)

    def _turn(self, index: int, record: Start | Release | Ended) -> Event:
        if isinstance(record, Start):
            self.participants = tuple(p.hospital for p in record.participants)
            line = f"starts with {', '.join(self.participants)}"
            return _event(index, "started", line, {"participants": list(self.participants)})
        if isinstance(record, Release):
            self.release, self.release_index = record, index
            metrics = {m.name: {"value": m.value, "low": m.low, "high": m.high} for m in record.metrics}
            shown = ", ".join(f"{m.name} {m.value} ({m.low} to {m.high})" for m in record.metrics)
            line = f"released: model {record.model[:SHORT]}" + (f", {shown}" if shown else "")
            return _event(
                index,
                "released",
                line,
                {"model": record.model, "artifact": record.artifact, "metrics": metrics},
            )
        why = ENDS.get(record.reason, record.reason)
        return _event(
            index, "ended", f"ended, {record.reason}: {why}", {"reason": record.reason, "words": why}
        )

    def _numbered(self, number: int) -> str:
        if self.job is None:
            return f"round {number}"
        if number > self.job.rounds:
            return "evaluation of the final model"
        return f"round {number} of {self.job.rounds}"

    def _delta(self) -> str:
        return f" at delta {self.job.delta} (add/remove one patient)" if self.job is not None else ""


def _event(index: int, kind: str, line: str, data: dict[str, Any]) -> Event:
    return Event(kind=kind, index=index, line=line, data=data)
