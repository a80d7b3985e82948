"""Where a hospital's rows come from: one of six kinds of source, each of which yields records of text.

A record is what the rules look at, one at a time: the cells of the inputs, or an image's grey values, and the cells
of label, patient and split. What is no record at all (a torn line, a message that is not JSON) is None. Opening a
source may refuse it; what its rows hold never can. A record also has an identity, which no dictionary and no mapping
changes, for `choosing`: of a table all cells of the row, in a database those of the SELECT; of an image its line in
labels.csv, or its bytes in an .npz file; of an export the patient's id. Each kind is a `source_*` module, imported
only where it is used; what is between a hospital's columns and the dictionary's is `mapping`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from client.dictionary import Dictionary
from client.errors import DataError
from client.mapping import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a dataset lies and how it is read: the hospital's own word, from hospital.toml."""

    kind: str  # one of client.settings.KINDS
    file: Path  # or a folder, for fhir and images
    mapping: Path | None = None
    database: Path | None = None  # sql: the file that holds the database's URL, a secret

    @classmethod
    def csv(cls, file: Path) -> Place:
        """A CSV file whose columns are the dictionary's."""
        return cls(kind="csv", file=file)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Place:
        """Read what `to_json` wrote, beside whatever else stands there."""
        mapping, database = (Path(p) if (p := str(value[name])) else None for name in ("mapping", "database"))
        return cls(kind=str(value["kind"]), file=Path(value["file"]), mapping=mapping, database=database)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: paths, and no secret."""
        mapping, database = (str(path) if path is not None else "" for path in (self.mapping, self.database))
        return {"kind": self.kind, "file": str(self.file), "mapping": mapping, "database": database}


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a table, or one image with its label."""

    inputs: (
        Sequence[str] | NDArray[Any] | None
    )  # cells in `dictionary.inputs` order; grey values; None: no image
    rest: Sequence[str]  # label, then patient and split where the dictionary names them
    identity: bytes = field(repr=False)  # what the row is known by, whatever is asked of it


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table as it lies. Never printed."""

    cells: Sequence[str] = field(repr=False)  # stripped, of the columns asked for, in that order
    identity: bytes = field(repr=False)  # as `Record.identity`


def needed(place: Place) -> tuple[Path, ...]:
    """Return the files and folders that reading a dataset opens: what a confined process must be let read.

    They need not exist. A database of SQLite is a file too; one that others write meanwhile has further ones beside.
    """
    found = [place.file]
    if place.mapping is not None:
        from client import mapping_file

        found += [place.mapping, *mapping_file.concept_maps(place.mapping)]
    if place.kind == "sql" and place.database is not None:
        from client import source_sql

        found += [place.database, *source_sql.files(place.database)]
    return tuple(found)


class Source(Protocol):
    """Something that yields records. Iterating twice gives the same records, if nobody writes meanwhile."""

    @property
    def torn(self) -> str:
        """What it means when there is no record: "not a row with the header's number of cells"."""
        ...

    def records(self) -> Iterator[Record | None]:
        """Yield each record, or None in the place of what is none."""
        ...


class Cells(Protocol):
    """A table: something that yields rows, with the cells of the columns asked for."""

    @property
    def torn(self) -> str:
        """As `Source.torn`."""
        ...

    def lines(self) -> Iterator[Line | None]:
        """Yield each row, or None for what is no row."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedTable:
    """A table of any kind, its cells turned into the dictionary's by the hospital's mapping."""

    table: Cells
    mapping: Mapping
    inputs: int  # how many cells are the model's

    @property
    def torn(self) -> str:
        """As the table says."""
        return self.table.torn

    def records(self) -> Iterator[Record | None]:
        """Yield each row's record."""
        for line in self.table.lines():
            if line is None:
                yield None
            else:
                mapped = self.mapping.apply(line.cells)
                yield Record(mapped[: self.inputs], mapped[self.inputs :], line.identity)


def open_source(place: Place, dictionary: Dictionary, mapping: Mapping) -> Source:
    """Open a dataset of any kind.

    Args:
        place: The hospital's.
        dictionary: The job's.
        mapping: `read_mapping` of the two; it notes what it sees.

    Raises:
        DataError: the file cannot be read, lacks a column, or is of another kind than the dictionary describes.
    """
    if (dictionary.image is not None) != (place.kind in ("images", "npz")):
        wanted = "images or npz" if dictionary.image else "csv, parquet, sql or fhir"
        raise DataError(
            f"dataset.kind is {place.kind!r}, but the data dictionary {dictionary.name!r} describes "
            f"{'images' if dictionary.image else 'a table'}: set it to {wanted}"
        )
    return _OPENERS[place.kind](place, dictionary, mapping)


def read_mapping(place: Place, dictionary: Dictionary) -> Mapping:
    """Return the hospital's mapping to a dictionary; without a file, the one that changes nothing.

    Raises:
        DataError: the file, or a concept map that it names, is not as written, or does not fit the dictionary.
    """
    if place.mapping is None:
        return Mapping.plain(dictionary)
    from client import mapping_file

    return mapping_file.read(place.mapping, dictionary)


def _csv(place: Place, dictionary: Dictionary, mapping: Mapping) -> Source:
    from client.source_csv import CsvFile

    return _mapped(CsvFile.open(place.file, mapping.columns), dictionary, mapping)


def _parquet(place: Place, dictionary: Dictionary, mapping: Mapping) -> Source:
    from client.source_parquet import ParquetTable

    return _mapped(ParquetTable.open(place.file, mapping.columns), dictionary, mapping)


def _sql(place: Place, dictionary: Dictionary, mapping: Mapping) -> Source:
    from client.source_sql import Query

    return _mapped(Query.open(place.file, place.database, mapping.columns), dictionary, mapping)


def _fhir(place: Place, dictionary: Dictionary, mapping: Mapping) -> Source:
    from client.source_fhir import BulkExport

    return _mapped(BulkExport.open(place.file, dictionary, mapping), dictionary, mapping)


def _images(place: Place, dictionary: Dictionary, mapping: Mapping) -> Source:
    from client.source_images import ImageFolder

    return ImageFolder.open(place.file, dictionary, mapping)


def _npz(place: Place, dictionary: Dictionary, mapping: Mapping) -> Source:
    from client.source_npz import ArrayFile

    return ArrayFile.open(place.file, dictionary, mapping)


def _mapped(table: Cells, dictionary: Dictionary, mapping: Mapping) -> Source:
    return MappedTable(table=table, mapping=mapping, inputs=len(dictionary.inputs))


_OPENERS: dict[str, Callable[[Place, Dictionary, Mapping], Source]] = {
    "csv": _csv,
    "fhir": _fhir,
    "images": _images,
    "npz": _npz,
    "parquet": _parquet,
    "sql": _sql,
}
