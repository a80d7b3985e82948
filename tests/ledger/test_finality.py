"""More witnesses than a note may carry lines: the lines that a quorum needs are kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ledger import finality
from ledger.note import MAX_SIGNATURES, Note
from ledger.policy import quorum_size
from ledger.signature import KeyType, Signature, SigningKey, VerifierKey
from ledger.state import WitnessSet

LOG = SigningKey(name="log.example/1", type=KeyType.ED25519, seed=bytes(32))
KEYS = [
    SigningKey(name=f"w{i:03}.example/w", type=KeyType.COSIGNATURE, seed=i.to_bytes(32)).verifier
    for i in range(1, 141)
]


def witness_set(keys: list[VerifierKey]) -> WitnessSet:
    dishonest = (len(keys) - 1) // 3
    return WitnessSet(
        since=0,
        log=LOG.verifier.to_text(),
        witnesses=tuple(sorted(key.to_text() for key in keys)),
        max_dishonest=dishonest,
        quorum=quorum_size(len(keys), dishonest),
    )


def lines(keys: list[VerifierKey]) -> dict[tuple[str, bytes], Signature]:
    return {(k.name, k.key_id): Signature(name=k.name, key_id=k.key_id, value=bytes(72)) for k in keys}


def agreed(witnesses: WitnessSet, kept: list[Signature]) -> int:
    names = {VerifierKey.from_text(text).name for text in witnesses.witnesses}
    return sum(line.name in names for line in kept)


def test_few_witnesses_are_all_kept() -> None:
    stored = lines(KEYS[:5])
    kept = finality.lasting([witness_set(KEYS[:5])], stored, MAX_SIGNATURES - 1)
    assert kept == [stored[name] for name in sorted(stored)]


@given(st.sets(st.sampled_from(KEYS), min_size=100), st.integers(0, 40))
def test_a_note_holds_the_quorum_of_every_set(signed: set[VerifierKey], first: int) -> None:
    old, new = witness_set(KEYS[first : first + 62]), witness_set(KEYS)
    stored = lines(sorted(signed, key=lambda k: k.name))
    sets = [s for s in (old, new) if agreed(s, list(stored.values())) >= s.quorum]
    kept = finality.lasting(sets, stored, MAX_SIGNATURES - 1)
    assert len(kept) == MAX_SIGNATURES - 1
    assert all(agreed(s, kept) >= s.quorum for s in sets)
    Note(text="text\n", signatures=(lines([LOG.verifier])[LOG.verifier.name, LOG.verifier.key_id], *kept))
