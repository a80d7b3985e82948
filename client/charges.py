"""Charges as an account stores them: rows in, frozen records out, and back.

The rules (what may be charged, what is sent again) are `client.budget`'s, the file `client.account_file`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from client import accounting
from client.account_file import AccountFile, Row
from client.accounting import Event, Lifetime

SIDES = ("training", "heldout")
WHOLE_PLAN = 0  # the "round" of a charge made after a restore


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The bytes sent for one charge, kept so that exactly these can be sent again; b"" is "none was due"."""

    update: bytes
    receipt: bytes
    metrics: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One durable charge: what one attempt at one round may release.

    Attributes:
        number: Consecutive from 1 in its dataset, except that it jumps after a restore.
        round: From 1; `WHOLE_PLAN` for a charge made after a restore.
        delta: The job's delta.
        epsilon_job: Spent by the job so far at the job's delta, rounded up to 0.01.
        epsilon_dataset: Spent from the dataset so far at its lifetime delta; neither ever falls.
        repeated: True when the charge was there already; then the rows may not be touched.
        answered: True once a reply was stored.
        reply: The stored reply to send again, or None: none was stored, or it is no longer needed.
    """

    dataset: str
    number: int
    job: str
    round: int
    model_digest: str
    delta: float
    training: tuple[Event, ...]
    heldout: tuple[Event, ...]
    epsilon_job: str
    epsilon_dataset: str
    repeated: bool = False
    answered: bool = False
    reply: Reply | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A dataset's account as shown: every epsilon is for add/remove one patient, at the delta beside it."""

    dataset: str
    lifetime: Lifetime
    epsilon_spent: str
    charges: tuple[Charge, ...]  # in order of number, without the replies' bytes


def of_round(file: AccountFile, job: str, round_number: int) -> Charge | None:
    """Return the attempt at one round, without its reply, or None."""
    rows = file.read("SELECT * FROM charged WHERE job=? AND round=?", job, round_number)
    return _charge(file, rows[0]) if rows else None


def newest(file: AccountFile, dataset: str) -> Charge | None:
    """Return a dataset's last charge, without its reply, or None."""
    rows = file.read("SELECT * FROM charged WHERE dataset=? ORDER BY number DESC LIMIT 1", dataset)
    return _charge(file, rows[0]) if rows else None


def newest_of(file: AccountFile, job: str) -> Charge | None:
    """Return a job's last charge, without its reply, or None."""
    rows = file.read("SELECT * FROM charged WHERE job=? ORDER BY number DESC LIMIT 1", job)
    return _charge(file, rows[0]) if rows else None


def all_of(file: AccountFile, dataset: str) -> tuple[Charge, ...]:
    """Return a dataset's charges in order of number, without replies."""
    rows = file.read("SELECT * FROM charged WHERE dataset=? ORDER BY number", dataset)
    return tuple(_charge(file, row) for row in rows)


def _charge(file: AccountFile, row: Row) -> Charge:
    sides = {side: list[Event]() for side in SIDES}
    for side, noise, rate, count in file.read(
        "SELECT side, noise_multiplier, sample_rate, count FROM events WHERE dataset=? AND number=?", *row[:2]
    ):
        sides[side].append(Event(noise_multiplier=noise, sample_rate=rate, count=count))
    return Charge(
        dataset=row[0],
        number=row[1],
        job=row[2],
        round=row[3],
        model_digest=row[4],
        delta=row[5],
        training=accounting.merge(sides["training"]),
        heldout=accounting.merge(sides["heldout"]),
        epsilon_job=row[6],
        epsilon_dataset=row[7],
        answered=row[8] == 1,
    )


def reply_to(file: AccountFile, charge: Charge) -> Reply | None:
    """Return the reply stored for a charge, or None: there was none, or it was discarded."""
    rows = file.read(
        'SELECT "update", receipt, metrics FROM replies WHERE dataset=? AND number=? AND "update" IS NOT NULL',
        *(charge.dataset, charge.number),
    )
    return Reply(update=rows[0][0], receipt=rows[0][1], metrics=rows[0][2]) if rows else None


def sent(file: AccountFile, job: str, round_number: int) -> Reply | None:
    """Return the reply stored for a round, or None: there was none, or it was discarded."""
    charge = of_round(file, job, round_number)
    return reply_to(file, charge) if charge else None


def receipt_of(file: AccountFile, job: str, round_number: int) -> bytes | None:
    """Return the receipt stored for a round, which is kept for ever, or None."""
    rows = file.read(
        "SELECT receipt FROM replies JOIN charges USING (dataset, number) WHERE job=? AND round=?",
        *(job, round_number),
    )
    return bytes(rows[0][0]) if rows else None


def released(file: AccountFile, dataset: str, side: str) -> tuple[Event, ...]:
    """Return all that was charged to one side of a dataset, merged."""
    rows = file.read(
        "SELECT noise_multiplier, sample_rate, sum(count) FROM events WHERE dataset=? AND side=?"
        " GROUP BY noise_multiplier, sample_rate",
        *(dataset, side),
    )
    return accounting.merge(Event(noise_multiplier=n, sample_rate=q, count=c) for n, q, c in rows)


def released_by(file: AccountFile, job: str, side: str) -> tuple[Event, ...]:
    """Return all that one job was charged on one side, merged."""
    rows = file.read(
        "SELECT noise_multiplier, sample_rate, sum(count) FROM events JOIN charges USING (dataset, number)"
        " WHERE job=? AND side=? GROUP BY noise_multiplier, sample_rate",
        *(job, side),
    )
    return accounting.merge(Event(noise_multiplier=n, sample_rate=q, count=c) for n, q, c in rows)


def write(execute: Callable[..., object], charge: Charge) -> None:
    """Write a charge's rows inside the transaction that `execute` belongs to."""
    key = (charge.dataset, charge.number)
    execute(
        "INSERT INTO charges VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        *(*key, charge.job, charge.round, charge.model_digest, charge.delta),
        *(charge.epsilon_job, charge.epsilon_dataset),
    )
    for side, events in zip(SIDES, (charge.training, charge.heldout), strict=True):
        for e in events:
            execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)",
                *(*key, side, e.noise_multiplier, e.sample_rate, e.count),
            )
