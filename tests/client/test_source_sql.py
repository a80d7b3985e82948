"""Databases: one SELECT that cannot write, a URL that nothing shows, no word of the database in any error."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from client import source_sql
from client.data import check_file, snapshot
from client.errors import DataError
from client.source import Place
from client.source_sql import Query
from tests.client import tables

ROWS: list[tables.Row] = [
    (60, "1", 200.5, "never", False, True, "A"),
    (50, "0", 180.0, "former", True, False, "B"),
]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return tables.write_sqlite(tmp_path, ROWS)


def query(place: Place, text: str, *columns: str) -> list[object]:
    place.file.write_text(text)
    found = Query.open(place.file, place.database, columns or ("x",)).lines()
    return [row if row is None else list(row.cells) for row in found]


def refusal(place: Place, text: str = "SELECT 1 AS x") -> str:
    with pytest.raises(DataError) as caught:
        query(place, text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_values_become_text(place: Place) -> None:
    text = (
        "SELECT 1 AS a, 0.1 AS b, NULL AS c, ' x ' AS d, x'ff' AS e2, x'6869' AS f, 9223372036854775807 AS g"
    )
    assert query(place, text, "a", "b", "c", "d", "f", "g") == [
        ["1", "0.1", "", "x", "hi", "9223372036854775807"]
    ]
    assert query(place, text, "a", "e2") == [None]


def test_a_text_that_is_not_utf_8_is_no_row_and_the_others_stay(place: Place) -> None:
    text = "SELECT 'a' AS x UNION ALL SELECT CAST(x'ff' AS TEXT) UNION ALL SELECT 'b'"
    assert query(place, text) == [["a"], None, ["b"]]


@pytest.mark.parametrize(
    "text",
    [
        "select 1 as x",
        "-- a comment; with a semicolon\nSELECT 1 AS x;",
        "/* DROP; */ WITH t AS (SELECT 1 AS x) SELECT x FROM t ; ",
        "SELECT count(';') AS x, ':name' AS y, '%s %' AS z",
        "\ufeffSELECT 1 AS x",
        "SELECT 1 AS x -- and nothing; more",
    ],
)
def test_one_select_in_any_dress(place: Place, text: str) -> None:
    assert query(place, text) == [["1"]]


@pytest.mark.parametrize(
    "text",
    ["", "DELETE FROM patients", "SELECT 1 AS x; DELETE FROM patients", "PRAGMA query_only = OFF", "EXPLAIN SELECT 1",
     "SELECT 1 AS x;; SELECT 2", "INSERT INTO patients SELECT * FROM patients", "SELECTED", "ATTACH 'x' AS y"],
)  # fmt: skip
def test_anything_but_one_select_is_refused_unseen_by_the_database(place: Place, text: str) -> None:
    assert "exactly one statement, a SELECT" in refusal(place, text)


def test_a_statement_that_would_write_is_refused_by_the_database(place: Place, tmp_path: Path) -> None:
    text = "WITH t AS (SELECT 1) DELETE FROM patients RETURNING id AS x"
    assert "the database refused the query (OperationalError)" in refusal(place, text)
    assert sqlite3.connect(tmp_path / "hospital.db").execute("SELECT count(*) FROM patients").fetchone() == (
        2,
    )


def test_no_error_shows_the_url_a_value_or_what_the_database_says(place: Place) -> None:
    assert place.database is not None
    said = [
        refusal(place, "SELECT secret_column AS x FROM patients"),
        refusal(place, "SELECT abs(-9223372036854775808) AS x"),
    ]
    for url in (
        "postgresql://u:hunter2@localhost:1/db",
        "nosuch://u:hunter2@h/db",
        "hunter2",
        "",
        "sqlite:////nowhere/hunter2.db",
    ):
        place.database.write_text(url)
        said.append(refusal(place))
    assert all(
        "hunter2" not in line and "secret_column" not in line.replace(str(place.file), "") for line in said
    )
    assert all("9223372036854775808" not in line for line in said)
    assert "hunter2" not in repr(Query(path=place.file, statement="", url="sqlite:///hunter2", columns=()))


def test_a_database_file_that_is_not_there_is_not_made(place: Place, tmp_path: Path) -> None:
    assert place.database is not None
    place.database.write_text(f"sqlite:///{tmp_path / 'absent.db'}")
    assert "cannot connect to the database (there is no such file)" in refusal(place)
    assert not (tmp_path / "absent.db").exists()


def test_a_url_that_others_can_read_or_none_at_all_is_refused(place: Place) -> None:
    assert place.database is not None
    place.database.chmod(0o644)
    assert "can be read by others than its owner" in refusal(place)
    place.database.unlink()
    assert "needs keys/database.url" in refusal(place)


def test_a_missing_or_doubled_column_is_one_line(place: Place) -> None:
    assert "column 'x' is missing" in refusal(place, "SELECT 1 AS y")
    assert "column 'x' is named twice" in refusal(place, "SELECT 1 AS x, 2 AS x")


def test_a_query_that_does_not_end_is_ended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_sql, "SECONDS", 0.2)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT sum(x) AS x FROM n"
    assert "the database refused the query" in refusal(place, endless)
    streaming = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
    assert any(says in refusal(place, streaming) for says in ("took longer", "refused the query"))


def test_the_rules_are_those_of_any_table(place: Place) -> None:
    report = check_file(place, tables.DICTIONARY, secret=tables.SECRET)
    assert (report.rows, report.kept) == (2, 2)
    assert len(snapshot(place, tables.DICTIONARY, secret=tables.SECRET).labels) == 2
