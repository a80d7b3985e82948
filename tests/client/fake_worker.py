"""A worker without torch for the agent's tests: right kinds and sizes, and a journal of what it was asked.

Run as a process of its own, like the real one: `python -m tests.client.fake_worker FOLDER`. A file `FOLDER/dies-on`
names the command at which it kills itself, once.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from client import frames

JOURNAL = "journal"
DIES_ON = "dies-on"
COHORT = hashlib.sha256(b"cohort").hexdigest()


def answer(header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Answer as an honest worker would, with numbers made of the question."""
    command = header["command"]
    if command in ("commit", "prepare"):
        return {"code": "ok", "cohort": COHORT}, b""
    if command == "train":
        seed = int.from_bytes(os.urandom(4), "little")  # noise: never the same twice
        update = np.random.default_rng(seed).integers(-99, 99, len(body) // 4)
        return {"code": "ok", "dtype": "int64", "production": True}, update.astype("<i8").tobytes()
    if command == "histogram":
        return {"code": "ok", "dtype": "int64", "production": True}, np.ones(12, "<i8").tobytes()
    return {"code": "ok"}, b""


def main() -> None:
    """Serve standard input and output."""
    folder = Path(sys.argv[1])
    while True:
        try:
            header, body = frames.receive(0)
        except EOFError:
            return
        with (folder / JOURNAL).open("a") as journal:
            journal.write(header["command"] + "\n")
        marker = folder / DIES_ON
        if marker.exists() and marker.read_text() == header["command"]:
            marker.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        frames.send(1, *answer(header, body))


if __name__ == "__main__":
    main()
