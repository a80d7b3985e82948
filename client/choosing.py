"""Which of a patient's rows counts, and on which side the patient stands: by keyed hashes, for ever.

A row is known by what it becomes, its features and its label, so neither the order of a file nor its format leaves
a trace. Rows are taken one at a time and one is kept of each patient: memory grows with the patients, not with the
rows.
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

    @property
    def content(self) -> bytes:
        """What tells rows apart, whichever way their cells were spelled."""
        return b"%d\0" % self.label + self.features


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
    torn: set[bytes] = set()
    twins: Counter[bytes] = Counter()
    for row in rows:
        if row.patient:
            name = b"id\0" + row.patient.encode()
        else:  # two equal rows are two patients, and it does not matter which is which
            content = _keyed(secret, b"twin\0" + row.content)
            twins[content] += 1
            name = b"row\0%d\0" % twins[content] + row.content
        key = _keyed(secret, b"patient\0" + name)
        rank = _keyed(secret, b"pick\0%d\0" % len(salt) + salt + row.content)
        if (found := best.get(key)) is None:
            best[key] = rank, row
            continue
        if found[1].held_out is not row.held_out:
            torn.add(key)
        best[key] = min(found, (rank, row), key=lambda ranked: ranked[0])
    chosen = {key: _placed(row, secret) for key, (_, row) in best.items() if key not in torn}
    return chosen, len(torn)


def _placed(row: Row, secret: bytes) -> Row:
    """Return a row with its patient's side: the published one, or the keyed hash's."""
    if row.held_out is not None:
        return row
    name = b"id\0" + row.patient.encode() if row.patient else b"row\0" + row.content
    share, whole = HELD_OUT
    drawn = int.from_bytes(_keyed(secret, b"side\0" + name)[:8])
    return replace(row, held_out=drawn * whole < share << 64)


def _keyed(secret: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, message, "sha256")
