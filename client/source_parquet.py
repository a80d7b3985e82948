"""A Parquet file as a source: rows read a batch at a time, each value as the text that CSV would hold.

Every column is read, since a row is known by all its cells, in the file's order. Needs pyarrow
(`wardround[parquet]`). Text that is not UTF-8 in a column asked for makes its row no row; nested values fit no rule.
Times with a zone are spelled in UTC, whatever a computer knows of zones. A file that turns out damaged while it is
read is refused as a whole: its pages carry no rows to blame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client.cell_text import UNREADABLE, decoded, identity, text_of
from client.errors import DataError
from client.source import Line

BATCH = 1 << 16  # cells in memory at a time
_MAX_FOOTER = 64 << 20  # bytes of a text, and items of a list, in the file's own description


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetTable:
    """The columns asked for of a Parquet file."""

    path: Path
    columns: tuple[str, ...]
    torn: str = "a text that is not UTF-8"

    @classmethod
    def open(cls, path: Path, columns: Sequence[str]) -> ParquetTable:
        """Read the file's description and find the columns.

        Raises:
            DataError: pyarrow is not installed, the file cannot be read or is no Parquet, or a column is missing.
        """
        made = cls(path=path, columns=tuple(columns))
        with made._read() as file:
            made._places(file)
        return made

    def lines(self) -> Iterator[Line | None]:
        """Yield each row."""
        arrow = _arrow()
        with self._read() as file:
            places = self._places(file)
            rows = max(1, BATCH // len(file.schema_arrow.names))
            try:
                for batch in file.iter_batches(batch_size=rows, use_threads=False):
                    texts = [_texts(column, arrow) for column in batch.columns]
                    for row in zip(*texts, strict=True):
                        cells = [row[i] for i in places]
                        yield None if UNREADABLE in cells else Line(cells, identity(row))
            except (arrow.ArrowException, OSError, MemoryError) as error:
                raise self._refusal(error) from None

    def _places(self, file: Any) -> list[int]:
        """Return where the columns asked for stand among all."""
        names: list[str] = list(file.schema_arrow.names)
        for column in self.columns:
            if (found := names.count(column)) != 1:
                raise DataError(
                    f"{self.path}: column {column!r} is {'named twice' if found else 'missing'}: "
                    "the file must name it once"
                )
        return [names.index(column) for column in self.columns]

    def _read(self) -> Any:
        arrow = _arrow()
        import pyarrow.parquet as parquet

        try:
            return parquet.ParquetFile(
                self.path,
                thrift_string_size_limit=_MAX_FOOTER,
                thrift_container_size_limit=_MAX_FOOTER,
                page_checksum_verification=True,
            )
        except (arrow.ArrowException, OSError, MemoryError) as error:
            raise self._refusal(error) from None

    def _refusal(self, error: BaseException) -> DataError:
        reason = getattr(error, "strerror", None) or "damaged, or no Parquet file"
        return DataError(f"cannot read {self.path}: {reason}")


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise DataError("Parquet files are read with pyarrow: install wardround[parquet]") from None
    return pyarrow


def _texts(column: Any, arrow: Any) -> list[str]:
    """Return each value of a column as text."""
    types, kind = arrow.types, column.type
    if types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        column = column.cast(
            arrow.large_binary()
        )  # decoded one by one: a wrong byte spoils its own row alone
        return ["" if v is None else decoded(v) for v in column.to_pylist()]
    if types.is_float16(kind) or types.is_float32(kind):
        narrow = np.float16 if types.is_float16(kind) else np.float32
        return ["" if v is None else repr(float(str(narrow(v)))) for v in column.to_pylist()]
    if types.is_timestamp(kind) and kind.tz:
        column = column.cast(arrow.timestamp(kind.unit))
    if types.is_temporal(kind):
        column = column.cast(arrow.string())
    elif types.is_nested(kind):
        return ["" if not valid else "[nested]" for valid in column.is_valid().to_pylist()]
    return [text_of(value) for value in column.to_pylist()]
