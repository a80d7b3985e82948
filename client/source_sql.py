"""A database as a source: one SELECT of a .sql file, through SQLAlchemy, in a transaction that cannot write.

The database's URL is a secret in `keys/database.url`, and no error shows it or anything that the database says: a
database quotes values in its complaints. Needs SQLAlchemy (`wardround[sql]`) and the database's driver. A SELECT
whose arithmetic may fail on a row (1/x) can be refused as a whole because of that row: write one that cannot. A row
is known by all that the SELECT names, in its order: without a patient column, keep what it names for ever.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.cell_text import UNREADABLE, decoded, identity, text_of
from client.errors import DataError, LocalStateError
from client.private_file import read_private
from client.source import Line

MAX_QUERY = 1 << 16  # bytes of a .sql file
SECONDS = 300.0  # for the whole query
_BATCH = 1000  # rows fetched at a time
# what is no SQL of its own: quoted text and names, comments
_ASIDE = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_READ_ONLY = {  # said once a transaction
    "mariadb": "SET TRANSACTION READ ONLY",
    "mysql": "SET TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
    "postgresql": "SET TRANSACTION READ ONLY",
    "sqlite": "PRAGMA query_only = ON",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The columns asked for of one SELECT."""

    path: Path
    statement: str
    url: str = field(repr=False)
    columns: tuple[str, ...]
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    torn: str = "a text that is not UTF-8"

    @classmethod
    def open(cls, path: Path, database: Path | None, columns: Sequence[str]) -> Query:
        """Read query and URL, and have the database name the query's columns.

        Raises:
            DataError: SQLAlchemy is not installed, a file cannot be read, the query is not one SELECT, the database
                does not answer, or a column is missing.
        """
        made = cls(path=path, statement=_statement(path), url=_url(database), columns=tuple(columns))
        with made._result() as result:
            names = list(result.keys())
        for column in columns:
            if (found := names.count(column)) != 1:
                raise DataError(
                    f"{path}: column {column!r} is {'named twice' if found else 'missing'}: "
                    'the query must name it once, as in SELECT x AS "' + column + '"'
                )
        return made

    def lines(self) -> Iterator[Line | None]:
        """Yield each row."""
        until = self.clock() + SECONDS
        with self._result() as result:
            names = list(result.keys())
            places = [names.index(column) for column in self.columns]
            for row in result:
                if self.clock() > until:
                    raise DataError(
                        f"{self.path}: the query took longer than {SECONDS:.0f} s: make it smaller"
                    )
                texts = [text_of(value) for value in row]
                cells = [texts[i] for i in places]
                yield None if UNREADABLE in cells else Line(cells, identity(texts))

    @contextmanager
    def _result(self) -> Iterator[Any]:
        sql = _sqlalchemy()
        engine, doing = None, "the database's URL cannot be used: see keys/database.url"
        try:
            engine = sql.create_engine(self.url, poolclass=sql.pool.NullPool, hide_parameters=True)
            doing = "cannot connect to the database"
            self._require_file(engine.url)
            with engine.connect() as connection:
                doing = "the database refused the query"
                self._guard(connection, sql)
                text = sql.text(self.statement.replace(":", r"\:"))
                yield connection.execution_options(stream_results=True, yield_per=_BATCH).execute(text)
        except (sql.exc.SQLAlchemyError, ImportError, ValueError, OSError) as error:
            raise DataError(f"{self.path}: {doing} ({_kind(error)})") from None
        finally:
            if engine is not None:
                engine.dispose()

    def _require_file(self, url: Any) -> None:
        """Refuse an SQLite database that is not there: connecting would make an empty one."""
        file = url.database if url.get_backend_name() == "sqlite" else None
        if file and not file.startswith("file:") and not Path(file).is_file():
            raise DataError(f"{self.path}: cannot connect to the database (there is no such file)")

    def _guard(self, connection: Any, sql: Any) -> None:
        """Make the transaction one that cannot write and does not last for ever, where the database offers it."""
        dialect = connection.dialect.name
        if command := _READ_ONLY.get(dialect):
            connection.execute(sql.text(command))
        if dialect == "postgresql":
            connection.execute(sql.text(f"SET LOCAL statement_timeout = {SECONDS * 1000:.0f}"))
        if dialect == "sqlite":
            raw, until = connection.connection.driver_connection, self.clock() + SECONDS
            raw.text_factory = decoded
            raw.set_progress_handler(lambda: self.clock() > until, 100_000)


def files(database: Path) -> tuple[Path, ...]:
    """Return the files of the database that a URL names: SQLite's own and those beside it; none of a server's."""
    try:
        sql = _sqlalchemy()
        url = _parsed(sql, _url(database))
    except DataError:
        return ()
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith("file:"):
        return ()
    return tuple(Path(url.database + suffix) for suffix in ("", "-journal", "-wal", "-shm"))


def _parsed(sql: Any, url: str) -> Any:
    try:
        return sql.make_url(url)
    except (sql.exc.SQLAlchemyError, ValueError):
        raise DataError("the database's URL cannot be used: see keys/database.url") from None


def _statement(path: Path) -> str:
    """Return the one SELECT of a file.

    Raises:
        DataError: the file cannot be read, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_QUERY + 1).decode("utf-8-sig").strip()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text") from None
    if len(text) > MAX_QUERY:
        raise DataError(f"{path} is larger than {MAX_QUERY} bytes: it must hold one SELECT")
    bare = _ASIDE.sub(" ", text).strip()
    if bare.endswith(";"):  # then so does the text, or a comment follows
        bare = bare[:-1]
    if ";" in bare or re.match(r"(?:SELECT|WITH)\b", bare, re.IGNORECASE) is None:
        raise DataError(f"{path}: it must hold exactly one statement, a SELECT")
    return text.rstrip().removesuffix(";")


def _url(path: Path | None) -> str:
    try:
        data = read_private(path, 4096) if path is not None else None
    except LocalStateError as error:
        raise DataError(str(error)) from None
    if path is None or data is None:
        raise DataError("a dataset of kind sql needs keys/database.url: write the database's URL into it")
    if path.stat().st_mode & 0o077:
        raise DataError(f"{path} can be read by others than its owner: chmod 600 {path}")
    return data.decode("utf-8", "replace").strip()


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy
    except ImportError:
        raise DataError("databases are read with SQLAlchemy: install wardround[sql]") from None
    return sqlalchemy


def _kind(error: BaseException) -> str:
    """Name the kind of an error and, where there is one, its SQLSTATE: never its text, which may hold values."""
    cause = getattr(error, "orig", None) or error
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    kind = type(cause).__name__
    if isinstance(cause, ImportError):
        return "its driver is not installed"
    return f"{kind}, SQLSTATE {state}" if re.fullmatch(r"[0-9A-Z]{5}", str(state)) else kind
