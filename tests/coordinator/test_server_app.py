"""The ServerApp's loop against a SuperLink in memory: each node is answered for exactly once, none delays others."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
)
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id, get_object_tree
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from coordinator.exchange import Arrival, Exchange, Packed, Value
from coordinator.flower_message import pack, without_content
from coordinator.server_app import LONGEST_POLL, SHORTEST_POLL, SLACK_BYTES, load_factory, run

MODEL = np.arange(5, dtype=np.float32)


@dataclass
class FakeSuperLink:
    """Grid and Runtime client in one, on a clock of its own; `plans` says what each node does with a message."""

    plans: dict[int, str]
    time: float = 1000.0
    rooted: list[str] = field(default_factory=list)
    forged: Message | None = None  # comes with every answer
    slept: list[float] = field(default_factory=list)
    sent: dict[str, Message] = field(default_factory=dict)
    store: dict[str, bytes] = field(default_factory=dict)
    stalled: set[str] = field(default_factory=set)
    confirmed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._runtime_client = self
        self.node = Node(node_id=1)
        self.run = SimpleNamespace(run_id=7)

    def clock(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    def PushMessages(self, request: PushAppMessagesRequest) -> PushAppMessagesResponse:
        response = PushAppMessagesResponse(session_id="s")
        for proto, tree in zip(request.messages_list, request.message_object_trees, strict=True):
            assert proto.metadata.message_id == tree.object_id
            known = self.plans[proto.metadata.dst_node_id] != "never connected"
            response.message_ids.append(tree.object_id if known else "")
            if known:
                self.sent[tree.object_id] = message_from_proto(proto)
                response.objects_to_push.append(tree.object_id)
        return response

    def PushObject(self, request: PushObjectRequest) -> None:
        assert get_object_id(request.object_content) == request.object_id
        assert request.session_id == "s"
        self.rooted.append(request.object_id)

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:
        response = PullAppMessagesResponse()
        if self.forged is not None:
            response.messages_list.append(message_to_proto(remove_content_from_message(self.forged)))
            response.message_object_trees.append(get_object_tree(self.forged))
        for identifier in request.message_ids:
            message = self.sent.get(identifier)
            plan = self.plans[message.metadata.dst_node_id] if message else "silent"
            if message is None or plan == "silent" or (plan == "slow" and self.time < 1004.0):
                continue
            del self.sent[identifier]  # claimed: not given twice
            reply = self.reply(message, plan)
            if plan in ("prompt", "slow", "other array", "odd value"):
                root = without_content(reply)
                reply.metadata.__dict__["_message_id"] = root.object_id
                response.messages_list.append(message_to_proto(reply))
                response.message_object_trees.append(get_object_tree(root))
                continue
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects = {key: item.deflate() for key, item in get_all_nested_objects(reply).items()}
            self.store |= objects
            if plan == "stalled":
                self.stalled |= set(list(objects)[1:])
            if plan == "lost":
                self.store.pop(list(objects)[-1])
            response.messages_list.append(message_to_proto(remove_content_from_message(reply)))
            response.message_object_trees.append(get_object_tree(reply))
        return response

    def reply(self, message: Message, plan: str) -> Message:
        if plan == "away":
            return Message(Error(code=ErrorCode.NODE_UNAVAILABLE), reply_to=message)
        if plan == "error":
            return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION), reply_to=message)
        node_id = message.metadata.dst_node_id
        size = SLACK_BYTES if plan == "huge" else 5
        arrays: dict[str, Packed] = {"update": np.full(size, node_id, dtype=np.int64)}
        if plan == "other array":
            arrays = {"weights": MODEL}
        config: dict[str, Value] = {"round": int(message.metadata.group_id)}
        if plan == "odd value":
            config["round"] = True
        return Message(pack(config, arrays), reply_to=message)

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:
        content = self.store.get(request.object_id)
        if content is None:
            return PullObjectResponse(object_found=False)
        if request.object_id in self.stalled:
            return PullObjectResponse(object_found=True, object_available=False)
        return PullObjectResponse(object_found=True, object_available=True, object_content=content)

    def ConfirmMessageReceived(
        self, request: ConfirmMessageReceivedRequest
    ) -> ConfirmMessageReceivedResponse:
        self.confirmed.append(request.message_object_id)
        return ConfirmMessageReceivedResponse()


@dataclass
class RecordingRounds:
    """Asks every node of the plans for some rounds, ten seconds each, and keeps what arrives."""

    superlink: FakeSuperLink
    rounds: int = 1
    arrivals: list[list[Arrival]] = field(default_factory=list)
    closed: list[float] = field(default_factory=list)
    sendings: int = 0

    def next_exchange(self) -> Exchange | None:
        self.closed.append(self.superlink.time)
        if len(self.arrivals) == self.rounds:
            return None
        self.arrivals.append([])
        configs = {node_id: {"round": len(self.arrivals)} for node_id in self.superlink.plans}
        return Exchange(
            round=len(self.arrivals), model=MODEL, configs=configs, deadline=self.superlink.time + 10.0
        )

    def sent(self) -> None:
        self.sendings += 1

    def receive(self, arrival: Arrival) -> None:
        self.arrivals[-1].append(arrival)

    def close(self) -> None:
        raise AssertionError("`main` closes, not `run`")


@pytest.fixture(autouse=True)
def run_identity() -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1


def play(plans: dict[int, str], rounds: int = 1) -> tuple[FakeSuperLink, RecordingRounds]:
    superlink = FakeSuperLink(plans)
    recording = RecordingRounds(superlink, rounds)
    run(cast(HttpGrid, superlink), recording, superlink.clock, superlink.sleep)
    return superlink, recording


def test_three_rounds_of_prompt_nodes() -> None:
    superlink, recording = play({3: "prompt", 5: "prompt"}, rounds=3)
    for number, arrivals in enumerate(recording.arrivals, 1):
        assert [(a.node_id, a.failure, a.config["round"]) for a in arrivals] == [
            (3, "", number),
            (5, "", number),
        ]
        assert [a.update is not None and set(a.update.tolist()) == {a.node_id} for a in arrivals] == [
            True,
            True,
        ]
    assert len(set(superlink.rooted)) == 6  # an upload left open could expire, and take the message along
    assert superlink.slept == []


def test_replies_that_come_in_objects_are_completed_and_forgotten() -> None:
    superlink, recording = play({3: "objects", 5: "prompt"})
    assert {a.node_id: a.failure for a in recording.arrivals[0]} == {3: "", 5: ""}
    assert [set(a.update.tolist()) for a in recording.arrivals[0] if a.update is not None] == [{5}, {3}]
    assert len(superlink.confirmed) == 1


@pytest.mark.parametrize(
    ("plan", "failure"),
    [
        ("never connected", "unreachable"),
        ("away", "unreachable"),
        ("silent", "late"),
        ("stalled", "late"),
        ("error", "malformed"),
        ("lost", "malformed"),
        ("huge", "malformed"),
        ("other array", "malformed"),
        ("odd value", "malformed"),
    ],
)
def test_a_failing_node_is_answered_for_once_and_delays_nobody(plan: str, failure: str) -> None:
    _, recording = play({2: plan, 3: "prompt", 4: plan, 5: "slow"}, rounds=2)
    for arrivals in recording.arrivals:
        assert {a.node_id: a.failure for a in arrivals} == {2: failure, 3: "", 4: failure, 5: ""}
        assert len(arrivals) == 4
        assert all(not a.config and a.update is None for a in arrivals if a.failure)
    first = recording.arrivals[0]
    assert [a.node_id for a in first].index(3) < [a.node_id for a in first].index(5)
    ends = np.diff(recording.closed)
    assert ends[0] == pytest.approx(10.0 if failure == "late" else 4.0, abs=LONGEST_POLL)


def test_forged_message_to_the_superlink_is_left_lying() -> None:
    superlink = FakeSuperLink({3: "slow"})
    superlink.forged = Message(pack({}, {}), dst_node_id=1, message_type="train")
    superlink.forged.metadata.__dict__["_message_id"] = superlink.forged.object_id
    recording = RecordingRounds(superlink)
    run(cast(HttpGrid, superlink), recording, superlink.clock, superlink.sleep)
    assert [(a.node_id, a.failure) for a in recording.arrivals[0]] == [(3, "")]


def test_polling_starts_short_grows_and_never_passes_the_deadline() -> None:
    superlink, _ = play({2: "silent"})
    assert superlink.slept[0] == SHORTEST_POLL
    assert max(superlink.slept) == LONGEST_POLL
    assert superlink.time == pytest.approx(1010.0)
    assert len(superlink.slept) < 45


def test_an_exchange_with_nobody_is_over_at_once() -> None:
    superlink, recording = play({})
    assert recording.arrivals == [[]]
    assert superlink.slept == []


def test_an_error_of_the_rounds_ends_the_run() -> None:
    class Failing(RecordingRounds):
        def receive(self, arrival: Arrival) -> None:
            raise RuntimeError("the ledger refuses")

    superlink = FakeSuperLink({3: "prompt"})
    with pytest.raises(RuntimeError, match="the ledger refuses"):
        run(cast(HttpGrid, superlink), Failing(superlink), superlink.clock, superlink.sleep)


def test_a_factory_is_found_by_name() -> None:
    name = load_factory("coordinator.server_app:load_factory").__name__
    assert name == "load_factory"
    with pytest.raises(ImportError):
        load_factory("coordinator.nothing:there")
