"""What a hospital signs about its rounds: the receipt of a release, the skip of a round, an incident."""

from __future__ import annotations

import hashlib

from client.charges import Charge
from client.gate import Order
from ledger.records import Incident, Receipt, Skip


def digest(data: bytes) -> str:
    """Return the lowercase hex SHA-256 of an array's little-endian bytes; "" for none."""
    return hashlib.sha256(data).hexdigest() if data else ""


def build(
    order: Order,
    charge: Charge,
    *,
    origin: str,
    hospital: str,
    update: bytes,
    metrics: bytes,
    checkpoint: tuple[int, bytes],
) -> Receipt:
    """Return the receipt of one release.

    Args:
        order: What was obeyed.
        charge: What was charged for it.
        origin: The log's.
        hospital: This hospital's name.
        update: The update's bytes; b"" when the round only evaluates.
        metrics: The histogram's bytes; b"" when none is due.
        checkpoint: Size and root of the log as this hospital had accepted and cosigned it.
    """
    return Receipt(
        origin=origin,
        hospital=hospital,
        job=order.question.job,
        round=order.question.round,
        model_before=order.question.model,
        update=digest(update),
        metrics=digest(metrics),
        mechanisms=order.mechanisms,
        charge=charge.number,
        epsilon_job=charge.epsilon_job,
        epsilon_dataset=charge.epsilon_dataset,
        checkpoint_size=checkpoint[0],
        checkpoint_root=checkpoint[1].hex(),
    )


def skip(origin: str, hospital: str, job: str, round_number: int, code: str) -> Skip:
    """Return a hospital's "not this round"."""
    return Skip(origin=origin, hospital=hospital, job=job, round=round_number, code=code)


INCIDENTS: dict[str, str] = {  # code -> what the evidence is the digest of; the hospital keeps it
    "acknowledged-left-out": "the acknowledgement of a reply that a round then left out as if it had not come",
    "receipt-missing": "the receipt that was sent, and is neither on the log nor left out with a reason",
    "rule-broken": "the signed checkpoint over entries that the rules forbid",
}


def incident(origin: str, hospital: str, code: str, evidence: str) -> Incident:
    """Return an incident.

    Args:
        origin: The log's.
        hospital: This hospital's name.
        code: One of INCIDENTS.
        evidence: Digest of what INCIDENTS says.
    """
    return Incident(origin=origin, member=hospital, code=code, evidence=evidence)
