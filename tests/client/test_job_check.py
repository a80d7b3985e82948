"""A job checked before anybody is asked: problems, prices by the hospitals' own decision, and a real dry run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from client import approval, job_check, job_cli, job_dry_run, job_match
from client.job_dry_run import quality
from client.job_folder import JobFolder
from ledger import example
from tests.client.job_bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.offer("alpha", "bravo")
    yield made
    made.close()


def check(bench: Bench, folder: JobFolder, *, dry: bool = False) -> job_check.Report:
    with bench.researcher() as me:
        return job_check.check(folder, sight=me.log.pull(), researcher="researcher", now=bench.now, dry=dry)


def test_the_real_worker_trains_a_job_on_made_up_patients(bench: Bench) -> None:
    found = check(bench, bench.write_folder(rounds=4, epsilon="8", heldout_epsilon="8"), dry=True)
    assert found.problems == ()
    assert found.dry is not None
    assert (found.dry.rounds, found.dry.hospitals) == (4, 2)
    assert found.dry.bytes_down == 4 * 3
    assert 0 <= found.dry.after.auroc <= 1
    assert found.dry.after.log_loss > 0
    text = "\n".join(job_check.lines(found))
    assert "says nothing about real ones" in text
    assert (
        "alpha/heart: epsilon at most 8 for training, 8 for those it is measured on, at delta 0.0001" in text
    )
    assert json.loads(json.dumps(found.to_json()))["dry_run"]["meaning"] == job_check.LABEL


def test_a_price_is_what_the_hospital_would_decide(bench: Bench) -> None:
    found = check(bench, bench.write_folder())
    assert found.job is not None
    for price in found.prices:
        assert price.terms is not None
        spec = approval.spec_of(
            found.job,
            approval.record(
                price.terms,
                origin=example.ORIGIN,
                hospital="alpha",
                number=1,
                ref=price.dataset,
                cohort="0" * 64,
            ),
            price.size_class,
        )
        assert spec.noise_multiplier == price.terms.training.noise_multiplier


def test_what_was_spent_raises_the_noise_until_the_hospital_declines(bench: Bench) -> None:
    found = check(bench, bench.write_folder())
    assert found.job is not None
    dataset = bench.consortium.state.datasets["alpha/heart"].record
    noises = []
    for spent in ("0", "5", "6.5"):
        terms = job_match.price(found.job, dataset, spent).terms
        noises.append(float(terms.training.noise_multiplier) if terms is not None else np.inf)
    assert noises == sorted(noises)
    assert noises[0] < noises[-1]
    gone = job_match.price(found.job, dataset, "8")
    assert (gone.terms, gone.refusal) == (None, approval.REFUSALS["budget"])


def test_problems_of_job_and_log_are_named_together(bench: Bench) -> None:
    found = check(bench, bench.write_folder(loss="hinge", purpose="marketing"))
    assert len(found.problems) == 2
    assert (found.job, found.dry) == (None, None)


def test_without_a_log_usual_sizes_are_priced(bench: Bench) -> None:
    found = job_check.check(bench.write_folder(), dry=False)
    assert [p.size_class for p in found.prices] == [64, 256]  # 1024 patients want a smaller delta
    assert found.job is not None
    assert found.job.origin == job_check.NOWHERE


def test_check_names_problems_on_the_screen_and_fails(bench: Bench) -> None:
    folder = bench.write_folder(loss="hinge")
    done = CliRunner().invoke(job_cli.app, ["check", str(folder.path), "--no-dry", "--json"])
    assert json.loads(done.stdout)["problems"] == [
        "training.loss 'hinge' is not offered: use one of bce-with-logits, cross-entropy, mse"
    ]
    assert "has 1 problem: correct job.toml" in str(done.exception)


def test_a_model_that_mixes_patients_is_refused_by_name(bench: Bench) -> None:
    folder = bench.write_folder(model="custom")
    code = (
        b"from torch import nn\n"
        b"def build_model(*, input_shape, outputs):\n"
        b"    return nn.Sequential(nn.BatchNorm1d(input_shape[0]), nn.Linear(input_shape[0], outputs))\n"
    )
    found = job_check.check(replace(folder, source=code), dry=False)
    assert len(found.problems) == 1
    assert "model.py" in found.problems[0]


@given(
    scores=st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=80).filter(
        lambda found: len({label for _, label in found}) == 2
    )
)
def test_auroc_of_counts_is_that_of_the_scores(scores: list[tuple[int, bool]]) -> None:
    cells = np.zeros((2, 21), dtype=np.int64)
    for cell, label in scores:
        cells[int(label), cell] += 1
    found = quality(cells, job_dry_run._thresholds())
    assert found.auroc == pytest.approx(roc_auc_score([x for _, x in scores], [c for c, _ in scores]))
