"""The coordinator's side of the wire format: exchanges to Flower messages, Flower replies to arrivals.

The format is described in `client.flower_message`, which is the other side; neither imports the other, and a test
sends the one's bytes through the other. Everything that a hospital sends is hostile until parsed: `inflate` checks
what Flower does not, that an object's bytes have the hash that names it and that an array names its pieces once.
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

from coordinator.errors import ReplyError
from coordinator.exchange import Arrival, Exchange, Packed, Value

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
    """Return a message whose content came inline. Raises ReplyError, and nothing else, for any content."""
    try:
        content = recorddict_from_proto(proto.content)
        return make_message(metadata=metadata_from_proto(proto.metadata), content=content)
    except PARSER_ERRORS as error:
        raise ReplyError(f"its content is malformed ({type(error).__name__})") from error


def inflate(tree: ObjectTree, contents: dict[str, bytes]) -> Message:
    """Build the message out of its pulled objects. Raises ReplyError, and nothing else, for any other bytes."""
    try:
        size = sum(map(len, contents.values()))
        for object_id, content in contents.items():
            if get_object_id(content) != object_id:
                raise ReplyError("an object is not the one that its id names")
            if get_object_type_from_object_content(content) == Array.__qualname__:
                pieces = json.loads(get_object_body(content, Array))["arraychunk_ids"]
                if len(pieces) > size // FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + 1:
                    raise ReplyError("an array names its pieces more often than it has them")
        message = inflate_object_from_contents(tree.object_id, contents)
    except PARSER_ERRORS as error:
        raise ReplyError(f"it is not a Flower message ({type(error).__name__})") from error
    if not isinstance(message, Message) or not message.has_content():
        raise ReplyError("it is not a Flower message with content")
    return message


def to_messages(exchange: Exchange, lifetime: float) -> list[Message]:
    """Return one message to each node, in the exchange's order; `lifetime` is in seconds from now."""
    model = np.ascontiguousarray(exchange.model, dtype=FLOAT32)
    packed = Array(dtype="uint8", shape=(model.nbytes,), stype=LITTLE_ENDIAN, data=model.tobytes())
    shared = ArrayRecord({"data": packed})  # one for all: its objects are uploaded once
    messages = []
    for node_id, config in exchange.configs.items():
        content = pack(config, {"model": model})
        if "arrays" in content:
            content["arrays"] = shared
        messages.append(
            Message(
                content, dst_node_id=node_id, message_type="train", ttl=lifetime, group_id=str(exchange.round)
            )
        )
    return messages


def to_arrival(node_id: int, message: Message) -> Arrival:
    """Return what a reply says. Raises ReplyError when it is not laid out as the format says."""
    config, arrays = unpack(message.content)
    if set(arrays) - {"update", "metrics"}:
        raise ReplyError("it carries other arrays than `update` and `metrics`")
    return Arrival(node_id=node_id, config=config, update=arrays.get("update"), metrics=arrays.get("metrics"))


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
    """Return the values and the arrays, read-only, of a message's content. Raises ReplyError."""
    record = content.config_records.get("wardround")
    if record is None or not set(content) <= {"wardround", "arrays"}:
        raise ReplyError("it has other records than `wardround` and `arrays`")
    if not all(type(value) in (str, bytes, int) for value in record.values()):
        raise ReplyError("a value is neither text, bytes nor an integer")
    config = cast(dict[str, Value], dict(record))
    layout, data = config.pop("arrays", None), config.pop("data", None)
    if "arrays" in content:
        carried = content.array_records.get("arrays", ArrayRecord()).get("data")
        data = carried.data if carried is not None and data is None else None
    if not isinstance(layout, str) or not isinstance(data, bytes):
        raise ReplyError("its arrays are not described, or not there, or there twice")
    return config, _cut(layout, data)


def _cut(layout: str, data: bytes) -> dict[str, Packed]:
    arrays: dict[str, Packed] = {}
    start = 0
    for entry in layout.split(";") if layout else ():
        match = _ENTRY.fullmatch(entry)
        if match is None or match[1] in arrays:
            raise ReplyError("the description of its arrays is malformed")
        shape = tuple(map(int, match[3].split(",")))
        dtype = FLOAT32 if match[2] == "float32" else INT64
        count = math.prod(shape)
        if start + count * dtype.itemsize > len(data):
            raise ReplyError("its arrays are longer than their bytes")
        values = np.frombuffer(data, dtype, count, start)
        arrays[match[1]] = cast(Packed, values.reshape(shape))
        start += count * dtype.itemsize
    if start != len(data):
        raise ReplyError("its arrays are shorter than their bytes")
    return arrays
