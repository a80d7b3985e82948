"""Frames between the ServerApp's process and the coordinator: a header and arrays, on a stream of bytes.

A frame is a header's length (4 bytes, big-endian), the header (JSON) and the bytes of the arrays that it lists, each
as [name, dtype, shape], little-endian, in that order. No pickle: nothing that arrives can become code.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from coordinator.errors import BridgeError
from coordinator.exchange import Value

MAX_HEADER = 16 << 20  # bytes: configs of many nodes, each with a checkpoint
MAX_ARRAY = 4 << 30  # bytes
_DTYPES = ("float32", "int64")

Arrays = Mapping[str, NDArray[Any]]


class Stream(Protocol):
    """A buffered connection, both ways."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, fewer at the end."""

    def write(self, data: bytes, /) -> int:
        """Take bytes to be sent."""

    def flush(self) -> None:
        """Send them."""


def write_config(config: Mapping[str, Value]) -> dict[str, Any]:
    """Return a config as JSON: bytes become {"base64": ...}; texts and integers, 64 bits wide, stay as they are."""
    return {
        name: {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for name, value in config.items()
    }


def read_config(config: object) -> dict[str, Value]:
    """Return a config out of its JSON. Raises TypeError or ValueError."""
    if not isinstance(config, dict):
        raise TypeError("a config is an object")
    return {
        name: base64.b64decode(value["base64"], validate=True) if isinstance(value, dict) else value
        for name, value in config.items()
    }


def send(stream: Stream, header: Mapping[str, Any], arrays: Arrays) -> None:
    """Write one frame. Raises BridgeError when nobody reads it."""
    listed = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    text = json.dumps({**header, "arrays": listed}).encode()
    try:
        stream.write(len(text).to_bytes(4, "big") + text)
        for array in arrays.values():
            stream.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        stream.flush()
    except (OSError, ValueError) as error:
        raise BridgeError(f"the other side is gone ({type(error).__name__})") from error


def receive(stream: Stream) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return one frame. Raises BridgeError for anything else, the end of the stream included."""
    length = int.from_bytes(_exactly(stream, 4), "big")
    if length > MAX_HEADER:
        raise BridgeError(f"a header of {length} bytes")
    try:
        header = json.loads(_exactly(stream, length))
        arrays = {}
        for name, dtype, shape in header.pop("arrays"):
            size = math.prod(int(n) for n in shape) * np.dtype(dtype).itemsize
            if dtype not in _DTYPES or not 0 <= size <= MAX_ARRAY:
                raise BridgeError("an array is neither float32 nor int64, or too large")
            flat = np.frombuffer(_exactly(stream, size), dtype=np.dtype(dtype).newbyteorder("<"))
            arrays[str(name)] = flat.reshape(shape)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BridgeError(f"a frame is malformed ({type(error).__name__})") from error
    return header, arrays


def _exactly(stream: Stream, count: int) -> bytes:
    try:
        data = stream.read(count)
    except (OSError, ValueError) as error:
        raise BridgeError(f"the other side is gone ({type(error).__name__})") from error
    if len(data) != count:
        raise BridgeError("the other side ended the conversation")
    return data
