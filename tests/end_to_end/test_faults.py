"""Faults put into a running job of real processes on separate hosts: nothing promised is broken, whatever it costs.

By default one job, in which one process after another is killed. `WARDROUND_FAULTS=all` runs every row of FAULTS.md,
and `WARDROUND_FAULTS=agent,database` those; about a minute each on an idle machine.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.end_to_end import hosts
from tests.end_to_end.fault_kinds import FAULTS
from tests.end_to_end.fault_table import row, run

SHORT = ("each",)
ROUNDS = 12
SHORT_ROUNDS = 5
WANTED = os.environ.get("WARDROUND_FAULTS", "")
NAMES = tuple(FAULTS) if WANTED == "all" else tuple(WANTED.split(",")) if WANTED else SHORT


@pytest.fixture(scope="module", autouse=True)
def separate_hosts() -> None:
    if reason := hosts.obstacle():
        pytest.skip(reason)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_job_is_finished_and_no_promise_is_broken_by(name: str, tmp_path: Path) -> None:
    if reason := FAULTS[name].needs():
        pytest.skip(reason)
    seed = random.SystemRandom().randrange(1 << 30)
    outcome = run(name, ROUNDS if WANTED else SHORT_ROUNDS, seed, tmp_path)
    said = f"seed {seed}: {row(name, outcome)}"
    assert not outcome.broken(), said
    assert outcome.status == "finished", said
