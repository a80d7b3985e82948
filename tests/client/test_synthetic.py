"""Made-up patients: every rule accepts them, the same bytes everywhere, and something can be learnt from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import dictionary
from client.data import check_file, snapshot
from client.dictionary import Dictionary, shipped
from client.errors import DataError
from client.synthetic import rows, write_synthetic
from tests.client import images

SECRET = bytes(range(32))


def names(count: int) -> list[str]:
    return [f"v{i}" for i in range(count)]


@st.composite
def dictionaries(draw: st.DrawFn) -> Dictionary:
    variables: list[dict[str, object]] = []
    for name in names(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["numeric", "binary", "categorical"]))
        if kind == "numeric":
            lower = draw(st.integers(-1000, 1000))
            upper = lower + draw(st.integers(1, 1000))
            variables.append(
                {"name": name, "kind": kind, "lower": str(lower), "upper": str(upper), "source": "x"}
            )
        else:
            levels = names(2 if kind == "binary" else draw(st.integers(2, 5)))
            variables.append({"name": name, "kind": kind, "levels": levels})
    value = {
        "type": dictionary.TYPE,
        "name": "drawn",
        "variables": variables,
        "label": {"name": "y", "negative": ["0"], "positive": ["1", "2"]},
        "patient": draw(st.sampled_from(["", "id"])),
        "split": draw(st.sampled_from(["", "split"])),
    }
    return dictionary.parse(json.dumps(value).encode())


@settings(max_examples=40, deadline=None)
@given(dictionaries(), st.integers(20, 60), st.integers(0, 5))
def test_every_row_of_any_dictionary_is_kept(
    tmp_path_factory: pytest.TempPathFactory, described: Dictionary, count: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("made") / "rows.csv"
    place = write_synthetic(path, described, count, seed)
    report = check_file(place, described, secret=SECRET, one_row_per_patient=True)
    assert (report.rows, report.kept, report.patients, report.refusals) == (count, count, count, ())


@pytest.mark.parametrize("name", dictionary.SHIPPED)
def test_the_label_can_be_learnt(tmp_path: Path, name: str) -> None:
    described = shipped(name)
    write_synthetic(tmp_path / "rows.csv", described, 600, 1)
    taken = snapshot(tmp_path / "rows.csv", described, secret=SECRET)
    features, labels = taken.training
    assert 0.2 < labels.mean() < 0.8
    weights, *_ = np.linalg.lstsq(features, 2.0 * labels - 1, rcond=None)
    held_out, truth = taken.evaluation
    assert ((held_out @ weights > 0) == truth).mean() > 0.7


def test_images_are_made_up_and_can_be_learnt(tmp_path: Path) -> None:
    described = images.describe((1, 12, 10))
    place = write_synthetic(tmp_path / "a.npz", described, 200, 1)
    report = check_file(place, described, secret=SECRET)
    assert (report.rows, report.kept, report.refusals) == (200, 200, ())
    taken = snapshot(place, described, secret=SECRET)
    middle = taken.features[:, 0, 3:9, 3:7].mean(axis=(1, 2))
    assert ((middle > np.median(middle)) == taken.labels).mean() > 0.9
    first = (tmp_path / "a.npz").read_bytes()
    write_synthetic(tmp_path / "a.npz", described, 200, 1)
    assert snapshot(place, described, secret=SECRET).features.tobytes() == taken.features.tobytes()
    assert len(first) == len((tmp_path / "a.npz").read_bytes())
    with pytest.raises(DataError, match="describes images"):
        rows(described, 3, 1)


def test_a_seed_makes_up_the_same_patients_again() -> None:
    described = shipped("heart-disease")
    assert rows(described, 50, 7) == rows(described, 50, 7)
    assert rows(described, 50, 7) != rows(described, 50, 8)
    assert rows(described, 2, 7)[0][:2] == ["53.049", "1"]  # on every machine


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot write .*No such file"):
        write_synthetic(tmp_path / "absent" / "rows.csv", shipped("heart-disease"), 3, 1)
