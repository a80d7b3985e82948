"""A trial: the real training and averaging, against a step computed by hand and other people's metrics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import log_loss as known_log_loss
from sklearn.metrics import roc_auc_score

from client.data import Snapshot
from client.job_templates import DRAFTS
from client.notebook.plan_costs import of_sizes
from tests.plans import folder_of
from wardround_rehearsal import Priced, Rehearsal, at_epsilon
from wardround_trial import Site, Trial, auroc, log_loss


def rehearsal(**changes: object) -> Rehearsal:
    folder = folder_of(replace(DRAFTS["breast-cancer"], min_participants=1, **changes))  # type: ignore[arg-type]
    asked = of_sizes(folder, {"alpha": 64, "bravo": 128}, None, None, 3.0)
    return Rehearsal(folder, asked, None, gpu=False)


def sites(found: Priced, rows: dict[str, Snapshot], noise: str) -> list[Site]:
    made = []
    for price in found.prices:
        assert price.terms is not None
        name = price.dataset.split("/")[0]
        training = replace(price.terms.training, noise_multiplier=noise)
        made.append(
            Site(hospital=name, rows=rows[name], training=training, size_class=price.size_class, weight=1)
        )
    return made


def test_a_round_without_noise_is_the_step_computed_by_hand() -> None:
    bench = rehearsal(rounds=1, max_grad_norm="1000", learning_rate="0.5", weighting="uniform")
    found, rows = bench.priced(bench.folder.draft), dict(bench.rows(1))
    start = np.zeros(31, dtype="<f4")
    trial = Trial(found.job, sites(found, rows, "0"), start.tobytes(), seed=1)
    outcome = trial.run(lambda: True)
    steps = []
    for name, size in (("alpha", 64), ("bravo", 128)):
        features, labels = rows[name].training
        inputs = np.hstack([features.astype(np.float64), np.ones((len(features), 1))])
        steps.append(-0.5 * ((0.5 - labels) @ inputs) / size)
    expected = np.mean(steps, axis=0)
    np.testing.assert_allclose(np.frombuffer(trial.model, "<f4"), expected, rtol=1e-3, atol=2e-4)
    assert outcome is not None
    assert len(trial.seconds) == 1


def test_one_seed_gives_one_outcome_and_another_seed_another() -> None:
    bench = rehearsal(rounds=2)
    draft = bench.folder.draft
    one, again, other = (bench.outcome(draft, seed, lambda: True) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_less_privacy_is_less_noise() -> None:
    bench = rehearsal(rounds=2)
    noises = [
        float(p.terms.training.noise_multiplier)
        for e in (0.5, 1.0, 3.0)
        for p in bench.priced(at_epsilon(bench.folder.draft, e)).prices[:1]
        if p.terms is not None
    ]
    assert noises == sorted(noises, reverse=True)
    assert len(set(noises)) == 3


def test_a_trial_that_runs_out_of_time_has_no_outcome() -> None:
    bench = rehearsal(rounds=50)
    left = iter([True, True, False])
    assert bench.outcome(bench.folder.draft, 1, lambda: next(left)) is None
    assert bench.seconds_per_round > 0
    assert bench.tried == 0


def test_metrics_are_everybody_elses() -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 200)
    scores = np.round(random.random(200), 1)  # with ties
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    inner = np.clip(scores, 0.01, 0.99)
    assert log_loss(inner, labels) == pytest.approx(known_log_loss(labels, inner))
    assert np.isnan(auroc(scores, np.ones(200, dtype=np.int64)))
    assert np.isnan(log_loss(scores[:0], labels[:0]))
