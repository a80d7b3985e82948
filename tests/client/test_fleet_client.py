"""Each look for messages has a name of its own; one that brought nothing keeps it; heartbeats are named too."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import Message

from client.fleet_client import LOOK, FleetClient
from coordinator.tls import ensure_tls

MESSAGE = PullMessagesResponse(messages_list=[Message()])


def test_a_look_keeps_its_name_until_a_message_has_arrived(tmp_path: Path) -> None:
    answers = iter([PullMessagesResponse(), MESSAGE, MESSAGE, PullMessagesResponse()])
    names: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        names.append(request.headers.get(LOOK))
        body = next(answers).SerializeToString() if "pull" in request.url.path else b""
        return httpx.Response(200, content=body, headers={"content-type": "application/x-protobuf"})

    authority = ensure_tls(tmp_path, [], datetime.now(UTC)).authority.read_bytes()
    client = FleetClient("127.0.0.1:1", authority, ec.generate_private_key(ec.SECP384R1()))
    client.close()
    client._client = httpx.Client(transport=httpx.MockTransport(answer))
    with client._client:
        for _ in range(2):
            client.PullMessages(PullMessagesRequest())
        client.SendNodeHeartbeat(SendNodeHeartbeatRequest())
        for _ in range(2):
            client.PullMessages(PullMessagesRequest())
    first, second, heartbeat, third, fourth = names
    assert first == second
    assert len({first, third, fourth}) == 3
    assert len({str(name).partition(".")[0] for name in names}) == 1
    assert heartbeat == third
