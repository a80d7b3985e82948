"""A job tried on made-up patients: the real worker process trains and measures, and nobody's data are touched.

A temporary hospital's folder is made from the data dictionary. Several hospitals are played by asking the one worker
several times: the noise of each answer is its own. The changes are averaged alike, whatever strategy the job names.
What is measured says that the job works and what it costs; it says nothing about real patients.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from client import config
from client.config import Hospital
from client.data import SECRET_SIZE
from client.dictionary import Dictionary
from client.errors import JobFileError, WorkerError
from client.histograms import BINS
from client.job_folder import JobContent
from client.job_initial import Initial
from client.job_spec import JobSpec
from client.private_file import write_private
from client.reviewed import FOLDER as MODELS
from client.synthetic import write_synthetic
from client.training_plan import decode_update
from client.worker import Worker

SIZE_CLASS = 256  # made-up patients of each made-up hospital
SECONDS = 10.0  # the rounds end after this time, but for the first two
ANSWER_SECONDS = 300.0
MAX_HOSPITALS = 4
_STEPS = 20  # thresholds at which scores are counted; a multiple of what one histogram takes
_NO_NOISE = "0.0001"  # patients: nobody is there to be protected
_RECEIPT = 1300  # bytes, about


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well made-up patients were told apart; meaningless for real ones."""

    auroc: float
    log_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a dry run showed."""

    hospitals: int
    rounds: int
    seconds_per_round: float  # of one hospital's training on this machine
    bytes_down: int  # to each hospital in each round
    bytes_up: int  # from it
    before: Quality
    after: Quality


def run(
    folder: JobContent,
    initial: Initial,
    spec: JobSpec,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> DryRun:
    """Try a job.

    Args:
        folder: The job.
        initial: Its first parameters.
        spec: How a hospital of `SIZE_CLASS` would train, noise included.
        clock: Monotonic seconds.

    Raises:
        JobFileError: a hospital's worker refuses the job; says why.
        DataError: no patients can be made up from this dictionary.
    """
    with _hospital(folder) as hospital:
        try:
            with closing(Worker(hospital)) as worker:
                return _rounds(worker, folder, initial, spec, clock)
        except WorkerError as error:
            raise JobFileError(
                f"a hospital's worker would not train this job ({error.code}): {error}"
            ) from None


def _rounds(
    worker: Worker, folder: JobContent, initial: Initial, spec: JobSpec, clock: Callable[[], float]
) -> DryRun:
    draft = folder.draft
    dictionary = folder.dictionary.to_bytes()
    worker.survey(dictionary)
    worker.prepare(spec, dictionary)
    hospitals = min(draft.min_participants, MAX_HOSPITALS)
    model = np.frombuffer(initial.parameters, "<f4").astype(np.float64)
    before = _measure(worker, spec, model)
    if draft.evaluate:  # with the noise of a real one: only to see that it works
        worker.histogram(spec, _packed(model), _edges(_thresholds()[: BINS - 1]), "1", ANSWER_SECONDS)
    plan, seconds, began, done = spec.plan(chunk_size=256), [], clock(), 0
    while done < draft.rounds and (done < 2 or clock() - began < SECONDS):
        changes = []
        for _ in range(hospitals):
            asked = clock()
            update, _ = worker.train(spec, _packed(model), ANSWER_SECONDS)
            seconds.append(clock() - asked)
            changes.append(decode_update(update, plan))
        model = (model + np.mean(changes, axis=0)).astype("<f4").astype(np.float64)
        done += 1
    if not np.isfinite(model).all():
        raise JobFileError("the model's numbers overflow while it trains: lower training.learning_rate")
    return DryRun(
        hospitals=hospitals,
        rounds=done,
        seconds_per_round=median(seconds),
        bytes_down=bytes_down(initial.count),
        bytes_up=bytes_up(initial.count, draft.local_steps),
        before=before,
        after=_measure(worker, spec, model),
    )


def _measure(worker: Worker, spec: JobSpec, model: NDArray[np.float64]) -> Quality:
    """Count made-up held-out patients below each threshold, a few thresholds a time."""
    thresholds, each = _thresholds(), BINS - 1
    below = []
    for start in range(0, len(thresholds), each):
        edges = _edges(thresholds[start : start + each])
        counts, _ = worker.histogram(spec, _packed(model), edges, _NO_NOISE, ANSWER_SECONDS)
        below.append(np.cumsum(counts, axis=1)[:, :each])
        total = counts.sum(axis=1, keepdims=True)
    cells = np.diff(np.hstack([np.zeros((2, 1), dtype=np.int64), *below, total]), axis=1)
    return quality(cells, thresholds)


def bytes_down(parameters: int) -> int:
    """Return what each hospital receives in each round: a model of float32 numbers."""
    return 4 * parameters


def bytes_up(parameters: int, local_steps: int) -> int:
    """Return about what each hospital sends in each round: its update and its receipt."""
    return (8 if local_steps == 1 else 4) * parameters + _RECEIPT


def quality(cells: NDArray[np.int64], thresholds: Sequence[float]) -> Quality:
    """Return the quality that score counts show.

    Args:
        cells: Patients by class (negative, positive) and score, shape (2, thresholds + 1).
        thresholds: The inner edges of the scores, increasing.
    """
    negative, positive = np.maximum(cells, 0).astype(np.float64)
    pairs = max(negative.sum() * positive.sum(), 1.0)
    lower = np.cumsum(negative) - negative / 2  # a tie counts half
    edges = np.array([0.0, *thresholds, 1.0])
    middle = np.clip((edges[:-1] + edges[1:]) / 2, 1e-6, 1 - 1e-6)
    loss = -(positive @ np.log(middle) + negative @ np.log(1 - middle))
    return Quality(
        auroc=float(positive @ lower / pairs),
        log_loss=float(loss / max(negative.sum() + positive.sum(), 1.0)),
    )


def _thresholds() -> list[float]:
    return [i / (_STEPS + 1) for i in range(1, _STEPS + 1)]


def _edges(thresholds: Sequence[float]) -> list[str]:
    return [f"{t:.6f}" for t in thresholds]


def _packed(model: NDArray[np.float64]) -> bytes:
    return model.astype("<f4").tobytes()


@contextmanager
def _hospital(folder: JobContent) -> Iterator[Hospital]:
    """Make a hospital's folder with made-up patients; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="wardround-check-") as name:
        path = Path(name)
        write_private(path / "keys" / "dataset.secret", secrets.token_bytes(SECRET_SIZE))
        (path / "dictionary.json").write_bytes(folder.dictionary.to_bytes())
        write_synthetic(path / "patients.csv", folder.dictionary, SIZE_CLASS, seed=1)
        if folder.source is not None:
            (path / MODELS).mkdir()
            (path / MODELS / "model.py").write_bytes(folder.source)
        (path / config.FILE).write_text(_settings(folder.draft.purpose, folder.dictionary))
        yield config.load(path)


def _settings(purpose: str, dictionary: Dictionary) -> str:
    return f"""\
name = "made-up"
coordinator = "localhost:1"
authority = "ca.pem"
charter = "{"0" * 64}"
[dataset]
name = "made-up"
file = "patients.csv"
dictionary = "dictionary.json"
epsilon = 8
delta = 0.0001
size_class = {SIZE_CLASS}
purposes = [{json.dumps(purpose)}]
one_row_per_patient = {json.dumps(not dictionary.patient)}
"""
