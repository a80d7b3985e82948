"""A job's snapshot on the worker's disk, bound to the commitment on the record.

    header: one line of JSON, the arrays' shapes: how many rows, and how many features, or an image's shape
    then the arrays' little-endian bytes: features, labels, held_out, patients

The commitment is HMAC-SHA256 of exactly these bytes under a fresh salt of 32 bytes, which never leaves the
hospital: the approval on the log names it, so after a restart a job goes on with the very rows that it began
with, or not at all. One snapshot a job and never one a round: a changing commitment would show who was added.
"""

from __future__ import annotations

import hmac
import json
import math

import numpy as np

from client.data import Snapshot
from client.errors import LocalStateError

SALT_SIZE = 32
KEY_SIZE = 32  # bytes of a patient's keyed hash
MAX_SIZE = 8 << 30
_MAX_HEADER = 256


def to_bytes(snapshot: Snapshot) -> bytes:
    """Return a snapshot as its file holds it."""
    rows, *shape = snapshot.features.shape
    width: int | list[int] = shape if len(shape) > 1 else shape[0]
    header = json.dumps({"features": width, "rows": rows, "type": "wardround-snapshot/1"})
    return b"".join(
        (
            header.encode() + b"\n",
            snapshot.features.astype("<f4").tobytes(),
            snapshot.labels.astype("<i8").tobytes(),
            snapshot.held_out.astype("u1").tobytes(),
            *snapshot.patients,
        )
    )


def from_bytes(data: bytes) -> Snapshot:
    """Read what `to_bytes` wrote, whose commitment the caller has checked.

    Raises:
        LocalStateError: anything else.
    """
    line, _, body = data[:_MAX_HEADER].partition(b"\n")
    body = data[len(line) + 1 :]
    try:
        header = json.loads(line)
        rows, given = int(header["rows"]), header["features"]
        shape = tuple(map(int, given)) if isinstance(given, list) else (int(given),)
    except (ValueError, KeyError, TypeError):
        raise LocalStateError("the snapshot's file is damaged") from None
    width = math.prod(shape)
    if rows < 0 or min(shape, default=0) < 0 or len(body) != rows * (4 * width + 8 + 1 + KEY_SIZE):
        raise LocalStateError("the snapshot's file is damaged")
    labels_at = 4 * rows * width
    held_out_at = labels_at + 8 * rows
    keys_at = held_out_at + rows
    return Snapshot(
        features=np.frombuffer(body, "<f4", rows * width).reshape(rows, *shape).astype(np.float32),
        labels=np.frombuffer(body, "<i8", rows, labels_at).astype(np.int64),
        held_out=np.frombuffer(body, "u1", rows, held_out_at).astype(np.bool_),
        patients=tuple(body[keys_at + KEY_SIZE * i : keys_at + KEY_SIZE * (i + 1)] for i in range(rows)),
    )


def commitment(data: bytes, salt: bytes) -> str:
    """Return the cohort commitment that stands on the record, lowercase hex."""
    return hmac.digest(salt, data, "sha256").hex()
