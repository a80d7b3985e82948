"""A hospital's side of the wire format: Flower messages to requests, replies to Flower messages.

Both directions carry one `RecordDict`. Its config record "wardround" holds the caller's values, text, bytes or
integers, and under "arrays" what arrays there are: `model float32 3154`, `update int64 3154;metrics int64 2,6`. Their
values follow one another as raw little-endian bytes, so that the digest on the record is the SHA-256 of exactly
what was carried and no NumPy header is parsed. Up to `INLINE_BYTES` they are the config record's value "data";
beyond, the one array "data" of the array record "arrays". `coordinator.flower_message` is the other side.

Two ways lead through the SuperLink. A message with the array record goes as Flower's own do: its content is taken
apart into objects, of at most 5 MiB, that are uploaded and pulled one by one. A small one goes as Flower's used to,
which 1.41 still carries: the content stands in the message. For every object costs an HTTP request at each end, 5 to
10 ms of CPU on the SuperLink whatever its size, and with objects alone an exchange spent its time on that. The
receiver tells the two apart by the tree of objects, which is bare for an inline message.

What has to be known about Flower 1.41 here:
- It does not check that an object's bytes have the hash that names it, nor how often an array names one piece: a few
  kilobytes could become gigabytes. `inflate` checks both first.
- A reply's lifetime is counted by its sender's clock, and a wrong clock would lose replies. It is taken from the
  message instead.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE, ErrorCode
from flwr.common.serde import recorddict_from_proto
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_id,
    get_object_type_from_object_content,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from google.protobuf.message import DecodeError

from client.errors import MessageError
from client.exchange import Packed, Reply, Request, Value

INLINE_BYTES = 1 << 20
LITTLE_ENDIAN = "little-endian"
FLOAT32: np.dtype[np.float32] = np.dtype("<f4")
INT64: np.dtype[np.int64] = np.dtype("<i8")
PARSER_ERRORS = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, DecodeError)
_ENTRY = re.compile(r"([a-z]{1,16}) (float32|int64) ([0-9]{1,10}(?:,[0-9]{1,10}){0,3})", re.ASCII)


def without_content(message: Message) -> Message:
    """Return what stands for an inline message among the SuperLink's objects, and gives it its id."""
    return make_message(
        metadata=message.metadata, error=Error(code=ErrorCode.UNKNOWN)
    )  # nobody ever reads it


def from_proto(proto: ProtoMessage) -> Message:
    """Return a message whose content came inline. Raises MessageError, and nothing else, for any content."""
    try:
        content = recorddict_from_proto(proto.content)
        return make_message(metadata=metadata_from_proto(proto.metadata), content=content)
    except PARSER_ERRORS as error:
        raise MessageError(f"its content is malformed ({type(error).__name__})") from error


def inflate(tree: ObjectTree, contents: dict[str, bytes]) -> Message:
    """Build the message out of its pulled objects. Raises MessageError, and nothing else, for any other bytes."""
    try:
        size = sum(map(len, contents.values()))
        for object_id, content in contents.items():
            if get_object_id(content) != object_id:
                raise MessageError("an object is not the one that its id names")
            if get_object_type_from_object_content(content) == Array.__qualname__:
                pieces = json.loads(get_object_body(content, Array))["arraychunk_ids"]
                if len(pieces) > size // FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + 1:
                    raise MessageError("an array names its pieces more often than it has them")
        message = inflate_object_from_contents(tree.object_id, contents)
    except PARSER_ERRORS as error:
        raise MessageError(f"it is not a Flower message ({type(error).__name__})") from error
    if not isinstance(message, Message) or not message.has_content():
        raise MessageError("it is not a Flower message with content")
    message.metadata.__dict__["_message_id"] = tree.object_id  # what a reply refers to
    return message


def to_request(message: Message) -> Request:
    """Return what a message says. Raises MessageError when it is not laid out as this module's docstring says."""
    config, arrays = unpack(message.content)
    model = arrays.get("model")
    if len(arrays) != 1 or model is None or model.dtype != FLOAT32 or model.ndim != 1:
        raise MessageError("it does not carry one packed float32 model and nothing else")
    return Request(
        run_id=message.metadata.run_id,
        expires_at=message.metadata.created_at + message.metadata.ttl,
        model=model.view(FLOAT32),
        config=config,
    )


def to_message(reply: Reply, request: Message) -> Message:
    """Return the Flower message that carries a reply; the same reply gives the same bytes."""
    arrays = {"update": reply.update, "metrics": reply.metrics}
    content = pack(reply.config, {name: values for name, values in arrays.items() if values is not None})
    message = Message(content, reply_to=request)
    message.metadata.created_at = request.metadata.created_at
    message.metadata.ttl = request.metadata.ttl
    return message


def pack(config: Mapping[str, Value], arrays: Mapping[str, Packed]) -> RecordDict:
    """Return the content of a message. Raises ValueError for arrays or names that the format has no place for."""
    entries = [
        f"{name} {values.dtype.name} {','.join(map(str, values.shape))}" for name, values in arrays.items()
    ]
    if not all(map(_ENTRY.fullmatch, entries)) or {"arrays", "data"} & set(config):
        raise ValueError(f"cannot be sent: {entries}, values {sorted(config)}")
    data = b"".join(
        values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes() for values in arrays.values()
    )
    record = ConfigRecord({**config, "arrays": ";".join(entries)})
    if len(data) <= INLINE_BYTES:
        record["data"] = data
        return RecordDict({"wardround": record})
    packed = Array(dtype="uint8", shape=(len(data),), stype=LITTLE_ENDIAN, data=data)
    return RecordDict({"wardround": record, "arrays": ArrayRecord({"data": packed})})


def unpack(content: RecordDict) -> tuple[Mapping[str, Value], Mapping[str, Packed]]:
    """Return the values and the arrays, read-only, of a message's content. Raises MessageError."""
    record = content.config_records.get("wardround")
    if record is None or not set(content) <= {"wardround", "arrays"}:
        raise MessageError("it has other records than `wardround` and `arrays`")
    if not all(type(value) in (str, bytes, int) for value in record.values()):
        raise MessageError("a value is neither text, bytes nor an integer")
    config = cast(dict[str, Value], dict(record))
    layout, data = config.pop("arrays", None), config.pop("data", None)
    if "arrays" in content:
        carried = content.array_records.get("arrays", ArrayRecord()).get("data")
        data = carried.data if carried is not None and data is None else None
    if not isinstance(layout, str) or not isinstance(data, bytes):
        raise MessageError("its arrays are not described, or not there, or there twice")
    return config, _cut(layout, data)


def _cut(layout: str, data: bytes) -> dict[str, Packed]:
    arrays: dict[str, Packed] = {}
    start = 0
    for entry in layout.split(";") if layout else ():
        match = _ENTRY.fullmatch(entry)
        if match is None or match[1] in arrays:
            raise MessageError("the description of its arrays is malformed")
        shape = tuple(map(int, match[3].split(",")))
        dtype = FLOAT32 if match[2] == "float32" else INT64
        count = math.prod(shape)
        if start + count * dtype.itemsize > len(data):
            raise MessageError("its arrays are longer than their bytes")
        values = np.frombuffer(data, dtype, count, start)
        arrays[match[1]] = cast(Packed, values.reshape(shape))
        start += count * dtype.itemsize
    if start != len(data):
        raise MessageError("its arrays are shorter than their bytes")
    return arrays
