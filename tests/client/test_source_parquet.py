"""Parquet: values as the text that CSV holds, damaged files in one line, a hostile text spoils its own row alone."""

from __future__ import annotations

import datetime
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
import pytest

from client.data import check_file, snapshot
from client.errors import DataError
from client.source_parquet import ParquetTable
from tests.client import tables

ROW: tables.Row = (60, "1", 200.5, "never", False, True, "A")


def cells(path: Path, table: pyarrow.Table, *columns: str) -> list[object]:
    parquet.write_table(table, path)
    return [row if row is None else list(row.cells) for row in ParquetTable.open(path, columns).lines()]


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (pyarrow.array([1, None, -(2**63)]), ["1", "", "-9223372036854775808"]),
        (pyarrow.array([2**64 - 1], pyarrow.uint64()), ["18446744073709551615"]),
        (
            pyarrow.array([0.1, 1e30, 5.0, float("nan"), float("-inf")]),
            ["0.1", "1e+30", "5.0", "nan", "-inf"],
        ),
        (pyarrow.array([0.1, 16777216.0], pyarrow.float32()), ["0.1", "16777216.0"]),
        (pyarrow.array([True, False, None]), ["true", "false", ""]),
        (pyarrow.array([Decimal("1.50"), None]), ["1.50", ""]),
        (pyarrow.array([" never ", "?", ""]), ["never", "?", ""]),
        (pyarrow.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pyarrow.array([b"raw"], pyarrow.binary()), ["raw"]),
        (pyarrow.array([datetime.date(2024, 2, 29), None]), ["2024-02-29", ""]),
        (pyarrow.array([[1, 2], None]), ["[nested]", ""]),
        (pyarrow.array([{"a": 1}]), ["[nested]"]),
        (pyarrow.array([None], pyarrow.null()), [""]),
    ],
)
def test_values_become_text(tmp_path: Path, array: pyarrow.Array, texts: list[str]) -> None:
    found = cells(tmp_path / "a.parquet", pyarrow.table({"x": array}), "x", "x")
    assert found == [[text, text] for text in texts]  # one column may serve two variables


def test_the_columns_asked_for_are_given_in_the_order_asked_and_all_tell_rows_apart(tmp_path: Path) -> None:
    table = pyarrow.table({"a": [1], "note": ["free text"], "b": [2]})
    assert cells(tmp_path / "a.parquet", table, "b", "a") == [["2", "1"]]
    for columns in (["b", "a"], ["a"]):
        (line,) = ParquetTable.open(tmp_path / "a.parquet", columns).lines()
        assert line is not None
        assert line.identity == b"1\x1ffree text\x1f2"
        assert repr(line) == "Line()"


def test_a_column_that_nobody_asks_for_spoils_no_row(tmp_path: Path) -> None:
    other = {
        "raw": pyarrow.array([b"\xff", b""], pyarrow.binary()),
        "text": pyarrow.array([b"\xff", b"a"], pyarrow.binary()).view(pyarrow.string()),
        "list": pyarrow.array([[1], None]),
        "zone": pyarrow.array([0, None], pyarrow.timestamp("us", "No/Where")),
    }
    assert cells(tmp_path / "a.parquet", pyarrow.table({"x": ["a", "b"], **other}), "x") == [["a"], ["b"]]
    twice = pyarrow.table([pyarrow.array(["a"])] * 3, names=["x", "y", "y"])
    assert cells(tmp_path / "b.parquet", twice, "x") == [["a"]]


def test_times_are_spelled_in_utc_whatever_their_zone(tmp_path: Path) -> None:
    times = pyarrow.array([0, None], pyarrow.timestamp("ms", "Europe/Berlin"))
    assert cells(tmp_path / "a.parquet", pyarrow.table({"x": times}), "x") == [
        ["1970-01-01 00:00:00.000"],
        [""],
    ]


def test_a_text_that_is_not_utf_8_is_no_row_and_the_others_stay(tmp_path: Path) -> None:
    wrong = pyarrow.array([b"never", b"\xff\xfe", b"former"], pyarrow.binary()).view(pyarrow.string())
    assert cells(tmp_path / "a.parquet", pyarrow.table({"x": wrong}), "x") == [["never"], None, ["former"]]


def test_a_missing_or_doubled_column_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table([pyarrow.array([1])] * 2, names=["x", "x"]), path)
    for column, says in (("x", "column 'x' is named twice"), ("y", "column 'y' is missing")):
        with pytest.raises(DataError, match=says):
            ParquetTable.open(path, [column])


def test_a_damaged_file_is_one_line_or_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [(*ROW[:6], f"P{i}") for i in range(50)]
    place = tables.write_parquet(path, rows)
    whole = path.read_bytes()
    draw = random.Random(1)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(data[: draw.choice([len(data), draw.randrange(len(data))])]))
        try:
            snapshot(place, tables.DICTIONARY, secret=tables.SECRET)
        except DataError as error:
            refused += "\n" not in str(error)
    assert refused > 50


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" * 100, b"id,age\n1,2\n", b"\x00" * 10_000])
def test_what_is_no_parquet_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"cannot read .*a\.parquet: damaged, or no Parquet file"):
        ParquetTable.open(tmp_path / "a.parquet", ["x"])
    with pytest.raises(DataError, match=r"cannot read .*absent"):
        ParquetTable.open(tmp_path / "absent", ["x"])


def test_the_rules_are_those_of_any_table(tmp_path: Path) -> None:
    place = tables.write_parquet(tmp_path / "a.parquet", [ROW, (61, "7", 1.0, "x", True, True, "B")])
    report = check_file(place, tables.DICTIONARY, secret=tables.SECRET)
    assert report.dropped == (("sex", "not a value the dictionary allows", 1),)
    assert report.clipped == (("chol", 1),)


def test_without_pyarrow_one_line_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path; from client.source_parquet import ParquetTable\n"
        "from client.errors import DataError\n"
        "try: ParquetTable.open(Path('a'), ['x'])\n"
        "except DataError as error: print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout == "Parquet files are read with pyarrow: install wardround[parquet]\n"
