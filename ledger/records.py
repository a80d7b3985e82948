"""Every record that members sign: the authority that FORMAT.md writes out, field by field.

A record's only encoding is canonical JSON with its `type`. Which record may follow which is `rules`; how it is
signed is `envelope`. A new kind of record is one class (listed in `RECORDS`), one rule, one row of FORMAT.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ledger import canonical
from ledger.consortium_records import (
    Access,
    Agreement,
    Amendment,
    Charter,
    Dataset,
    Incident,
    Succession,
    Tick,
)
from ledger.errors import MalformedError
from ledger.job_records import (
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
from ledger.record import Record

MAX_RECEIPT_SIZE = 4 * 1024  # bytes of a receipt's entry, signatures included
MAX_RECORD_SIZE = 65_535  # bytes of any other entry: what an entry bundle can carry

__all__ = [
    "MAX_RECEIPT_SIZE",
    "MAX_RECORD_SIZE",
    "RECORDS",
    "Abort",
    "Access",
    "Agreement",
    "Amendment",
    "Approval",
    "Charter",
    "Dataset",
    "Ended",
    "Incident",
    "Job",
    "Receipt",
    "Record",
    "Refusal",
    "Release",
    "Round",
    "Skip",
    "Start",
    "Succession",
    "Tick",
    "Withdrawal",
    "inputs_digest",
    "parse",
]

RECORDS: tuple[type[Record], ...] = (
    Charter, Succession, Amendment, Agreement, Dataset, Job, Approval, Refusal, Withdrawal, Start,
    Receipt, Skip, Round, Abort, Release, Ended, Tick, Access, Incident,
)  # fmt: skip
_BY_TYPE = {cls.TYPE: cls for cls in RECORDS}


def parse(data: bytes) -> Record:
    """Parse a record's bytes. Raises MalformedError, and nothing else, for any that `to_bytes` does not make."""
    value = canonical.loads(data, MAX_RECORD_SIZE)
    if not isinstance(value, dict) or not isinstance(kind := value.pop("type", None), str):
        raise MalformedError("a record must be a JSON object with a type")
    if (cls := _BY_TYPE.get(kind)) is None:
        raise MalformedError(f"unknown record type {kind[:40]!r}")
    record = canonical.build(cls, value)
    # `value` is what `record` was built from, field by field; this rules out every second spelling
    if canonical.dumps({"type": kind, **value}) != data:
        raise MalformedError(f"the {kind} record is not in canonical form")
    return record


def inputs_digest(
    model_before: str, server_state_before: str, used: Iterable[tuple[str, str, str, int]]
) -> str:
    """Return the digest of all that one aggregation read, so that anyone can compute it again.

    Args:
        model_before: Hex SHA-256 of the parameters that the round began with.
        server_state_before: Hex SHA-256 of the strategy's memory, or "".
        used: (hospital, update digest, metrics digest, weight) of every aggregated reply, in any order.
    """
    updates = [dict(zip(("hospital", "update", "metrics", "weight"), u, strict=True)) for u in sorted(used)]
    inputs = {"model_before": model_before, "server_state_before": server_state_before, "updates": updates}
    return hashlib.sha256(canonical.dumps(inputs)).hexdigest()
