"""What a notebook shows for the mistakes that newcomers make: one sentence each, which says what to do.

A layer that mixes patients is in `client/notebook/test_own_model.py`; two jobs of one name, a notebook restarted in
mid-run, a coordinator that is down and a graphics processor that is absent are in `test_connect.py`, `test_plan.py`
and `end_to_end/test_connect.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import wardround as wr
import wardround_connect
from client.errors import ClientError

GUIDE = Path(__file__).parent.parent / "docs" / "how-to" / "data-scientist.md"
HOSPITALS = wr.example("breast-cancer")
LAKESIDE = HOSPITALS["lakeside"]


def simulated(lakeside: Any, **changes: Any) -> Any:
    job = wr.Job.template("breast-cancer", rounds=1, **changes)
    return wr.simulate(job, {**HOSPITALS, "lakeside": lakeside}, progress=False)


def with_labels(*names: str) -> pd.DataFrame:
    return LAKESIDE.assign(diagnosis=LAKESIDE["diagnosis"].map(dict(zip(("B", "M"), names, strict=True))))


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "a wrong column name": (
        lambda: simulated(LAKESIDE.rename(columns={"mean radius": "mean_radius"})),
        "lakeside: column 'mean radius' is missing: the data dictionary 'breast-cancer' needs mean radius, ",
    ),
    "labels in other words": (
        lambda: simulated(with_labels("benign", "malignant")),
        "lakeside: 150 of 150 rows hold a value of the label 'diagnosis' that the data dictionary lists neither as "
        "negative (B) nor as positive (M): correct the rows, or the dictionary",
    ),
    "epsilon 0": (
        lambda: simulated(LAKESIDE, epsilon=0),
        "job breast-cancer: epsilon must be above 0: training without any privacy loss learns nothing",
    ),
    "a missing file": (
        lambda: simulated("no-such-patients.csv"),
        "lakeside: no-such-patients.csv is not there: correct the path, which is relative to ",
    ),
    "five rows": (
        lambda: simulated(LAKESIDE.head(5)),
        "lakeside: 5 patients with a usable row are too few, the noise would hide them: give at least 10",
    ),
    "a setting's name": (
        lambda: simulated(LAKESIDE, learning_rat=1),
        "job breast-cancer: learning_rat is no setting of a job: did you mean learning_rate?",
    ),
    "too few hospitals": (
        lambda: wr.simulate(
            wr.Job.template("breast-cancer", rounds=1), {"lakeside": LAKESIDE}, progress=False
        ),
        "the job needs at least 3 hospitals (min_participants) and 1 datasets are given: give more, or lower it",
    ),
    "no member's folder": (
        lambda: wr.connect("nowhere"),
        "nowhere is no member's folder, it has no member.toml: name the one that `wardround member join` made",
    ),
}


ELSEWHERE = (  # in the tests that the first lines name
    "body.1 is BatchNorm1d, which mixes patients",
    "use GroupNorm(2, 8), or job.fixed() does it",
    "gpu=True, and torch finds no graphics processor here: leave gpu out; ",
    "jobs/study holds another job named study (rounds is 3 there and 5 here): give this one a name of its own, ",
    wardround_connect.AWAY,
)


def test_the_guide_shows_what_the_notebook_says() -> None:
    guide = GUIDE.read_text()
    ten = ("a wrong column name", "labels in other words", "epsilon 0", "a missing file", "five rows")
    for sentence in (*(MISTAKES[name][1] for name in ten), *ELSEWHERE):
        assert sentence in guide


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_sentence_that_says_what_to_do(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, sentence = MISTAKES[mistake]
    with pytest.raises(ClientError) as caught:
        make()
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
