"""Keys and signature lines of signed notes: verifier keys (vkeys), signing keys, and one `— name base64` line.

Follows C2SP signed-note. Three key types: 0x01 Ed25519 over the text, 0x04 and 0x06 timestamped cosignatures
by Ed25519 and ML-DSA-44. What is signed under each type is `note` and `checkpoint`; here are only the bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from ledger.encoding import decode_base64, encode_base64
from ledger.errors import MalformedError

SEED_SIZE = 32
_KEY_ID_SIZE = 4
_PREFIX = "— "
_PRIVATE = "PRIVATE+KEY+"
_NAME = re.compile(r"[^\s+\x00-\x1f\ud800-\udfff]+")  # \s is every Unicode space


class KeyType(IntEnum):
    """Signature type bytes that this software signs and verifies."""

    ED25519 = 0x01
    COSIGNATURE = 0x04
    MLDSA44 = 0x06

    @property
    def public_size(self) -> int:
        """Bytes of a public key."""
        return 1312 if self is KeyType.MLDSA44 else 32

    @property
    def signature_size(self) -> int:
        """Bytes of a bare signature, without key ID and timestamp."""
        return 2420 if self is KeyType.MLDSA44 else 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature line.

    Attributes:
        name: Key name.
        key_id: 4 bytes that, with the name, identify the key.
        value: What follows the key ID: a bare signature, or a timestamp and a signature.
    """

    name: str
    key_id: bytes
    value: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.key_id) != _KEY_ID_SIZE or not self.value:
            raise MalformedError("signature is too short to hold a key ID and a value")

    def to_line(self) -> str:
        """Return the line with its newline."""
        return f"{_PREFIX}{self.name} {encode_base64(self.key_id + self.value)}\n"

    @classmethod
    def from_line(cls, line: str) -> Signature:
        """Parse one line, newline included.

        Raises:
            MalformedError: any other text.
        """
        if not line.startswith(_PREFIX) or not line.endswith("\n"):
            raise MalformedError("signature line does not have the form '— name base64'")
        name, _, encoded = line[len(_PREFIX) : -1].partition(" ")
        data = decode_base64(encoded, "signature")
        return cls(name=name, key_id=data[:_KEY_ID_SIZE], value=data[_KEY_ID_SIZE:])


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """A public key with its name and type; `to_text` is its vkey.

    Attributes:
        name: Key name.
        type: What it signs.
        public: Raw public key.
        key_id: SHA-256(name || 0x0A || type || public key)[:4].
    """

    name: str
    type: KeyType
    public: bytes
    key_id: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.public) != self.type.public_size:
            raise MalformedError(f"public key of {self.name} is not {self.type.public_size} bytes")
        material = b"%b\n%c%b" % (self.name.encode(), self.type, self.public)
        object.__setattr__(self, "key_id", sha256(material).digest()[:_KEY_ID_SIZE])

    def __hash__(self) -> int:
        return hash(self.public)

    def accepts(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's bare signature of exactly these bytes."""
        if len(signature) != self.type.signature_size:
            return False
        try:
            if self.type is KeyType.MLDSA44:
                MLDSA44PublicKey.from_public_bytes(self.public).verify(signature, message)
            else:
                Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):  # ValueError: the public key is no key at all
            return False
        return True

    def to_text(self) -> str:
        """Return the vkey: name+hex(key ID)+base64(type || public key)."""
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.type]) + self.public)}"

    @classmethod
    def from_text(cls, text: str) -> VerifierKey:
        """Parse a vkey.

        Raises:
            MalformedError: not a vkey, its key ID is not its own, or a type other than 0x01, 0x04 and 0x06.
        """
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")  # base64 may hold a plus: only the first two split
        kind, public = _type_and_key(encoded, "verifier key")
        key = cls(name=name, type=kind, public=public)
        if key.key_id.hex() != key_id:
            raise MalformedError(f"verifier key of {name} does not have the key ID it states")
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key with its name and type. Neither `repr` nor an error shows the seed.

    Attributes:
        name: Key name; a log's is its origin.
        type: What it signs.
        seed: SEED_SIZE random bytes.
    """

    name: str
    type: KeyType
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.seed) != SEED_SIZE:
            raise MalformedError(f"seed of {self.name} is not {SEED_SIZE} bytes")

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""
        public = self._private().public_key().public_bytes_raw()
        return VerifierKey(name=self.name, type=self.type, public=public)

    def sign_bytes(self, message: bytes) -> bytes:
        """Return the bare signature of exactly these bytes. ML-DSA-44 signatures differ from call to call."""
        return self._private().sign(message)

    def to_text(self) -> str:
        """Return PRIVATE+KEY+name+hex(key ID)+base64(type || seed), the form of Go's x/mod. Keep it secret."""
        material = encode_base64(bytes([self.type]) + self.seed)
        return f"{_PRIVATE}{self.name}+{self.verifier.key_id.hex()}+{material}"

    @classmethod
    def from_text(cls, text: str) -> SigningKey:
        """Parse what `to_text` writes.

        Raises:
            MalformedError: any other text; the message shows none of it.
        """
        if not text.startswith(_PRIVATE):
            raise MalformedError("signing key does not start with PRIVATE+KEY+")
        name, _, rest = text.removeprefix(_PRIVATE).partition("+")
        key_id, _, encoded = rest.partition("+")
        kind, seed = _type_and_key(encoded, "signing key")
        key = cls(name=name, type=kind, seed=seed)
        if key.verifier.key_id.hex() != key_id:
            raise MalformedError("signing key does not have the key ID it states")
        return key

    def _private(self) -> Ed25519PrivateKey | MLDSA44PrivateKey:
        if self.type is KeyType.MLDSA44:
            return MLDSA44PrivateKey.from_seed_bytes(self.seed)
        return Ed25519PrivateKey.from_private_bytes(self.seed)


def check_name(name: str) -> None:
    """Refuse what is not a key name.

    Raises:
        MalformedError: empty, or with a Unicode space, a plus, a control character or a lone surrogate.
    """
    if not _NAME.fullmatch(name):
        raise MalformedError("key name is empty or holds a space, a plus or a control character")


def _type_and_key(encoded: str, what: str) -> tuple[KeyType, bytes]:
    data = decode_base64(encoded, what)
    try:
        return KeyType(data[0]), data[1:]
    except (IndexError, ValueError):
        raise MalformedError(f"{what} has an unknown type: 0x01, 0x04 and 0x06 are supported") from None
