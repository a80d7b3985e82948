"""The wire format: what one side packs the other reads bit for bit, and hostile bytes are refused by name."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import ModuleType
from typing import cast

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id, get_object_tree
from flwr.supercore.task_identity import TaskIdentity
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from client import flower_message as hospital
from client.errors import MessageError
from client.exchange import Packed, Reply
from coordinator import flower_message as consortium
from coordinator.errors import ReplyError
from coordinator.exchange import Exchange

LARGE = hospital.INLINE_BYTES // 4 + 1  # float32 weights: one byte more than travels inline
CONFIGS = st.dictionaries(
    st.text(min_size=1).filter(lambda name: name not in ("arrays", "data")),
    st.text() | st.binary() | st.integers(-(2**63), 2**63 - 1),
    max_size=4,
)
SHAPES = hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=8)
ARRAYS = hnp.arrays(np.int64, SHAPES) | hnp.arrays(np.float32, SHAPES)


@dataclass(frozen=True)
class Side:
    module: ModuleType
    error: type[Exception]


SIDES = [Side(hospital, MessageError), Side(consortium, ReplyError)]


@pytest.fixture(autouse=True, scope="module")
def run_identity() -> None:
    """A message belongs to a run; outside of one flwr has to be told which."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 2**64 - 3, 1, 7


def carried(message: Message) -> tuple[ObjectTree, dict[str, bytes]]:
    """Return what a network carries of a message."""
    return get_object_tree(message), {
        key: item.deflate() for key, item in get_all_nested_objects(message).items()
    }


def delivered(side: ModuleType, message: Message) -> Message:
    """Send a message the way it goes, and return it as the side's own code reads it."""
    if "arrays" in message.content:
        return cast(Message, side.inflate(*carried(message)))
    return cast(
        Message, side.from_proto(ProtoMessage.FromString(message_to_proto(message).SerializeToString()))
    )


def message_of(content: RecordDict) -> Message:
    return Message(content, dst_node_id=9, message_type="train", ttl=60.0)


def exchange(model: Packed, **config: str | bytes | int) -> Exchange:
    return Exchange(
        round=3, model=model.astype(np.float32), configs={9: config, 11: config}, deadline=time.time() + 60
    )


@given(model=hnp.arrays(np.float32, st.integers(0, 40)), config=CONFIGS)
def test_a_request_arrives_bit_for_bit(model: Packed, config: dict[str, str | bytes | int]) -> None:
    first, _ = consortium.to_messages(exchange(model, **config), 60.0)
    request = hospital.to_request(delivered(hospital, first))
    assert request.model.tobytes() == model.astype("<f4").tobytes()
    assert (dict(request.config), request.run_id) == (config, 2**64 - 3)


@given(update=ARRAYS, metrics=st.none() | ARRAYS, config=CONFIGS)
def test_a_reply_arrives_bit_for_bit(
    update: Packed, metrics: Packed | None, config: dict[str, str | bytes | int]
) -> None:
    first, _ = consortium.to_messages(exchange(np.zeros(3, np.float32)), 60.0)
    request = delivered(hospital, first)
    reply = hospital.to_message(Reply(config=config, update=update, metrics=metrics), request)
    arrival = consortium.to_arrival(9, delivered(consortium, reply))
    for sent, received in ((update, arrival.update), (metrics, arrival.metrics)):
        assert (received is None) == (sent is None)
        if sent is not None and received is not None:
            assert (received.dtype, received.shape) == (sent.dtype, sent.shape)
            assert received.tobytes() == sent.tobytes()
    assert dict(arrival.config) == config


def test_a_large_model_is_uploaded_once_for_all_and_arrives() -> None:
    model = np.arange(LARGE, dtype=np.float32)
    both = replace(exchange(model), configs={9: {"note": b"a"}, 11: {"note": b"b"}})
    first, second = consortium.to_messages(both, 60.0)
    shared = set(get_all_nested_objects(first)) & set(get_all_nested_objects(second))
    assert len(shared) == 3  # the record, its array, and the one piece of that
    request = hospital.inflate(*carried(second))
    assert hospital.to_request(request).model.tobytes() == model.tobytes()
    reply = hospital.to_message(Reply(update=model.astype(np.int64)), request)
    arrival = consortium.to_arrival(11, consortium.inflate(*carried(reply)))
    assert arrival.update is not None
    assert arrival.update.tobytes() == model.astype(np.int64).tobytes()


