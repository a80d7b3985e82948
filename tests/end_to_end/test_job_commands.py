"""A researcher's commands as typed, against a real coordinator and the agents of three hospitals.

What the researcher types, for one job from nothing to a verified result, is counted: seven commands.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client import job_folder
from tests.end_to_end.consortium import SECONDS, Processes, command, processes

LINES = 7  # new, check, submit, watch, result, evidence verify, predict


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with pytest.MonkeyPatch.context() as patch, processes(tmp_path_factory.mktemp("jobs"), patch) as found:
        found.agree()
        yield found


def make(site: Processes, name: str, **changes: str) -> Path:
    """Type `job new`, then edit the lines of job.toml that this consortium needs."""
    folder = site.researcher.parent / name
    site.wardround("job", "new", folder)
    file, text = folder / "job.toml", (folder / "job.toml").read_text()
    lines = {
        "name": f'"{name}"',
        "purpose": '"demonstration"',
        "epsilon": "2",
        "heldout_epsilon": "2",
        **changes,
    }
    for key, value in lines.items():
        text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", text, count=1)
    file.write_text(text)
    return folder


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_one_job_from_nothing_to_a_verified_result(site: Processes) -> None:
    site.typed.clear()
    folder = make(site, "first", rounds="4", live="1")
    checked = site.wardround("job", "check", folder, "--member", site.researcher)
    assert "northgate/breast-cancer: epsilon at most 2 for training" in checked
    assert "made-up patients" in checked
    submitted = site.wardround("job", "submit", folder, "--member", site.researcher)
    digest = job_folder.submitted(folder).job.digest()  # type: ignore[union-attr]
    assert digest in submitted
    watched = site.wardround("job", "watch", folder, "--member", site.researcher)
    assert "round 4 of 4: 3 hospitals" in watched
    assert "ended, finished" in watched
    out = site.researcher.parent / "result"
    told = site.wardround("job", "result", digest[:12], "--member", site.researcher, "--out", out)
    verify = told.splitlines()[-1].split()[1:]
    assert "bit for bit" in site.wardround(*verify)
    patients = site.setup.hospital("lakeside") / "patients.csv"
    assert site.wardround("predict", out / "model.safetensors", patients)
    assert len(site.typed) == LINES
    # the same folder is the same job
    again = json.loads(site.wardround("job", "submit", folder, "--member", site.researcher, "--json"))
    assert (again["job"], again["status"], again["new"]) == (digest, "finished", False)


def test_a_running_job_is_cancelled_and_the_one_that_waits_behind_it_runs(site: Processes) -> None:
    long = make(site, "long", rounds="5000", live="1")
    site.wardround("job", "submit", long, "--member", site.researcher)
    with subprocess.Popen(
        command("job", "watch", long, "--member", site.researcher, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        seen = []
        for line in watching.stdout:  # until it runs
            seen.append(json.loads(line))
            if seen[-1]["event"] == "round":
                break
        site.kill("coordinator")  # whoever watches waits for it
        site.start("coordinator")
        queued = make(site, "queued", rounds="2", live="1")
        site.wardround("job", "submit", queued, "--member", site.researcher)
        cancelled = json.loads(site.wardround("job", "cancel", long, "--member", site.researcher, "--json"))
        assert cancelled["status"] == "cancelled"
        assert watching.stderr is not None
        rest = (
            watching.stdout.read()
        )  # not `communicate`, which would lose what the loop above has read ahead
        errors = watching.stderr.read()
        assert watching.wait(SECONDS) == 1
        assert "Traceback" not in errors
    seen += json_lines(rest)
    assert (seen[-1]["event"], seen[-1]["reason"]) == ("ended", "cancelled")
    rounds = [e["round"] for e in seen if e["event"] in ("round", "abort")]
    assert rounds == list(range(1, len(rounds) + 1))
    events = json_lines(site.wardround("job", "watch", queued, "--member", site.researcher, "--json"))
    kinds = [e["event"] for e in events if e["event"] != "waiting"]
    assert kinds[0] == "proposed"
    assert sorted(kinds[1:4]) == ["approved"] * 3
    assert kinds[-2:] == ["released", "ended"]
    assert "cancel" in site.wardround("job", "cancel", queued, "--member", site.researcher, status=1)
