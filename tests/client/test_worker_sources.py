"""The worker process reads every kind of source, and commits to the same bytes whichever it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from client import snapshot_file
from client.config import Hospital
from client.data import snapshot
from client.dictionary import Dictionary
from client.source import Place
from client.worker import Worker
from tests.client import hospital_folder, images, tables

ROWS: list[tables.Row] = [
    (20 + i, str(i % 2), 150.5 + i, ("never", "former", "current")[i % 3], i % 4 == 0, i % 5 > 2, f"P{i}")
    for i in range(hospital_folder.SIZE_CLASS)
]


def committed(hospital: Hospital, described: Dictionary) -> None:
    """Have a worker look at the data and commit to it; it must have read what this process reads."""
    worker = Worker(hospital)
    try:
        worker.survey(described.to_bytes())
        cohort = worker.commit(described.to_bytes(), 1)
    finally:
        worker.close()
    salt = (hospital.folder / "worker" / "dataset-1.salt").read_bytes()
    taken = snapshot(hospital.place, described, secret=hospital.secret_file.read_bytes())
    assert cohort == snapshot_file.commitment(snapshot_file.to_bytes(taken), salt)


def folder_of(tmp_path: Path, place: Place) -> Hospital:
    """Return a hospital whose dataset lies at a place below `tmp_path`."""
    changes: dict[str, object] = {"kind": place.kind, "file": str(place.file)}
    if place.mapping is not None:
        changes["mapping"] = str(place.mapping)
    hospital = hospital_folder.hospital(tmp_path / "alpha", **changes)
    if place.database is not None:
        place.database.rename(hospital.folder / "keys" / "database.url")
    return hospital


@pytest.mark.parametrize("kind", ["csv", "fhir", "parquet", "sql"])
def test_tables(tmp_path: Path, kind: str) -> None:
    place = {
        "csv": lambda: tables.write_csv(tmp_path / "a.csv", ROWS),
        "fhir": lambda: tables.write_fhir(tmp_path / "export", ROWS),
        "parquet": lambda: tables.write_parquet(tmp_path / "a.parquet", ROWS),
        "sql": lambda: tables.write_sqlite(tmp_path, ROWS),
    }[kind]()
    committed(folder_of(tmp_path, place), tables.DICTIONARY)


@pytest.mark.parametrize("kind", ["images", "npz"])
def test_images(tmp_path: Path, kind: str) -> None:
    place = (
        images.write_folder(tmp_path / "images", 64)
        if kind == "images"
        else images.write_npz(tmp_path / "a.npz", 64)
    )
    committed(folder_of(tmp_path, place), images.DICTIONARY)
