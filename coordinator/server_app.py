"""The Flower ServerApp of a job, and the waiting process that runs it.

Flower carries; `Rounds` decides. The app asks a `Rounds` what to send next, sends one message to each named node,
hands over every reply as it arrives, and goes on until told that the job is over. It holds no model, admits nothing
and keeps no state: killed at any point, it is started again and asks again.

`coordinator.exchange` has the types, `coordinator.flower_message` the wire format, `client.flower_node` is the other
end.

What has to be known about Flower 1.41 here:
- `Grid.pull_messages` *claims* replies and then waits for their objects: at least a second when it meets an upload
  in progress, three minutes for a hospital that never finishes one. So claimed replies are completed here, object
  by object and without waiting: a stalled upload costs nobody else anything and is late at the deadline.
- A message to a node that never connected gets "" for its id; one to a node that is away gets an error as its reply.
- A message's lifetime is enforced by the SuperLink, by its own clock: no reply is stored after it.
- The Fleet API does not compare a message's sender with the node that pushes it. A hospital may push messages "from
  the SuperLink", to the SuperLink or to another hospital: what answers none of ours is ignored here, and a hospital
  must judge a message by its content alone.
"""

from __future__ import annotations

import logging
import os
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import cast

from flwr.app import Context, Message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullAppMessagesRequest, PushAppMessagesRequest
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import get_object_tree, iterate_object_tree
from flwr.supercore.interceptors import SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.grid import HttpGrid
from flwr.superlink.runtime import run_serverapp

from coordinator.child import Words
from coordinator.errors import ReplyError
from coordinator.exchange import Arrival, Exchange, Rounds, RoundsFactory
from coordinator.flower_message import from_proto, inflate, to_arrival, to_messages, without_content

SHORTEST_POLL = 0.03  # seconds
LONGEST_POLL = 0.5
POLL_GROWTH = 1.2
WEIGHT_BYTES = 8  # a weight of an update, at most
SLACK_BYTES = 1 << 20  # a reply's receipt, metrics and framing
MAX_OBJECTS = 1024
ROUNDS = "WARDROUND_ROUNDS"  # environment variable: "module:factory" of a `RoundsFactory`
ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
UNREACHABLE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)

_log = logging.getLogger(__name__)
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the job whose digest the bundle carries with the `Rounds` that this machine's coordinator named."""
    rounds = load_factory(os.environ[ROUNDS])(str(context.run_config["job"]))
    try:
        run(cast(HttpGrid, grid), rounds)
    finally:
        rounds.close()


