"""How somebody with an invitation speaks to the coordinator before being a member.

The first connection fetches the certificate of the coordinator's authority from whoever answers, and believes it only
if its SHA-256 is the invitation's; every later one is checked against it. The invitation's code goes out in a header,
and only over a connection that was checked.
"""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Mapping
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from client.errors import InterceptedError, JoiningError, UnreachableError
from ledger.joining import CODE_HEADER, Invitation

SECONDS = 30.0  # for one request
CONNECT_SECONDS = 10.0
MAX_CERTIFICATE = 16 << 10  # bytes
MAX_ANSWER = 256 << 10
_MOST_SHOWN = 300  # characters of what the coordinator says


def fetch_authority(
    invitation: Invitation, proxy: str, transport: httpx.BaseTransport | None = None
) -> bytes:
    """Return the authority's certificate, PEM, which is the one that the invitation names.

    Raises:
        InterceptedError: another one was shown.
        UnreachableError: nobody answers.
    """
    client = httpx.Client(
        base_url=f"https://{invitation.address}",
        verify=False,  # noqa: S501 - nothing that comes is believed but for its digest, and nothing secret is sent
        timeout=httpx.Timeout(SECONDS, connect=CONNECT_SECONDS),
        proxy=proxy or None,
        trust_env=False,
        transport=transport,
    )
    with client:
        answer = _ask(client, "GET", "/api/authority", invitation.address, limit=MAX_CERTIFICATE)
    if answer.status_code != httpx.codes.OK:
        raise UnreachableError(
            f"{invitation.address} answers with HTTP status {answer.status_code}: is that the coordinator?"
        )
    found = answer.content
    try:
        certificate = x509.load_pem_x509_certificate(found)
        digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
    except ValueError:
        digest = "no certificate"
    if digest != invitation.authority:
        raise InterceptedError(
            f"{invitation.address} shows another certificate authority ({digest[:16]}) than the invitation names "
            f"({invitation.authority[:16]}): most likely something between here and there opens TLS, such as a proxy "
            "or a firewall; have this address exempted from inspection. Nothing was sent or written"
        )
    return certificate.public_bytes(serialization.Encoding.PEM)


class Doorstep:
    """The coordinator as somebody who is invited sees it; close it."""

    def __init__(
        self,
        invitation: Invitation,
        authority: bytes,
        proxy: str,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Connect to nothing yet. Raises InterceptedError: the authority's certificate is none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=authority.decode("ascii", "backslashreplace"))
        except (ssl.SSLError, ValueError):
            raise InterceptedError("the coordinator's authority is no certificate") from None
        self._address = invitation.address
        self._client = httpx.Client(
            base_url=f"https://{invitation.address}",
            headers={CODE_HEADER: invitation.code},
            verify=context,
            timeout=httpx.Timeout(SECONDS, connect=CONNECT_SECONDS),
            proxy=proxy or None,
            trust_env=False,
            transport=transport,
        )

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def deposit(self, data: bytes) -> Mapping[str, Any]:
        """Hand in a signed deposit; return how far the joining is. Raises as `standing`."""
        return self._json("POST", "/api/join", data)

    def standing(self) -> Mapping[str, Any]:
        """Return how far the joining is, and what is to be signed.

        Raises:
            JoiningError: the coordinator refuses; its reason is the message.
            UnreachableError: no answer; ask again.
        """
        return self._json("GET", "/api/founding")

    def sign(self, entry: bytes) -> Mapping[str, Any]:
        """Hand in a signature. Raises as `standing`; StaleError: what was signed is not asked for any more."""
        return self._json("POST", "/api/founding/signatures", entry)

    def _json(self, method: str, path: str, content: bytes | None = None) -> Mapping[str, Any]:
        answer = _ask(self._client, method, path, self._address, content=content)
        try:
            value = json.loads(answer.content)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise UnreachableError(
                f"{self._address} answers with HTTP status {answer.status_code} and no JSON"
            )
        if answer.status_code in (400, 403, 409, 413):
            raise JoiningError(f"the coordinator refuses: {_plain(value.get('error'))}", answer.status_code)
        if answer.status_code != httpx.codes.OK:
            raise UnreachableError(f"{self._address}: {_plain(value.get('error'))}")
        return value


def _ask(
    client: httpx.Client,
    method: str,
    path: str,
    address: str,
    *,
    content: bytes | None = None,
    limit: int = MAX_ANSWER,
) -> httpx.Response:
    try:
        with client.stream(method, path, content=content) as response:
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > limit:
                    raise UnreachableError(f"{address}{path}: the answer is larger than {limit} bytes")
            return httpx.Response(response.status_code, content=bytes(body))
    except httpx.ProxyError as error:
        raise UnreachableError(f"the proxy does not let {address} through: {_plain(error)}") from None
    except httpx.HTTPError as error:
        raise UnreachableError(
            f"{address} cannot be reached ({_plain(error) or type(error).__name__}): check the name, the port and "
            "the firewall, or give the proxy with --proxy"
        ) from None


def _plain(value: object) -> str:
    """Return what came from outside as one line that a terminal may show."""
    return "".join(c if c.isprintable() else "?" for c in str(value or "no reason given")[:_MOST_SHOWN])
