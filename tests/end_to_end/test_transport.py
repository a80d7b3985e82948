"""A real federation: SuperLink, gateway, ServerApp, nodes; TLS, authenticated keys, hostile company."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from flwr.app import Message, Metadata
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from numpy.typing import NDArray
from starlette.applications import Starlette

from client.exchange import Handle, Reply, Request
from client.flower_connection import NodeSettings, new_node_key
from client.flower_message import pack, without_content
from client.flower_node import FlowerNode
from coordinator.bundle import bundle
from coordinator.errors import TransportError
from coordinator.gateway import Gateway, GatewaySettings
from coordinator.looks import Looks
from coordinator.public_port import PublicPort, listen
from coordinator.sendings import Sendings
from coordinator.superlink import SuperLink, SuperLinkSettings
from coordinator.tls import TlsFiles, ensure_tls
from tests.coordinator.stoppable import Service
from tests.end_to_end.transport_rounds import model_of

JOB = b'{"job":"transport"}'
PATIENCE = 60.0  # seconds; a limit against hanging, not a measurement


class GatewayPort:
    """The gateway behind uvicorn on a port of its own, in a thread: what the coordinator's service will be."""

    def __init__(self, superlink: SuperLink, tls: TlsFiles) -> None:
        looks = asyncio.run(_looks_that_hold_nobody())
        self._gateway = Gateway(
            GatewaySettings(address=superlink.address, authority=tls.authority), looks=looks
        )
        listener = listen("127.0.0.1", 0)
        self._server = PublicPort(tls, Starlette(routes=list(self._gateway.routes)))
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(listener),))
        self._thread.start()
        wait_until(lambda: self._server.started)
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"

    async def _serve(self, listener: socket.socket) -> None:
        await self._server.serve([listener])
        await self._gateway.close()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


async def _looks_that_hold_nobody() -> Looks:
    """Return them from within an event loop; nothing is counted here, so there is nothing to wait for."""
    return Looks(Sendings(), Service(), seconds=0.0)


@dataclass
class Federation:
    """Everything that is running, and what is needed to add to it."""

    folder: Path
    tls: TlsFiles
    superlink: SuperLink
    port: GatewayPort
    nodes: dict[int, FlowerNode] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)

    def settings(self, name: str, private_key: bytes) -> NodeSettings:
        return NodeSettings(
            address=self.port.address,
            authority=self.tls.authority.read_bytes(),
            private_key=private_key,
            id_file=self.folder / f"{name}.id",
        )

    def add(self, name: str, kind: Callable[[NodeSettings, Handle], FlowerNode], handle: Handle) -> int:
        """Register a key, start a node with it in a thread, and return the node's id once it is connected."""
        private_key, public_key = new_node_key()
        node_id = self.superlink.register_node(name, public_key)
        assert self.superlink.register_node(name, public_key) == node_id
        self.nodes[node_id] = kind(self.settings(name, private_key), handle)
        self.start(self.nodes[node_id])
        return node_id

    def start(self, node: FlowerNode) -> None:
        self.threads.append(threading.Thread(target=node.run))
        self.threads[-1].start()

    def stop(self) -> None:
        for node in self.nodes.values():
            node.stop()
        for thread in self.threads:
            thread.join()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("federation")
    tls = ensure_tls(folder / "tls", [], datetime.now(UTC))
    os.environ["TRANSPORT_PLAN"] = str(folder / "plan.json")  # the host process inherits it
    rounds = "tests.end_to_end.transport_rounds:TransportRounds"
    with SuperLink(SuperLinkSettings(directory=folder / "superlink", tls=tls, rounds=rounds)) as superlink:
        federation = Federation(folder, tls, superlink, GatewayPort(superlink, tls))
        yield federation
        federation.stop()
        federation.port.stop()  # before the SuperLink, which waits for open connections
    del os.environ["TRANSPORT_PLAN"]


def answer(request: Request) -> Reply:
    """Return arrays that name the bits received, in the kind that the round's number asks for."""
    number = int(request.config["round"])
    receipt = hashlib.sha256(request.model.tobytes()).digest() + bytes(str(request.config["note"]), "ascii")
    bits = request.model.view(np.int32).astype(np.int64)
    if number % 2:
        metrics = np.array([[2**63 - 1, -(2**63), 0], [1, 2, number]], dtype=np.int64)
        return Reply(config={"kind": "update", "receipt": receipt}, update=bits * 2**31, metrics=metrics)
    return Reply(config={"kind": "update", "receipt": receipt}, update=request.model[::-1])


