"""Published data sets through the sources: files beside the project, read where they are and skipped where not.

The default takes 5,000 encounters and 1,148 images; WARDROUND_FULL_TESTS=1 takes all 101,766 and 5,856.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from client import dictionary, snapshot_file
from client.data import check_file, size_class, snapshot
from client.demo_data import HEART_DISEASE, write_heart_disease
from client.models import ModelSettings, build, initial_parameters
from client.software import models_digest
from client.source import Place
from client.worker import Worker
from tests.client import hospital_folder, tables
from tests.client.fake_coordinator import EDGES
from tests.client.images import describe
from tests.client.tables import SECRET
from tests.client.test_worker import spec

FULL = os.environ.get("WARDROUND_FULL_TESTS") == "1"
ENCOUNTERS = 101_766 if FULL else 5_000
PARTS, IMAGES = (("train", "val", "test"), 5856) if FULL else (("val", "test"), 1148)
SHARED = Path(__file__).parents[3] / "shared" / "data"


def beside(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not beside the project, in shared/data")
    return path


def test_heart_disease_in_three_formats_is_one_snapshot(tmp_path: Path) -> None:
    files = write_heart_disease(beside("heart_disease"), tmp_path)
    for hospital, path in files.items():
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
        columns = {name: [row[i] or None for row in rows] for i, name in enumerate(header)}
        numbers = {
            n: [None if v is None else float(v) for v in c]
            for n, c in columns.items()
            if n not in ("patient", "split")
        }
        parquet.write_table(pyarrow.table({**columns, **numbers}), tmp_path / "a.parquet")
        with sqlite3.connect(tmp_path / "hospital.db") as database:
            names = ", ".join(f'"{name}"' for name in header)
            database.execute(f'DROP TABLE IF EXISTS "{hospital}"')
            database.execute(f'CREATE TABLE "{hospital}" ({", ".join(f"{name} NUMERIC" for name in header)})')
            marks = ", ".join("?" * len(header))
            database.executemany(
                f'INSERT INTO "{hospital}" VALUES ({marks})', [[c or None for c in r] for r in rows]
            )
        database.close()
        places = [
            Place.csv(path),
            Place(kind="parquet", file=tmp_path / "a.parquet"),
            tables.place_of_query(tmp_path, f'SELECT {names} FROM "{hospital}"'),
        ]
        taken = [snapshot(place, HEART_DISEASE.dictionary, secret=SECRET) for place in places]
        assert len({snapshot_file.to_bytes(rows_of) for rows_of in taken}) == 1
        assert len(taken[0].labels) in (303, 261, 46, 130)  # as Fed-Heart-Disease counts complete rows


DIABETES = {
    "type": dictionary.TYPE,
    "name": "diabetes-130",
    "variables": [
        {"name": "age", "kind": "numeric", "unit": "a", "lower": "0", "upper": "100", "source": "made up for a test"},
        {"name": "gender", "kind": "binary", "levels": ["female", "male"]},
        {"name": "days", "kind": "numeric", "unit": "d", "lower": "1", "upper": "14", "source": "made up for a test"},
        {"name": "a1c", "kind": "categorical", "levels": ["not measured", "normal", "raised"]},
        {"name": "diagnosis", "kind": "categorical", "levels": ["other", "circulatory", "respiratory", "diabetes"]},
    ],
    "label": {"name": "readmitted", "negative": ["no"], "positive": ["yes"]},
    "patient": "patient_nbr",
}  # fmt: skip
GROUPS = """
[columns.age.values]                      # ten-year bands, by their middles
"[0-10)" = "5"
"[10-20)" = "15"
"[20-30)" = "25"
"[30-40)" = "35"
"[40-50)" = "45"
"[50-60)" = "55"
"[60-70)" = "65"
"[70-80)" = "75"
"[80-90)" = "85"
"[90-100)" = "95"
[columns.gender]
values = { Female = "female", Male = "male" }
[columns.days]
from = "time_in_hospital"
[columns.a1c]
from = "A1Cresult"
values = { None = "not measured", Norm = "normal", ">7" = "raised", ">8" = "raised" }
[columns.diagnosis]                       # ICD-9 groups of Strack et al. 2014, table 2
from = "diag_1"
spans = [
    { at_least = "390", below = "460", level = "circulatory" },
    { at_least = "785", below = "786", level = "circulatory" },
    { at_least = "460", below = "520", level = "respiratory" },
    { at_least = "786", below = "787", level = "respiratory" },
    { at_least = "250", below = "251", level = "diabetes" },
]
otherwise = "other"
[columns.readmitted]
values = { "<30" = "yes", ">30" = "no", NO = "no" }
"""


def test_diabetes_130_through_a_mapping(tmp_path: Path) -> None:
    packed = beside("diabetes130") / "diabetic_data.csv.gz"
    with gzip.open(packed, "rt", newline="") as file:
        lines = [line for line, _ in zip(file, range(ENCOUNTERS + 1), strict=False)]
    (tmp_path / "a.csv").write_text("".join(lines))
    (tmp_path / "mapping.toml").write_text(GROUPS)
    described = dictionary.parse(json.dumps(DIABETES).encode())
    place = Place(kind="csv", file=tmp_path / "a.csv", mapping=tmp_path / "mapping.toml")
    report = check_file(place, described, secret=SECRET)
    rows = list(csv.DictReader(io.StringIO("".join(lines))))
    fit = [r for r in rows if r["gender"] != "Unknown/Invalid" and r["diag_1"] != "?"]
    assert (report.rows, report.kept, report.patients) == (
        ENCOUNTERS,
        len(fit),
        len({r["patient_nbr"] for r in fit}),
    )
    assert report.refusals == ()
    unknown = sum(r["gender"] == "Unknown/Invalid" for r in rows)
    assert [n for n in report.notes if "Invalid" in n] == (
        [f"gender: {unknown} cells hold 'Unknown/Invalid', which the mapping does not list"]
        if unknown
        else []
    )
    taken = snapshot(place, described, secret=SECRET)
    circulatory = taken.features[:, described.feature_names.index("diagnosis=circulatory")]
    assert 0.2 < (circulatory > 0).mean() < 0.4


def test_pneumonia_images_train_a_small_cnn_in_a_worker_process(tmp_path: Path) -> None:
    file = beside("pneumoniamnist") / "pneumoniamnist.npz"
    described = describe(patient="")
    hospital = hospital_folder.hospital(
        tmp_path / "alpha", kind="npz", file=str(file), mapping="mapping.toml", one_row_per_patient=True,
        delta=0.00001, size_class=size_class(IMAGES),
    )  # fmt: skip
    (hospital.folder / "mapping.toml").write_text(
        "".join(
            f'[columns.{name}]\nfrom = "{", ".join(f"{part}_{name}s" for part in PARTS)}"\n'
            for name in ("image", "label")
        )
    )
    module = build(ModelSettings(name="small-cnn", input_shape=described.input_shape))
    start = initial_parameters(
        module, ModelSettings(name="small-cnn", input_shape=described.input_shape), seed=1
    )
    job = replace(
        spec("images", model="small-cnn", model_code=models_digest(), parameters=len(start)),
        size_class=size_class(IMAGES), sample_rate="0.0625", chunk_size=64,
    )  # fmt: skip
    worker = Worker(hospital)
    try:
        worker.survey(described.to_bytes())
        worker.prepare(job, described.to_bytes())
        update, production = worker.train(job, start.astype("<f4").tobytes(), 120.0)
        counts, _ = worker.histogram(job, start.astype("<f4").tobytes(), EDGES, "0.1", 120.0)
    finally:
        worker.close()
    assert (update.shape, production) == ((len(start),), True)
    assert np.any(update)
    assert abs(int(counts.sum()) - IMAGES // 3) < 150
