"""The public port's API and log files: what members may do, what anybody may read, and everything malformed."""

from __future__ import annotations

import base64
import json
import shutil
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordinator.endpoints import MAX_COSIGNATURE, MAX_WANTED
from coordinator.log_files import REPORT
from ledger import envelope, example, records, statements
from ledger.audit import audit
from ledger.checkpoint import Checkpoint, cosign
from ledger.note import Note
from ledger.records import MAX_RECORD_SIZE
from tests.coordinator.public_port import Client, app_of
from tests.coordinator.test_sequencer import incident, reopened, report
from tests.coordinator.ward import DICTIONARY, Ward, carry, sha


def client_of(ward: Ward) -> Client:
    return Client(app_of(ward))


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


@pytest.fixture
def client(ward: Ward) -> Iterator[Client]:
    with client_of(ward) as made:
        yield made


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """For requests that must not change anything."""
    ward = Ward(tmp_path_factory.mktemp("quiet"))
    size = ward.sequencer.standing.view.size
    with client_of(ward) as made:
        yield made
    assert ward.sequencer.standing.view.size == size


# --- records ---


def test_member_submits_a_record_and_submitting_again_finds_it(ward: Ward, client: Client) -> None:
    size = ward.sequencer.standing.view.size
    answer = client.post("/api/records", content=incident("a"))
    assert (answer.status_code, answer.json()["index"]) == (200, size)
    assert answer.json()["digest"] == envelope.parse_entry(incident("a")).digest
    again = client.post("/api/records", content=incident("a")).json()  # its promise is signed anew
    assert (again["index"], again["digest"]) == (size, answer.json()["digest"])


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\x00", b'{"payload":1}', incident("a") + b"\n", b"[" * 30_000],
    ids=["empty", "cut", "list", "null", "zero", "wrong", "newline", "deep"],
)
def test_malformed_record_is_400(quiet: Client, body: bytes) -> None:
    answer = quiet.post("/api/records", content=body)
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]


def test_oversized_record_is_413_without_reading_it_all(quiet: Client) -> None:
    read: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        for i in range(1000):
            read.append(i)
            yield b"x" * 10_000

    assert quiet.post("/api/records", content=endless()).status_code == 413
    assert len(read) < 20
    assert quiet.post("/api/records", content=b"x" * (MAX_RECORD_SIZE + 1)).status_code == 413


def test_forged_record_is_403_and_one_against_a_rule_409(ward: Ward, client: Client) -> None:
    entry = envelope.parse_entry(incident("a"))
    (key,) = entry.signers
    forged = envelope.assemble(entry.record, {key: bytes(64)})
    assert client.post("/api/records", content=forged).status_code == 403
    stranger = envelope.sign(entry.record, example.key("stranger", "stranger"))
    answer = client.post("/api/records", content=stranger)
    assert answer.status_code == 409
    assert answer.json()["rule"].startswith("record.")


def test_nobody_else_can_close_a_round(ward: Ward, client: Client) -> None:
    ward.start()
    ended = records.Ended(origin=example.ORIGIN, job=ward.job.digest(), reason="cancelled")
    answer = client.post("/api/records", content=envelope.sign(ended, example.KEYS["alpha"]))
    assert answer.status_code == 409


# --- cosignatures and reports ---


def cosignature(ward: Ward, name: str) -> dict[str, Any]:
    note = Note.from_bytes(ward.sequencer.pending())
    line = cosign(note.text, example.WITNESSES[name], int(ward.clock.now))
    return {"size": Checkpoint.from_text(note.text).size, "line": line.to_line()}


def test_cosignatures_make_a_checkpoint_final(ward: Ward, client: Client) -> None:
    ward.cosigning = ()
    ward.sequencer.submit(incident("a"))
    answers = [client.post("/api/cosignatures", json=cosignature(ward, name)) for name in example.WITNESSES]
    assert [a.json()["final"] for a in answers] == [False, False, False, True, True]
    size = ward.sequencer.standing.view.size
    note = client.get("/log/checkpoint").content
    assert Checkpoint.from_text(Note.from_bytes(note).text).size == size


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", 400),
        (b'{"size":1}', 400),
        (b'{"size":true,"line":"x"}', 400),
        (b'{"size":-1,"line":"x"}', 400),
        (b'{"size":1e3,"line":"x"}', 400),
        (b'{"size":99999999999999999999999,"line":"x"}', 400),
        (b'{"size":1,"line":"x","more":1}', 400),
        (b'{"size":1,"line":"no signature line"}', 400),
        (b'{"size":1,"line":5}', 400),
        (b"x" * (MAX_COSIGNATURE + 1), 413),
    ],
)
def test_malformed_cosignature(quiet: Client, body: bytes, code: int) -> None:
    assert quiet.post("/api/cosignatures", content=body).status_code == code


