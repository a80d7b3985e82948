"""A job's own model: run only if a person has put exactly its file into `models/`, and never its training loop."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client import model_builder
from client.approval import decide
from client.data import Snapshot
from client.errors import DeclinedError, GraphError, TrainingRefusedError
from client.job_spec import JobSpec
from client.randomness import seeded_for_tests
from client.reviewed import CUSTOM, reviewed, source_of
from client.trainer import Trainer, try_graph
from tests.client.fake_coordinator import training_of_the_test
from tests.client.test_approval import job, offer

FEATURES = 5
GOOD = """\
from torch import nn

def build_model(*, input_shape, outputs):
    return nn.Sequential(nn.Linear(input_shape[0], 4), nn.Tanh(), nn.Linear(4, outputs))
"""
PARAMETERS = FEATURES * 4 + 4 + 4 + 1


def put(folder: Path, source: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "survival.py").write_text(source)
    return hashlib.sha256(source.encode()).hexdigest()


def rows() -> Snapshot:
    generator = np.random.default_rng(1)
    return Snapshot(
        features=generator.normal(size=(40, FEATURES)).astype(np.float32),
        labels=generator.integers(0, 2, size=40),
        held_out=np.arange(40) % 3 == 0,
        patients=tuple(bytes([i]) * 32 for i in range(40)),
    )


def spec(code: str) -> JobSpec:
    return JobSpec(
        job="0" * 64, model=CUSTOM, model_code=code, parameters=PARAMETERS, outputs=1, hidden=(4,),
        loss="bce-with-logits", local_steps=1, learning_rate="0.1", max_grad_norm="1", noise_multiplier="1",
        sample_rate="1", size_class=32, grid_bits=20, chunk_size=0, fedprox_mu="0",
    )  # fmt: skip


def test_a_graph_is_trained_by_our_loop() -> None:
    graph = model_builder.build(model_builder.compiled(GOOD.encode()), (FEATURES,), 1)
    trainer = Trainer(spec("0" * 64), rows(), check=True, graph=graph, randomness=seeded_for_tests(1))
    update, production = trainer.train(np.zeros(PARAMETERS, dtype=np.float32))
    assert (update.shape, update.dtype, production) == ((PARAMETERS,), np.dtype("int64"), False)
    counts, _ = trainer.histogram(np.zeros(PARAMETERS, dtype=np.float32), [0.1, 0.3, 0.5, 0.7, 0.9], "0.1")
    assert counts.shape == (2, 6)


def test_a_graph_of_another_size_or_none_at_all_is_refused() -> None:
    graph = model_builder.build(model_builder.compiled(GOOD.encode()), (FEATURES,), 1)
    with pytest.raises(TrainingRefusedError, match="parameters"):
        Trainer(replace(spec("0" * 64), parameters=PARAMETERS + 8), rows(), check=True, graph=graph)
    with pytest.raises(TrainingRefusedError, match="parameters"):
        try_graph(replace(spec("0" * 64), parameters=PARAMETERS + 8), graph, (FEATURES,))
    with pytest.raises(GraphError, match="shape"):
        try_graph(spec("0" * 64), graph, (FEATURES + 1,))
    with pytest.raises(TrainingRefusedError, match="not here"):
        Trainer(spec("0" * 64), rows(), check=True)


def test_a_file_that_was_changed_after_the_review_is_not_read(tmp_path: Path) -> None:
    code = put(tmp_path, GOOD)
    assert source_of(tmp_path, code) == GOOD.encode()
    put(tmp_path, GOOD + "# one more line\n")
    with pytest.raises(TrainingRefusedError, match="not among the files"):
        source_of(tmp_path, code)


def test_policy_approves_what_was_read_and_nothing_else(tmp_path: Path) -> None:
    code = put(tmp_path, GOOD)
    wanted = job(training=replace(training_of_the_test(), model=CUSTOM, model_code=code))
    with pytest.raises(DeclinedError) as declined:
        decide(wanted, offer())
    assert declined.value.code == "model"
    assert decide(wanted, offer(reviewed=reviewed(tmp_path).keys())).spec.model_code == code


def test_no_folder_means_nothing_was_read(tmp_path: Path) -> None:
    assert reviewed(tmp_path / "models") == {}
