"""Sides are for ever: those of version 0.1.0, under every dictionary and every mapping, for every kind of source.

The hashes below were computed by version 0.1.0. If one changes, patients move between training and held out, and the
privacy account no longer holds: mend the code, never the hashes.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client import dictionary
from client.choosing import Row, choose
from client.data import snapshot
from client.dictionary import Dictionary
from client.errors import DataError
from client.source import Place
from tests.client import images, tables
from tests.client.test_data import make

SECRET = tables.SECRET
LINES = (
    "id;age;sex;num;note",
    "A;60;1;1;first",
    "A;61;1;1;second",
    '"A";62;0;0;"third; quoted"',
    "A;1e30;1;1;fourth",
    "B;60.0;01;0;",
    "C; 33 ;0;1;Köln",
    "C;33;0;1;Köln\r",
    "D;44;1;0;twin",
    "D;44;1;0;twin",
    "E;;1;1;age is missing",
    ";50;1;1;no id",
    "F;70;0;0;later",
    "G;71;0;0;later",
)
# in the order of `Snapshot.patients`: keyed hash, age, label, then the side where the patient is held out
WITH_PATIENTS = (
    "1a907356de65860c6bc6a2dfed041102dee7049c11976eb656d2027a161b7702 33 1",
    "36ae42d6433c0405dc985daccc40695b3288d6342dd8e92ed352f56b1cf222ed 60 0 held out",
    "57e2b475d193b5da0d534f69ac8483ae68ecf98c2f1e89fb4e0293a1bf295ed5 61 1 held out",
    "aac95c6df3405caa12c1b831ee27c390027809e77e9c5da045e0663174f6b32d 71 0",
    "c1618bbf48da785040e20af80a121762c845c23fd06783dc8be13a27c573c41a 44 0 held out",
    "f272f0a532c30dc6c5212672370f793a7c960143725f688035077b5b88dfd6dc 70 0 held out",
)
ONE_ROW_PER_PATIENT = (
    "206def5bc2192cd9e772b085d31af1093f3a9a61de2fdeadfca0f5e1cc88959e 33 1 held out",
    "2fd4d199b8dc1b9918ff12a5f1a94705e4fc04e9bc26164e0d41eebe9876899a 61 1",
    "45dbe820d7ae7937c3befd151c8118e061db71e832b79f4d1a35a0eddc02a680 50 1",
    "63d5432e57692b85ed32bbe5b89f32c634b4cd9810174479e8cd7987d4c040ed 62 0",
    "6cf9fb798b419c37277d2afb5adad3dc5396d4f70c9aad701b4cc99c42d482ca 60 1 held out",
    "86164025a41f03df22d9a2e35d58b064286651bf2c1657ac80a812c0fc29f8c3 44 0",
    "8be42b1a7610e573e9489e6d902bbf84bbed393b0ba266ff5bde3635b4ee9681 44 0",
    "9a93908be9e173da7568a66eec00f85a7cbe4970ec8334ddddcc87034863944f 105 1",
    "a4418aeeac5c16509a81451cdb528cb49482fcfa65dc58b7234a0430b4106126 60 0 held out",
    "baba7fa8acaad86548a25bbb32235614dce1c60a9a23f5d98c21d2ba83d0488d 33 1 held out",
    "baf92e1ac284e77f412d726fbbef64b7bd0a8e7f9dce7cd801265e85387e66f1 70 0 held out",
    "fffaa45c423ff151229de41c45da2518391975453510eff3b4fd7d008a2797b0 71 0",
)
PICKS = (
    (b"", 61),
    (b"\1", 105),
    (b"\5" * 5, 60),
    (b"\6" * 6, 62),
)  # salt, age in the row of A that is picked


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    path = tmp_path / "golden.csv"
    path.write_bytes("".join(line + "\n" for line in LINES).encode())
    return path


@pytest.mark.parametrize(("patient", "expected"), [("id", WITH_PATIENTS), ("", ONE_ROW_PER_PATIENT)])
def test_hashes_sides_and_rows_are_those_of_version_0_1_0(
    golden: Path, patient: str, expected: tuple[str, ...]
) -> None:
    taken = snapshot(golden, make(patient), secret=SECRET, salt=b"job", one_row_per_patient=not patient)
    ages = np.rint(taken.features[:, 0] * 15 + 60).astype(int)
    found = zip(taken.patients, ages, taken.labels, taken.held_out, strict=True)
    assert (
        tuple(f"{key.hex()} {age} {label}{' held out' * bool(out)}" for key, age, label, out in found)
        == expected
    )


@pytest.mark.parametrize(("salt", "age"), PICKS)
def test_a_job_is_shown_the_row_of_a_patient_that_version_0_1_0_showed(
    golden: Path, salt: bytes, age: int
) -> None:
    taken = snapshot(golden, make(), secret=SECRET, salt=salt)
    of_a = taken.patients.index(bytes.fromhex(WITH_PATIENTS[2].split()[0]))
    assert round(float(taken.features[of_a, 0]) * 15 + 60) == age


def sides(place: Place, described: Dictionary) -> dict[bytes, bool]:
    taken = snapshot(place, described, secret=SECRET, one_row_per_patient=True)
    return dict(zip(taken.patients, taken.held_out.tolist(), strict=True))


ROWS: list[tables.Row] = [
    (20 + i, str(i % 2), 150.5 + i, ("never", "former", "current")[i % 3], i % 4 == 0, i % 5 > 2, f"P{i}")
    for i in range(60)
]
OTHER_TABLE = dictionary.parse(
    json.dumps(
        {
            "type": dictionary.TYPE,
            "name": "otherwise",
            "variables": [
                {"name": "chol", "kind": "numeric", "unit": "mg/dL", "lower": "0", "upper": "900",
                 "source": "made up", "code": "LOINC 2093-3"},
                {"name": "age", "kind": "numeric", "unit": "a", "lower": "0", "upper": "99",
                 "source": "made up", "code": "LOINC 30525-0"},
            ],
            "label": {"name": "diabetes", "negative": ["1"], "positive": ["0"], "code": "ICD-10 E11"},
            "patient": "id",
        }
    ).encode()
)  # fmt: skip
HALF = '[columns.chol]\nfactor = "0.5"\n'
SEX = '[columns.sex]\nvalues = { female = "0", male = "1" }\n'
DATE = f'reference_date = "{tables.AT}"\n'


def table(folder: Path, kind: str) -> Place:
    if kind == "sql":
        return tables.write_sqlite(folder, ROWS)
    if kind == "fhir":
        return tables.write_fhir(folder / "export", ROWS)
    write = tables.write_csv if kind == "csv" else tables.write_parquet
    return write(folder / f"a.{kind}", ROWS)


@pytest.mark.parametrize("patient", ["id", ""])
@pytest.mark.parametrize("kind", ["csv", "fhir", "parquet", "sql"])
def test_another_dictionary_or_mapping_of_a_table_keeps_every_side(
    tmp_path: Path, kind: str, patient: str
) -> None:
    place = table(tmp_path, kind)
    first = sides(place, replace(tables.DICTIONARY, patient=patient))
    assert len(first) == 60
    assert 0 < sum(first.values()) < 60
    mapping = tmp_path / "other.toml"
    mapping.write_text(DATE)
    assert sides(replace(place, mapping=mapping), replace(OTHER_TABLE, patient=patient)) == first
    mapping.write_text(DATE + HALF + (SEX if kind == "fhir" else ""))
    assert sides(replace(place, mapping=mapping), replace(tables.DICTIONARY, patient=patient)) == first
    if kind != "fhir":
        mapping.write_text('[columns.age]\nfrom = "chol"\n[columns.num]\nvalues = { 0 = "1", 1 = "0" }\n')
        assert sides(replace(place, mapping=mapping), replace(tables.DICTIONARY, patient=patient)) == first


@pytest.mark.parametrize("patient", ["patient", ""])
@pytest.mark.parametrize("kind", ["images", "npz"])
def test_another_dictionary_or_mapping_of_images_keeps_every_side(
    tmp_path: Path, kind: str, patient: str
) -> None:
    if kind == "npz":
        place = images.write_npz(tmp_path / "a.npz", 60, other=np.arange(60) % 3 % 2)
    else:
        place = images.write_folder(tmp_path, 60)
        header, *lines = (tmp_path / "labels.csv").read_text().splitlines()
        lines = [f"{header},other", *(f"{line},{i % 3 % 2}" for i, line in enumerate(lines))]
        (tmp_path / "labels.csv").write_text("\n".join(lines))
    described = images.describe(patient=patient)
    first = sides(place, described)
    assert len(first) == 60
    assert 0 < sum(first.values()) < 60
    wider = replace(described.variables[0], lower="-300", upper="900", centre="", spread="")
    label = replace(described.label, name="other", negative=("1",), positive=("0",))
    assert sides(place, replace(described, variables=(wider,), label=label)) == first
    mapping = tmp_path / "other.toml"
    mapping.write_text('[columns.label]\nfrom = "other"\nvalues = { 0 = "1", 1 = "0" }\n')
    assert sides(replace(place, mapping=mapping), described) == first


def test_an_edited_row_and_a_further_column_make_new_patients_only_where_none_has_an_id(
    tmp_path: Path,
) -> None:
    nobody = replace(tables.DICTIONARY, patient="")
    place = tables.write_csv(tmp_path / "a.csv", ROWS)
    before, before_nobody = sides(place, tables.DICTIONARY), sides(place, nobody)
    header, first, *lines = place.file.read_text().splitlines()
    place.file.write_text("\n".join([header, first.replace("20,", "20.0,", 1), *lines]))
    assert sides(place, tables.DICTIONARY) == before
    assert len(before_nobody.keys() - sides(place, nobody).keys()) == 1
    place.file.write_text("\n".join([f"{header},note", *(f"{line}," for line in (first, *lines))]))
    assert sides(place, tables.DICTIONARY) == before
    assert before_nobody.keys().isdisjoint(sides(place, nobody))


@pytest.mark.parametrize("line", ['default = "A"', 'values = { P1 = "P2" }', 'prefixes = { P = "Q" }'])
def test_a_mapping_that_would_move_a_patient_is_refused(tmp_path: Path, line: str) -> None:
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(f"[columns.id]\n{line}\n")
    place = replace(tables.write_csv(tmp_path / "a.csv", ROWS), mapping=mapping)
    with pytest.raises(DataError, match=r"columns\.id: a patient is known by the id as it lies") as caught:
        sides(place, tables.DICTIONARY)
    assert "\n" not in str(caught.value)
    mapping.write_text('[columns.id]\nmissing = ["P1"]\n')
    assert len(sides(place, tables.DICTIONARY)) == 59


def test_no_identity_outlives_the_choice_nor_is_printed() -> None:
    def rows() -> Iterator[Row]:
        for i in range(50):
            if i % 10 == 9:
                alive = sum(len(o.identity) for o in gc.get_objects() if type(o) is Row)
                assert alive < 300_000  # the one at hand, and the one before
            identity = b"%02d" % i * 50_000
            yield Row(features=b"", label=0, patient="A" if i % 2 else "", held_out=None, identity=identity)

    chosen, torn = choose(rows(), SECRET, b"")
    assert (len(chosen), torn) == (26, 0)
    assert all(row.identity == b"" and repr(row) == "Row()" for row in chosen.values())
