"""A delimited text file as a source: `client.table` reads its lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.cell_text import identity
from client.errors import DataError
from client.source import Line
from client.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvFile:
    """The columns asked for of a UTF-8 file of comma-, semicolon- or tab-separated lines."""

    table: Table
    torn: str = "not a row with the header's number of cells"

    @classmethod
    def open(cls, path: Path, columns: Sequence[str]) -> CsvFile:
        """Read the file and find the columns in its first line.

        Raises:
            DataError: the file cannot be read, or its first line lacks a column.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        return cls(table=Table.parse(data, columns, str(path)))

    def lines(self) -> Iterator[Line | None]:
        """Yield each line."""
        for cells in self.table.rows():
            yield None if cells is None else Line(self.table.pick(cells), identity(cells))
