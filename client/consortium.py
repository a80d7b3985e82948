"""A member's door to the coordinator: reads log files, asks for what is new, posts records and cosignatures.

Outbound HTTPS only, through the proxy that a person named, checked against the one certificate that came with the
invitation; every request is signed with the member's identity key. Nothing that comes back is believed here: log
files are judged by `ledger.mirror`, blobs compared with their digest. A failure is an `UnreachableError`: try again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from client.answers import expect, json_object, plain_headers, reason, statement
from client.coordinator_time import CoordinatorTime
from client.ear import Ear
from client.errors import ConfigError, PostRefusedError, UnreachableError
from ledger import signed_request
from ledger.errors import MalformedError
from ledger.signature import Signature, SigningKey
from ledger.source import MAX_FILE_SIZE
from ledger.store import PENDING

REQUEST_SECONDS = 30.0
CONNECT_SECONDS = 20.0  # a hundred agents may come at once, and the coordinator's handshakes queue
KEPT_SECONDS = (
    50.0  # an idle connection: longer than a poll, less than the 60 s after which the port hangs up
)
MAX_ANSWER = 1 << 20  # bytes of an answer of the API
REPORT_HEADER = "wardround-report"  # the log was restarted and asks its witnesses where they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """The newest signed checkpoint that the coordinator shows."""

    note: bytes
    report: str  # nonce of the report that it asks for, or ""


class Consortium:
    """One coordinator's service; may be used from several threads.

    Attributes:
        ear: Told of every record that is handed in, once somebody listens.
        time: What signed requests state; it knows how far the coordinator's clock is from this one's.
    """

    ear: Ear | None = None

    def __init__(
        self,
        address: str,
        authority: bytes,
        *,
        key: SigningKey | None = None,
        proxy: str = "",
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        spare: Callable[[], Sequence[SigningKey]] = tuple,
    ) -> None:
        """Connect to nothing yet.

        Args:
            address: host:port.
            authority: PEM certificate that the service's TLS is checked against.
            key: Signs every request; without one only what is open to anybody answers.
            proxy: "http://host:port" that every connection goes through, or "".
            transport: Replaces the network, for tests.
            clock: Unix seconds, for the signatures.
            spare: Returns what else may be this member's key by now (`client.rotation`), for when `key` is refused.

        Raises:
            ConfigError: the certificate is none.
        """
        # Not `create_default_context`: for an empty file that one trusts every authority of the machine.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=authority.decode("ascii", "backslashreplace"))
        except (ssl.SSLError, ValueError):
            raise ConfigError("the authority's file holds no certificate: ask for ca.pem again") from None
        self._client = httpx.Client(
            base_url=f"https://{address}",
            verify=context,
            timeout=httpx.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(keepalive_expiry=KEPT_SECONDS),  # a handshake costs more than ten requests
            transport=transport,
            proxy=proxy or None,
            trust_env=False,  # a proxy must be chosen by a person, not found
        )
        self._key = key
        self.time = CoordinatorTime(clock)
        self._spare = spare

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def read(self, path: str) -> bytes:
        """Return a file of the log: a `ledger.source.Read`.

        Raises:
            FileNotFoundError: there is none.
            UnreachableError: no answer, or another one than expected.
        """
        return self.file(f"/log/{path}", MAX_FILE_SIZE)

    def wait_for_pending(self, above: int, seconds: float) -> Pending:
        """Return the pending checkpoint as soon as its size is above `above`, or after `seconds` as it is then.

        Raises:
            UnreachableError: no answer, or the log has no checkpoint yet.
        """
        answer = expect(
            self._request(
                "GET",
                f"/log/{PENDING}",
                params={"above": str(above), "wait": f"{seconds:g}"},
                timeout=httpx.Timeout(REQUEST_SECONDS + seconds, connect=CONNECT_SECONDS),
            )
        )
        return Pending(note=answer.content, report=answer.headers.get(REPORT_HEADER, ""))

    def post_record(self, entry: bytes) -> str:
        """Submit a signed record; return its digest, also where it is on the log already.

        Raises:
            PostRefusedError: it may not follow, or its signature is wrong.
            UnreachableError: try again.
            LocalStateError: it could not be kept, so it was not submitted.
        """
        if self.ear is not None:
            self.ear.handing_in(entry)
        try:
            answer = json_object(self._request("POST", "/api/records", content=entry))
        except PostRefusedError as error:
            if self.ear is not None:
                self.ear.heard(entry, error.statement)
            raise
        if self.ear is not None:
            self.ear.heard(entry, statement(answer))
        return str(answer.get("digest", ""))

    def post_cosignature(self, size: int, line: Signature) -> bool:
        """Hand over a cosignature; return whether the checkpoint is final.

        Raises:
            PostRefusedError: the coordinator does not know this size, or the line is wrong.
            UnreachableError: try again.
        """
        body = json.dumps({"size": size, "line": line.to_line()}).encode()
        return json_object(self._request("POST", "/api/cosignatures", content=body)).get("final") is True

    def post_report(self, nonce: str, note: bytes, entries: Sequence[bytes]) -> bool:
        """Tell a restarted log what this witness signed last, with the entries that it lost; return if it may write.

        Raises:
            PostRefusedError: the report is not taken.
            UnreachableError: try again.
        """
        report = {
            "nonce": nonce,
            "note": note.decode(),
            "entries": [base64.b64encode(entry).decode() for entry in entries],
        }
        answer = json_object(self._request("POST", "/api/reports", content=json.dumps(report).encode()))
        return answer.get("writable") is True

    def blob(self, digest: str, max_size: int) -> bytes:
        """Return the content with this SHA-256.

        Raises:
            UnreachableError: it is not there, too large, or not what its name says.
        """
        content = expect(self._request("GET", f"/api/blobs/{digest}", limit=max_size)).content
        if hashlib.sha256(content).hexdigest() != digest:
            raise UnreachableError(f"the coordinator served other bytes than {digest[:16]}")
        return content

    def put_blob(self, content: bytes, kind: str) -> str:
        """Deposit what a job will name; return its digest. It is kept for a day, and then if a job names it.

        Args:
            content: The bytes.
            kind: "code", "dictionary" or "model".

        Raises:
            PostRefusedError: this member may not, or it is too large, or too much waits for a job already.
            UnreachableError: try again.
        """
        digest = hashlib.sha256(content).hexdigest()
        path = f"/api/blobs/{digest}"
        json_object(self._request("PUT", path, params={"kind": kind}, content=content))
        return digest

    def file(self, path: str, limit: int = MAX_ANSWER) -> bytes:
        """Return a file of at most `limit` bytes. Raises as `read`."""
        answer = self._request("GET", path, limit=limit)
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise FileNotFoundError(path)
        return expect(answer).content

    def get(self, path: str, limit: int = MAX_ANSWER, seconds: float = REQUEST_SECONDS) -> Mapping[str, Any]:
        """Return a JSON answer of at most `limit` bytes, waiting for it so long. Raises as `post`."""
        return self._object("GET", path, None, limit, seconds)

    def post(self, path: str, content: bytes, limit: int = MAX_ANSWER) -> Mapping[str, Any]:
        """Hand in what is signed itself, or ask for a change; return the answer.

        Raises:
            PostRefusedError: it is not taken, or there is no such thing.
            UnreachableError: try again.
        """
        return self._object("POST", path, content, limit)

    def _object(
        self, method: str, path: str, content: bytes | None, limit: int, seconds: float = REQUEST_SECONDS
    ) -> Mapping[str, Any]:
        timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        answer = self._request(method, path, content=content, limit=limit, timeout=timeout)
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise PostRefusedError(answer.status_code, "", reason(answer))
        return json_object(answer)

    def status(self) -> Mapping[str, Any]:
        """Return what the coordinator says of its jobs, for a display; nothing is decided by it."""
        return json_object(self._request("GET", "/api/status"))

    def _request(
        self,
        method: str,
        path: str,
        *,
        limit: int = MAX_ANSWER,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        timeout: httpx.Timeout | None = None,
    ) -> httpx.Response:
        learnt = False
        for key in self._keys():
            while True:
                request = self._client.build_request(
                    method, path, params=params, content=content, timeout=timeout or self._client.timeout
                )
                self._sign(request, content, key)
                answer = self._send(request, path, limit)
                if answer.status_code != httpx.codes.UNAUTHORIZED:
                    self._key = key
                    return answer
                if key is None or learnt or not self.time.learn(answer.headers.get("date", "")):
                    break
                learnt = True  # signed once more, by the coordinator's own time
        raise UnreachableError(f"the coordinator does not take this member's requests: {reason(answer)}")

    def _keys(self) -> Iterator[SigningKey | None]:
        """Yield the key of now, then, if that is refused, what may have taken its place."""
        now = self._key
        yield now
        if now is not None:
            yield from (key for key in self._spare() if key != now)

    def _send(self, request: httpx.Request, path: str, limit: int) -> httpx.Response:
        try:
            response = self._client.send(request, stream=True)
            try:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > limit:
                        raise UnreachableError(f"{path}: the answer is larger than {limit} bytes")
            finally:
                response.close()
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            raise UnreachableError(
                f"the coordinator cannot be reached: {error or type(error).__name__}"
            ) from None
        return httpx.Response(
            response.status_code, headers=plain_headers(response.headers), content=bytes(body)
        )

    def _sign(self, request: httpx.Request, content: bytes | None, key: SigningKey | None) -> None:
        if key is None:
            return
        target = request.url.raw_path.decode("ascii")
        try:
            created, nonce = self.time.now(), secrets.token_hex(16)
            headers = signed_request.sign(
                key, method=request.method, target=target, body=content, created=created, nonce=nonce
            )
        except MalformedError as error:
            raise UnreachableError(f"{target[:80]} cannot be asked for: {error}") from None
        request.headers.update(headers)
