"""The door to the coordinator: whatever comes back is an answer, a refusal or "try again", and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from client.consortium import Consortium
from client.errors import ConfigError, PostRefusedError, UnreachableError
from coordinator.tls import ensure_tls
from ledger import example, signed_request
from ledger.checkpoint import Checkpoint, cosign
from ledger.signed_request import Target
from ledger.source import MAX_FILE_SIZE

Answer = Callable[[httpx.Request], httpx.Response]
LINE = cosign(Checkpoint.empty(example.ORIGIN).to_text(), example.WITNESSES["alpha"], 7)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return ensure_tls(tmp_path_factory.mktemp("tls"), [], datetime.now(UTC)).authority.read_bytes()


def door(authority: bytes, answer: Answer) -> Consortium:
    return Consortium("coordinator.test:1", authority, transport=httpx.MockTransport(answer))


def always(*args: object, **named: object) -> Answer:
    return lambda _: httpx.Response(*args, **named)  # type: ignore[arg-type]


def test_a_file_that_is_not_there(authority: bytes) -> None:
    with pytest.raises(FileNotFoundError, match="checkpoint"):
        door(authority, always(404)).read("checkpoint")


def test_the_long_poll_names_what_is_known_and_hands_on_the_request_for_a_report(authority: bytes) -> None:
    asked: list[httpx.URL] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return httpx.Response(200, content=b"note", headers={"wardround-report": "nonce"})

    found = door(authority, answer).wait_for_pending(17, 2.5)
    assert (found.note, found.report) == (b"note", "nonce")
    assert dict(asked[0].params) == {"above": "17", "wait": "2.5"}


def test_posting(authority: bytes) -> None:
    bodies: list[object] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content if request.url.path == "/api/records" else json.loads(request.content))
        return httpx.Response(200, json={"digest": "d", "final": True, "writable": True})

    made = door(authority, answer)
    assert made.post_record(b"entry") == "d"
    assert made.post_cosignature(3, LINE) is True
    assert made.post_report("nonce", b"note", [b"lost"]) is True
    assert bodies == [
        b"entry",
        {"size": 3, "line": LINE.to_line()},
        {"nonce": "nonce", "note": "note", "entries": [base64.b64encode(b"lost").decode()]},
    ]


@pytest.mark.parametrize("status", [400, 403, 409])
def test_a_refusal_names_the_rule(authority: bytes, status: int) -> None:
    made = door(authority, always(status, json={"rule": "approval.number", "error": "number 2, expected 3"}))
    with pytest.raises(PostRefusedError, match="number 2") as caught:
        made.post_record(b"entry")
    assert (caught.value.status, caught.value.rule) == (status, "approval.number")


@pytest.mark.parametrize(
    "answer",
    [
        always(503, json={"error": "read-only"}),
        always(429, json={}),
        always(500, content=b"\xff\xfe"),
        always(200, content=b"not json"),
        always(200, json=[1, 2]),
        always(200, content=b"[" * 100_000),
        always(302, headers={"location": "https://elsewhere.example/"}),
    ],
)
def test_anything_else_is_try_again(authority: bytes, answer: Answer) -> None:
    with pytest.raises(UnreachableError):
        door(authority, answer).post_record(b"entry")


@pytest.mark.parametrize("status", [200, 409])
def test_half_a_character_in_a_statement_is_no_crash(authority: bytes, status: int) -> None:
    """JSON can spell it, UTF-8 cannot: what came is kept by nobody, and the agent goes on."""

    class Listens:
        said = b""

        def handing_in(self, entry: bytes) -> None:
            return None

        def heard(self, entry: bytes, statement: bytes) -> None:
            self.said = statement

    made = door(authority, always(status, content=b'{"digest": "d", "statement": "\\ud800"}'))
    made.ear = ear = Listens()
    with suppress(PostRefusedError):
        made.post_record(b"entry")
    assert ear.said == b"\\ud800"


def test_a_network_that_fails_is_try_again(authority: bytes) -> None:
    for failure in (
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("odd"),
    ):

        def answer(_: httpx.Request, failure: Exception = failure) -> httpx.Response:
            raise failure

        with pytest.raises(UnreachableError):
            door(authority, answer).read("checkpoint")


def test_an_endless_answer_is_cut(authority: bytes) -> None:
    made = door(authority, always(200, content=bytes(MAX_FILE_SIZE + 1)))
    with pytest.raises(UnreachableError, match="larger"):
        made.read("tile/0/000")


def test_a_blob_is_what_its_name_says(authority: bytes) -> None:
    digest = hashlib.sha256(b"content").hexdigest()
    assert door(authority, always(200, content=b"content")).blob(digest, 100) == b"content"
    with pytest.raises(UnreachableError, match="other bytes"):
        door(authority, always(200, content=b"contents")).blob(digest, 100)


def test_a_closed_door_is_try_again(authority: bytes) -> None:
    made = door(authority, always(200))
    made.close()
    with pytest.raises(UnreachableError):
        made.status()


@pytest.mark.parametrize("text", [b"", b"not a certificate", b"\xff" * 50])
def test_an_authority_that_is_none(text: bytes) -> None:
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        Consortium("coordinator.test:1", text)


def test_only_the_pinned_authority_is_trusted(authority: bytes, tmp_path: Path) -> None:
    made = Consortium("coordinator.test:1", authority)
    context = made._client._transport._pool._ssl_context  # type: ignore[attr-defined]
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
    made.close()


def test_every_request_is_signed_afresh_over_what_was_sent(authority: bytes) -> None:
    seen: list[signed_request.Signed] = []

    def answer(request: httpx.Request) -> httpx.Response:
        path, _, query = request.url.raw_path.decode().partition("?")
        target = Target(
            method=request.method,
            path=path,
            query=query,
            content_digest=request.headers.get("content-digest", ""),
        )
        seen.append(
            signed_request.verify(target, request.headers["signature-input"], request.headers["signature"])
        )
        if request.content:
            header = signed_request.content_digest(hashlib.sha256(request.content).digest())
            assert request.headers["content-digest"] == header
        return httpx.Response(200, json={"digest": "d"})

    key = example.KEYS["alpha"]
    made = Consortium(
        "c.test:1", authority, key=key, transport=httpx.MockTransport(answer), clock=lambda: 1e9 + 0.7
    )
    made.wait_for_pending(17, 2.5)
    made.post_record(b"entry")
    made.read("tile/0/x001/234.p/7")
    assert {(s.key, s.created) for s in seen} == {(key.verifier.public.hex(), 10**9)}
    assert len({s.nonce for s in seen}) == 3


def test_a_deposit_goes_to_its_digest_and_a_limit_is_a_refusal(authority: bytes) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"digest": "another"})

    digest = hashlib.sha256(b"model").hexdigest()
    assert door(authority, answer).put_blob(b"model", "model") == digest
    assert (asked[0].method, asked[0].url.path, asked[0].content) == ("PUT", f"/api/blobs/{digest}", b"model")
    assert dict(asked[0].url.params) == {"kind": "model"}
    with pytest.raises(PostRefusedError, match="at most 9 bytes"):
        door(authority, always(413, json={"error": "at most 9 bytes"})).put_blob(b"model", "model")


def test_nothing_is_signed_without_a_key(authority: bytes) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert not {"signature", "signature-input"} & set(request.headers)
        return httpx.Response(200)

    door(authority, answer).read("checkpoint")


@pytest.mark.parametrize("method", ["read", "status", "post_record"])
def test_a_refused_signature_is_said_in_one_line_and_tried_again(authority: bytes, method: str) -> None:
    made = door(authority, always(401, json={"error": "the request's time is 75 s behind\n\x1b[2J"}))
    with pytest.raises(UnreachableError, match=r"75 s behind\?\?\[2J") as caught:
        getattr(made, method)(*([] if method == "status" else [b"x"] if method == "post_record" else ["x"]))
    assert "\n" not in str(caught.value)


# --- clocks that differ ---


def keeping_time(there: float, seen: list[int]) -> Answer:
    """A coordinator that takes what was signed within a minute of its clock, and says the time."""

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        target = Target(method=request.method, path=path, query="")
        signed = signed_request.verify(
            target, request.headers["signature-input"], request.headers["signature"]
        )
        seen.append(signed.created)
        headers = {"date": format_datetime(datetime.fromtimestamp(there, UTC), usegmt=True)}
        taken = abs(signed.created - there) <= 60
        return httpx.Response(200 if taken else 401, content=b"x" if taken else b"{}", headers=headers)

    return answer


def signing(authority: bytes, answer: Answer, told: list[str]) -> Consortium:
    made = Consortium(
        "c.test:1",
        authority,
        key=example.KEYS["alpha"],
        transport=httpx.MockTransport(answer),
        clock=lambda: 1e9,
    )
    made.time.tell = told.append
    return made


@pytest.mark.parametrize("ahead", [590, -590, 10**8, -(10**8)])
def test_a_clock_that_differs_costs_one_request_and_is_said_once(authority: bytes, ahead: int) -> None:
    seen, told = list[int](), list[str]()
    made = signing(authority, keeping_time(1e9 + ahead, seen), told)
    assert (made.read("a"), made.read("b")) == (b"x", b"x")
    assert seen == [10**9, 10**9 + ahead, 10**9 + ahead]
    (line,) = told
    assert f"{abs(ahead)} s {'ahead of' if ahead > 0 else 'behind'}" in line


@pytest.mark.parametrize(
    "date", ["", "yesterday", "Thu, 01 Jan 1900 00:00:00 GMT", "x" * 5000, "Sun, 09 Sep 2001 01:46:42 GMT"]
)
def test_a_refusal_without_another_time_is_not_asked_again(authority: bytes, date: str) -> None:
    seen, told = list[int](), list[str]()

    def answer(_: httpx.Request) -> httpx.Response:
        seen.append(1)
        return httpx.Response(401, json={"error": "no"}, headers={"date": date})

    with pytest.raises(UnreachableError):
        signing(authority, answer, told).read("a")
    assert (len(seen), told) == (1, [])


def test_a_coordinator_whose_time_never_suits_is_asked_twice(authority: bytes) -> None:
    dates = (format_datetime(datetime.fromtimestamp(1e9 + 1000 * n, UTC), usegmt=True) for n in range(1, 9))
    seen: list[int] = []

    def answer(_: httpx.Request) -> httpx.Response:
        seen.append(1)
        return httpx.Response(401, json={"error": "no"}, headers={"date": next(dates)})

    with pytest.raises(UnreachableError):
        signing(authority, answer, []).read("a")
    assert len(seen) == 2
