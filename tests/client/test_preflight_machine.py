"""What the machine must hold, for a dataset that is one file and for one that is a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.preflight_data import observe_data_mode
from client.preflight_machine import LOG_MIB, MEBIBYTE, needed_mib
from tests.client import hospital_folder


@pytest.mark.parametrize("kind", ["fhir", "images"])
def test_a_folder_of_data_counts_with_all_that_lies_in_it(tmp_path: Path, kind: str) -> None:
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    hospital = hospital_folder.hospital(tmp_path / "alpha", kind=kind, file=str(data))
    empty = needed_mib(hospital)
    assert empty >= LOG_MIB
    for name in ("a", "deep/b"):
        with (data / name).open("wb") as file:
            file.truncate(5 * MEBIBYTE)
    (data / "gone").symlink_to("nowhere")
    (data / "deep" / "round").symlink_to(data)
    assert needed_mib(hospital) == empty + 20
    data.chmod(0o750)
    assert observe_data_mode(hospital) == 0o750


def test_a_file_of_data_counts_and_none_is_no_error(tmp_path: Path) -> None:
    hospital = hospital_folder.hospital(tmp_path / "alpha", file=str(tmp_path / "a.csv"))
    without = needed_mib(hospital)
    with (tmp_path / "a.csv").open("wb") as file:
        file.truncate(5 * MEBIBYTE)
    assert needed_mib(hospital) == without + 10
