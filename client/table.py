"""The bytes of a delimited file, as lines of cells; a line is a row whatever it holds.

Quoted cells may hold the delimiter but not a line break: a quote left open would otherwise swallow the rows
behind it, and one patient's row could then remove another's. A line that is not UTF-8, is too long, or has not
as many cells as the header is no row. Only the header can be refused. What cells mean is `features`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from client.errors import DataError

DELIMITERS = (",", ";", "\t")
MAX_LINE = 1 << 20  # bytes; a longer line is no row


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A file whose header names every column asked for."""

    delimiter: str
    width: int  # cells in every row
    positions: tuple[int, ...]  # of the columns asked for, in their order
    lines: list[bytes] = field(repr=False)

    @classmethod
    def parse(cls, data: bytes, columns: Sequence[str], where: str) -> Table:
        """Find the columns in the first line.

        Args:
            data: The whole file.
            columns: Names that the first line must hold, each once; further columns are ignored.
            where: The file's name, for the error.

        Raises:
            DataError: the first line is not text, or a column is missing or named twice.
        """
        first, *lines = data.split(b"\n")
        try:
            text = first.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DataError(
                f"{where}: the first line is not UTF-8 text: save the file as CSV in UTF-8"
            ) from None
        headers = {d: _split(text.rstrip("\r"), d) or [] for d in DELIMITERS}
        delimiter = max(DELIMITERS, key=lambda d: sum(column in headers[d] for column in columns))
        header = headers[delimiter]
        for column in columns:
            if (found := header.count(column)) != 1:
                raise DataError(
                    f"{where}: column {column!r} is {'named twice' if found else 'missing'}: "
                    "the first line must name it once"
                )
        positions = tuple(header.index(column) for column in columns)
        return cls(delimiter=delimiter, width=len(header), positions=positions, lines=lines)

    def rows(self) -> Iterator[list[str] | None]:
        """Yield the stripped cells of each line, or None where a line is no row; blank lines are passed over."""
        for line in self.lines:
            if line.strip():
                yield self._cells(line)

    def pick(self, cells: Sequence[str]) -> list[str]:
        """Return the cells of the columns asked for, in their order."""
        return [cells[i] for i in self.positions]

    def _cells(self, line: bytes) -> list[str] | None:
        if len(line) > MAX_LINE:
            return None
        try:
            cells = _split(line.decode("utf-8").rstrip("\r"), self.delimiter)
        except UnicodeDecodeError:
            return None
        return cells if cells is not None and len(cells) == self.width else None


def _split(text: str, delimiter: str) -> list[str] | None:
    """Return a line's stripped cells, or None when its quotes do not close or a cell is too long for `csv`."""
    try:
        rows = list(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return [cell.strip() for cell in rows[0]] if len(rows) == 1 else None