def test_the_same_reply_is_sent_as_the_same_bytes() -> None:
    request = delivered(hospital, consortium.to_messages(exchange(np.zeros(3, np.float32)), 60.0)[0])
    reply = Reply(config={"receipt": b"r"}, update=np.ones(3, np.int64))
    first = carried(hospital.to_message(reply, request))
    time.sleep(0.01)
    assert carried(hospital.to_message(reply, request)) == first


def test_a_wrong_clock_at_the_hospital_does_not_shorten_its_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    request = delivered(hospital, consortium.to_messages(exchange(np.zeros(3, np.float32)), 60.0)[0])
    reply = hospital.to_message(Reply(), request)
    assert (reply.metadata.created_at, reply.metadata.ttl) == (
        request.metadata.created_at,
        request.metadata.ttl,
    )


@pytest.mark.parametrize("side", SIDES, ids=["hospital", "consortium"])
@pytest.mark.parametrize(
    ("layout", "data"),
    [
        ("update float32 2", b"1234567"),
        ("update float32 2", b"123456789"),
        ("update float32 -1", b""),
        ("update float32 +2", b"12345678"),
        ("update float32 ٢", b"12345678"),
        ("update float64 1", b"12345678"),
        ("update object 1", b"12345678"),
        ("update float32 1;update float32 1", b"12345678"),
        ("update float32 1;", b"1234"),
        ("update float32", b""),
        ("update float32 9999999999,9999999999,9999999999,9999999999", b"1234"),
        ("update float32 1,1,1,1,1", b"1234"),
        ("", b"1234"),
        (7, b""),
        ("update float32 1", "text"),
    ],
)
def test_hostile_layout_is_refused(side: Side, layout: str | int, data: bytes | str) -> None:
    content = RecordDict({"wardround": ConfigRecord({"arrays": layout, "data": data})})
    with pytest.raises(side.error):
        side.module.unpack(content)


@pytest.mark.parametrize("side", SIDES, ids=["hospital", "consortium"])
@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"other": ConfigRecord({"arrays": "", "data": b""})}),
        RecordDict({"wardround": ConfigRecord({})}),
        RecordDict({"wardround": ConfigRecord({"arrays": "", "data": b"", "x": 1.5})}),
        RecordDict({"wardround": ConfigRecord({"arrays": "", "data": b"", "x": True})}),
        RecordDict({"wardround": ConfigRecord({"arrays": "", "data": b"", "x": [1]})}),
        RecordDict({"wardround": ArrayRecord()}),
        RecordDict({"wardround": ConfigRecord({"arrays": "", "data": b""}), "more": MetricRecord({"x": 1})}),
        RecordDict({"wardround": ConfigRecord({"arrays": ""}), "arrays": ConfigRecord({"data": b""})}),
        RecordDict({"wardround": ConfigRecord({"arrays": ""}), "arrays": ArrayRecord()}),
        RecordDict(
            {
                "wardround": ConfigRecord({"arrays": "", "data": b""}),
                "arrays": ArrayRecord({"data": Array("uint8", (0,), "little-endian", b"")}),
            }
        ),
    ],
)
def test_hostile_records_are_refused(side: Side, content: RecordDict) -> None:
    with pytest.raises(side.error):
        side.module.unpack(content)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"update": np.zeros(2, np.float32)},
        {"model": np.zeros(2, np.int64)},
        {"model": np.zeros((2, 1), np.float32)},
    ],
)
def test_hostile_model_is_not_a_request(arrays: dict[str, Packed]) -> None:
    with pytest.raises(MessageError):
        hospital.to_request(message_of(hospital.pack({}, arrays)))


def test_hostile_reply_with_another_array_is_refused() -> None:
    with pytest.raises(ReplyError):
        consortium.to_arrival(9, message_of(consortium.pack({}, {"weights": np.zeros(2, np.float32)})))


