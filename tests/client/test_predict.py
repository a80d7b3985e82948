"""A released model's file and the scoring of new patients: the coordinator's writer and the client's reader agree."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from client.dictionary import shipped
from client.errors import DataError, ModelFileError
from client.models import ModelSettings, build, pack, unpack
from client.predict import FORMAT, load_model, predict
from coordinator import errors, model_file

HEART = shipped("heart-disease")
HEADER = "age,sex,trestbps,chol,fbs,thalach,exang,oldpeak,cp,restecg"
ROW = "63,1,145,233,1,150,0,2.3,1,2"


def released(
    path: Path, name: str = "logistic-regression", scale: float = 1.0
) -> tuple[torch.nn.Module, Path]:
    """Write a model with random weights as the coordinator would."""
    settings = ModelSettings(name=name, input_shape=(13,), hidden=(7, 5))
    module = build(settings)
    weights = np.random.default_rng(5).normal(0, scale, len(pack(module))).astype(np.float32)
    unpack(weights, module)
    layout = [(n, tuple(p.shape)) for n, p in module.named_parameters()]
    model_file.save_model(
        path,
        weights,
        layout,
        model=name,
        dictionary=HEART.to_bytes(),
        metadata={"job": "ab" * 32, "note": "é"},
    )
    return module, path


def patients(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.mark.parametrize("name", ["logistic-regression", "mlp"])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_predictions_without_torch_equal_torch(tmp_path: Path, name: str, scale: float) -> None:
    module, path = released(tmp_path / "m.safetensors", name, scale)
    model = load_model(path)
    features: NDArray[np.float32] = np.random.default_rng(0).normal(size=(50, 13)).astype(np.float32)
    with torch.no_grad():
        expected = torch.sigmoid(module.double()(torch.from_numpy(features).double()))[:, 0].numpy()
    assert np.allclose(model.probabilities(features), expected, atol=1e-6)


def test_new_patients_are_scaled_as_training_scaled_them(tmp_path: Path) -> None:
    module, path = released(tmp_path / "m.safetensors")
    scores = predict(load_model(path), patients(tmp_path / "p.csv", ROW))
    scaled = [0.8, 1, 0.75, 0.66, 1, 0.4, -1, 1.3, -1, -1, -1, -1, 1]  # by hand, from the dictionary
    with torch.no_grad():
        expected = torch.sigmoid(module(torch.tensor([scaled]))).item()
    assert scores[0].probability == pytest.approx(expected, abs=1e-6)


def test_a_row_that_cannot_be_scored_says_why_and_stops_no_other(tmp_path: Path) -> None:
    rows = [ROW, ROW.replace("233", "?"), ROW.replace("145", "high"), "1,2", ROW]
    scores = predict(load_model(released(tmp_path / "m.safetensors")[1]), patients(tmp_path / "p.csv", *rows))
    assert [s.row for s in scores] == [1, 2, 3, 4, 5]
    assert [s.probability is None for s in scores] == [False, True, True, True, False]
    assert scores[1].problem == "chol: missing"
    assert scores[2].problem == "trestbps: not a number"
    assert scores[0].probability == scores[4].probability


def test_a_file_of_patients_without_a_needed_column_is_refused(tmp_path: Path) -> None:
    model = load_model(released(tmp_path / "m.safetensors")[1])
    with pytest.raises(DataError, match="column 'restecg' is missing"):
        predict(model, patients(tmp_path / "p.csv", "1", header=HEADER.replace(",restecg", "")))
    with pytest.raises(DataError, match="cannot read"):
        predict(model, tmp_path / "absent.csv")


def test_the_file_says_what_it_is_and_other_tools_can_read_it(tmp_path: Path) -> None:
    module, path = released(tmp_path / "m.safetensors")
    model = load_model(path)
    assert model.metadata["job"] == "ab" * 32
    assert model.metadata["note"] == "é"
    assert model.dictionary == HEART
    assert model_file.FORMAT == FORMAT
    tensors = load_file(path)
    assert np.array_equal(tensors["weight"], module.state_dict()["weight"].numpy())


def test_the_same_model_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    program = (
        "import numpy as np, sys; from coordinator.model_file import to_bytes; sys.stdout.buffer.write(to_bytes("
        "np.arange(3, dtype=np.float32), [('weight', (1, 2)), ('bias', (1,))], model='m', dictionary=b'{}', "
        "metadata={k: k for k in 'zyxwvut'}))"
    )
    runs = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
        for _ in range(3)
    }
    assert len(runs) == 1
    assert len(runs.pop()) % 4 == 0


def test_reading_a_model_needs_no_torch(tmp_path: Path) -> None:
    released(tmp_path / "m.safetensors")
    patients(tmp_path / "p.csv", ROW)
    program = (
        "import sys; from pathlib import Path; from client.predict import load_model, predict; "
        f"print(predict(load_model(Path({str(tmp_path / 'm.safetensors')!r})), Path({str(tmp_path / 'p.csv')!r}))); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "probability=0." in done.stdout


def safetensors(dtype: str, shape: list[int], size: int, metadata: dict[str, str] | None = None) -> bytes:
    header: dict[str, object] = {"weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}
    header["__metadata__"] = metadata or {}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


OURS = {"format": FORMAT, "model": "logistic-regression", "dictionary": HEART.to_bytes().decode()}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "damaged"),
        (b"\xff" * 200, "damaged"),
        (struct.pack("<Q", 2) + b"{}", "does not say so"),
        (safetensors("F32", [1, 13], 52), "does not say so"),
        (safetensors("BF16", [1, 13], 26, OURS), "not float32"),
        (safetensors("F8_E4M3", [1, 13], 13, OURS), "not float32"),
        (safetensors("F64", [1, 13], 104, OURS), "not float32"),
        (safetensors("F32", [1, 13], 52, OURS), "biases do not fit"),
        (safetensors("F32", [13], 52, OURS), "do not fit the 13 values"),
        (safetensors("F32", [1, 12], 48, OURS), "do not fit the 13 values"),
        (safetensors("F32", [1, 13], 52, {**OURS, "model": "small-cnn"}), "not scored from a table"),
        (safetensors("F32", [1, 13], 52, {**OURS, "dictionary": "{}"}), "data dictionary"),
        (safetensors("F32", [1, 13], 52, {**OURS, "dictionary": OURS["dictionary"] + " "}), "canonical"),
    ],
)
def test_a_hostile_model_file_is_refused_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=says) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [1, 8, 100, -1])
def test_a_cut_model_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = released(tmp_path / "m.safetensors")[1]
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelFileError):
        load_model(path)


def test_an_absent_model_file_or_a_directory_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ModelFileError, match="cannot read"):
            load_model(path)


def test_the_writer_refuses_a_layout_that_does_not_fit() -> None:
    weights = np.zeros(3, dtype=np.float32)
    layout = [("weight", (1, 2)), ("bias", (1,))]
    for bad in ([("weight", (1, 2))], [("weight", (1, 2)), ("weight", (1,))], [("__metadata__", (3,))]):
        with pytest.raises(errors.ModelFileError):
            model_file.to_bytes(weights, bad, model="m", dictionary=b"{}", metadata={})
    with pytest.raises(errors.ModelFileError):
        model_file.to_bytes(weights.astype(np.float64), layout, model="m", dictionary=b"{}", metadata={})
    with pytest.raises(errors.ModelFileError, match="format"):
        model_file.to_bytes(weights, layout, model="m", dictionary=b"{}", metadata={"format": "x"})


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").write_text("")
    with pytest.raises(errors.StorageError, match="cannot write the model"):
        model_file.save_model(
            tmp_path / "taken",
            np.zeros(1, dtype=np.float32),
            [("w", (1,))],
            model="m",
            dictionary=b"",
            metadata={},
        )
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
