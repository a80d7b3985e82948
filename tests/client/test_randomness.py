"""The cipher stream: its bytes are AES's, its numbers are uniform, and a production stream cannot be repeated."""

from __future__ import annotations

import copy
import os
import pickle
from fractions import Fraction

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from client.randomness import (
    Randomness,
    SeededRandomness,
    SystemRandomness,
    seeded_for_tests,
    system_randomness,
)


def test_stream_is_aes_256_of_a_counter_from_zero() -> None:
    key = bytes(range(32))
    block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    expected = b"".join(block.update(i.to_bytes(16, "big")) for i in range(5))
    stream = Randomness(key)
    assert stream.bytes(7) + stream.bytes(73) == expected


def test_words_and_word_read_the_same_stream() -> None:
    words = seeded_for_tests(1).words(3)
    stream = seeded_for_tests(1)
    assert [stream.word() for _ in range(3)] == words.tolist()


def test_production_streams_differ_and_cannot_be_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert system_randomness().bytes(32) != system_randomness().bytes(32)
    with pytest.raises(TypeError):
        SystemRandomness(b"0" * 32)  # type: ignore[call-arg]
    asked: list[int] = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    monkeypatch.setattr(os, "urandom", urandom)
    assert system_randomness().bytes(16) == Randomness(bytes(32)).bytes(16)
    assert asked == [32]


def test_seeded_stream_is_another_type_and_says_it_is_not_for_production() -> None:
    seeded, system = seeded_for_tests(7), system_randomness()
    assert not seeded.production
    assert system.production
    assert not isinstance(seeded, SystemRandomness)
    assert not isinstance(system, SeededRandomness)
    assert seeded_for_tests(7).bytes(64) == seeded.bytes(64) != seeded_for_tests(8).bytes(64)


@pytest.mark.parametrize("make", [system_randomness, lambda: seeded_for_tests(1)])
def test_copied_stream_would_repeat_noise_so_copying_is_refused(make: object) -> None:
    assert callable(make)
    stream = make()
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            attempt(stream)


def test_forked_child_does_not_repeat_its_parents_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = iter([bytes(32), bytes(31) + b"1"])
    monkeypatch.setattr(os, "urandom", lambda _: next(keys))
    stream = system_randomness()
    first = stream.bytes(32)
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    assert stream.bytes(32) == Randomness(bytes(31) + b"1").bytes(32) != first


@pytest.mark.parametrize("bound", [1, 2, 3, 10, 2**16, 2**63 + 1])
def test_below_is_uniform(bound: int) -> None:
    values = seeded_for_tests(bound).below(bound, 50_000)
    assert len(values) == 50_000
    assert int(values.max()) < bound
    counts = np.bincount(
        (values.astype(np.float64) / bound * min(bound, 10)).astype(int), minlength=min(bound, 10)
    )
    assert bound == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_below_redraws_words_that_would_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = seeded_for_tests(1)
    batches = iter([np.array([2**64 - 1, 5], dtype=np.uint64), np.array([7], dtype=np.uint64)])
    monkeypatch.setattr(stream, "words", lambda _: next(batches))
    assert stream.below(10, 2).tolist() == [5, 7]  # 2^64 = 6 mod 10: the last 6 words are not used


@pytest.mark.parametrize("bound", [0, -1, 2**64 + 1])
def test_below_refuses_an_impossible_bound(bound: int) -> None:
    with pytest.raises(ValueError, match="bound"):
        seeded_for_tests(1).below(bound, 1)


def test_coins_never_exceed_their_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = seeded_for_tests(3)
    assert abs(int(stream.coins(Fraction("0.1"), 100_000).sum()) - 10_000) < 4 * 95
    assert stream.coins(Fraction(1), 5).all()
    assert not stream.coins(Fraction(0), 5).any()
    third = np.array([2**64 // 3 - 1, 2**64 // 3], dtype=np.uint64)
    monkeypatch.setattr(stream, "words", lambda _: third)
    assert stream.coins(Fraction(1, 3), 2).tolist() == [True, False]
    with pytest.raises(ValueError, match="probability"):
        stream.coins(Fraction(3, 2), 1)


def test_shuffled_is_a_uniform_permutation() -> None:
    stream = seeded_for_tests(5)
    orders = [tuple(stream.shuffled(4).tolist()) for _ in range(4800)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stream.shuffled(0).tolist() == []
