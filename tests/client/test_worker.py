"""The worker process: killed, hostile rows, restarts; what it says is a code, bytes of a public size, or nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.config import Hospital
from client.errors import WorkerError
from client.job_spec import JobSpec
from client.worker import Worker
from tests.client import hospital_folder
from tests.client.fake_coordinator import EDGES, training_of_the_test
from tests.ledger.consortium import digest

SECONDS = 60.0
DICTIONARY = hospital_folder.DICTIONARY.to_bytes()
MODEL = np.zeros(hospital_folder.PARAMETERS, dtype="<f4").tobytes()
UPDATE_SIZE = 8 * hospital_folder.PARAMETERS


def spec(words: str = "job", **changes: object) -> JobSpec:
    made = JobSpec.of(digest(words), training_of_the_test(), "2", hospital_folder.SIZE_CLASS)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return hospital_folder.hospital(tmp_path_factory.mktemp("hospital") / "alpha")


@pytest.fixture(scope="module")
def worker(hospital: Hospital) -> Iterator[Worker]:
    made = Worker(hospital)
    made.warm()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def plain_file(hospital: Hospital) -> None:
    hospital.data_file.write_text(hospital_folder.table(hospital_folder.rows()))


def shapes_and_codes(worker: Worker, job: JobSpec) -> tuple[object, ...]:
    """Everything about one exchange that leaves the hospital, but for the noised numbers themselves."""
    update, fit = worker.train(job, MODEL, SECONDS)
    metrics, also = worker.histogram(job, MODEL, EDGES, "1.7", SECONDS)
    return update.dtype, update.shape, fit, metrics.dtype, metrics.shape, also


def test_one_exchange(worker: Worker) -> None:
    job = spec()
    worker.survey(DICTIONARY)
    cohort = worker.prepare(job, DICTIONARY)
    assert len(bytes.fromhex(cohort)) == 32
    update, production = worker.train(job, MODEL, SECONDS)
    assert (update.dtype, update.shape, production) == (np.dtype("<i8"), (hospital_folder.PARAMETERS,), True)
    again, _ = worker.train(job, MODEL, SECONDS)
    assert update.tobytes() != again.tobytes()  # the operating system's noise
    metrics, production = worker.histogram(job, MODEL, EDGES, "0.1", SECONDS)
    assert (metrics.shape, production) == ((2, 6), True)
    held_out = int(metrics.sum())
    assert 5 < held_out < 45  # a third of 64 patients, all scored 0.5 by a model of zeros
    assert abs(int(metrics[:, 3].sum()) - held_out) <= 4


def test_several_local_steps_send_the_change_in_weights(worker: Worker) -> None:
    job = spec("local steps", local_steps=3)
    worker.prepare(job, DICTIONARY)
    update, _ = worker.train(job, MODEL, SECONDS)
    assert (update.dtype, update.shape) == (np.dtype("<f4"), (hospital_folder.PARAMETERS,))


HOSTILE = {
    "nan": "h,nan,1,1",
    "inf": "h,inf,1,1",
    "1e30": "h,1e30,1,1",
    "1e999": "h,1e999,1,1",
    "empty": "h,,,",
    "empty line": ",,,",
    "wrong type": "h,forty,male,1",
    "label out of range": "h,40,1,7",
    "wide": "h,40,1,1,1,1",
    "narrow": "h",
    "quote": 'h,"40,1,1',
    "null": "h,\x00,1,1",
    "long": "h," + "9" * 5000 + ",1,1",
    "formula": "=1+1,=cmd,1,1",
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_row_keeps_kind_size_and_code(worker: Worker, hospital: Hospital, line: str) -> None:
    plain = spec()
    worker.prepare(plain, DICTIONARY)
    expected = shapes_and_codes(worker, plain)
    hospital.data_file.write_text(hospital_folder.table([*hospital_folder.rows(), line]))
    job = spec(line)
    worker.prepare(job, DICTIONARY)
    assert shapes_and_codes(worker, job) == expected


def test_no_usable_row_at_all_keeps_kind_size_and_code(worker: Worker, hospital: Hospital) -> None:
    plain = spec()
    worker.prepare(plain, DICTIONARY)
    hospital.data_file.write_text(hospital_folder.table(["h,nan,1,1"]))
    job = spec("nobody")
    worker.prepare(job, DICTIONARY)
    assert shapes_and_codes(worker, job) == shapes_and_codes(worker, plain)


def test_another_snapshot_than_the_approved_one_is_refused(hospital: Hospital, worker: Worker) -> None:
    job = spec("swapped")
    cohort = worker.prepare(job, DICTIONARY)
    path = hospital.folder / "worker" / job.job / "snapshot"
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    other = Worker(hospital)
    try:
        with pytest.raises(WorkerError) as caught:
            other.open(job, cohort)
    finally:
        other.close()
    assert caught.value.code == "snapshot"


def test_two_commitments_to_the_same_rows_differ(worker: Worker) -> None:
    assert worker.prepare(spec("a"), DICTIONARY) != worker.prepare(spec("b"), DICTIONARY)
    assert worker.commit(DICTIONARY, 1) != worker.commit(DICTIONARY, 2)


def test_what_the_worker_keeps_is_for_its_owner_alone(worker: Worker, hospital: Hospital) -> None:
    job = spec("modes")
    worker.prepare(job, DICTIONARY)
    folder = hospital.folder / "worker" / job.job
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    worker.forget(job.job)
    assert not folder.exists()


def test_a_worker_whose_agent_is_gone_leaves(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "client.worker_main", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    out, _ = process.communicate(timeout=SECONDS)  # closes the pipe, as a kill -9 of the agent does
    assert (process.returncode, out) == (0, b"")


def test_an_unforeseen_error_says_where_and_nothing_else(
    hospital: Hospital, capfd: pytest.CaptureFixture[str]
) -> None:
    worker = Worker(hospital)
    try:
        with pytest.raises(WorkerError) as caught:
            worker._ask("train", {"no job": "secret-of-a-patient"})
    finally:
        worker.close()
    assert caught.value.code == "crashed"
    said = capfd.readouterr().err
    assert "the worker ended: KeyError at worker_main.py:" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "custom"}, "hospital has read"),
        ({"model": "transformer"}, "not offered"),
        ({"parameters": 99}, "parameters"),
        ({"model_code": digest("other code")}, "another version"),
        ({"loss": "cox"}, "cox"),
        ({"grid_bits": 8}, "grid_bits"),
        ({"learning_rate": "0"}, "learning_rate"),
    ],
)
def test_a_model_or_plan_that_is_not_offered(worker: Worker, changes: dict[str, object], said: str) -> None:
    with pytest.raises(WorkerError, match=said) as caught:
        worker.prepare(spec("refused", **changes), DICTIONARY)
    assert caught.value.code == "model"


def test_bad_files_are_refused_before_anything_starts(worker: Worker, hospital: Hospital) -> None:
    lines = hospital_folder.rows()
    cases = {
        "rows": hospital_folder.table([*lines, "x,40,1,7"]),
        "size-class": hospital_folder.table(lines[:10]),
        "file": hospital_folder.table(lines).replace("id,age", "id,years"),
    }
    for code, text in cases.items():
        hospital.data_file.write_text(text)
        with pytest.raises(WorkerError) as caught:
            worker.survey(DICTIONARY)
        assert caught.value.code == code
        assert "\n" not in str(caught.value)
    assert "'age' is missing" in str(caught.value)
    hospital.data_file.unlink()
    with pytest.raises(WorkerError, match=r"patients\.csv: No such file"):
        worker.survey(DICTIONARY)


def test_a_full_disk_is_a_code(worker: Worker, hospital: Hospital) -> None:
    job = spec("no room")
    (hospital.folder / "worker" / job.job).write_text("in the way of the folder")
    with pytest.raises(WorkerError) as caught:
        worker.prepare(job, DICTIONARY)
    assert caught.value.code == "disk"


def test_a_missing_secret_is_a_code(tmp_path: Path, worker: Worker) -> None:
    other = hospital_folder.hospital(tmp_path / "alpha")
    other.secret_file.unlink()
    without = Worker(other)
    try:
        with pytest.raises(WorkerError, match=r"dataset\.secret is missing"):
            without.survey(DICTIONARY)
    finally:
        without.close()


def test_kill_9_in_the_middle_of_training_and_the_same_rows_afterwards(
    worker: Worker, hospital: Hospital
) -> None:
    job = spec("killed", local_steps=1_000_000)
    cohort = worker.prepare(job, DICTIONARY)
    before = worker.pid
    threading.Timer(0.3, os.kill, (before, signal.SIGKILL)).start()
    with pytest.raises(WorkerError) as caught:
        worker.train(job, MODEL, SECONDS)
    assert caught.value.code == "crashed"
    assert worker.pid != before  # the next one is there already
    hospital.data_file.unlink()  # the snapshot is what counts
    short = replace(job, local_steps=1)
    worker.open(short, cohort)
    assert shapes_and_codes(worker, short)[1] == (hospital_folder.PARAMETERS,)


def test_a_worker_that_hangs_is_ended(worker: Worker) -> None:
    job = spec("slow", local_steps=1_000_000)
    worker.prepare(job, DICTIONARY)
    began, before = time.monotonic(), worker.pid
    with pytest.raises(WorkerError) as caught:
        worker.train(job, MODEL, 0.2)
    assert caught.value.code == "timeout"
    assert time.monotonic() - began < SECONDS / 2
    assert worker.pid != before
