"""Other people's text on this hospital's screen: it can neither hide nor pretend to be a line of ours. Pure.

Everything that a terminal would obey, or would not show, is written out as an escape: control characters, directions
of writing, characters without width, marks that pile up on others. Lines are cut to the screen's width here, so that
none can be made to begin at the left edge; each begins with a margin that only such text has.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterator

MARGIN = "  | "
_HIDDEN = (
    "C",
    "M",
    "Z",
)  # categories: controls and the unassigned, marks, separators; the space is let through
_MIN_WIDTH = 20


def shown(line: str) -> str:
    """Return a line with everything that a terminal would obey or hide written out."""
    return "".join(map(_shown, line))


def _shown(c: str) -> str:
    if c == " " or (c.isascii() and c.isprintable()):
        return c
    if c == "\t":
        return "    "
    if unicodedata.category(c)[0] in _HIDDEN:
        return (
            f"\\x{ord(c):02x}"
            if ord(c) < 256
            else f"\\u{ord(c):04x}"
            if ord(c) < 65_536
            else f"\\U{ord(c):08x}"
        )
    return c


def decode(data: bytes) -> list[str]:
    """Return a file's lines; only a newline ends one, and bytes that are no UTF-8 are written out."""
    return data.decode("utf-8", "backslashreplace").removesuffix("\n").split("\n")


def block(lines: list[str], width: int) -> Iterator[str]:
    """Yield lines of other people's text as they may be printed, cut to a screen of `width` columns."""
    room = max(_MIN_WIDTH, width - len(MARGIN) - 1)
    for line in lines:
        for piece in _pieces(shown(line), room):
            yield MARGIN + piece


def _pieces(line: str, room: int) -> Iterator[str]:
    piece, used = "", 0
    for c in line:
        columns = 2 if unicodedata.east_asian_width(c) in "WFA" else 1
        if used + columns > room:
            yield piece
            piece, used = "", 0
        piece, used = piece + c, used + columns
    yield piece


def difference(before: bytes, after: bytes) -> list[str]:
    """Return a unified diff of two files' lines, without its headers."""
    return [
        line.removesuffix("\n") for line in difflib.unified_diff(decode(before), decode(after), lineterm="")
    ][2:]


def strange_lines(data: bytes) -> list[int]:
    """Return the numbers of lines with characters beyond ASCII, which may look like others."""
    return [number for number, line in enumerate(decode(data), 1) if not line.isascii()]
