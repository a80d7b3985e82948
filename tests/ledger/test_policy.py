"""Trust files: vectors, refusals line by line, evaluation, and the quorum rule."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import LedgerError, MalformedError, VerificationError
from ledger.merkle import EMPTY_ROOT
from ledger.note import Note, sign_note
from ledger.policy import Group, Log, Policy, Witness, quorum_size, verify_checkpoint
from ledger.signature import KeyType, SigningKey
from tests.ledger.vectors import Case, cases, is_valid, known_key

quick = settings(max_examples=100, deadline=None)
ORIGIN = "ledger.example/fl-consortium"
LOG, OTHER = known_key(ORIGIN), known_key("ledger.example/other")
WITNESSES = {
    name[0].upper(): known_key(f"{name}.hospital.example/witness")
    for name in ("alpha", "bravo", "charlie", "delta", "echo")
}
TEXT = f"{ORIGIN}\n257\nDTUxkHRyKXG+LY2dnQQ6bmzlzHm2RHLx7csbK+4eQLc=\n"
VKEYS = {name: key.verifier.to_text() for name, key in WITNESSES.items()}
LINES = [
    f"log {LOG.verifier.to_text()} https://ledger.example/",
    *(f"witness {name} {vkey}" for name, vkey in VKEYS.items()),
    "group hospitals 3 A B C D E",
    "quorum hospitals",
]
POLICY = Policy.from_bytes("".join(f"{line}\n" for line in LINES).encode())


def cosigned(*names: str, log: SigningKey = LOG, text: str = TEXT, time: int = 1_790_000_000) -> Note:
    return sign_note(text, log, *(WITNESSES[name] for name in names), time=time)


def parse(*lines: str) -> Policy:
    """Parse a policy whose last two lines (group and quorum) are these."""
    return Policy.from_bytes("".join(f"{line}\n" for line in [*LINES[:-2], *lines]).encode())


@pytest.mark.parametrize("case", cases("policies"))
def test_policy_vectors(case: Case) -> None:
    try:
        accepted = Policy.from_bytes(case["policy"].encode()).satisfied_by(case.get("signed", []))
    except MalformedError:
        accepted = False
    assert accepted == is_valid(case)


@pytest.mark.parametrize(
    "lines",
    [
        ["quorum A", "quorum A"],
        ["quorum none", "quorum A"],
        ["quorum Z"],
        ["quorum"],
        ["quorum A B"],
        ["Quorum A"],
        ["quorum A # note"],
        ["group g 3 A B", "quorum g"],
        ["group g -1 A B", "quorum g"],
        ["group g +1 A B", "quorum g"],
        ["group g 01 A B", "quorum g"],
        ["group g 1_0 A B", "quorum g"],
        ["group g ANY A B", "quorum g"],
        ["group g any", "quorum A"],
        ["group g", "quorum A"],
        ["group g any A A", "quorum g"],
        ["group g any A", "group h any A", "quorum g"],
        ["group g any g", "quorum A"],
        ["group g any none", "quorum A"],
        ["group none any A", "quorum none"],
        ["group g any A", "group g any B", "quorum g"],
        ["group g any a", "quorum g"],
        ["quorum g", "group g any A"],
        [f"witness none {OTHER.verifier.to_text()}", "quorum A"],
        [f"witness F {OTHER.verifier.to_text()}", "quorum A"],  # a plain signature is no cosignature
        [f"witness A {VKEYS['A']}", "quorum A"],
        ["witness F", "quorum A"],
        [f"log {OTHER.verifier.to_text()} https://a https://b", "quorum A"],
        [f"log {OTHER.verifier.to_text()[:-1]}", "quorum A"],
        [f"log {LOG.verifier.to_text()}", "quorum A"],
        ["log", "quorum A"],
        ["hello", "quorum A"],
        ["quorum A\r"],
        ["\0", "quorum A"],
        ["# \x7f", "quorum A"],
        ["quorum\u00a0A"],
        ["quorum\vA"],
    ],
    ids=" | ".join,
)
def test_policies_outside_the_spec_are_refused(lines: list[str]) -> None:
    assert parse("quorum A")
    with pytest.raises(MalformedError):
        parse(*lines)


@pytest.mark.parametrize(
    "lines",
    [
        ["# comment", "\t # comment", "", " \t ", "  quorum\t A  "],
        ["quorum none", "group later any A"],
        ["group a all A", "group b 1 a B", "group c any b", "quorum b"],
        ["group log any A", "group quorum any B", "quorum quorum"],
        [f"log {OTHER.verifier.to_text()}", "quorum none"],
        ["group #g any A", "quorum #g"],
        ["group \u212a any A", "group K any B", "quorum \u212a"],
    ],
    ids=" | ".join,
)
def test_policies_within_the_spec_are_read_back(lines: list[str]) -> None:
    policy = parse(*lines)
    assert Policy.from_bytes(policy.to_bytes()) == policy


def test_names_are_octets_whatever_their_encoding() -> None:
    data = b"".join(line.encode() + b"\n" for line in LINES[:-2]) + b"group \xff any A\nquorum \xff\n# \xfe\n"
    policy = Policy.from_bytes(data)
    assert policy.satisfied_by(["A"])
    assert b"quorum \xff\n" in policy.to_bytes()
    with pytest.raises(MalformedError):
        Policy.from_bytes(data.replace(b"quorum \xff", b"quorum \xfe"))


def test_one_public_key_under_two_names_or_types_is_refused() -> None:
    renamed = replace(WITNESSES["A"], name="other.example").verifier.to_text()
    with pytest.raises(MalformedError, match="two witness lines"):
        parse(f"witness F {renamed}", "quorum A")
    retyped = replace(LOG, type=KeyType.COSIGNATURE).verifier.to_text()
    with pytest.raises(MalformedError, match="two log lines"):
        parse(f"log {retyped}", "quorum A")


def test_errors_name_the_line() -> None:
    with pytest.raises(MalformedError, match="line 7"):
        parse("nonsense", "quorum A")


def test_forty_logs_witnesses_and_groups_are_supported() -> None:
    def key(kind: KeyType, index: int) -> Any:
        return SigningKey(name=f"k{index}.example", type=kind, seed=bytes([kind, index]) * 16).verifier

    policy = Policy(
        logs=tuple(Log(key=key(KeyType.ED25519, i)) for i in range(40)),
        witnesses=tuple(Witness(name=f"w{i}", key=key(KeyType.COSIGNATURE, i)) for i in range(40)),
        groups=tuple(Group(name=f"g{i}", threshold=1, members=(f"w{i}",)) for i in range(40)),
        quorum="g39",
    )
    assert Policy.from_bytes(policy.to_bytes()) == policy
    assert policy.satisfied_by(["w39"])
    assert not policy.satisfied_by([f"w{i}" for i in range(39)])


@quick
@given(st.binary() | st.lists(st.sampled_from([*LINES, "quorum none", "group g any A", "#", "log x"])).map(
    lambda lines: "\n".join(lines).encode()))  # fmt: skip
def test_any_bytes_are_a_policy_or_refused(data: bytes) -> None:
    try:
        policy = Policy.from_bytes(data)
    except MalformedError:
        return
    assert Policy.from_bytes(policy.to_bytes()) == policy


@pytest.mark.parametrize("count", range(6))
def test_every_subset_of_witnesses_against_three_of_five(count: int) -> None:
    for names in combinations(WITNESSES, count):
        assert POLICY.satisfied_by(names) == (count >= 3)


def test_a_group_name_cannot_stand_in_for_its_witnesses() -> None:
    assert not POLICY.satisfied_by(["hospitals"])
    assert not POLICY.satisfied_by(["A", "B", "B", "stranger"])


def test_a_quorum_of_cosignatures_is_accepted() -> None:
    checkpoint, times = verify_checkpoint(POLICY, cosigned("A", "C", "E").to_bytes())
    assert checkpoint.size == 257
    assert times == dict.fromkeys("ACE", 1_790_000_000)


def test_the_newest_of_a_witness_cosignatures_counts() -> None:
    older = cosigned("A", time=5).signatures[1]
    _, times = verify_checkpoint(POLICY, cosigned("A", "B", "C", time=9).with_signatures(older))
    assert times["A"] == 9


@pytest.mark.parametrize(
    "note",
    [
        cosigned("A", "B"),
        cosigned("A", "B", "B"),
        Note(text=TEXT, signatures=cosigned("A", "B", "C").signatures[1:]),
        cosigned("A", "B", "C", log=OTHER),
        cosigned("A", "B", "C", text=TEXT.replace(ORIGIN, "ledger.example/other")),
        Note(text=TEXT.replace("257", "258"), signatures=cosigned("A", "B", "C").signatures),
    ],
    ids=["too few", "one twice", "no log", "foreign log key", "origin of another log", "text changed"],
)
def test_checkpoints_without_log_or_quorum_are_refused(note: Note) -> None:
    with pytest.raises(VerificationError):
        verify_checkpoint(POLICY, note)


def test_one_listed_log_cannot_sign_for_the_origin_of_another() -> None:
    both = parse(f"log {OTHER.verifier.to_text()}", "quorum none")
    verify_checkpoint(both, cosigned())
    with pytest.raises(VerificationError, match="origin"):
        verify_checkpoint(both, cosigned(log=OTHER))


def test_either_key_of_one_origin_signs_while_keys_change() -> None:
    successor = SigningKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes(32))
    both = parse(f"log {successor.verifier.to_text()}", "quorum none")
    for log in (LOG, successor):
        assert verify_checkpoint(both, cosigned(log=log))[0].origin == ORIGIN


def test_a_bad_line_beside_a_quorum_rejects_the_checkpoint() -> None:
    good = cosigned("A", "B", "C", "D")
    last = good.signatures[-1]
    bad = replace(last, value=last.value[:-1] + bytes([last.value[-1] ^ 1]))
    with pytest.raises(VerificationError):
        verify_checkpoint(POLICY, Note(text=TEXT, signatures=(*good.signatures[:-1], bad)))


def test_no_quorum_asks_for_the_log_only() -> None:
    assert verify_checkpoint(parse("quorum none"), cosigned())[1] == {}


def test_a_signed_text_that_is_no_checkpoint_is_refused() -> None:
    with pytest.raises(MalformedError):
        verify_checkpoint(parse("quorum none"), sign_note("hello\n", LOG))


@quick
@given(st.integers(1, 60), st.integers(0, 20))
def test_any_two_quorums_share_an_honest_witness_and_the_honest_suffice(n: int, f: int) -> None:
    possible = [k for k in range(1, n - f + 1) if 2 * k - n >= f + 1]
    if possible:
        assert quorum_size(n, f) == min(possible)
    else:
        with pytest.raises(MalformedError):
            quorum_size(n, f)


@pytest.mark.parametrize(("n", "f", "k"), [(4, 1, 3), (5, 1, 4), (7, 2, 5), (1, 0, 1), (2, 0, 2), (3, 0, 2)])
def test_quorum_sizes(n: int, f: int, k: int) -> None:
    assert quorum_size(n, f) == k


@pytest.mark.parametrize(("n", "f"), [(0, 0), (3, 1), (5, 2), (4, 4), (4, -1), (-1, 0), (1, 1)])
def test_impossible_quorums_are_refused(n: int, f: int) -> None:
    with pytest.raises(MalformedError):
        quorum_size(n, f)


def test_the_empty_root_is_a_root_like_any_other_to_a_policy() -> None:
    text = f"{ORIGIN}\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    assert verify_checkpoint(POLICY, cosigned("A", "B", "C", text=text))[0].root == EMPTY_ROOT


@quick
@given(st.integers(0, 8 * len(cosigned("A", "B", "C").to_bytes()) - 1))
def test_every_flipped_bit_of_a_cosigned_checkpoint_is_noticed(bit: int) -> None:
    data = bytearray(cosigned("A", "B", "C").to_bytes())
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(LedgerError):
        verify_checkpoint(POLICY, bytes(data))