def test_wrong_cosignature_is_403_an_unknown_size_409_a_strangers_line_counts_nothing(
    ward: Ward, client: Client
) -> None:
    ward.cosigning = ()
    ward.sequencer.submit(incident("a"))
    good = cosignature(ward, "alpha")
    forged = {**good, "line": cosignature(ward, "bravo")["line"].replace("bravo", "alpha")}
    assert client.post("/api/cosignatures", json=forged).status_code in (400, 403)
    stale = cosign("ledger.example/heart-consortium\n1\n" + "A" * 43 + "=\n", example.WITNESSES["alpha"], 5)
    assert client.post("/api/cosignatures", json={**good, "line": stale.to_line()}).status_code == 403
    assert client.post("/api/cosignatures", json={**good, "size": 10**6}).status_code == 409
    assert ward.sequencer.standing.cosignatures == 0


def test_restarted_log_asks_its_witnesses_and_opens_after_a_quorum(ward: Ward, tmp_path: Path) -> None:
    note = ward.sequencer.pending()
    ward.reopen()
    assert ward.sequencer.standing.writable
    with client_of(ward) as open_client:
        assert REPORT not in open_client.get("/log/checkpoint.pending").headers
    with ward.sequencer:
        pass
    ward.sequencer = reopened(tmp_path)
    with client_of(ward) as client:
        began = time.monotonic()
        answer = client.get("/log/checkpoint.pending?above=1000000&wait=30")
        assert time.monotonic() - began < 10  # at once, not after the wait
        question = answer.headers[REPORT]
        assert client.post("/api/records", content=incident("a")).status_code == 503
        for place, name in enumerate(("alpha", "bravo", "charlie", "delta")):
            body = {"nonce": question, "note": report(note, name).decode(), "entries": []}
            answer = client.post("/api/reports", json=body)
            assert answer.json() == {"writable": place == 3, "more": 3 - place}
        assert client.post("/api/records", content=incident("a")).status_code == 200
        assert REPORT not in client.get("/log/checkpoint.pending").headers


def test_journal_says_what_a_restored_log_got_back(
    ward: Ward, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ward.sequencer as before:
        shutil.copytree(tmp_path / "log", tmp_path / "backup")
        size = before.submit(incident("a")).index
        note = before.pending()
    shutil.rmtree(tmp_path / "log")
    (tmp_path / "backup").rename(tmp_path / "log")
    ward.sequencer = reopened(tmp_path)
    with caplog.at_level("INFO", "coordinator"), client_of(ward) as client:
        question = client.get("/log/checkpoint.pending").headers[REPORT]
        for name, tail in (("alpha", []), ("bravo", [incident("a")]), ("charlie", []), ("delta", [])):
            entries = [base64.b64encode(entry).decode() for entry in tail]
            body = {"nonce": question, "note": report(note, name).decode(), "entries": entries}
            assert client.post("/api/reports", json=body).status_code == 200
    told = [r.getMessage() for r in caplog.records if r.name == "coordinator.api"]
    assert told == [
        f"the log is read-only: a witness saw {size + 1} entries: the missing ones are fetched from it",
        f"1 entries that this log had lost came back from a witness: it holds {size + 1}",
        "a quorum of the witnesses has reported: the log may be written",
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"nonce":"x","note":"y"}',
        b'{"nonce":"x","note":"y","entries":[1]}',
        b'{"nonce":"x","note":"y","entries":["*"]}',
        b'{"nonce":"x","note":"y","entries":"z"}',
    ],
)
def test_malformed_report_is_refused(ward: Ward, tmp_path: Path, body: bytes) -> None:
    with ward.sequencer:
        pass
    with reopened(tmp_path) as ward.sequencer, client_of(ward) as client:
        assert client.post("/api/reports", content=body).status_code == 400
        assert not ward.sequencer.standing.writable


# --- reading ---


def test_log_is_served_whole_and_audits(ward: Ward, client: Client) -> None:
    ward.start()
    carry(ward.rounds(), ward)

    def read(path: str) -> bytes:
        answer = client.get(f"/log/{path}")
        if answer.status_code == 404:
            raise FileNotFoundError(path)
        return answer.content

    found = audit(read, charter=example.charter().digest())
    assert found.checkpoint.size == ward.sequencer.standing.view.size


def test_content_types_are_those_of_tlog_tiles(ward: Ward, client: Client) -> None:
    size = ward.sequencer.standing.view.size
    checkpoint = client.get("/log/checkpoint.pending")
    assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
    assert checkpoint.headers["cache-control"] == "no-store"
    tile = client.get(f"/log/tile/entries/000.p/{size}")
    assert tile.headers["content-type"] == "application/octet-stream"
    assert "immutable" in tile.headers["cache-control"]


