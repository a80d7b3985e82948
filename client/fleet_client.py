"""flwr's own client of the Fleet API, with our way to the network and a name for each look for messages."""

from __future__ import annotations

import secrets
import ssl

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

TIMEOUT = 30.0  # seconds of one request: flwr's own
KEPT_SECONDS = 50.0  # an idle connection, beyond a heartbeat; the coordinator hangs up after 60 s
LOOK = "wardround-look"  # header


class _Look:
    """Names this process in each request, and each look for messages; a repeated one as before.

    A message is given out once. The coordinator's gateway sees by the name that its answer did not arrive, or that
    whoever got it is no more, and gives it again (`coordinator.repeated_looks`).
    """

    def __init__(self) -> None:
        self._process = secrets.token_hex(8)
        self._number = 0

    def arrived(self) -> None:
        """The next look is another one."""
        self._number += 1

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add the name."""
        context.request.headers[LOOK] = f"{self._process}.{self._number}"
        return call_next(context)


class FleetClient(FleetHttpClient):
    """flwr's own client with our way to the network: the proxy that a person named and none that it finds."""

    def __init__(
        self, address: str, authority: bytes, key: ec.EllipticCurvePrivateKey, *, proxy: str = ""
    ) -> None:
        """Connect to nothing yet.

        Args:
            address: host:port of the coordinator's public port.
            authority: PEM certificate that its TLS is checked against.
            key: The node's, which signs each request.
            proxy: "http://host:port" that every connection goes through.
        """
        self._look = _Look()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority.decode("ascii"))
        super().__init__(
            f"https://{address}",
            interceptors=[self._look, NodeAuthHttpInterceptor(key, key.public_key())],
            verify=context,
        )
        self._client.close()
        self._client = httpx.Client(  # flwr offers neither setting
            verify=context,
            timeout=TIMEOUT,
            limits=httpx.Limits(keepalive_expiry=KEPT_SECONDS),
            proxy=proxy or None,
            trust_env=False,
        )

    def PullMessages(self, request: PullMessagesRequest) -> PullMessagesResponse:  # noqa: N802
        """Look for messages."""
        response = super().PullMessages(request)
        if response.messages_list:
            self._look.arrived()
        return response
