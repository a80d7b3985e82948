"""Who may do what at the public port: every endpoint of the table against everybody, written down here once more.

`EXPECTED` repeats by hand what the table says: a changed or new endpoint fails until somebody has thought about it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator import openapi, service
from coordinator.endpoint import Endpoint
from coordinator.endpoints import ENDPOINTS
from coordinator.gateway import FORWARDED
from ledger import envelope, example, records
from ledger.checkpoint import cosign
from ledger.note import Note
from ledger.policy import quorum_size
from ledger.signature import SigningKey
from ledger.values import KeyChange, Member
from tests.coordinator.public_port import TOKEN, Client, app_of, signature
from tests.coordinator.test_sequencer import incident
from tests.coordinator.ward import DICTIONARY, Ward, sha

CODE = b"# a model\n"
MEMBERS = ("auditor", "coordinator", "hospital", "patient-representative", "researcher")
OUTSIDERS = (
    "nobody",
    "stranger",
    "removed",
    "rotated away",
    "revoked key",
    "replayed",
    "of yesterday",
    "of tomorrow",
    "forged",
)
KEYS = {
    "auditor": example.key("auditor", "auditor"),
    "patient-representative": example.key("patients", "patients"),
    "hospital": example.KEYS["alpha"],
    "coordinator": example.KEYS["coordinator"],
    "researcher": example.KEYS["researcher"],
    "stranger": example.key("stranger", "stranger"),
    "removed": example.KEYS["echo"],
    "rotated away": example.KEYS["delta"],
    "revoked key": example.KEYS["charlie"],
}


@dataclass(frozen=True)
class Case:
    """A request, and what it is answered with."""

    method: str
    target: str
    good: int  # status for those who may
    may: tuple[str, ...]
    others: int = 401  # status for everybody else
    body: bytes = b""

    def status(self, caller: str) -> int:
        if self.others == 401 and caller in MEMBERS and caller not in self.may and "nobody" not in self.may:
            return 403 if self.target != "/metrics" else 401
        return self.good if caller in self.may else self.others


EVERYBODY = (*OUTSIDERS, *MEMBERS)
EXPECTED = {
    "page": Case("GET", "/", 200, EVERYBODY),
    "openapi": Case("GET", "/openapi.json", 200, EVERYBODY),
    "health": Case("GET", "/health", 200, EVERYBODY),
    "authority": Case("GET", "/api/authority", 200, EVERYBODY),
    "metrics": Case("GET", "/metrics", 200, ()),
    "pending": Case("GET", "/log/checkpoint.pending", 200, MEMBERS),
    "final": Case("GET", "/log/checkpoint?above=0&wait=1", 200, MEMBERS),
    "news": Case("GET", "/api/news?above=0&wait=1", 200, MEMBERS),
    "kept": Case("GET", "/log/checkpoints/SIZE", 200, MEMBERS),
    "tile": Case("GET", "/log/tile/entries/000.p/SIZE", 200, MEMBERS),
    "records": Case("POST", "/api/records", 200, EVERYBODY, body=b"RECORD"),
    "cosignatures": Case("POST", "/api/cosignatures", 200, EVERYBODY, body=b"COSIGNATURE"),
    "reports": Case("POST", "/api/reports", 200, EVERYBODY, body=b'{"entries":[],"nonce":"","note":""}'),
    "status": Case("GET", "/api/status", 200, MEMBERS),
    "acknowledgement": Case("GET", f"/api/acknowledgements/{'0' * 64}", 404, MEMBERS),
    "wanted": Case("GET", "/api/wanted", 200, MEMBERS),
    "wanted-blob": Case("POST", f"/api/wanted/{'0' * 64}", 404, MEMBERS),
    "blob": Case("GET", f"/api/blobs/{sha(DICTIONARY)}", 200, MEMBERS),
    "run": Case("GET", f"/api/runs/{sha(CODE)}", 404, MEMBERS),
    "run-file": Case("GET", f"/api/runs/{sha(CODE)}/card.md", 404, MEMBERS),
    "upload": Case("PUT", f"/api/blobs/{sha(CODE)}?kind=code", 200, ("researcher",), body=CODE),
    "join": Case("POST", "/api/join", 403, EVERYBODY, body=b"{}"),  # nobody here has an invitation
    "joining": Case("GET", "/api/founding", 403, EVERYBODY),
    "joining-signature": Case("POST", "/api/founding/signatures", 403, EVERYBODY, body=b"RECORD"),
    "propose": Case("POST", "/api/proposals", 409, EVERYBODY, body=b"RECORD"),  # an incident: not for several
    "proposals": Case("GET", "/api/proposals", 200, MEMBERS),
    "proposal": Case("GET", f"/api/proposals/{'0' * 64}", 404, MEMBERS),
    "proposal-signature": Case(
        "POST", f"/api/proposals/{'0' * 64}/signatures", 404, EVERYBODY, body=b"RECORD"
    ),
    "decline": Case("POST", f"/api/proposals/{'0' * 64}/declined", 404, MEMBERS),
    "node": Case("POST", "/api/nodes", 400, EVERYBODY, body=b"{}"),
    **{f"fleet-{n}": Case("POST", f"/v1/fleet/{n}", 503, EVERYBODY, body=b"x") for n in FORWARDED},
}


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    """A consortium that an amendment has changed: two came, one went, two have new keys, one old one is revoked."""
    ward = Ward(tmp_path_factory.mktemp("ward"))
    ward.propose()
    fresh, after_theft = example.key("delta's second", "delta"), example.key("charlie's second", "charlie")
    added = tuple(
        Member(name=KEYS[role].name, role=role, key=envelope.public_hex(KEYS[role]), witness="")
        for role in ("auditor", "patient-representative")
    )
    amendment = records.Amendment(
        origin=example.ORIGIN,
        replaces=1,
        add=added,
        remove=("echo",),
        rotate=(
            KeyChange(member="charlie", key=envelope.public_hex(after_theft), witness=""),
            KeyChange(member="delta", key=envelope.public_hex(fresh), witness=""),
        ),
        revoke=(envelope.public_hex(example.KEYS["charlie"]),),
        max_dishonest=1,
        quorum=quorum_size(4, 1),
        log="",
        rules=1,
    )
    voters = [example.KEYS[name] for name in ("alpha", "bravo", "delta", "echo")]
    signers = [*voters, fresh, after_theft, KEYS["auditor"], KEYS["patient-representative"]]
    ward.cosigning = ("alpha", "bravo", "charlie", "delta")
    ward.sequencer.submit(envelope.sign(amendment, *signers))
    assert ward.sequencer.standing.final_size == ward.sequencer.standing.view.size
    return ward


@pytest.fixture(scope="module")
def client(ward: Ward) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patched, Client(app_of(ward)) as made:
        patched.setattr(service, "HOLD_SECONDS", 0.0)
        yield made


def filled(case: Case, ward: Ward) -> tuple[str, bytes]:
    """The target and the body with what only the log knows."""
    size = str(ward.sequencer.standing.final_size)
    body = case.body
    if body == b"RECORD":
        body = incident("a", "alpha")
    if body == b"COSIGNATURE":
        note = Note.from_bytes(ward.sequencer.pending())
        line = cosign(note.text, example.WITNESSES["alpha"], int(ward.clock.now))
        body = json.dumps({"size": int(note.text.split("\n")[1]), "line": line.to_line()}).encode()
    return case.target.replace("SIZE", size), body


def headers_of(caller: str, case: Case, target: str, body: bytes) -> dict[str, str]:
    if caller == "nobody":
        return {}
    if caller == "of yesterday":
        return signature(case.method, target, KEYS["hospital"], body=body, age=61 + 5)
    if caller == "of tomorrow":
        return signature(case.method, target, KEYS["hospital"], body=body, age=-61 - 5)
    if caller == "forged":
        other = signature(case.method, target, KEYS["stranger"], body=body)
        return {
            **signature(case.method, target, KEYS["hospital"], body=body),
            "signature": other["signature"],
        }
    return signature(case.method, target, KEYS[caller], body=body)


def test_every_endpoint_has_an_expectation() -> None:
    assert set(EXPECTED) == {endpoint.name for endpoint in ENDPOINTS}
    for endpoint in ENDPOINTS:
        assert EXPECTED[endpoint.name].method == endpoint.method


@pytest.mark.parametrize("caller", EVERYBODY)
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_access(ward: Ward, client: Client, endpoint: Endpoint, caller: str) -> None:
    case = EXPECTED[endpoint.name]
    target, body = filled(case, ward)
    if caller == "replayed":
        who = case.may[-1] if case.may else "hospital"
        headers = signature(case.method, target, KEYS[who], body=body)
        first = client.ask(case.method, target, headers=headers, content=body)
        assert first.status_code == (case.good if case.may else 401)
    else:
        headers = headers_of(caller, case, target, body)
    answer = client.ask(case.method, target, headers=headers, content=body)
    assert answer.status_code == case.status(caller), answer.text
    if answer.status_code in (401, 403):
        assert set(answer.json()) == {"error"}
        assert "\n" not in answer.json()["error"]


def test_metrics_are_for_the_token_and_for_nothing_else(client: Client) -> None:
    assert client.ask("GET", "/metrics", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    for wrong in ("", TOKEN, f"bearer {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN} ", "Bearer \xff"):
        answer = client.ask("GET", "/metrics", headers={"authorization": wrong.encode("latin-1")})
        assert answer.status_code == 401


def test_a_signature_is_for_one_request_only(client: Client) -> None:
    """A signature for one path, query, method or body opens no other."""
    headers = signature("GET", "/api/status", KEYS["hospital"])
    for method, target in (
        ("GET", "/log/checkpoint"),
        ("GET", "/api/status?above=1"),
        ("GET", "/api/%73tatus"),
        ("PUT", f"/api/blobs/{sha(CODE)}?kind=code"),
    ):
        assert client.ask(method, target, headers=headers).status_code == 401
    assert client.ask("GET", "/api/status", headers=headers).status_code == 200  # none of them used it up
    put = f"/api/blobs/{sha(CODE)}?kind=code"
    headers = signature("PUT", put, KEYS["researcher"], body=CODE)
    assert client.ask("PUT", put, headers=headers, content=b"# another\n").status_code in (200, 400)
    other = hashlib.sha256(b"# another\n").hexdigest()
    headers = signature("PUT", f"/api/blobs/{other}?kind=code", KEYS["researcher"], body=CODE)
    answer = client.ask("PUT", f"/api/blobs/{other}?kind=code", headers=headers, content=b"# another\n")
    assert answer.status_code == 401


def test_a_second_signature_header_is_refused(client: Client) -> None:
    headers = signature("GET", "/api/status", KEYS["hospital"])
    twice = [*headers.items(), ("signature", headers["signature"])]
    answer = client.ask("GET", "/api/status", headers=twice)
    assert answer.status_code == 401


def test_a_lagging_clock_is_told_by_how_much(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    def status(age: int) -> int:
        answer = client.ask(
            "GET", "/api/status", headers=signature("GET", "/api/status", KEYS["hospital"], age=age)
        )
        assert age == 0 or "s behind this clock" in answer.json()["error"]
        return answer.status_code

    assert [status(75), status(75), status(0), status(75)] == [401, 401, 200, 401]
    told = [line for line in caplog.messages if "behind this machine's" in line]
    assert len(told) == 2, told  # once each time that it went wrong
    assert "if several members' are, it is this machine's that is wrong" in told[0]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_other_methods_are_405_in_json(ward: Ward, client: Client, endpoint: Endpoint) -> None:
    target, _ = filled(EXPECTED[endpoint.name], ward)
    path = target.partition("?")[0]
    allowed = {e.method for e in ENDPOINTS if e.path == endpoint.path}
    for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} - allowed:
        answer = client.ask(method, path)
        assert answer.status_code == 405, method
        assert set(answer.headers["allow"].split(", ")) == allowed
        if method != "HEAD":
            assert set(answer.json()) == {"error"}


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api",
        "/api/",
        "/log/",
        "/api/status/",
        "//api/status",
        "/API/status",
        "/api/status.",
        "/docs",
    ],
)
def test_an_unknown_path_is_404_in_json(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize(
    "query", ["?x=1", "?above=1&above=2", "?above=", "?wait=1&_=2", "?above=%31&ABOVE=1"]
)
def test_unknown_and_repeated_parameters_are_400(client: Client, query: str) -> None:
    assert client.get(f"/log/checkpoint.pending{query}").status_code == 400


def test_document_and_page_show_the_whole_table(client: Client) -> None:
    shown = client.ask("GET", "/openapi.json").json()
    assert shown == json.loads(json.dumps(openapi.document()))
    operations = {o["operationId"]: o for path in shown["paths"].values() for o in path.values()}
    assert set(operations) == {endpoint.name for endpoint in ENDPOINTS}
    for endpoint in ENDPOINTS:
        assert bool(operations[endpoint.name]["security"]) == (
            endpoint.who.kind in ("invited", "member", "token", "node")
        )
    page = client.ask("GET", "/")
    assert all(endpoint.path in page.text for endpoint in ENDPOINTS)
    assert "<script" not in page.text
    assert "http" not in page.text.replace("https://json-schema.org", "")


def test_health_and_authority_tell_strangers_nothing_of_members(ward: Ward, client: Client) -> None:
    health = client.ask("GET", "/health").json()
    assert health == {"status": "starting", "reason": "Flower's SuperLink is not ready yet"}
    authority = client.ask("GET", "/api/authority")
    assert authority.text == (ward.folder / "tls" / "ca.pem").read_text()
    assert "PRIVATE" not in authority.text


def test_a_key_made_up_on_the_spot_is_a_strangers(client: Client) -> None:
    key = SigningKey(name="x", type=example.LOG_KEY.type, seed=secrets.token_bytes(32))
    assert client.ask("GET", "/api/status", key).status_code == 401
    assert client.ask("GET", "/api/status", example.LOG_KEY).status_code == 401
    recovery = example.key("recovery 0", "recovery")
    assert client.ask("GET", "/api/status", recovery).status_code == 401


def test_a_log_that_waits_is_read_only_in_words(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.sequencer.stop()
    with Client(app_of(ward)) as client:
        assert client.ask("GET", "/health").json()["status"] == "read-only"
