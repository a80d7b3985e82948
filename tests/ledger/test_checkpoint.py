"""Checkpoints and cosignatures of both kinds: vectors, refusals, and one spelling for each checkpoint."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.checkpoint import (
    Checkpoint,
    cosign,
    cosignature_message,
    subtree_message,
    verify_cosignature,
)
from ledger.errors import LedgerError, MalformedError, VerificationError
from ledger.note import open_note
from ledger.signature import KeyType, Signature, SigningKey, VerifierKey
from tests.ledger.vectors import Case, cases, is_valid, known_key, unbase64

quick = settings(max_examples=100, deadline=None)
ROOT = "DTUxkHRyKXG+LY2dnQQ6bmzlzHm2RHLx7csbK+4eQLc="
TEXT = f"ledger.example/fl-consortium\n257\n{ROOT}\n"
NOW = 1_790_000_000
COSIGNERS = [
    known_key("alpha.hospital.example/witness"),
    SigningKey(name="alpha.hospital.example/mldsa", type=KeyType.MLDSA44, seed=bytes(32)),
]
lines = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1)
checkpoints = st.builds(
    Checkpoint,
    origin=lines,
    size=st.integers(0, 2**63 - 1),
    root=st.binary(min_size=32, max_size=32),
    extensions=st.lists(lines, max_size=3).map(tuple),
)


@pytest.mark.parametrize("case", cases("checkpoints"))
def test_checkpoint_vectors(case: Case) -> None:
    if not is_valid(case):
        with pytest.raises(MalformedError):
            Checkpoint.from_text(case["text"])
        return
    checkpoint = Checkpoint.from_text(case["text"])
    assert (checkpoint.origin, checkpoint.size) == (case["origin"], case["size"])
    assert checkpoint.root == unbase64(case, "root")
    assert checkpoint.to_text() == case["text"]


@pytest.mark.parametrize("case", cases("cosignatures"))
def test_cosignature_vectors(case: Case) -> None:
    keys = [VerifierKey.from_text(vkey) for vkey in case["vkeys"]]
    if not is_valid(case):
        with pytest.raises(LedgerError):
            open_note(case["note"].encode(), keys)
        return
    opened = open_note(case["note"].encode(), keys)
    assert [line.time for line in opened.verified] == [case["timestamp"]]
    assert cosignature_message(opened.text, case["timestamp"]) == unbase64(case, "message")
    signer = known_key(keys[0].name)
    assert cosign(opened.text, signer, case["timestamp"]) == opened.verified[0].signature


@pytest.mark.parametrize("case", cases("mldsa"))
def test_mldsa_vectors(case: Case) -> None:
    key = VerifierKey.from_text(case["vkey"])
    if not is_valid(case):
        with pytest.raises(LedgerError):
            open_note(case["note"].encode(), [key])
        return
    opened = open_note(case["note"].encode(), [key])
    checkpoint = Checkpoint.from_text(opened.text)
    assert (checkpoint.origin, checkpoint.size) == (case["origin"], case["size"])
    assert checkpoint.root == unbase64(case, "root")
    assert [line.time for line in opened.verified] == [case["timestamp"]]
    message = subtree_message(
        cosigner=key.name, time=case["timestamp"], origin=checkpoint.origin, start=0, end=checkpoint.size,
        root=checkpoint.root,
    )  # fmt: skip
    assert message == unbase64(case, "message")
    signer = SigningKey(name=key.name, type=KeyType.MLDSA44, seed=bytes.fromhex(case["seed_hex"]))
    assert signer.verifier == key
    line = cosign(opened.text, signer, case["timestamp"])
    assert verify_cosignature(opened.text, key, line) == case["timestamp"]


@pytest.mark.parametrize("size", ["+257", "0257", "00", " 257", "257 ", "2_57", "+4_2", "", "٢", "0x10", "1e3",
                                  "2.0", str(2**63), "9" * 5000])  # fmt: skip
def test_second_spellings_of_a_size_are_refused(size: str) -> None:
    with pytest.raises(MalformedError):
        Checkpoint.from_text(TEXT.replace("\n257\n", f"\n{size}\n"))


@pytest.mark.parametrize("size", [0, 2**63 - 1])
def test_bounds_of_a_size(size: int) -> None:
    assert Checkpoint.from_text(TEXT.replace("\n257\n", f"\n{size}\n")).size == size


@pytest.mark.parametrize(
    "root",
    ["", ROOT[:-1], ROOT + "=", ROOT.replace("Lc=", "Ld="), ROOT.replace("+", "-"), ROOT + " ", "AAAA",
     base64.b64encode(bytes(33)).decode()],
)  # fmt: skip
def test_second_spellings_of_a_root_are_refused(root: str) -> None:
    with pytest.raises(MalformedError):
        Checkpoint.from_text(TEXT.replace(ROOT, root))


@pytest.mark.parametrize("text", ["", "\n", TEXT[:-1], "\n" + TEXT, TEXT + "\n", TEXT + "ext", TEXT + "a\n\nb\n",
                                  TEXT.replace("\n", "\r\n"), "tab\t" + TEXT, TEXT + "bell\a\n",
                                  TEXT + "x" * 1_000_000 + "\n"])  # fmt: skip
def test_malformed_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        Checkpoint.from_text(text)


@quick
@given(checkpoints)
def test_checkpoints_are_read_back(checkpoint: Checkpoint) -> None:
    assert Checkpoint.from_text(checkpoint.to_text()) == checkpoint


@quick
@given(st.text() | st.tuples(lines, st.integers() | lines, st.binary(max_size=40), st.text()).map(
    lambda t: f"{t[0]}\n{t[1]}\n{base64.b64encode(t[2]).decode()}\n{t[3]}"))  # fmt: skip
def test_any_text_is_a_checkpoint_or_refused(text: str) -> None:
    try:
        checkpoint = Checkpoint.from_text(text)
    except MalformedError:
        return
    assert checkpoint.to_text() == text


@pytest.mark.parametrize(
    "change",
    [{"origin": ""}, {"origin": "a\nb"}, {"size": -1}, {"size": 2**63}, {"root": b""}, {"extensions": ("",)}],
    ids=str,
)
def test_checkpoints_that_have_no_text_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        replace(Checkpoint.from_text(TEXT), **change)


@pytest.mark.parametrize("signer", COSIGNERS, ids=lambda key: key.type.name)
def test_every_part_of_a_cosignature_is_bound(signer: SigningKey) -> None:
    line = cosign(TEXT, signer, NOW)
    key = signer.verifier
    assert verify_cosignature(TEXT, key, line) == NOW
    later = (NOW + 1).to_bytes(8, "big")
    wrong_lines = [
        replace(line, value=later + line.value[8:]),
        replace(line, value=b"\xff" + line.value[1:]),  # a time above 2**63 - 1
        replace(line, value=line.value[:-1]),
        replace(line, value=line.value + b"\0"),
        replace(line, value=line.value[:-1] + bytes([line.value[-1] ^ 1])),
        replace(line, value=line.value[:7]),
        replace(line, name="another.example"),
        replace(line, key_id=bytes(4)),
    ]
    for wrong in wrong_lines:
        with pytest.raises(VerificationError):
            verify_cosignature(TEXT, key, wrong)
    for text in (TEXT.replace("257", "258"), TEXT.replace("fl-", "lf-"), TEXT.replace("DTU", "DTV")):
        with pytest.raises(VerificationError):
            verify_cosignature(text, key, line)


def test_extension_lines_are_bound_by_ed25519_only() -> None:
    plain, post_quantum = (cosign(TEXT, signer, NOW) for signer in COSIGNERS)
    assert verify_cosignature(TEXT + "ext\n", COSIGNERS[1].verifier, post_quantum) == NOW
    with pytest.raises(VerificationError):
        verify_cosignature(TEXT + "ext\n", COSIGNERS[0].verifier, plain)


def test_a_time_above_2_63_is_refused_even_if_signed() -> None:
    signer = COSIGNERS[0]
    time = 2**63
    value = time.to_bytes(8, "big") + signer.sign_bytes(cosignature_message(TEXT, time))
    line = Signature(name=signer.name, key_id=signer.verifier.key_id, value=value)
    with pytest.raises(VerificationError):
        verify_cosignature(TEXT, signer.verifier, line)


@pytest.mark.parametrize("time", [-1, 0, 2**63])
def test_no_cosignature_without_a_time(time: int) -> None:
    with pytest.raises(MalformedError):
        cosign(TEXT, COSIGNERS[0], time)


@pytest.mark.parametrize("signer", COSIGNERS, ids=lambda key: key.type.name)
def test_only_checkpoints_are_cosigned(signer: SigningKey) -> None:
    with pytest.raises(MalformedError):
        cosign("hello\n", signer, NOW)
    with pytest.raises(MalformedError):
        verify_cosignature("hello\n", signer.verifier, cosign(TEXT, signer, NOW))


def test_a_log_key_cannot_cosign() -> None:
    log = known_key("ledger.example/fl-consortium")
    with pytest.raises(MalformedError):
        cosign(TEXT, log, NOW)


def test_a_subtree_inside_the_log_has_no_time() -> None:
    with pytest.raises(MalformedError):
        subtree_message(cosigner="a", time=1, origin="b", start=8, end=13, root=bytes(32))
    message = subtree_message(cosigner="a", time=0, origin="b", start=8, end=13, root=bytes(32))
    assert message.startswith(b"subtree/v1\n\0\x01a" + bytes(8) + b"\x01b" + bytes(7) + b"\x08")


@pytest.mark.parametrize(("cosigner", "origin"), [("", "b"), ("a" * 256, "b"), ("a", "é" * 128)])
def test_names_that_a_subtree_message_cannot_hold_are_refused(cosigner: str, origin: str) -> None:
    with pytest.raises(MalformedError):
        subtree_message(cosigner=cosigner, time=0, origin=origin, start=0, end=1, root=bytes(32))