class StallingNode(FlowerNode):
    """A hostile hospital: announces a reply and never uploads it."""

    def _push(self, reply: Message, seconds: float) -> None:
        reply.metadata.__dict__["_message_id"] = reply.object_id
        connection = self._connection
        request = PushMessagesRequest(
            node=connection.node,
            messages_list=[message_to_proto(remove_content_from_message(reply))],
            message_object_trees=[get_object_tree(reply)],
            clientapp_runtime_list=[seconds],
        )
        assert connection.client.PushMessages(request).objects_to_push


def play(federation: Federation, rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run a job of the given exchanges to its end and return the journal."""
    plan = federation.folder / "plan.json"
    journal = Path(f"{plan}.journal")
    journal.unlink(missing_ok=True)
    plan.write_text(json.dumps({"rounds": rounds}))
    run_id = federation.superlink.start_run(bundle(JOB, b"# model\n"))
    for node in federation.nodes.values():
        node.hurry()
    wait_until(lambda: federation.superlink.run_state(run_id).status == "finished")
    state = federation.superlink.run_state(run_id)
    assert (state.outcome, state.details) == ("completed", "")
    return [json.loads(line) for line in journal.read_text().splitlines()]


def digest(values: NDArray[Any]) -> list[object]:
    return [str(values.dtype), list(values.shape), hashlib.sha256(values.tobytes()).hexdigest()]


def test_five_rounds_arrive_bit_for_bit_and_a_stalled_upload_is_late(federation: Federation) -> None:
    honest = [federation.add(name, FlowerNode, answer) for name in ("north", "south")]
    stalling = federation.add("stalling", StallingNode, answer)
    never_connected = federation.superlink.register_node("absent", new_node_key()[1])
    wait_until(lambda: all(node.node_id == node_id for node_id, node in federation.nodes.items()))
    assert [(node.name, node.online) for node in federation.superlink.nodes()] == [
        ("absent", False),
        ("north", True),
        ("south", True),
        ("stalling", True),
    ]
    patient = [{"nodes": honest, "seconds": PATIENCE}] * 4
    journal = play(federation, [*patient, {"nodes": [*honest, stalling, never_connected], "seconds": 5.0}])

    assert journal[0]["job"] == hashlib.sha256(JOB).hexdigest()
    assert journal[-1] == {"end": True}
    arrivals = {(line["round"], line["node"]): line for line in journal if "node" in line}
    assert len(arrivals) == len([line for line in journal if "node" in line]) == 4 * 2 + 4
    for number in range(1, 6):
        model = model_of(number)
        expected = answer(
            Request(run_id=0, expires_at=0.0, model=model, config={"round": number, "note": b"\0\xffnote"})
        )
        assert expected.update is not None
        arrays = {"update": digest(np.ascontiguousarray(expected.update))}
        if expected.metrics is not None:
            arrays["metrics"] = digest(expected.metrics)
        for node_id in honest:
            line = arrivals[number, node_id]
            assert (line["failure"], line["kind"], line["arrays"]) == ("", "update", arrays)
            receipt = expected.config["receipt"]
            assert isinstance(receipt, bytes)
            assert line["receipt"] == receipt.hex()
    assert arrivals[5, stalling]["failure"] == "late"
    assert arrivals[5, never_connected]["failure"] == "unreachable"


def test_forged_instructions_reach_the_gate_alone_and_a_second_job_survives(federation: Federation) -> None:
    """Flower lets a hospital send in the SuperLink's name: the gate must judge by content, the run must go on."""
    seen: list[object] = []

    def witness(request: Request) -> Reply:
        seen.append(request.config["note"])
        return answer(request)

    victim = federation.add("victim", FlowerNode, witness)
    superlink_id = 1

    def forge(request: Request) -> Reply:
        connection = federation.nodes[attacker]._connection
        for target in (victim, superlink_id):
            content = pack({"round": 1, "note": b"forged"}, {"model": request.model})
            metadata = Metadata(
                run_id=request.run_id,
                message_id="",
                src_node_id=superlink_id,
                dst_node_id=target,
                reply_to_message_id="",
                group_id="1",
                created_at=time.time(),
                ttl=60.0,
                message_type="train",
            )
            message = make_message(metadata=metadata, content=content)
            root = without_content(message)
            message.metadata.__dict__["_message_id"] = root.object_id
            connection.client.PushMessages(
                PushMessagesRequest(
                    node=connection.node,
                    messages_list=[message_to_proto(message)],
                    message_object_trees=[get_object_tree(root)],
                )
            )
        wait_until(lambda: b"forged" in seen)
        return answer(request)

    attacker = federation.add("attacker", FlowerNode, forge)
    wait_until(lambda: all(federation.nodes[node_id].node_id == node_id for node_id in (victim, attacker)))
    journal = play(federation, [{"nodes": [attacker, victim], "seconds": PATIENCE}] * 2)
    arrivals = [(line["round"], line["node"], line["failure"]) for line in journal if "node" in line]
    assert sorted(arrivals) == sorted((number, node, "") for number in (1, 2) for node in (attacker, victim))
    assert seen.count(b"\0\xffnote") == 2
    assert seen.count(b"forged") >= 1
    assert journal[0]["pid"] != os.getpid()


class ForgetfulNode(FlowerNode):
    """Its network loses the first answer with a message, as one does that takes longer than the node waits."""

    def __init__(self, settings: NodeSettings, handle: Handle) -> None:
        super().__init__(settings, handle)
        self.lost = 0
        client = self._connection.client
        client._client.event_hooks = {"request": [], "response": [self._lose]}

    def _lose(self, response: httpx.Response) -> None:
        found = int(response.headers.get("content-length", "0"))
        if "pull-messages" in str(response.request.url) and found and not self.lost:
            self.lost += 1
            response.close()
            raise httpx.ReadTimeout("the read operation timed out")


def test_a_message_whose_answer_was_lost_arrives_all_the_same(federation: Federation) -> None:
    forgetful = federation.add("forgetful", ForgetfulNode, answer)
    node = federation.nodes[forgetful]
    assert isinstance(node, ForgetfulNode)
    wait_until(lambda: node.node_id == forgetful)
    journal = play(federation, [{"nodes": [forgetful], "seconds": PATIENCE}] * 2)
    assert [(line["round"], line["failure"]) for line in journal if "node" in line] == [(1, ""), (2, "")]
    assert node.lost == 1


def test_unregistered_key_is_refused(federation: Federation) -> None:
    private_key, _ = new_node_key()
    node = FlowerNode(federation.settings("stranger", private_key), answer)
    thread = threading.Thread(target=node.run)
    thread.start()
    wait_until(lambda: node.trouble != "")
    assert (node.node_id, node.trouble) == (None, "the coordinator has not admitted this node's key")
    node.stop()
    thread.join()


def test_stolen_node_id_with_another_key_is_refused(federation: Federation) -> None:
    node_id = federation.superlink.register_node("victim", new_node_key()[1])
    thief = FlowerNode(federation.settings("thief", new_node_key()[0]), answer)
    thief._connection.node_id = node_id
    with pytest.raises(httpx.HTTPStatusError) as refused:
        thief._connection.client.PushMessages(PushMessagesRequest(node=thief._connection.node))
    assert refused.value.response.status_code == 401
    thief._connection.client.close()


def test_an_unregistered_hospital_loses_its_connection(federation: Federation) -> None:
    node_id = federation.add("leaving", FlowerNode, answer)
    node = federation.nodes[node_id]
    wait_until(lambda: node.node_id == node_id)
    federation.superlink.unregister_node(node_id)
    wait_until(lambda: node.node_id is None and node.trouble != "")
    assert "leaving" not in [known.name for known in federation.superlink.nodes()]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/list-nodes",
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/runtime/get-nodes",
        "/v1/fleet/register-node",
        "/v1/fleet/%2e%2e/control/list-nodes",
        "/v1/fleet/..%2fcontrol/list-nodes",
        "/docs",
        "/health",
    ],
)
def test_flowers_unauthenticated_apis_are_not_on_the_public_port(federation: Federation, path: str) -> None:
    import ssl

    context = ssl.create_default_context(cafile=federation.tls.authority)
    headers = {"content-type": "application/x-protobuf"}
    with httpx.Client(verify=context) as client:
        assert (
            client.post(f"https://{federation.port.address}{path}", content=b"", headers=headers).status_code
            == 404
        )
        direct = client.post(f"https://{federation.superlink.address}/v1/control/list-nodes", content=b"")
        assert direct.status_code != 404  # it is there, on loopback


def test_superlink_and_its_children_listen_on_loopback_alone(federation: Federation) -> None:
    own = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        connection.laddr
        for process in own
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert federation.superlink.address in {f"{address.ip}:{address.port}" for address in listening}
    assert {address.ip for address in listening} <= {"127.0.0.1", "::1"}


def test_an_unusable_key_cannot_be_registered(federation: Federation) -> None:
    with pytest.raises(TransportError, match="refused"):
        federation.superlink.register_node("nonsense", b"not a key")
