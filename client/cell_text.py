"""Typed values of Parquet and databases as the text that a CSV file of them would hold.

So one dictionary, one mapping and one set of rules serve every kind of source, and the same patients give the same
snapshot: those with an id in any case, those without as long as all their columns are the same, in the same order
and spelled as here. Integers in decimal; floats in the shortest spelling that reads back as the same number; truth
as "true" or "false"; dates as ISO 8601; no value as "".
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable
from decimal import Decimal

UNREADABLE = "\x00"  # fits no rule: no level of a dictionary holds a control character


def text_of(value: object) -> str:
    """Return a value's text, stripped; UNREADABLE for bytes that are not UTF-8 and for what is no single value."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip() if value.isascii() or _is_unicode(value) else UNREADABLE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, int | Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return decoded(bytes(value))
    return UNREADABLE


def identity(cells: Iterable[str]) -> bytes:
    """Return what a row is known by where it has no patient's id: all its cells, whatever a dictionary asks for.

    It puts patients on their sides for ever (`choosing`): its bytes are those of version 0.1.0 and must stay so.
    """
    return "\x1f".join(cells).encode()


def decoded(data: bytes) -> str:
    """Return UTF-8 text, stripped, or UNREADABLE."""
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        return UNREADABLE


def _is_unicode(text: str) -> bool:
    """Whether a text has a UTF-8 form: a lone surrogate has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
