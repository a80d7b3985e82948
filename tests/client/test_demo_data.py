"""The demonstration's files: real records, uneven hospitals, Fed-Heart-Disease's split, one line for a bad source."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from client.data import check_file, snapshot
from client.demo_data import BREAST_CANCER, DEMOS, HEART_DISEASE, write_breast_cancer, write_heart_disease
from client.errors import DataError

SOURCE = Path(__file__).parents[2].parent / "shared" / "data" / "heart_disease"
SECRET = bytes(32)
needs_source = pytest.mark.skipif(not SOURCE.is_dir(), reason="../shared/data is not there")


@pytest.fixture(scope="module")
def breast(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_breast_cancer(tmp_path_factory.mktemp("breast") / "new")


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_heart_disease(SOURCE, tmp_path_factory.mktemp("heart"))


def test_breast_cancer_is_dealt_unevenly_and_not_alike(breast: dict[str, Path]) -> None:
    assert tuple(sorted(breast)) == BREAST_CANCER.hospitals
    taken = {h: snapshot(path, BREAST_CANCER.dictionary, secret=SECRET) for h, path in breast.items()}
    sizes = {h: len(s.labels) for h, s in taken.items()}
    assert sizes == {"hillcrest": 59, "lakeside": 150, "northgate": 240, "riverside": 120}
    prevalence = {h: s.labels.mean() for h, s in taken.items()}
    assert prevalence["lakeside"] < 0.2
    assert prevalence["riverside"] > 0.6
    benign = {h: s.features[s.labels == 0, 0].mean() for h, s in taken.items()}
    assert benign["lakeside"] < benign["northgate"] < benign["riverside"]


def test_every_breast_cancer_record_is_dealt_once(breast: dict[str, Path]) -> None:
    lines = [line.split(",", 1)[1] for path in breast.values() for line in path.read_text().splitlines()[1:]]
    assert len(lines) == 569
    # The published table has no two equal records.
    assert len(set(lines)) == 569
    assert sum(line.endswith(",M") for line in lines) == 212
    ids = [line.split(",")[0] for path in breast.values() for line in path.read_text().splitlines()[1:]]
    assert len(set(ids)) == 569


def test_breast_cancer_files_are_the_same_every_time(breast: dict[str, Path], tmp_path: Path) -> None:
    again = write_breast_cancer(tmp_path)
    assert {h: p.read_bytes() for h, p in again.items()} == {h: p.read_bytes() for h, p in breast.items()}


def test_breast_cancer_files_pass_the_check(breast: dict[str, Path]) -> None:
    for path in breast.values():
        report = check_file(path, BREAST_CANCER.dictionary, secret=SECRET)
        report.require_usable()
        assert report.dropped == ()


@needs_source
def test_heart_disease_has_the_rows_and_split_of_fed_heart_disease(heart: dict[str, Path]) -> None:
    assert tuple(sorted(heart)) == HEART_DISEASE.hospitals
    taken = {h: snapshot(path, HEART_DISEASE.dictionary, secret=SECRET) for h, path in heart.items()}
    sides = {h: (len(s.training[1]), len(s.evaluation[1])) for h, s in taken.items()}
    assert sides == {
        "cleveland": (199, 104),
        "budapest": (172, 89),
        "zurich": (30, 16),
        "long-beach": (85, 45),
    }
    assert all(s.features.shape[1] == 13 for s in taken.values())
    assert taken["zurich"].training[1].all()  # one class, and normal
    pooled = np.concatenate([s.labels for s in taken.values()])
    assert pooled.sum() == 139 + 98 + 45 + 101


@needs_source
def test_heart_disease_keeps_incomplete_rows_for_the_check_to_report(heart: dict[str, Path]) -> None:
    report = check_file(heart["long-beach"], HEART_DISEASE.dictionary, secret=SECRET)
    report.require_usable()
    assert (report.rows, report.kept, report.size_class) == (200, 130, 128)
    assert ("trestbps", "missing", 56) in report.dropped
    assert dict(report.clipped)["chol"] == 49  # 0 stands for not measured
    text = heart["zurich"].read_text()
    assert "?" not in text
    assert (
        text.splitlines()[0] == "patient,age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,num,split"
    )


@needs_source
@pytest.mark.parametrize("change", ["missing", "altered"])
def test_a_missing_or_altered_source_file_is_one_clear_line_and_leaves_nothing(
    tmp_path: Path, change: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(SOURCE, source)
    victim = source / "processed.va.data"
    victim.parent.chmod(0o755)
    data = victim.read_bytes()
    victim.unlink()
    if change == "altered":
        victim.write_bytes(data.replace(b"?", b"0", 1))
    with pytest.raises(DataError, match=r"archive\.ics\.uci\.edu") as caught:
        write_heart_disease(source, tmp_path / "out")
    assert "processed.va.data" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_directory_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_breast_cancer(tmp_path / "file")


def test_both_demonstrations_share_their_settings() -> None:
    shared = [
        (d.rounds, d.learning_rate, d.max_grad_norm, d.sample_rate, d.epsilon, d.delta)
        for d in DEMOS.values()
    ]
    assert len(DEMOS) == 2
    assert len(set(shared)) == 1
    assert BREAST_CANCER.rounds >= 20
