"""From a file to a snapshot: each row on its own, the patient as the unit, sides for ever."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client import dictionary
from client.data import Report, Snapshot, check_file, size_class, snapshot
from client.errors import DataError

SECRET = bytes(range(32))
HEADER = "id,age,sex,num"


def make(patient: str = "id", split: str = "") -> dictionary.Dictionary:
    return dictionary.parse(
        json.dumps(
            {
                "type": dictionary.TYPE,
                "name": "test",
                "variables": [
                    {"name": "age", "kind": "numeric", "lower": "0", "upper": "120", "source": "made up"},
                    {"name": "sex", "kind": "binary", "levels": ["0", "1"]},
                ],
                "label": {"name": "num", "negative": ["0"], "positive": ["1"]},
                "patient": patient,
                "split": split,
            }
        ).encode()
    )


PLAIN = make()


def write(path: Path, *rows: str | bytes, header: str = HEADER) -> Path:
    lines = [header.encode(), *(r if isinstance(r, bytes) else r.encode() for r in rows)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def take(path: Path, secret: bytes = SECRET, salt: bytes = b"") -> Snapshot:
    return snapshot(path, PLAIN, secret=secret, salt=salt)


def check(path: Path) -> Report:
    return check_file(path, PLAIN, secret=SECRET)


def rows_of(taken: Snapshot) -> set[tuple[bytes, bool, int, bytes]]:
    return {
        (key, bool(out), int(y), x.tobytes())
        for key, out, y, x in zip(taken.patients, taken.held_out, taken.labels, taken.features, strict=True)
    }


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return write(tmp_path / "many.csv", *(f"P{i},{20 + i % 80},{i % 2},{i % 3 % 2}" for i in range(600)))


def test_a_clean_file_becomes_features_labels_and_sides(tmp_path: Path) -> None:
    taken = take(write(tmp_path / "a.csv", "A,60,1,1", "B,75,0,0"))
    assert taken.features.dtype == np.float32
    assert taken.labels.dtype == np.int64
    assert sorted(map(tuple, taken.features.tolist())) == [(0.0, 1.0), (1.0, -1.0)]
    assert len(set(taken.patients)) == 2


def test_a_third_of_the_patients_is_held_out_and_for_ever_the_same(many: Path, tmp_path: Path) -> None:
    first = take(many, salt=b"job 1")
    second = take(many, salt=b"job 2")
    assert 150 < first.held_out.sum() < 250
    sides = dict(zip(first.patients, first.held_out, strict=True))
    assert sides == dict(zip(second.patients, second.held_out, strict=True))
    lines = [line.split(",") for line in many.read_text().splitlines()[1:400]]
    turned = [f"a note,{num},{sex},{age},{patient}" for patient, age, sex, num in reversed(lines)]
    grown = write(tmp_path / "grown.csv", "a note,0,0,50,NEW", *turned, header="note,num,sex,age,id")
    later = take(grown)
    later_sides = dict(zip(later.patients, later.held_out, strict=True))
    assert len(later_sides) == 400
    assert sum(key not in sides for key in later_sides) == 1
    assert all(sides.get(key, out) == out for key, out in later_sides.items())
    assert len(first.evaluation[1]) + len(first.training[1]) == 600


def test_another_secret_holds_out_others(many: Path) -> None:
    one, other = take(many), take(many, secret=bytes(32))
    assert set(one.patients).isdisjoint(other.patients)
    assert one.held_out.sum() != other.held_out.sum() or (one.held_out != other.held_out).any()


def test_the_order_of_the_file_leaves_no_trace(many: Path, tmp_path: Path) -> None:
    header, *lines = many.read_text().splitlines()
    turned = take(write(tmp_path / "turned.csv", *reversed(lines), header=header))
    assert np.array_equal(turned.features, take(many).features)
    assert turned.patients == take(many).patients


HOSTILE: list[str | bytes] = [
    *("P,NaN,1,1", "P,inf,1,1", "P,1e30,1,1", "P,-1e30,1,1", "P,1e999,1,1", "P,,1,1", "P,sixty,1,1"),
    *("P,60,7,1", "P,60,1,", "P,60,1,2", "P,60,1,1e30", "P,60,1", "P,60,1,1,1", ",60,1,1", "   ", ",,,"),
    *('"', 'P,"60,1,1', 'P,6"0,1,1', '"P,60,1,1\nQ,60,1,1"', "P,60,1,1\r", "P,6\r0,1,1", "P,60,1,1\x00"),
    *(
        "P,60,1," + "1" * 10_000,
        "x" * 10_000 + ",60,1,1",
        "P," + "9" * 200_000 + ",1,1",
        b"P,60,1,1" * 200_000,
    ),
    *(b"\xff\xfe,60,1,1", b"\x00" * 100, "P,60,1,1\u2028P,60,1,1", "=cmd|'/c calc'!A1,60,1,1"),
]


@pytest.mark.parametrize("row", HOSTILE)
def test_one_hostile_row_changes_its_own_patient_only(tmp_path: Path, row: str | bytes) -> None:
    others = [f"O{i},{40 + i},{i % 2},{i % 2}" for i in range(9)]
    without = rows_of(take(write(tmp_path / "a.csv", *others)))
    with_it = rows_of(take(write(tmp_path / "b.csv", *others[:4], row, *others[4:])))
    assert without <= with_it
    lines = 1 + (row.count("\n") if isinstance(row, str) else 0)
    assert len(with_it) <= len(without) + lines
    report = check(tmp_path / "b.csv")
    assert report.kept >= 9


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(row=st.binary(max_size=60).filter(lambda b: b"\n" not in b), place=st.integers(0, 5))
def test_one_row_of_any_bytes_changes_its_own_patient_only(tmp_path: Path, row: bytes, place: int) -> None:
    others = [f"O{i},{40 + i},{i % 2},{i % 2}" for i in range(5)]
    without = rows_of(take(write(tmp_path / "a.csv", *others)))
    with_it = take(write(tmp_path / "b.csv", *others[:place], row, *others[place:]))
    assert without <= rows_of(with_it)
    assert np.isfinite(with_it.features).all()


def test_out_of_range_numbers_are_clipped_and_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "A,1e30,1,1", "B,60,0,0")
    assert take(path).features[:, 0].max() == 3.0
    assert check(path).clipped == (("age", 1),)


def test_a_patient_with_many_rows_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", *(f"A,{20 + i},1,1" for i in range(50)), "B,60,0,0", "A,?,1,1")
    assert len(take(path).labels) == 2
    ages = {age for i in range(20) for age in take(path, salt=bytes([i])).features[:, 0].tolist()}
    assert len(ages) > 5  # another job sees another row
    assert rows_of(take(path, salt=b"x")) == rows_of(take(path, salt=b"x"))
    report = check(path)
    assert (report.rows, report.kept, report.patients) == (52, 51, 2)


def test_without_a_patient_column_the_hospital_must_give_its_word(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "60,1,1", "60,1,1", "75,0,0", header="age,sex,num")
    nobody = make(patient="")
    with pytest.raises(DataError, match="one_row_per_patient = true"):
        snapshot(path, nobody, secret=SECRET)
    with pytest.raises(DataError, match="one_row_per_patient = true"):
        check_file(path, nobody, secret=SECRET)
    taken = snapshot(path, nobody, secret=SECRET, one_row_per_patient=True)
    assert len(set(taken.patients)) == 3  # equal rows are two patients
    twins = [out for out, x in zip(taken.held_out, taken.features, strict=True) if x[0] == 0]
    assert len(set(twins)) == 1  # and on one side


def test_rows_without_ids_keep_their_side_when_others_come_and_go(tmp_path: Path) -> None:
    nobody = make(patient="")
    rows = [f"{20 + i},{i % 2},{i % 2}" for i in range(60)]
    header = "age,sex,num"
    everyone, fewer = (
        snapshot(
            write(tmp_path / "a.csv", *some, header=header), nobody, secret=SECRET, one_row_per_patient=True
        )
        for some in (rows, rows[::2])
    )
    assert rows_of(fewer) < rows_of(everyone)


def test_a_published_split_decides_and_a_patient_on_both_sides_is_left_out(tmp_path: Path) -> None:
    known = make(split="split")
    rows = [
        "A,60,1,1,train",
        "B,60,1,1,test",
        "C,60,1,1,train",
        "C,61,1,1,test",
        "D,60,0,0,perhaps",
        "D,60,0,0,",
    ]
    path = write(tmp_path / "a.csv", *rows, header=HEADER + ",split")
    taken = snapshot(path, known, secret=SECRET)
    assert sorted(taken.held_out.tolist()) == [False, True]
    report = check_file(path, known, secret=SECRET)
    assert report.dropped == (("split", "neither train nor test", 2),)
    with pytest.raises(DataError, match="1 patients have rows of both train and test"):
        report.require_usable()


def test_the_report_counts_reasons_without_any_value(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        "A,60,1,1",
        "B,,1,1",
        "C,SECRETAGE,1,1",
        "D,60,SECRETSEX,1",
        "E,60",
        ",60,1,1",
        "G,60,1,",
    )
    report = check(path)
    assert set(report.dropped) == {
        ("age", "missing", 1),
        ("age", "not a number", 1),
        ("sex", "not a value the dictionary allows", 1),
        ("line", "not a row with the header's number of cells", 1),
        ("id", "missing", 1),
        ("num", "missing", 1),
    }
    assert (report.rows, report.kept, report.patients, report.positive) == (7, 1, 1, 1)
    report.require_usable()
    assert "SECRET" not in "\n".join(report.lines()) + repr(report)


def test_a_label_out_of_range_refuses_the_file_before_start_and_drops_the_row_after(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "A,60,1,1", "B,60,0,0", "C,60,0,9182736")
    with pytest.raises(DataError, match="1 rows hold a value of the label column 'num'") as caught:
        check(path).require_usable()
    assert "9182736" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(take(path).labels) == 2


def test_a_file_without_a_usable_patient_is_refused_but_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "A,,,")
    with pytest.raises(DataError, match="no patient has a usable row"):
        check(path).require_usable()
    taken = take(path)
    assert taken.features.shape == (0, 2)
    assert taken.training[0].shape == taken.evaluation[0].shape == (0, 2)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "column 'age' is missing"),
        (b"P,60,1,1\n", "column 'age' is missing: the first line must name it once"),
        (b"id,age,num\n", "column 'sex' is missing"),
        (b"id,age,sex,num,age\n", "column 'age' is named twice"),
        (HEADER.encode("utf-16"), "not UTF-8"),
        (b'id,"age,sex,num\n', "column 'age' is missing"),
    ],
)
def test_an_unusable_header_is_one_clear_line_without_its_text(
    tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        take(path)
    assert "\n" not in str(caught.value)
    assert "60" not in str(caught.value).replace(str(path), "")


def test_an_unreadable_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*No such file"):
        take(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=r"cannot read .*directory"):
        take(tmp_path)


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="32 bytes"):
        take(write(tmp_path / "a.csv", "A,60,1,1"), secret=b"short")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_byte_order_mark_and_windows_lines(tmp_path: Path, delimiter: str) -> None:
    lines = [HEADER, "A,60,1,1", '"B",75,"0",0']
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).replace(",", delimiter).encode())
    assert len(take(path).labels) == 2


def test_nothing_of_a_row_is_printed(tmp_path: Path) -> None:
    taken = take(write(tmp_path / "a.csv", "A,60,1,1"))
    assert repr(taken) == "Snapshot()"


@pytest.mark.parametrize(
    ("patients", "published"),
    [(0, 1), (1, 1), (2, 2), (3, 4), (5, 4), (6, 8), (46, 32), (48, 64), (130, 128), (191, 128), (192, 256)],
)
def test_the_size_class_is_the_nearest_power_of_two_and_the_larger_at_a_tie(
    patients: int, published: int
) -> None:
    assert size_class(patients) == published