@pytest.mark.parametrize(
    "path",
    [
        "log.sqlite",
        "log.sqlite-wal",
        "lock",
        "",
        "tile",
        "tile/0/000",
        "tile/../log.sqlite",
        "tile/0/../../log.sqlite",
        "..%2flog%2flog.sqlite",
        "tile/0/%2e%2e/%2e%2e/log.sqlite",
        "checkpoints/../log.sqlite",
        "checkpoints/01",
        "checkpoints/1e3",
        "checkpoints/999999",
        "tile/0/0",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "//etc/passwd",
        "tile/entries/x000/000",
    ],
)
def test_nothing_else_of_the_directory_is_served(quiet: Client, path: str) -> None:
    assert quiet.get(f"/log/{path}").status_code == 404


def test_long_poll_answers_as_soon_as_the_log_grows(ward: Ward, client: Client) -> None:
    size = ward.sequencer.standing.view.size
    thread = threading.Timer(0.3, lambda: ward.sequencer.submit(incident("a")))
    thread.start()
    began = time.monotonic()
    answer = client.get(f"/log/checkpoint.pending?above={size}&wait=30")
    thread.join()
    assert time.monotonic() - began < 20
    assert Checkpoint.from_text(Note.from_bytes(answer.content).text).size == size + 1


def test_long_poll_gives_what_there_is_after_its_wait_and_when_it_stops(ward: Ward, client: Client) -> None:
    answer = client.get("/log/checkpoint?above=1000000&wait=0")
    assert answer.status_code in (200, 404)
    threading.Timer(0.2, ward.sequencer.stop).start()
    began = time.monotonic()
    assert client.get("/log/checkpoint.pending?above=1000000&wait=30").status_code == 200
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("query", ["above=x", "above=-1", "above=1&wait=1e3", "above=&wait=1", "wait=x"])
def test_malformed_long_poll_is_400(quiet: Client, query: str) -> None:
    assert quiet.get(f"/log/checkpoint.pending?{query}").status_code == 400


def test_blobs_of_no_job_are_given_to_nobody(ward: Ward, client: Client) -> None:
    assert client.get(f"/api/blobs/{sha(DICTIONARY)}").status_code == 404  # no job names it yet
    ward.start()
    assert client.get(f"/api/blobs/{sha(DICTIONARY)}").content == DICTIONARY
    for path in ("x", "A" * 64, "../keys", sha(b"unknown"), f"{sha(DICTIONARY)}/"):
        assert client.get(f"/api/blobs/{path}").status_code == 404


def handouts(ward: Ward) -> list[records.Access]:
    found = map(envelope.parse_entry, ward.sequencer._log.store.entries(0, ward.sequencer.standing.view.size))
    return [entry.record for entry in found if isinstance(entry.record, records.Access)]


def test_updates_and_histograms_are_for_the_jobs_hospitals_once_a_round_on_the_record(
    ward: Ward, client: Client
) -> None:
    ward.start()
    carry(ward.rounds(), ward)
    closed = ward.sequencer.standing.jobs[ward.job.digest()].closed
    for digest in (closed[1].receipts[0].update, closed[1].receipts[0].metrics):
        for reader in ("delta", "researcher", "coordinator"):  # delta is a hospital, but not of this job
            assert client.get(f"/api/blobs/{digest}", reader).status_code == 404
    assert handouts(ward) == []
    for _ in range(3):
        for receipt in closed[1].receipts:
            answer = client.get(f"/api/blobs/{receipt.update}", "bravo")
            assert sha(answer.content) == receipt.update
    client.get(f"/api/blobs/{closed[1].receipts[0].metrics}", "bravo")
    record = closed[1].record
    assert isinstance(record, records.Round)
    assert [(r.number, r.member, r.item, r.content, r.right) for r in handouts(ward)] == [
        (1, "bravo", "update", record.inputs, "recomputation"),
        (2, "bravo", "metrics", record.inputs, "participation"),
    ]


def test_nothing_is_handed_out_that_cannot_be_put_on_the_record(ward: Ward, client: Client) -> None:
    ward.start()
    carry(ward.rounds(), ward)
    update = ward.sequencer.standing.jobs[ward.job.digest()].closed[0].receipts[0].update
    ward.sequencer.stop()
    assert client.get(f"/api/blobs/{update}").status_code == 503
    assert handouts(ward) == []


