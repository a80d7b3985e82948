"""Evidence files: vectors, refusals, and every altered bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError, MalformedError, VerificationError
from ledger.merkle import inclusion_proof, leaf_hash, node_reader, tree_root
from ledger.note import sign_note
from ledger.policy import Log, Policy, Witness
from ledger.proof import TlogProof, verify_proof
from tests.ledger.vectors import Case, cases, entry, is_valid, known_key, unbase64

quick = settings(max_examples=100, deadline=None)
SIZE, INDEX = 300, 256
LOG = known_key("ledger.example/fl-consortium")
WITNESS = known_key("alpha.hospital.example/witness")
LEAVES = [leaf_hash(entry(index)) for index in range(SIZE)]
NODE = node_reader(LEAVES)
TEXT = Checkpoint(origin=LOG.name, size=SIZE, root=tree_root(SIZE, NODE)).to_text()
NOTE = sign_note(TEXT, LOG, WITNESS, time=1_790_000_000)
POLICY = Policy(
    logs=(Log(key=LOG.verifier),), witnesses=(Witness(name="A", key=WITNESS.verifier),), groups=(), quorum="A"
)
PROOF = TlogProof(index=INDEX, hashes=inclusion_proof(INDEX, SIZE, NODE), note=NOTE)
DATA = PROOF.to_bytes()


@pytest.mark.parametrize("case", cases("proofs"))
def test_proof_vectors(case: Case) -> None:
    policy, data = Policy.from_bytes(case["policy"].encode()), case["tlog_proof"].encode()
    leaf = unbase64(case, "leaf_hash") if "leaf_hash" in case else leaf_hash(unbase64(case, "leaf"))
    if not is_valid(case):
        with pytest.raises(LedgerError):
            verify_proof(TlogProof.from_bytes(data), leaf, policy)
        return
    proof = TlogProof.from_bytes(data)
    checkpoint, _ = verify_proof(proof, leaf, policy)
    assert checkpoint.root == unbase64(case, "root")
    assert proof.to_bytes() == data


def test_a_proof_names_the_witnesses_and_their_times() -> None:
    checkpoint, times = verify_proof(TlogProof.from_bytes(DATA), LEAVES[INDEX], POLICY)
    assert (checkpoint.size, times) == (SIZE, {"A": 1_790_000_000})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"@v1\n", b"@v2\n"),
        (b"@v1\n", b"@v1\r\n"),
        (b"index 256\n", b""),
        (b"index 256\n", b"index 0256\n"),
        (b"index 256\n", b"index +256\n"),
        (b"index 256\n", b"index  256\n"),
        (b"index 256\n", b"index -1\n"),
        (b"index 256\n", b"index 9223372036854775808\n"),
        (b"index 256\n", b"index 256\nindex 256\n"),
        (b"index 256\n", b"index 256\nextra AAAA\n"),
        (b"index 256\n", b"extra AAAA\nextra AAAA\nindex 256\n"),
        (b"index 256\n", b"extra \nindex 256\n"),
        (b"index 256\n", b"extra AAAA \nindex 256\n"),
        (b"index 256\n", b"extra AB==\nindex 256\n"),
        (b"index 256\n", b"index 256\nAAAA\n"),
        (b"index 256\n", b"index 256\n\n"),
        (b"index 256\n", b"index 256\n" + (b"A" * 43 + b"=\n") * 64),
        (b"\n\nledger", b"\nledger"),
        (b"\n300\n", b"\n0300\n"),
        (b"\xe2\x80\x94 ", b"- "),
    ],
)
def test_malformed_proofs_are_refused(old: bytes, new: bytes) -> None:
    assert old in DATA
    with pytest.raises(MalformedError):
        TlogProof.from_bytes(DATA.replace(old, new))


def test_extra_data_is_carried_but_proves_nothing() -> None:
    data = replace(PROOF, extra=b"context").to_bytes()
    assert data.split(b"\n")[1] == b"extra Y29udGV4dA=="
    proof = TlogProof.from_bytes(data)
    assert proof.extra == b"context"
    verify_proof(proof, LEAVES[INDEX], POLICY)


@quick
@given(st.integers(0, 8 * len(DATA) - 1))
def test_every_flipped_bit_of_a_proof_is_noticed(bit: int) -> None:
    wrong = bytearray(DATA)
    wrong[bit // 8] ^= 1 << bit % 8
    with pytest.raises(LedgerError):
        verify_proof(TlogProof.from_bytes(bytes(wrong)), LEAVES[INDEX], POLICY)


@pytest.mark.parametrize("index", [-1, 0, 255, 257, SIZE])
def test_a_proof_fits_one_position_only(index: int) -> None:
    with pytest.raises(LedgerError):
        verify_proof(replace(PROOF, index=index), LEAVES[INDEX], POLICY)


@pytest.mark.parametrize("index", [0, 255, 257])
def test_a_proof_fits_one_entry_only(index: int) -> None:
    with pytest.raises(VerificationError):
        verify_proof(PROOF, LEAVES[index], POLICY)


def test_a_proof_without_its_witness_is_refused() -> None:
    with pytest.raises(VerificationError):
        verify_proof(replace(PROOF, note=sign_note(TEXT, LOG)), LEAVES[INDEX], POLICY)


@quick
@given(
    st.builds(
        TlogProof,
        index=st.integers(0, 2**63 - 1),
        hashes=st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple),
        note=st.just(NOTE),
        extra=st.binary(max_size=100),
    )
)
def test_proofs_are_read_back(proof: TlogProof) -> None:
    assert TlogProof.from_bytes(proof.to_bytes()) == proof


@quick
@given(st.binary() | st.builds(lambda a, b, c: DATA[:a] + b + DATA[c:], st.integers(0, len(DATA)),
                               st.binary(max_size=3), st.integers(0, len(DATA))))  # fmt: skip
def test_any_bytes_are_a_proof_or_refused(data: bytes) -> None:
    try:
        proof = TlogProof.from_bytes(data)
    except MalformedError:
        return
    assert proof.to_bytes() == data
