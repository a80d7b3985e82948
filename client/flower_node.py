"""The hospital's Flower node: asks the coordinator's public port for messages, lets the agent answer, sends replies.

It speaks Flower's Fleet API in a loop of its own, because the stock SuperNode sleeps 3 s between requests and starts
a fresh Python for each message. Nothing here touches rows, or keys other than the node's own; `Handle` decides.
Outbound connections only. `client.flower_connection` keeps the connection, `client.flower_message` has the wire
format, `coordinator.server_app` is the other end.

What has to be known about Flower 1.41 here:
- The SuperLink hands a message out once; what was lost on the way the coordinator's gateway gives again (`LOOK` in
  `client.fleet_client`). Its objects may not have arrived yet when it is seen.
- A reply that comes too late, or twice, is refused without an error: no object is asked for.
- The objects of a reply belong to the session that its message opened. A push repeated after a lost answer says
  "not stored" although it is.
"""

from __future__ import annotations

import logging
import threading
import time

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)

from client.errors import MessageError
from client.exchange import Handle
from client.flower_connection import Connection, NodeSettings, RunOverError, StoppedError, UnauthorizedError
from client.flower_message import from_proto, inflate, to_message, to_request, without_content

IDLE_SHARE = 0.1  # of the time since the last message is slept before the next request
GAP_SHARE = 0.75  # of the last gap between a reply and the next message is slept before asking
OBJECT_WAIT = (0.01, 0.25)  # seconds, first and longest, for an object still being uploaded
MAX_OBJECTS = 1024

_log = logging.getLogger(__name__)


class FlowerNode:
    """One node. `run` blocks; `stop` and `hurry` may be called from any thread or signal handler."""

    def __init__(self, settings: NodeSettings, handle: Handle) -> None:
        """Connect to nothing yet. Raises NodeKeyError when the private key is unusable."""
        self._settings = settings
        self._handle = handle
        self._connection = Connection(settings)
        self._last_message = time.monotonic()
        self._last_gap = self._gap = (
            0.0  # seconds from a reply to the next message; the shorter of the last two
        )

    @property
    def node_id(self) -> int | None:
        """Flower's id of this node, while it is connected."""
        return self._connection.node_id

    @property
    def trouble(self) -> str:
        """Why the node is not connected, in one line for the hospital's screen; "" if it is."""
        return self._connection.trouble

    def run(self) -> None:
        """Answer messages until `stop`. Only errors of the handle leave; the connection is restored for ever."""
        connection = self._connection
        threading.Thread(target=connection.beat, name="heartbeat", daemon=True).start()
        try:
            while not connection.stopping:
                try:
                    if connection.node_id is None:
                        connection.activate()
                    asked = time.monotonic()
                    if not self._answer_one():
                        connection.sleep(self._interval(time.monotonic() - asked))
                except UnauthorizedError:
                    connection.node_id = None
        except StoppedError:
            _log.debug("stopped while waiting")
        finally:
            connection.leave()

    def stop(self) -> None:
        """Make `run` return, after the message in hand if there is one."""
        self._connection.stop()

    def hurry(self) -> None:
        """Ask again at once, and often for a while, because a message is expected: a job was started."""
        self._last_message = time.monotonic()
        self._gap = 0.0
        self._connection.wake()

    def _answer_one(self) -> bool:
        connection = self._connection
        response = connection.ask(connection.client.PullMessages, PullMessagesRequest(node=connection.node))
        if not response.messages_list:
            return False
        gap = time.monotonic() - self._last_message
        self._gap, self._last_gap = min(gap, self._last_gap), gap
        proto, tree = response.messages_list[0], response.message_object_trees[0]
        run_id = proto.metadata.run_id
        try:
            message = self._receive(proto, tree)
            started = time.monotonic()
            reply = self._handle(to_request(message))
            self._push(to_message(reply, message), time.monotonic() - started)
            # Only after the reply: this makes the SuperLink forget the objects, and nobody waits for that. What an
            # inline message leaves there, some hundred bytes, goes with the run and is not worth a request.
            if tree.children:
                request = ConfirmMessageReceivedRequest(
                    node=connection.node, run_id=run_id, message_object_id=tree.object_id
                )
                connection.ask(connection.client.ConfirmMessageReceived, request)
        except MessageError as error:
            _log.warning("a message of run %d was dropped: %s", run_id, error)
        except RunOverError:
            _log.info("run %d is over; its message was dropped", run_id)
        self._last_message = time.monotonic()
        return True

    def _receive(self, proto: ProtoMessage, tree: ObjectTree) -> Message:
        if proto.ByteSize() > self._settings.max_message:
            raise MessageError(f"larger than {self._settings.max_message} bytes")
        return inflate(tree, self._pull(proto.metadata.run_id, tree)) if tree.children else from_proto(proto)

    def _pull(self, run_id: int, tree: ObjectTree) -> dict[str, bytes]:
        connection = self._connection
        contents: dict[str, bytes] = {}
        size = 0
        wait, longest = OBJECT_WAIT
        missing = list(dict.fromkeys(child.object_id for child in iterate_object_tree(tree)))
        if len(missing) > MAX_OBJECTS:
            raise MessageError(f"more than {MAX_OBJECTS} objects")
        while missing:
            request = PullObjectRequest(node=connection.node, run_id=run_id, object_id=missing[0])
            response = connection.ask(connection.client.PullObject, request)
            if not response.object_found:
                raise MessageError("its upload was given up")
            if not response.object_available:
                connection.sleep(wait)
                wait = min(2 * wait, longest)
                continue
            size += len(response.object_content)
            if size > self._settings.max_message:
                raise MessageError(f"larger than {self._settings.max_message} bytes")
            contents[missing.pop(0)] = response.object_content
        return contents

    def _push(self, reply: Message, seconds: float) -> None:
        connection = self._connection
        inline = "arrays" not in reply.content
        with no_object_id_recompute():
            root = without_content(reply) if inline else reply
            reply.metadata.__dict__["_message_id"] = root.object_id
            tree, objects = get_object_tree(root), get_all_nested_objects(root)
        request = PushMessagesRequest(
            node=connection.node,
            messages_list=[message_to_proto(reply if inline else remove_content_from_message(reply))],
            message_object_trees=[tree],
            clientapp_runtime_list=[seconds],
        )
        response = connection.ask(connection.client.PushMessages, request)
        if not response.objects_to_push:
            raise MessageError("the reply came too late")
        # The object that stands for an inline reply is left out: nobody pulls it, and a request is saved. What the
        # SuperLink noted about it, some hundred bytes, goes with the run.
        wanted = set() if inline else set(response.objects_to_push)
        for object_id, item in objects.items():
            if object_id in wanted:
                upload = PushObjectRequest(
                    node=connection.node,
                    run_id=reply.metadata.run_id,
                    object_id=object_id,
                    object_content=item.deflate(),
                    session_id=response.session_id,
                )
                connection.ask(connection.client.PushObject, upload)

    def _interval(self, held: float) -> float:
        """Return how long to sleep after an empty answer that took `held` seconds to come.

        Most of what the gaps between messages last were, then little, then more and more. The coordinator's gateway
        holds a look until there may be a message: what that took is not slept again.
        """
        waited = time.monotonic() - self._last_message
        wanted = max(IDLE_SHARE * waited, GAP_SHARE * self._gap - waited)
        return max(self._settings.busy_seconds, min(wanted, self._settings.idle_seconds) - held)