def run(
    grid: HttpGrid,
    rounds: Rounds,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Make exchanges until `rounds` says that the job is over; any error of its own ends the run."""
    while (exchange := rounds.next_exchange()) is not None:
        inbox = _send(grid, exchange, rounds, clock)
        interval = SHORTEST_POLL
        while inbox.waiting and (left := exchange.deadline - clock()) > 0:
            before = len(inbox.waiting)
            for arrival in inbox.collect():
                rounds.receive(arrival)
            if len(inbox.waiting) < before:
                interval = SHORTEST_POLL
            else:
                sleep(min(interval, left))
                interval = min(interval * POLL_GROWTH, LONGEST_POLL)
        for node_id in inbox.waiting.values():
            rounds.receive(Arrival(node_id=node_id, failure="late"))


def load_factory(name: str) -> RoundsFactory:
    """Return the factory called "module:attribute". Raises ImportError or AttributeError."""
    module, _, attribute = name.partition(":")
    return cast(RoundsFactory, getattr(import_module(module), attribute))


def _send(grid: HttpGrid, exchange: Exchange, rounds: Rounds, clock: Callable[[], float]) -> _Inbox:
    messages = to_messages(exchange, lifetime=max(1.0, exchange.deadline - clock()))
    inline = not any("arrays" in message.content for message in messages)
    if inline:
        identifiers = _push_inline(grid, messages, rounds.sent)
    else:
        identifiers = list(grid.push_messages(messages))
        rounds.sent()
    waiting: dict[str, int] = {}
    for identifier, node_id in zip(identifiers, exchange.configs, strict=True):
        if identifier:
            waiting[identifier] = node_id
        else:
            rounds.receive(Arrival(node_id=node_id, failure="unreachable"))
    return _Inbox(grid, waiting, limit=WEIGHT_BYTES * exchange.model.size + SLACK_BYTES)


def _push_inline(grid: HttpGrid, messages: list[Message], sent: Callable[[], None]) -> list[str]:
    """Do what `Grid.push_messages` does, with the content left in the messages."""
    if not messages:
        return []
    roots = [without_content(message) for message in messages]
    for message, root in zip(messages, roots, strict=True):
        message.metadata.__dict__["_message_id"] = root.object_id
    client = grid._runtime_client
    response = client.PushMessages(
        PushAppMessagesRequest(
            messages_list=map(message_to_proto, messages), message_object_trees=map(get_object_tree, roots)
        )
    )
    sent()  # whoever pulls a message needs nothing of what follows
    wanted = set(response.objects_to_push)
    for root in roots:
        if root.object_id in wanted:  # an upload left open could expire, and take the message along
            client.PushObject(
                PushObjectRequest(
                    node=grid.node,
                    run_id=grid.run.run_id,
                    object_id=root.object_id,
                    object_content=root.deflate(),
                    session_id=response.session_id,
                )
            )
    return list(response.message_ids)


@dataclass(slots=True)
class _Upload:
    """A claimed reply whose objects arrive one by one."""

    tree: ObjectTree
    missing: list[str]
    contents: dict[str, bytes] = field(default_factory=dict)
    size: int = 0  # bytes


class _Inbox:
    """The replies to one exchange. `waiting` maps the messages still unanswered to their nodes."""

    def __init__(self, grid: HttpGrid, waiting: dict[str, int], limit: int) -> None:
        self.waiting = waiting
        self._grid = grid
        self._limit = limit  # bytes a reply
        self._uploads: dict[str, _Upload] = {}  # by the id of the message replied to

    def collect(self) -> Iterator[Arrival]:
        """Yield the replies that are complete by now, one held at a time; never waits for one that is not."""
        yield from self._claim()
        for identifier, upload in list(self._uploads.items()):
            try:
                if not self._advance(upload):
                    continue
                arrival = to_arrival(self.waiting[identifier], inflate(upload.tree, upload.contents))
            except ReplyError as error:
                _log.warning("node %d: %s", self.waiting[identifier], error)
                arrival = Arrival(node_id=self.waiting[identifier], failure="malformed")
            del self._uploads[identifier], self.waiting[identifier]
            self._confirm(upload.tree.object_id)
            yield arrival

    def _claim(self) -> Iterator[Arrival]:
        """Claim what has been answered; yield inline replies, and the failures of those that will not reply."""
        unclaimed = [identifier for identifier in self.waiting if identifier not in self._uploads]
        if not unclaimed:
            return
        response = self._client.PullMessages(PullAppMessagesRequest(message_ids=unclaimed))
        for message, tree in zip(response.messages_list, response.message_object_trees, strict=True):
            identifier = message.metadata.reply_to_message_id
            if identifier not in self.waiting or identifier in self._uploads:
                _log.warning("a message that answers none of ours was left lying")
            elif message.HasField("error"):
                failure = "unreachable" if message.error.code in UNREACHABLE else "malformed"
                yield Arrival(node_id=self.waiting.pop(identifier), failure=failure)
            elif tree.children:
                self._uploads[identifier] = _Upload(
                    tree, [child.object_id for child in iterate_object_tree(tree)]
                )
            else:
                yield self._read(self.waiting.pop(identifier), message)

    def _read(self, node_id: int, proto: ProtoMessage) -> Arrival:
        try:
            if proto.ByteSize() > self._limit:
                raise ReplyError(f"reply is larger than {self._limit} bytes")
            return to_arrival(node_id, from_proto(proto))
        except ReplyError as error:
            _log.warning("node %d: %s", node_id, error)
            return Arrival(node_id=node_id, failure="malformed")

    def _advance(self, upload: _Upload) -> bool:
        if len(upload.missing) > MAX_OBJECTS:
            raise ReplyError(f"reply has more than {MAX_OBJECTS} objects")
        while upload.missing:
            response = self._client.PullObject(
                PullObjectRequest(
                    node=self._grid.node, run_id=self._grid.run.run_id, object_id=upload.missing[0]
                )
            )
            if not response.object_found:
                raise ReplyError("its upload was given up")
            if not response.object_available:
                return False
            upload.size += len(response.object_content)
            if upload.size > self._limit:
                raise ReplyError(f"reply is larger than {self._limit} bytes")
            upload.contents[upload.missing.pop(0)] = response.object_content
        return True

    def _confirm(self, object_id: str) -> None:
        request = ConfirmMessageReceivedRequest(
            node=self._grid.node, run_id=self._grid.run.run_id, message_object_id=object_id
        )
        self._client.ConfirmMessageReceived(request)  # the SuperLink forgets the reply's objects

    @property
    def _client(self) -> RuntimeHttpClient:
        return self._grid._runtime_client


def run_host(arguments: list[str], words: Words) -> None:
    """Become the process that runs one ServerApp: import everything, wait for the word, take the task, run it.

    Args:
        arguments: SuperLink's address, file of its authority, file of the secret, "module:factory" of the rounds.
        words: The parent's; any word means that a run was just started.
    """
    address, authority, secret, rounds = arguments
    os.environ[ROUNDS] = rounds
    load_factory(rounds)
    certificates = Path(authority).read_bytes()
    words.get()
    client = RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=certificates,
        interceptors=[
            SuperExecAuthHttpInterceptor(master_secret=Path(secret).read_bytes(), protected_methods=[ACQUIRE])
        ],
    )
    request = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
    while not (response := client.AcquireTask(request)).token:
        time.sleep(SHORTEST_POLL)
    client.close()
    run_serverapp(  # ends the process
        runtime_api_address=address,
        log_queue=queue.Queue(),
        token=response.token,
        insecure=False,
        certificates=certificates,
        runtime_dependency_install=False,
    )
