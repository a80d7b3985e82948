"""The evidence bundle: it verifies as it is, and not with one byte changed in any of its files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from coordinator import evaluations, evidence, evidence_check, model_file, release
from coordinator.aggregation import aggregate
from coordinator.config import FILE
from coordinator.errors import CoordinatorError, EvidenceError
from coordinator.evidence_cli import app
from coordinator.exchange import Arrival
from ledger import envelope, example, records
from ledger.errors import LedgerError
from ledger.values import Metric
from tests.coordinator.ward import PARAMETERS, Ward, carry, sha


def release_job(ward: Ward, spoil: Callable[[records.Release], records.Release] = lambda r: r) -> Path:
    """Release and end the ward's job, and write its folder."""
    standing = ward.sequencer.standing
    history = standing.jobs[ward.job.digest()]
    built = release.build(
        standing.state,
        history,
        ward.blobs.read(standing.state.jobs[history.digest].model),
        ward.blobs.read(ward.job.dictionary),
        evaluations.of_history(history, ward.blobs.read),
    )
    ward.blobs.put(built.artifact)
    ward.blobs.put(built.card)
    ended = records.Ended(origin=example.ORIGIN, job=history.digest, reason="finished")
    ward.append(spoil(built.record), ended)
    write(ward)
    return ward.folder / "runs" / history.digest


def write(ward: Ward) -> None:
    sequencer, digest = ward.sequencer, ward.job.digest()
    evidence.write(
        ward.folder / "runs" / digest,
        sequencer.read,
        sequencer.final_sizes(),
        sequencer.standing.state,
        sequencer.standing.jobs[digest],
        ward.blobs,
    )


def hostile_alpha(ward: Ward) -> Any:
    """In round 3 alpha sends a bomb: it is receipted and left out."""

    def answer(name: str, node: int, config: Any, model: Any) -> Arrival:
        hospital = ward.hospitals[name]
        if (name, config["round"]) == ("alpha", 3):
            return hospital.make(node, config, model, update=np.full(PARAMETERS, 2**60, dtype=np.int64))
        return hospital.answer(node, config, model)

    return answer


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    made = Ward(tmp_path_factory.mktemp("ward"))
    adam = replace(made.job.aggregation, strategy="fedadam", settings=())
    made.job = made.make_job(aggregation=adam)
    made.start()
    carry(made.rounds(), made, hostile_alpha(made))
    release_job(made)
    return made


