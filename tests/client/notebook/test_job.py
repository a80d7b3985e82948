"""A job as a value: from code or from a folder it is the same job, and every mistake is named at once."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import job_folder, job_templates
from client.dictionary import Dictionary, shipped
from client.errors import JobFileError, LocalStateError
from client.job_toml import JobDraft
from client.notebook.job import Job

NUMBERS = st.floats(0.01, 100, allow_nan=False).map(lambda x: float(f"{x:.6g}"))


def job(**changes: Any) -> Job:
    return Job(**{"dictionary": "breast-cancer", "purpose": "cancer-research", **changes})


def wrong(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(JobFileError) as caught:
        job(**changes)
    assert "\n" not in str(caught.value)
    return caught.value.problems


def test_little_must_be_said() -> None:
    made = Job(dictionary="breast-cancer")
    assert (made.draft.name, made.draft.model) == ("breast-cancer", "logistic-regression")
    assert (made.draft.epsilon, made.draft.heldout_epsilon) == ("3", "3")
    assert made.source is None
    assert made.problems() == []


@settings(max_examples=25)
@given(
    rounds=st.integers(1, 60),
    epsilon=NUMBERS.filter(lambda x: x > 0.5),
    rate=NUMBERS,
    days=st.integers(1, 100),
    live=st.integers(0, 1),
)
def test_code_and_its_saved_folder_are_one_job(
    rounds: int, epsilon: float, rate: float, days: int, live: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = job(
        rounds=rounds,
        epsilon=epsilon,
        learning_rate=rate,
        expires_seconds=86_400 * days,
        live_evaluations=live,
    )
    path = tmp_path_factory.mktemp("jobs") / "job"
    assert made.save(path) == path
    assert Job.load(path) == made
    assert job_folder.load(path).content == Job.load(path).content == made.content


@pytest.mark.parametrize("template", sorted(job_templates.DRAFTS))
def test_every_template_is_a_job_and_survives_its_folder(template: str, tmp_path: Path) -> None:
    made = Job.template(template, rounds=2)
    assert made.draft.rounds == 2
    assert made.draft.live_evaluations == 2  # not more than there are rounds
    made.save(tmp_path / "job")
    assert made.save(tmp_path / "job") == tmp_path / "job"  # the same cell again
    assert Job.load(tmp_path / "job").content == made.content


def test_a_dictionary_of_ones_own_is_saved_beside_the_job(tmp_path: Path) -> None:
    own = dataclasses.replace(shipped("breast-cancer"), source="mine")
    made = job(dictionary=own)
    made.save(tmp_path / "job")
    assert (tmp_path / "job" / "dictionary.json").read_bytes() == own.to_bytes()
    assert job(dictionary=tmp_path / "job" / "dictionary.json") == made == Job.load(tmp_path / "job")


def test_a_folder_in_use_is_not_overwritten(tmp_path: Path) -> None:
    job().save(tmp_path / "job")
    before = (tmp_path / "job" / "job.toml").read_bytes()
    with pytest.raises(JobFileError, match="holds another job, breast-cancer: name another folder"):
        job(rounds=3).save(tmp_path / "job")
    assert (tmp_path / "job" / "job.toml").read_bytes() == before


def test_numbers_are_spelled_as_records_spell_them() -> None:
    made = job(
        epsilon=np.float64(2.50), learning_rate=0.1 + 0.2, rounds=np.int64(7), fedprox_mu=np.float32(0)
    )
    assert (made.draft.epsilon, made.draft.learning_rate, made.draft.rounds) == ("2.5", "0.3", 7)
    assert job(epsilon="2.5") == job(epsilon=2.5)
    assert job(expires_seconds="1d") == job(expires_seconds=86_400)
    assert job(strategy="fedadam", strategy_settings={"eta": 0.1}).draft.strategy_settings[0].value == "0.1"


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "epsilon of 0": (
        {"epsilon": 0},
        "epsilon must be above 0: training without any privacy loss learns nothing",
    ),
    "epsilon below 0": (
        {"epsilon": -1},
        "epsilon must be a decimal number of at least 0, such as 0.5, not -1",
    ),
    "not a number": ({"epsilon": float("nan")}, "epsilon must be a decimal number of at least 0"),
    "slip of the pen": ({"epsilom": 3}, "epsilom is no setting of a job: did you mean epsilon?"),
    "another program's word": ({"lr": 0.1}, "lr is no setting of a job: it is learning_rate"),
    "noise": ({"noise_multiplier": 1}, "each hospital finds its noise from epsilon, delta and rounds"),
    "missing dictionary": ({"dictionary": "nope.json"}, "dictionary 'nope.json' is no file"),
    "a table for a dictionary": ({"dictionary": [1]}, "dictionary must be a Dictionary"),
    "missing model": ({"model": "gone.py"}, "model 'gone.py' cannot be read: No such file or directory"),
    "unknown model": ({"model": "logistc"}, "model 'logistc' is not built in: did you mean logistic?"),
    "rounds as text": ({"rounds": "many"}, "rounds must be a whole number of at least 1, not 'many'"),
    "rounds as true": ({"rounds": True}, "rounds must be a whole number of at least 1, not True"),
    "half a minute": ({"expires_seconds": 90}, "expires_seconds must be whole minutes"),
    "frozen, built in": (
        {"frozen": {"a": 1}},
        "frozen is for a model that you give as a class or a function",
    ),
    "wrong loss": (
        {"loss": "hinge"},
        "loss 'hinge' is not offered: use one of bce-with-logits, cross-entropy, mse",
    ),
    "settings as a list": ({"strategy_settings": [1]}, "strategy_settings must be numbers by name"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake: str) -> None:
    changes, sentence = MISTAKES[mistake]
    found = wrong(**changes)
    assert len(found) == 1
    assert sentence in found[0]


def test_all_mistakes_are_named_together() -> None:
    found = wrong(epsilon=-1, rounds=0, lr=1, model="logistc", dictionary="nope")
    assert len(found) == 5


def test_a_change_is_a_new_job_and_the_old_one_stays() -> None:
    made = job()
    changed = made.replace(epsilon=1.5, model="mlp", hidden=[8])
    assert (made.draft.epsilon, changed.draft.epsilon, changed.draft.model) == ("3", "1.5", "mlp")
    assert changed.replace(epsilon=3, model="logistic", hidden=()) == made
    with pytest.raises(JobFileError, match="did you mean rounds"):
        made.replace(round=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.draft = changed.draft  # type: ignore[misc]


def test_every_field_of_a_draft_can_be_given_as_it_is_held() -> None:
    made = Job.template(
        "heart-disease", strategy="fedadam", strategy_settings={"eta": 0.1}, datasets=["a/b", "c/d", "e/f"]
    )
    held = {field.name: getattr(made.draft, field.name) for field in dataclasses.fields(JobDraft)}
    del held["dictionary"]
    assert made.replace(**held) == made


def test_a_job_is_shown_as_a_table() -> None:
    made = job(name="a-b", epsilon=2)
    assert "epsilon at most 2 for each patient" in repr(made)
    assert made.content[:12] in repr(made)
    own = dataclasses.replace(
        made.dictionary, label=dataclasses.replace(made.dictionary.label, meaning="<b>x</b>")
    )
    assert "&lt;b&gt;x&lt;/b&gt;" in job(dictionary=own)._repr_html_()
    assert "<b>x" not in job(dictionary=own)._repr_html_()


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LocalStateError, match="No space left"):
        job().save(tmp_path / "job")
    assert list(tmp_path.iterdir()) == []


def test_making_a_job_imports_no_torch() -> None:
    code = (
        "import sys; from client.notebook.job import Job; Job(dictionary='breast-cancer'); "
        "print(sorted({'torch', 'opacus', 'flwr', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_check_shows_the_price_of_a_built_in_model() -> None:
    found = job(min_participants=2).check(dry=False)
    assert found.ok
    assert found.problems == ()
    assert "epsilon, trained on" in repr(found)
    assert "at most 3" in repr(found)
    assert "<table>" in found._repr_html_()
    assert found.to_json()["problems"] == []


def test_a_sketched_dictionary_cannot_be_submitted_until_it_was_reviewed() -> None:
    sketched = dataclasses.replace(
        shipped("breast-cancer"),
        variables=tuple(
            dataclasses.replace(v, source="taken from rows at hand, not yet reviewed")
            for v in shipped("breast-cancer").variables
        ),
    )
    made = job(dictionary=sketched)  # to try it, it is good enough
    found = made.check(dry=False)
    assert not found.ok
    assert "were taken from patients' rows" in found.problems[0]
    assert "dictionary.reviewed" in found.findings[0].fix
    assert found.report.prices
    reviewed = made.replace(dictionary=sketched.reviewed(source="Wolberg 1995"))
    assert reviewed.check(dry=False).ok
    assert isinstance(reviewed.dictionary, Dictionary)
