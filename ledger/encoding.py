"""The two spellings that every note shares: padded standard base64 and ASCII decimals, one spelling a value.

Python's own decoders accept more (`+4_2`, spare bits in the last base64 digit), so a signed text could be
written in two ways; here what was parsed is always what would be written. Follows RFC 4648 section 4.
"""

from __future__ import annotations

import binascii

from ledger.errors import MalformedError

MAX_UINT63 = 2**63 - 1  # largest tree size, index and POSIX time that these formats carry
_MAX_DIGITS = len(str(MAX_UINT63))


def encode_base64(data: bytes) -> str:
    """Return padded standard base64."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def decode_base64(text: str, what: str, size: int | None = None) -> bytes:
    """Decode the one base64 spelling of some bytes.

    Args:
        text: Padded standard base64, no whitespace.
        what: Name of the value, for the error.
        size: Exact number of bytes, where it is known.

    Raises:
        MalformedError: not base64, a second spelling, or another number of bytes.
    """
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error and non-ASCII text are ValueErrors
        raise MalformedError(f"{what} is not base64") from None
    if encode_base64(data) != text:  # spare bits or padding that decode to the same bytes
        raise MalformedError(f"{what} is not canonical base64")
    if size is not None and len(data) != size:
        raise MalformedError(f"{what} has {len(data)} bytes, not {size}")
    return data


def parse_decimal(text: str, what: str) -> int:
    """Parse an ASCII decimal from 0 to 2**63 - 1 without sign, spaces or leading zeros.

    Raises:
        MalformedError: any other text; `what` names it.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise MalformedError(f"{what} is not a decimal number")
    value = int(text)
    if str(value) != text:
        raise MalformedError(f"{what} has leading zeros")
    if value > MAX_UINT63:
        raise MalformedError(f"{what} is above 2**63 - 1")
    return value
