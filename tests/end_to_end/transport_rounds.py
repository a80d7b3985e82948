"""The `Rounds` of the transport test: it runs in the ServerApp's process, and writes down what arrived."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.exchange import Arrival, Exchange, Value

LARGE_ROUND = 4  # its model does not travel inline


def model_of(round_number: int) -> NDArray[np.float32]:
    """Return any bits at all, NaNs with payloads among them: what is carried must not be touched."""
    size = 300_000 if round_number == LARGE_ROUND else 500
    bits = np.random.default_rng(round_number).integers(0, 2**32, size, dtype=np.uint32)
    return bits.view(np.float32)


class TransportRounds:
    """Plays the exchanges that a plan file names and appends each arrival to a journal."""

    def __init__(self, job: str) -> None:
        self._plan: dict[str, Any] = json.loads(Path(os.environ["TRANSPORT_PLAN"]).read_text())
        self._journal = Path(os.environ["TRANSPORT_PLAN"] + ".journal")
        self._round = 0
        self._write({"job": job, "pid": os.getpid()})

    def next_exchange(self) -> Exchange | None:
        self._write({"closed": self._round, "at": time.time()})
        if self._round == len(self._plan["rounds"]):
            return None
        asked = self._plan["rounds"][self._round]
        self._round += 1
        configs: dict[int, dict[str, Value]] = {
            node_id: {"round": self._round, "note": b"\x00\xffnote"} for node_id in asked["nodes"]
        }
        deadline = time.time() + asked["seconds"]
        return Exchange(round=self._round, model=model_of(self._round), configs=configs, deadline=deadline)

    def sent(self) -> None:
        return

    def receive(self, arrival: Arrival) -> None:
        arrays = {"update": arrival.update, "metrics": arrival.metrics}
        digests = {
            name: [str(values.dtype), list(values.shape), hashlib.sha256(values.tobytes()).hexdigest()]
            for name, values in arrays.items()
            if values is not None
        }
        receipt = arrival.config.get("receipt", b"")
        assert isinstance(receipt, bytes)
        line = {
            "round": self._round,
            "node": arrival.node_id,
            "failure": arrival.failure,
            "receipt": receipt.hex(),
        }
        self._write(line | {"kind": arrival.config.get("kind"), "arrays": digests})

    def close(self) -> None:
        self._write({"end": True})

    def _write(self, line: dict[str, object]) -> None:
        with self._journal.open("a") as file:
            file.write(json.dumps(line) + "\n")
