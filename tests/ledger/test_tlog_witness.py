"""The public witness protocol: the vectors replayed, whole log lives, and hostile logs and witnesses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.checkpoint import Checkpoint, cosign
from ledger.errors import LedgerError, MalformedError, VerificationError
from ledger.merkle import consistency_proof, leaf_hash, node_reader, tree_root
from ledger.note import Note, open_note, sign_note
from ledger.signature import KeyType, SigningKey, VerifierKey
from ledger.tlog_witness import (
    SIZE_TYPE,
    Conflict,
    Request,
    Response,
    add_checkpoint,
    decide,
    get_checkpoint,
    monitor_path,
    parse_response,
    request_for,
)
from tests.ledger.vectors import entry, known_key, load

quick = settings(max_examples=100, deadline=None)
NOW = 1_790_000_000
ORIGIN = "ledger.example/fl-consortium"
LOG, OTHER = known_key(ORIGIN), known_key("ledger.example/other")
SIGNERS = [
    known_key("alpha.hospital.example/witness"),
    SigningKey(name="alpha.hospital.example/mldsa", type=KeyType.MLDSA44, seed=bytes(32)),
]
KEYS = [signer.verifier for signer in SIGNERS]
NODE = node_reader([leaf_hash(entry(index)) for index in range(100)])


class OneWitness:
    """A witness in memory: the state and the steps that its edge would take."""

    def __init__(self, *logs: str) -> None:
        self.logs = {key.name: [key] for key in map(VerifierKey.from_text, logs)}
        self.notes: dict[str, Note] = {}
        self.now = NOW

    def post(self, body: bytes) -> Response:
        response = add_checkpoint(body, logs=self.logs, latest=self.notes.get, signers=SIGNERS, now=self.now)
        if response.cosigned is not None:
            self.notes[Checkpoint.from_text(response.cosigned.text).origin] = response.cosigned
        return response

    def get(self, path: str) -> Response:
        by_path = {monitor_path(origin): note for origin, note in self.notes.items()}
        return get_checkpoint(by_path.get(path))


def text_of(size: int) -> str:
    return Checkpoint(origin=ORIGIN, size=size, root=tree_root(size, NODE)).to_text()


def request(old: int, new: int, *logs: SigningKey) -> Request:
    note = sign_note(text_of(new), *(logs or [LOG]), time=NOW)
    proof = consistency_proof(old, new, NODE) if old <= new else ()
    return Request(old_size=old, proof=proof, note=note)


def advanced_to(size: int) -> OneWitness:
    witness = OneWitness(LOG.verifier.to_text())
    assert witness.post(request(0, size).to_bytes()).status == 200
    return witness


def test_witness_vectors() -> None:
    vectors = load("witness")
    witness = OneWitness(*vectors["logs"])
    for step in vectors["steps"]:
        if "get_origin" in step:
            response = witness.get(monitor_path(step["get_origin"]))
        else:
            response = witness.post(step["body"].encode())
        assert response.status in step["status"], step["name"]
        assert response.content_type == step.get("content_type", response.content_type), step["name"]
        assert response.body.decode() == step.get("want", response.body.decode()), step["name"]
        if "cosigns" in step:
            assert response.status == 200, step["name"]
            note = response.body if "get_origin" in step else f"{step['cosigns']}\n".encode() + response.body
            signed = open_note(note, KEYS)
            assert (signed.text, [line.time for line in signed.verified]) == (step["cosigns"], [NOW, NOW])


def test_monitors_get_the_verified_lines_and_no_others() -> None:
    witness = OneWitness(LOG.verifier.to_text())
    body = request(0, 5, OTHER, LOG).to_bytes()
    assert witness.post(body).status == 200
    response = witness.get(monitor_path(ORIGIN))
    note = Note.from_bytes(response.body)
    assert (response.status, note.text) == (200, text_of(5))
    assert [line.name for line in note.signatures] == [ORIGIN, *(key.name for key in KEYS)]
    open_note(note, [LOG.verifier, *KEYS])


def test_monitor_path_is_the_hash_of_the_origin() -> None:
    assert (
        monitor_path("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad/checkpoint"
    )


def test_an_equal_checkpoint_is_a_heartbeat() -> None:
    witness = advanced_to(7)
    witness.now += 600
    response = witness.post(request(7, 7).to_bytes())
    opened = open_note(Note(text=text_of(7), signatures=witness.notes[ORIGIN].signatures), KEYS)
    assert response.status == 200
    assert [line.time for line in opened.verified] == [NOW + 600] * 2


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [(7, 7, 200), (7, 8, 200), (7, 64, 200), (0, 8, 409), (6, 8, 409), (8, 8, 409), (8, 9, 409), (5, 5, 409),
     (8, 7, 400), (7, 6, 400), (9, 8, 400)],
)  # fmt: skip
def test_old_and_new_sizes_for_a_witness_at_seven(old: int, new: int, status: int) -> None:
    response = advanced_to(7).post(request(old, new).to_bytes())
    assert response.status == status
    if status == 409:
        assert (response.content_type, response.body) == (SIZE_TYPE, b"7\n")


def test_a_log_that_forks_gets_no_cosignature() -> None:
    fork = node_reader([leaf_hash(b"fork %d" % index) for index in range(100)])
    witness = advanced_to(7)
    for size in (7, 8, 50):
        text = Checkpoint(origin=ORIGIN, size=size, root=tree_root(size, fork)).to_text()
        for node in (NODE, fork):
            body = Request(old_size=7, proof=consistency_proof(7, size, node), note=sign_note(text, LOG))
            response = witness.post(body.to_bytes())
            assert (response.status, response.cosigned) == (422, None)
    assert witness.notes[ORIGIN].text == text_of(7)


def test_a_proof_between_equal_sizes_is_refused() -> None:
    body = Request(old_size=7, proof=(bytes(32),), note=sign_note(text_of(7), LOG)).to_bytes()
    assert advanced_to(7).post(body).status == 422


def test_racing_requests_never_roll_back() -> None:
    """Both were built on size 7; the second to be decided must see the first."""
    witness = advanced_to(7)
    first, second = request(7, 50).to_bytes(), request(7, 20).to_bytes()
    assert [witness.post(first).status, witness.post(second).status] == [200, 409]
    assert witness.notes[ORIGIN].text == text_of(50)


CHANGES: list[tuple[Callable[[bytes], bytes], int]] = [
    (lambda b: b.replace(b"old 7", b"old 07"), 400),
    (lambda b: b.replace(b"old 7", b"old +7"), 400),
    (lambda b: b.replace(b"old 7", b"old  7"), 400),
    (lambda b: b.replace(b"old 7", b"7"), 400),
    (lambda b: b.replace(b"old 7", b"old 99999999999999999999"), 400),
    (lambda b: b.replace(b"old 7\n", b"old 7\nAAAA\n"), 400),
    (lambda b: b.replace(b"old 7\n", b"old 7\n" + (b"A" * 43 + b"=\n") * 64), 400),
    (lambda b: b.replace(b"old 7\n", b"old 7\n" + (b"A" * 43 + b"=\n") * 50), 422),
    (lambda b: b.replace(b"\n\n", b"\n"), 400),
    (lambda b: b.replace(b"\n20\n", b"\n+20\n"), 400),
    (lambda b: b[:-1], 400),
    (lambda b: b"", 400),
    (lambda b: b + b"x" * 200_000, 400),
    (lambda b: b.replace(b"\n20\n", b"\n21\n"), 403),
    (lambda b: b[:-6] + (b"A" if b[-6:-5] != b"A" else b"B") + b[-5:], 403),
    (lambda b: b.replace(b"ledger.example/fl-consortium\n20", b"nobody.example\n20"), 404),
]


@pytest.mark.parametrize(("change", "status"), CHANGES)
def test_malformed_and_unsigned_requests(change: Callable[[bytes], bytes], status: int) -> None:
    response = advanced_to(7).post(change(request(7, 20).to_bytes()))
    assert (response.status, response.cosigned) == (status, None)


def test_a_bad_line_of_the_log_beside_a_good_one_is_refused() -> None:
    good, bad = sign_note(text_of(8), LOG), sign_note(text_of(9), LOG)
    note = good.with_signatures(*bad.signatures)
    body = Request(old_size=7, proof=consistency_proof(7, 8, NODE), note=note).to_bytes()
    assert advanced_to(7).post(body).status == 403


def test_both_keys_of_a_log_are_stored_while_keys_change() -> None:
    successor = SigningKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes(32))
    witness = OneWitness(LOG.verifier.to_text())
    witness.logs[ORIGIN].append(successor.verifier)
    assert witness.post(request(0, 5, LOG, successor).to_bytes()).status == 200
    assert len(witness.notes[ORIGIN].signatures) == 2 + len(SIGNERS)


@quick
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=12))
def test_whatever_is_asked_a_witness_only_moves_forward(asked: list[tuple[int, int]]) -> None:
    latest: Note | None = None
    size = 0
    for old, new in asked:
        response = decide(latest, request(old, new), [LOG.verifier], SIGNERS[:1], NOW)
        assert (response.status == 200) == (old == size <= new)
        if response.cosigned is not None:
            latest, size = response.cosigned, new


@quick
@given(st.binary() | st.integers(0, 600).flatmap(
    lambda cut: st.binary(max_size=3).map(lambda junk: request(7, 20).to_bytes()[:cut] + junk)))  # fmt: skip
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        parsed = Request.from_bytes(data)
    except MalformedError:
        return
    assert parsed.to_bytes() == data


def test_an_outside_witness_is_sent_the_log_lines_only() -> None:
    note = sign_note(text_of(8), OTHER, LOG, *SIGNERS, time=NOW)
    sent = request_for(note, [LOG.verifier], 7, consistency_proof(7, 8, NODE))
    assert [line.name for line in sent.note.signatures] == [ORIGIN]
    response = advanced_to(7).post(sent.to_bytes())
    lines = parse_response(response.status, response.content_type, response.body, note.text, KEYS)
    assert isinstance(lines, tuple)
    assert [line.key for line in lines] == KEYS


def test_a_checkpoint_that_the_log_did_not_sign_is_not_sent() -> None:
    with pytest.raises(VerificationError):
        request_for(sign_note(text_of(8), OTHER), [LOG.verifier], 0, ())


@pytest.mark.parametrize(
    ("content_type", "body", "size"),
    [(SIZE_TYPE, b"7\n", 7), (SIZE_TYPE, b"0\n", 0), ("text/plain", b"conflict\n", None), ("", b"", None)],
)
def test_a_conflict_tells_the_size_where_the_witness_says_it(
    content_type: str, body: bytes, size: int | None
) -> None:
    assert parse_response(409, content_type, body, text_of(8), KEYS) == Conflict(size=size)


def test_a_stranger_among_the_cosignatures_is_ignored() -> None:
    stranger = SigningKey(name="stranger.example", type=KeyType.COSIGNATURE, seed=bytes(32))
    lines = [cosign(text_of(8), signer, NOW) for signer in (stranger, *SIGNERS)]
    body = "".join(line.to_line() for line in lines).encode()
    answer = parse_response(200, "", body, text_of(8), KEYS)
    assert isinstance(answer, tuple)
    assert [line.key for line in answer] == KEYS


def line_with_time_zero() -> bytes:
    signer = SIGNERS[0]
    value = bytes(8) + signer.sign_bytes(b"cosignature/v1\ntime 0\n" + text_of(8).encode())
    line = cosign(text_of(8), signer, NOW)
    return type(line)(name=line.name, key_id=line.key_id, value=value).to_line().encode()


LINE = cosign(text_of(8), SIGNERS[0], NOW).to_line().encode()


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (200, "", b""),
        (200, "", LINE[:-1]),
        (200, "", LINE + b"\n"),
        (200, "", b"\n" + LINE),
        (200, "", text_of(8).encode() + b"\n" + LINE),
        (200, "", b"\xff\n"),
        (200, "", cosign(text_of(9), SIGNERS[0], NOW).to_line().encode()),
        (200, "", sign_note(text_of(8), OTHER).signatures[0].to_line().encode()),
        (200, "", line_with_time_zero()),
        (200, "", b"x" * 2_000_000),
        (409, SIZE_TYPE, b""),
        (409, SIZE_TYPE, b"07\n"),
        (409, SIZE_TYPE, b"7"),
        (409, SIZE_TYPE, b"7\n\n"),
        (409, SIZE_TYPE, b"\xff\n"),
        (403, "", b"no\n"),
        (422, "", b"no\n"),
        (500, "", LINE),
        (201, "", LINE),
    ],
)
def test_hostile_witness_answers_are_refused(status: int, content_type: str, body: bytes) -> None:
    with pytest.raises(LedgerError):
        parse_response(status, content_type, body, text_of(8), KEYS)
