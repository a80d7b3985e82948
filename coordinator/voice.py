"""What the coordinator signs beside the log: each statement is true, and durable, before it is signed."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.errors import ObjectedError
from coordinator.standing import Submitted
from ledger import statements
from ledger.records import Receipt
from ledger.signature import SigningKey
from ledger.statements import Acknowledgement, Objection, Promise


class Voice:
    """Signs with the coordinator's identity key; any thread may ask."""

    def __init__(self, key: SigningKey, clock: Callable[[], float]) -> None:
        """Speak with this key, at this clock's time."""
        self._key = key
        self._clock = clock

    def promise(self, origin: str, submitted: Submitted) -> bytes:
        """Return the promise that a record is among the log's entries, which it is already."""
        promise = Promise(
            origin=origin, record=submitted.digest, size=submitted.index + 1, time=int(self._clock())
        )
        return statements.sign(promise, self._key)

    def objection(self, origin: str, error: ObjectedError) -> bytes:
        """Return what anybody with the log's first entries can check: the record may not follow them."""
        objection = Objection(
            origin=origin, record=error.record, rule=error.rule, size=error.size, time=int(self._clock())
        )
        return statements.sign(objection, self._key)

    def acknowledgement(self, receipt: Receipt) -> bytes:
        """Return the acknowledgement of a reply with this receipt; the caller keeps the reply first."""
        acknowledgement = Acknowledgement(
            origin=receipt.origin,
            job=receipt.job,
            round=receipt.round,
            hospital=receipt.hospital,
            receipt=receipt.digest(),
            update=receipt.update,
            received_at=int(self._clock()),
        )
        return statements.sign(acknowledgement, self._key)