@pytest.fixture(scope="module")
def bundle(ward: Ward) -> Path:
    return ward.folder / "runs" / ward.job.digest() / "evidence"


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def refused(folder: Path) -> str:
    """Return what verifying a bundle says is wrong."""
    with pytest.raises((CoordinatorError, LedgerError)) as caught:
        evidence_check.verify(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_untouched_bundle_verifies_and_says_what_it_shows(bundle: Path) -> None:
    found = evidence_check.verify(bundle, charter=example.charter().digest())
    assert (found.rounds, found.updates, found.recomputation) == (3, 8, "bit-exact")
    shown, unknown = "\n".join(found.established()), "\n".join(found.not_established())
    assert "All 3 models" in shown
    assert "8 updates" in shown
    assert "metrics follow from the 2 evaluations" in shown
    assert "late or unreachable" in unknown
    assert "compare the charter's digest" not in unknown


CLASSES = {
    "index": "bundle.json",
    "policy": "trust.policy",
    "checkpoint": "log/checkpoint",
    "kept checkpoint": "log/checkpoints/*",
    "hash tile": "log/tile/0/*.p/*",
    "entry bundle": "log/tile/entries/*.p/*",
    "blob": "blobs/*",
    "model": "model.safetensors",
    "card": "card.md",
}


@pytest.mark.parametrize("kind", CLASSES)
def test_one_flipped_byte_in_any_file_is_found(copy: Path, kind: str) -> None:
    """Every file of the class, at its beginning, its end and places in between."""
    files = sorted(copy.glob(CLASSES[kind]))
    assert files
    for file in (files[0], files[-1]):
        good = file.read_bytes()
        for place in {0, len(good) // 3, len(good) - 1}:
            bad = bytearray(good)
            bad[place] ^= 1
            file.write_bytes(bad)
            assert refused(copy), (file, place)
        file.write_bytes(good)
    evidence_check.verify(copy)


def test_every_byte_of_a_cosigned_checkpoint_counts(copy: Path) -> None:
    for file in (copy / "log" / "checkpoint", sorted((copy / "log" / "checkpoints").iterdir())[0]):
        good = file.read_bytes()
        for place in range(0, len(good), 29):
            bad = bytearray(good)
            bad[place] ^= 1
            file.write_bytes(bad)
            assert refused(copy), (file, place)
        file.write_bytes(good)


@pytest.mark.parametrize("kind", [k for k in CLASSES if k != "kept checkpoint"])
def test_missing_file_is_found_and_named(copy: Path, kind: str) -> None:
    sorted(copy.glob(CLASSES[kind]))[0].unlink()
    assert "is missing" in refused(copy)


def test_left_out_update_is_in_the_bundle_but_not_in_the_model(ward: Ward, copy: Path) -> None:
    history = ward.sequencer.standing.jobs[ward.job.digest()]
    (bomb,) = (r for r in history.closed[2].receipts if r.hospital == "alpha")
    path = copy / "blobs" / bomb.update
    assert path.is_file()
    path.unlink()  # a coordinator may have deleted it: the models are the same
    evidence_check.verify(copy)


@pytest.mark.parametrize("name", ["blobs/extra", "notes.txt", "log/log.sqlite", "log/tile/0/001"])
def test_file_that_belongs_to_nothing_is_refused(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"x")
    assert "no part of" in refused(copy) or "missing" in refused(copy)


def test_policy_of_another_consortium_is_refused(bundle: Path, copy: Path) -> None:
    policy = (copy / "trust.policy").read_bytes().replace(b"witness-quorum 4", b"witness-quorum 1")
    (copy / "trust.policy").write_bytes(policy)
    assert "trust.policy" in refused(copy)


def test_another_charter_is_refused(bundle: Path) -> None:
    with pytest.raises(LedgerError, match="another consortium"):
        evidence_check.verify(bundle, charter=sha(b"another"))


def test_bundle_of_another_job_is_refused(copy: Path) -> None:
    index = evidence.Index.from_bytes((copy / "bundle.json").read_bytes())
    (copy / "bundle.json").write_bytes(replace(index, job=sha(b"another")).to_bytes())
    assert "bundle.json" in refused(copy)


def test_nothing_is_written_before_the_release_is_final(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.start()
    carry(ward.rounds(), ward)
    ward.cosigning = ()
    with pytest.raises(EvidenceError, match="not final yet"):
        release_job(ward)
    assert not (tmp_path / "runs").exists()
    ward.cosigning = tuple(example.WITNESSES)
    ward.cosign()
    write(ward)
    evidence_check.verify(tmp_path / "runs" / ward.job.digest() / "evidence")


# --- a coordinator that lies on the record, with everybody's signatures in order ---


@pytest.fixture
def lying(tmp_path: Path) -> Ward:
    made = Ward(tmp_path)
    made.start()
    return made


def test_coordinator_that_records_another_average_is_caught(
    lying: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dishonest(inputs: Any, open_blob: Any) -> Any:
        result = aggregate(inputs, open_blob)
        model = result.model.copy()
        model[0] = np.nextafter(model[0], np.float32(9))  # one bit
        outcome = replace(result.outcome, model_after=sha(model.tobytes()))
        return replace(result, model=model, outcome=outcome)

    monkeypatch.setattr("coordinator.rounds.aggregate", dishonest)
    carry(lying.rounds(), lying, exchanges=1000)
    run = release_job(lying)
    assert "round 1: its updates give model" in refused(run / "evidence")


def test_coordinator_that_embellishes_the_metrics_is_caught(lying: Ward) -> None:
    carry(lying.rounds(), lying)

    def embellish(record: records.Release) -> records.Release:
        best = Metric(name="auroc", value="0.99", low="0.98", high="1")
        return replace(record, metrics=(best, *record.metrics[1:]))

    run = release_job(lying, embellish)
    assert "metrics do not follow" in refused(run / "evidence")


def test_coordinator_that_releases_another_model_is_caught(lying: Ward) -> None:
    carry(lying.rounds(), lying)
    other = model_file.to_bytes(
        np.zeros(PARAMETERS, dtype=np.float32),
        (("weight", (1, 4)), ("bias", (1,))),
        model="logistic-regression",
        dictionary=lying.blobs.read(lying.job.dictionary),
        metadata={},
    )
    lying.blobs.put(other)
    run = release_job(lying, lambda record: replace(record, artifact=sha(other)))
    assert "does not hold the released model" in refused(run / "evidence")


def test_coordinator_that_averages_a_bomb_is_caught(lying: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.closing.verdicts", lambda *arguments: {})
    carry(lying.rounds(), lying, hostile_alpha(lying))
    run = release_job(lying)
    assert "should have been left out (norm)" in refused(run / "evidence")


# --- the commands ---


def test_verify_prints_plain_words_and_json(bundle: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(bundle)])
    assert result.exit_code == 0
    assert "+ All 3 models" in result.output
    found = json.loads(CliRunner().invoke(app, ["verify", str(bundle), "--json"]).output)
    assert (found["rounds"], found["updates"]) == (3, 8)
    assert found["established"]


def test_export_copies_a_bundle_that_verifies(ward: Ward, tmp_path: Path) -> None:
    (ward.folder / FILE).write_text("port = 1\n")
    out = tmp_path / "handed on"
    digest = ward.job.digest()
    result = CliRunner().invoke(app, ["export", str(ward.folder), "--job", digest[:6], "-o", str(out)])
    assert result.exit_code == 0, result.output
    evidence_check.verify(out)
    again = CliRunner().invoke(app, ["export", str(ward.folder), "-o", str(out)])
    assert isinstance(again.exception, EvidenceError)
    other = CliRunner().invoke(
        app, ["export", str(ward.folder), "--job", "f" * 64, "-o", str(tmp_path / "x")]
    )
    assert isinstance(other.exception, EvidenceError)
    assert not (tmp_path / "x").exists()


def test_full_disk_leaves_no_half_made_bundle(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [12]

    def write_bytes(self: Path, data: bytes) -> int:
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")
        with self.open("wb") as file:
            return file.write(data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    sequencer, digest = ward.sequencer, ward.job.digest()
    with pytest.raises(CoordinatorError, match="No space left"):
        evidence.write(
            tmp_path / "run",
            sequencer.read,
            sequencer.final_sizes(),
            sequencer.standing.state,
            sequencer.standing.jobs[digest],
            ward.blobs,
        )
    assert not (tmp_path / "run" / "evidence").exists()


def test_card_says_each_epsilon_with_its_delta_and_unit(ward: Ward, bundle: Path) -> None:
    card = (bundle / "card.md").read_text()
    assert "| alpha | 0.4 | 0.0001 | 0.4 | 50 | 0.0001 | add/remove one patient |" in card
    assert "alpha in round 3 (norm)" in card
    assert "released | AUROC" in card
    assert envelope.PAYLOAD_TYPE not in card
