"""Signed notes: a text, an empty line, and one or more signature lines.

Follows C2SP signed-note. A note's text is nothing until `open_note` has verified it against keys that the
caller trusts. Keys and lines are in `signature`, the text of a checkpoint in `checkpoint`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ledger.checkpoint import cosign, verify_cosignature
from ledger.errors import MalformedError, VerificationError
from ledger.signature import KeyType, Signature, SigningKey, VerifierKey

MAX_NOTE_SIZE = 1_000_000  # bytes
MAX_SIGNATURES = 100  # lines; the spec asks for at least 16
_FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")  # controls but newline, and lone surrogates


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A well-formed note; nothing in it is verified."""

    text: str
    signatures: tuple[Signature, ...]

    def __post_init__(self) -> None:
        if not self.text.endswith("\n"):
            raise MalformedError("note text does not end in a newline")
        if _FORBIDDEN.search(self.text):
            raise MalformedError("note text holds a control character or is not Unicode")
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise MalformedError(f"note has {len(self.signatures)} signatures, not 1 to {MAX_SIGNATURES}")

    def to_bytes(self) -> bytes:
        """Return the note."""
        return f"{self.text}\n{''.join(line.to_line() for line in self.signatures)}".encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Note:
        """Parse a note; `to_bytes` gives the same bytes back.

        Raises:
            MalformedError: any bytes that are not a note.
        """
        if len(data) > MAX_NOTE_SIZE:
            raise MalformedError(f"note is longer than {MAX_NOTE_SIZE} bytes")
        try:
            whole = data.decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedError("note is not UTF-8") from None
        head, separator, tail = whole.rpartition("\n\n")  # the last empty line: the text may hold others
        lines = tail.split("\n")
        if not separator or lines.pop():
            raise MalformedError("note does not end in an empty line and signature lines")
        if len(lines) > MAX_SIGNATURES:
            raise MalformedError(f"note has more than {MAX_SIGNATURES} signatures")
        return cls(text=head + "\n", signatures=tuple(Signature.from_line(f"{line}\n") for line in lines))

    def with_signatures(self, *added: Signature) -> Note:
        """Return the note with more lines at its end; lines it already has are not repeated."""
        return Note(text=self.text, signatures=tuple(dict.fromkeys((*self.signatures, *added))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A line that verified.

    Attributes:
        key: The known key that signed.
        signature: The line.
        time: POSIX seconds of a cosignature; None for a plain signature (0x01).
    """

    key: VerifierKey
    signature: Signature
    time: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedNote:
    """A note with at least one verified signature, and none that fails.

    Attributes:
        text: The signed text.
        verified: Lines of known keys, in the note's order; all of them verify.
        unknown: Lines of other keys: never act on them or pass them on as if checked.
    """

    text: str
    verified: tuple[Verified, ...]
    unknown: tuple[Signature, ...]


def open_note(note: Note | bytes, keys: Iterable[VerifierKey]) -> OpenedNote:
    """Verify every line whose (name, key ID) is known; the others are ignored.

    Raises:
        MalformedError: not a note, two keys with one (name, key ID), or a cosigned text that is no checkpoint.
        VerificationError: a line of a known key fails, or no known key signed.
    """
    if isinstance(note, bytes):
        note = Note.from_bytes(note)
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        other = known.setdefault((key.name, key.key_id), key)
        if other is not key and other != key:
            raise MalformedError(f"two keys share the name {key.name} and one key ID")
    verified, unknown = [], []
    for line in note.signatures:
        signer = known.get((line.name, line.key_id))
        if signer is None:
            unknown.append(line)
        else:
            verified.append(Verified(key=signer, signature=line, time=_verify(note.text, signer, line)))
    if not verified:
        raise VerificationError("note is not signed by any known key")
    return OpenedNote(text=note.text, verified=tuple(verified), unknown=tuple(unknown))


def sign_note(text: str, *signers: SigningKey, time: int | None = None) -> Note:
    """Sign a text with each key, in order.

    Args:
        text: Ends in a newline; a checkpoint where a signer is of type 0x04 or 0x06.
        signers: At least one key.
        time: POSIX seconds for keys of type 0x04 or 0x06; others need none.

    Raises:
        MalformedError: the text or time cannot be signed by such keys.
    """
    return Note(text=text, signatures=tuple(_sign(text, signer, time) for signer in signers))


def _sign(text: str, signer: SigningKey, time: int | None) -> Signature:
    if signer.type is not KeyType.ED25519:
        if time is None:
            raise MalformedError(f"key of {signer.name} signs a time: pass one")
        return cosign(text, signer, time)
    key = signer.verifier
    return Signature(name=key.name, key_id=key.key_id, value=signer.sign_bytes(text.encode()))


def _verify(text: str, key: VerifierKey, line: Signature) -> int | None:
    if key.type is not KeyType.ED25519:
        return verify_cosignature(text, key, line)
    if not key.accepts(text.encode(), line.value):
        raise VerificationError(f"signature of {key.name} does not verify")
    return None
