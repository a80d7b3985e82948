"""Which of a patient's rows counts, and on which side the patient stands: by keyed hashes, for ever.

A patient without an id, and a row among a patient's several, is known by the row's identity: all that it holds as it
lies at the hospital (`source`), whatever a job's dictionary and the hospital's mapping make of it. So a patient keeps
its side under every dictionary, mapping and version: the privacy account charges training and held-out patients as
two disjoint sides, for ever. What is hashed here must therefore never change (tests: the hashes of version 0.1.0).
Without an id, a row that is edited or gets a further column is a new patient. Rows are taken one at a time; of each
patient one row's features are kept and no identity: memory grows with the patients, not with the rows.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from client.errors import DataError

HELD_OUT = (1, 3)  # share of the patients who are never trained on, as a fraction
SECRET_SIZE = 32  # bytes of a dataset's secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row that every rule accepts. Never printed."""

    features: bytes = field(repr=False)  # float32, little-endian, in C order
    label: int = field(repr=False)  # 0 or 1
    patient: str = field(repr=False)  # empty: the row itself is the patient
    held_out: bool | None = field(repr=False)  # None: no published split
    identity: bytes = field(repr=False)  # tells rows apart under every dictionary; empty once chosen


def choose(rows: Iterable[Row], secret: bytes, salt: bytes) -> tuple[dict[bytes, Row], int]:
    """Pick one row of each patient and decide the patient's side.

    Args:
        rows: In any order.
        secret: The dataset's, SECRET_SIZE bytes.
        salt: Names the job: a patient with several rows may show another one to another job.

    Returns:
        The chosen rows by the patient's keyed hash, and how many patients a published split puts on both
        sides: those are left out, since held out must mean never trained on.

    Raises:
        DataError: the secret has another length.
    """
    if len(secret) != SECRET_SIZE:
        raise DataError(f"a dataset's secret must have {SECRET_SIZE} bytes, not {len(secret)}")
    best: dict[bytes, tuple[bytes, Row]] = {}
    drawn: dict[bytes, bool] = {}
    torn: set[bytes] = set()
    twins: Counter[bytes] = Counter()
    for row in rows:
        if row.patient:
            name = sided = b"id\0" + row.patient.encode()
        else:  # two equal rows are two patients on one side
            content = _keyed(secret, b"twin\0" + row.identity)
            twins[content] += 1
            name = b"row\0%d\0" % twins[content] + row.identity
            sided = b"row\0" + row.identity
        key = _keyed(secret, b"patient\0" + name)
        rank = _keyed(secret, b"pick\0%d\0" % len(salt) + salt + row.identity)
        if (found := best.get(key)) is None:
            best[key] = rank, replace(row, identity=b"")
            drawn[key] = _held_out(secret, sided)
            continue
        if found[1].held_out is not row.held_out:
            torn.add(key)
        if rank < found[0]:
            best[key] = rank, replace(row, identity=b"")
    chosen = {
        key: row if row.held_out is not None else replace(row, held_out=drawn[key])
        for key, (_, row) in best.items()
        if key not in torn
    }
    return chosen, len(torn)


def _held_out(secret: bytes, name: bytes) -> bool:
    """Return the side that the keyed hash draws for a patient."""
    share, whole = HELD_OUT
    return int.from_bytes(_keyed(secret, b"side\0" + name)[:8]) * whole < share << 64


def _keyed(secret: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, message, "sha256")
