"""Random bytes for sampling and noise: a stream cipher keyed by the operating system.

AES-256 in counter mode (NIST SP 800-38A §6.5) over zeros: the generators of torch and numpy are no
ciphers, and torch's CPU generator has only 2^32 streams, so noise drawn from it can be searched and
taken off again (P9 and P10 of the privacy notes). A production stream is keyed by `os.urandom` and
cannot be seeded, copied or pickled; a forked child gets a new key. A seeded stream, for tests and
simulation, is another type with `production` false: whatever writes to an account or a ledger
refuses it. Which law the numbers follow is the business of `client.noise` and of the sampler.
"""

from __future__ import annotations

import hashlib
import os
import threading
from fractions import Fraction
from typing import ClassVar, NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

KEY_SIZE = 32  # bytes, AES-256
_WORD = 2**64
_NO_COUNTER = bytes(16)  # the counter block starts at 0: a key is never used for a second stream


def _keystream(key: bytes) -> CipherContext:
    return Cipher(AES256(key), CTR(_NO_COUNTER)).encryptor()


class Randomness:
    """A stream of random bytes; construct it by `system_randomness` or `seeded_for_tests` only.

    Attributes:
        production: True only for a stream keyed by the operating system. What this stream helped to
            make may be charged, signed or sent only if it is true.
    """

    production: ClassVar[bool] = False

    def __init__(self, key: bytes) -> None:
        self._stream = _keystream(key)
        self._lock = threading.Lock()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse copying and pickling: two copies would add the same noise twice."""
        raise TypeError("a random stream cannot be copied or pickled: its copy would repeat its numbers")

    def bytes(self, count: int) -> bytes:
        """Return the next `count` bytes of the stream."""
        with self._lock:
            return self._stream.update(bytes(count))

    def words(self, count: int) -> NDArray[np.uint64]:
        """Return `count` uniform 64-bit words, shape (count,)."""
        return np.frombuffer(self.bytes(8 * count), dtype="<u8").astype(np.uint64, copy=False)

    def word(self) -> int:
        """Return one uniform integer in [0, 2^64)."""
        return int.from_bytes(self.bytes(8), "little")

    def below(self, bound: int, count: int) -> NDArray[np.uint64]:
        """Return `count` integers uniform in [0, bound), without bias: words past the last multiple are redrawn.

        Args:
            bound: 1 <= bound <= 2^64.
            count: How many, >= 0.
        """
        if not 1 <= bound <= _WORD:
            raise ValueError(f"bound must be in [1, 2^64], not {bound}")
        if bound & (bound - 1) == 0:  # a power of two: the low bits are uniform as they are
            return self.words(count) & np.uint64(bound - 1)
        usable = np.uint64(_WORD - _WORD % bound - 1)  # the largest word that is kept
        kept = np.empty(0, dtype=np.uint64)
        while len(kept) < count:
            words = self.words(count - len(kept))
            kept = np.concatenate([kept, words[words <= usable]])
        return kept % np.uint64(bound)

    def coins(self, probability: Fraction, count: int) -> NDArray[np.bool_]:
        """Return `count` independent coins, each True with floor(probability * 2^64) / 2^64.

        The rounding is downwards, so a sampling rate is never above the one that was charged.
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be in [0, 1], not {probability}")
        if probability == 1:
            return np.ones(count, dtype=np.bool_)
        threshold = np.uint64(probability.numerator * _WORD // probability.denominator)
        return self.words(count) < threshold

    def shuffled(self, count: int) -> NDArray[np.int64]:
        """Return a uniform permutation of 0..count-1, by sorting random words (redrawn on a tie)."""
        while True:
            words = self.words(count)
            order = np.argsort(words, kind="stable")
            if (np.diff(words[order]) != 0).all():
                return order.astype(np.int64, copy=False)


class SystemRandomness(Randomness):
    """A production stream: keyed by the operating system, never seeded, keyed anew after a fork."""

    production: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__(os.urandom(KEY_SIZE))
        self._process = os.getpid()

    def bytes(self, count: int) -> bytes:
        """Return the next `count` bytes of this process's stream."""
        if self._process != os.getpid():  # a forked child must not repeat its parent's noise
            self._stream, self._lock = _keystream(os.urandom(KEY_SIZE)), threading.Lock()
            self._process = os.getpid()
        return super().bytes(count)


class SeededRandomness(Randomness):
    """A repeatable stream for tests and simulation: protects nobody, and says so by `production`."""


def system_randomness() -> SystemRandomness:
    """Return a new production stream."""
    return SystemRandomness()


def seeded_for_tests(seed: int) -> SeededRandomness:
    """Return the repeatable stream of a seed, for tests and simulation only.

    Args:
        seed: Any integer; the key is a SHA-256 of its decimal form.
    """
    return SeededRandomness(hashlib.sha256(b"wardround/seeded-randomness/v1/" + str(seed).encode()).digest())
