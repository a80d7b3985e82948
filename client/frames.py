"""One message on a pipe between agent and worker: lengths, a JSON header, raw bytes. Nothing is ever unpickled.

    4 bytes: length of the header    8 bytes: length of the body    header: UTF-8 JSON object    body

Big-endian. Both directions look the same. What commands there are is `worker_main`.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from collections.abc import Mapping
from typing import Any

MAX_HEADER = 1 << 16
MAX_BODY = 4 << 30
_LENGTHS = struct.Struct(">IQ")
_PIECE = 1 << 20
_LONGEST = (1 << 31) - 1  # milliseconds that can be waited for at once


def send(
    descriptor: int, header: Mapping[str, Any], body: bytes = b"", *, until: float | None = None
) -> None:
    """Write one message.

    Args:
        descriptor: The pipe's writing end.
        header: JSON values.
        body: Raw bytes.
        until: `time.monotonic()` after which to give up; None waits for ever. The pipe must not block then.

    Raises:
        TimeoutError: the other side does not read.
        BrokenPipeError: the other side is gone.
    """
    text = json.dumps(header).encode()
    for data in (_LENGTHS.pack(len(text), len(body)) + text, body):
        rest = memoryview(data)
        while rest:
            _wait(writing=descriptor, until=until)
            try:
                rest = rest[os.write(descriptor, rest[:_PIECE]) :]
            except BlockingIOError:  # ready for less than a piece
                continue


def receive(
    descriptor: int, *, until: float | None = None, max_body: int = MAX_BODY
) -> tuple[dict[str, Any], bytes]:
    """Read one message.

    Args:
        descriptor: The pipe's reading end.
        until: `time.monotonic()` after which to give up; None waits for ever.
        max_body: The longest body that may come, bytes.

    Raises:
        TimeoutError: it did not come in time.
        EOFError: the other side is gone, or does not keep to the format.
    """
    sizes = _LENGTHS.unpack(_exactly(descriptor, _LENGTHS.size, until))
    if sizes[0] > MAX_HEADER or sizes[1] > max_body:
        raise EOFError("not a message of ours")
    text, body = _exactly(descriptor, sizes[0], until), _exactly(descriptor, sizes[1], until)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise EOFError("not a message of ours") from None
    if not isinstance(header, dict):
        raise EOFError("not a message of ours")
    return header, body


def _exactly(descriptor: int, size: int, until: float | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        _wait(reading=descriptor, until=until)
        piece = os.read(descriptor, min(size - len(data), _PIECE))
        if not piece:
            raise EOFError("the other side is gone")
        data += piece
    return bytes(data)


def _wait(*, reading: int | None = None, writing: int | None = None, until: float | None) -> None:
    if until is None:
        return
    poll = select.poll()
    if reading is not None:
        poll.register(reading, select.POLLIN)
    if writing is not None:
        poll.register(writing, select.POLLOUT)
    if not poll.poll(min(max(0.0, until - time.monotonic()) * 1000, _LONGEST)):
        raise TimeoutError