@pytest.mark.parametrize("name", ["arrays", "data"])
def test_a_name_the_format_needs_cannot_be_sent(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        hospital.pack({name: "x"}, {})


@pytest.mark.parametrize("side", SIDES, ids=["hospital", "consortium"])
@settings(max_examples=150)
@given(data=st.data())
def test_hostile_bytes_leave_only_our_error(side: Side, data: st.DataObject) -> None:
    """One changed byte in an object whose id is then made to fit: Flower's own parser raises a dozen kinds."""
    message = message_of(side.module.pack({"kind": "x"}, {"update": np.arange(4, dtype=np.float32)}))
    message.metadata.created_at = 1.8e9  # the same objects in every example
    tree, contents = carried(message)
    victim = data.draw(st.sampled_from(list(contents)))
    original = contents.pop(victim)
    at = data.draw(st.integers(0, len(original) - 1))
    changed = original[:at] + data.draw(st.binary(max_size=3)) + original[at + 1 :]
    if data.draw(st.booleans()):
        contents[get_object_id(changed)] = changed
        if tree.object_id == victim:
            tree = ObjectTree(object_id=get_object_id(changed), children=tree.children)
    else:
        contents[victim] = changed
    with suppress(side.error):
        side.module.unpack(side.module.inflate(tree, contents).content)


@pytest.mark.parametrize("side", SIDES, ids=["hospital", "consortium"])
@settings(max_examples=150)
@given(data=st.data())
def test_hostile_inline_content_leaves_only_our_error(side: Side, data: st.DataObject) -> None:
    message = message_of(side.module.pack({"kind": "x"}, {"update": np.arange(4, dtype=np.float32)}))
    message.metadata.created_at = 1.8e9
    original = message_to_proto(message).SerializeToString()
    at = data.draw(st.integers(0, len(original) - 1))
    changed = original[:at] + data.draw(st.binary(max_size=3)) + original[at + 1 :]
    with suppress(DecodeError, side.error):  # DecodeError: flwr's client refuses it before us
        side.module.unpack(side.module.from_proto(ProtoMessage.FromString(changed)).content)


@pytest.mark.parametrize("side", SIDES, ids=["hospital", "consortium"])
def test_hostile_object_that_its_id_does_not_name(side: Side) -> None:
    tree, contents = carried(message_of(side.module.pack({"kind": "x"}, {})))
    contents[tree.object_id] += b" "
    with pytest.raises(side.error, match="not the one"):
        side.module.inflate(tree, contents)


@pytest.mark.parametrize("side", SIDES, ids=["hospital", "consortium"])
def test_array_bomb_a_piece_named_a_million_times(side: Side) -> None:
    tree, contents = carried(message_of(side.module.pack({}, {"update": np.zeros(LARGE, np.float32)})))

    def renamed(node: ObjectTree, change: Callable[[bytes], bytes]) -> ObjectTree:
        """Rebuild a tree bottom up with the array's object changed and every id above it made to fit."""
        children = [renamed(child, change) for child in node.children]
        content = contents.pop(node.object_id)
        for old, new in zip(node.children, children, strict=True):
            content = content.replace(old.object_id.encode(), new.object_id.encode())
        content = change(content) if content.startswith(b"Array ") else content
        contents[get_object_id(content)] = content
        return ObjectTree(object_id=get_object_id(content), children=children)

    def bomb(content: bytes) -> bytes:
        head, _, body = content.partition(b"\0")
        described = json.loads(body)
        described["arraychunk_ids"] *= 1_000_000
        body = json.dumps(described).encode()
        return b" ".join([*head.split(b" ")[:2], str(len(body)).encode()]) + b"\0" + body

    tree = renamed(tree, bomb)
    with pytest.raises(side.error, match="more often than it has them"):
        side.module.inflate(tree, contents)


def test_hostile_error_message_is_not_a_request() -> None:
    request = consortium.to_messages(exchange(np.zeros(3, np.float32)), 60.0)[0]
    request.metadata.__dict__["_message_id"] = "m"
    with pytest.raises(MessageError, match="with content"):
        hospital.inflate(*carried(Message(Error(code=0), reply_to=request)))