def test_status_shows_jobs_epsilons_and_the_log(ward: Ward, client: Client) -> None:
    ward.start()
    carry(ward.rounds(), ward)
    found = client.get("/api/status").json()
    (job,) = found["jobs"]
    assert (job["status"], job["round"], job["rounds"], job["exchanges"]) == ("running", 4, 3, 4)
    assert job["participants"] == ["alpha", "bravo", "charlie"]
    assert job["epsilons"]["alpha"] == {
        "job": "0.4", "job_delta": "0.0001", "dataset": "0.4", "budget": "50", "delta": "0.0001", "limit": "40",
    }  # fmt: skip
    assert found["log"]["final_size"] == found["log"]["size"]
    assert (found["log"]["quorum"], found["log"]["witnesses"]) == (4, 5)
    assert found["phases"] == {}
    assert json.dumps(found, allow_nan=False)


def test_methods_are_what_they_are_said_to_be(quiet: Client) -> None:
    assert quiet.get("/api/records").status_code == 405
    assert quiet.post("/log/checkpoint").status_code == 405
    assert quiet.get("/api/nothing").status_code == 404


# --- statements ---

COORDINATOR = envelope.public_hex(example.KEYS["coordinator"])


def test_record_is_answered_with_a_promise_that_is_kept_already(ward: Ward, client: Client) -> None:
    entry = incident("a promise")
    for _ in range(2):  # again, the same place is promised
        answer = client.post("/api/records", content=entry).json()
        promise = statements.open_signed(answer["statement"].encode(), COORDINATOR)
        assert isinstance(promise, statements.Promise)
        assert promise.record == answer["digest"] == envelope.open_entry(entry).digest
        assert promise.size == answer["index"] + 1 <= ward.sequencer.standing.view.size


def test_record_against_a_rule_is_answered_with_an_objection_that_anybody_can_check(
    ward: Ward, client: Client
) -> None:
    stranger = records.Incident(origin=example.ORIGIN, member="nobody", code="x", evidence="0" * 64)
    answer = client.post("/api/records", content=envelope.sign(stranger, example.KEYS["alpha"]))
    objection = statements.open_signed(answer.json()["statement"].encode(), COORDINATOR)
    assert answer.status_code == 409
    assert isinstance(objection, statements.Objection)
    assert (objection.record, objection.rule) == (stranger.digest(), answer.json()["rule"])
    assert objection.size == ward.sequencer.standing.view.size


def test_acknowledgement_is_given_as_soon_as_the_reply_is_here(ward: Ward, client: Client) -> None:
    ward.start()
    rounds = ward.rounds()
    exchange = rounds.next_exchange()
    assert exchange is not None
    node = ward.nodes.known["alpha"]
    reply = ward.hospitals["alpha"].answer(node, exchange.configs[node], exchange.model)
    data = reply.config["receipt"]
    assert isinstance(data, bytes)
    digest = envelope.open_entry(data).digest
    assert client.get(f"/api/acknowledgements/{digest}").status_code == 404
    arrives = threading.Timer(0.2, rounds.receive, [reply])
    arrives.start()
    answer = client.get(f"/api/acknowledgements/{digest}?wait=30")
    arrives.join()
    found = statements.open_signed(answer.json()["statement"].encode(), COORDINATOR)
    assert isinstance(found, statements.Acknowledgement)
    assert (found.receipt, found.hospital) == (digest, "alpha")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("x", 404),
        ("A" * 64, 404),
        ("0" * 63, 404),
        ("0" * 64 + "?wait=-1", 400),
        ("0" * 64 + "?wait=1e9", 400),
    ],
)
def test_malformed_question_for_an_acknowledgement(quiet: Client, path: str, status: int) -> None:
    assert quiet.get(f"/api/acknowledgements/{path}").status_code == status


def hand_in(client: Client, path: str, content: bytes) -> httpx.Response:
    return client.ask("POST", path, example.KEYS["alpha"], content=content)


def test_restored_store_gets_back_what_the_log_names_and_nothing_else(ward: Ward, client: Client) -> None:
    ward.start()
    rounds = ward.rounds()
    carry(rounds, ward, exchanges=1)
    rounds.next_exchange()
    assert client.get("/api/wanted").json() == {"blobs": []}
    history = ward.sequencer.standing.jobs[ward.job.digest()]
    update = history.closed[0].used[0].update
    data = ward.blobs.read(update)
    for digest in (update, ward.sequencer.standing.state.jobs[ward.job.digest()].model):
        ward.blobs.delete(digest)
    assert client.get("/api/wanted").json() == {"blobs": [update]}
    assert hand_in(client, f"/api/wanted/{sha(b'junk')}", content=b"junk").status_code == 404
    assert hand_in(client, f"/api/wanted/{update}", content=data[:-1] + b"x").status_code == 503
    assert hand_in(client, f"/api/wanted/{update}", content=bytes(MAX_WANTED + 1)).status_code == 413
    assert hand_in(client, f"/api/wanted/{update}", content=data).status_code == 200
    assert ward.blobs.read(update) == data
    assert client.get("/api/wanted").json() == {"blobs": []}
