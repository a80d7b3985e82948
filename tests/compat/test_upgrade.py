"""Folders as earlier versions left them: opened, replayed and continued by this one. Their bytes are never renewed.

`v1` is what version 0.1.0 left of a finished run: the coordinator's log, a hospital's copy of it, its privacy account
and its settings. Tiles and checkpoints are derived, so only the databases are kept.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from client import config
from client.budget import Account
from ledger import audit
from ledger.log import Log
from ledger.mirror import Mirror

V1 = Path(__file__).parent / "v1"
SIZE = 169
ROOT = "764140454ae18cf8ba1aad573c99bc7d60cf059ab0298ef13a2daf030b231121"
CHARTER = "dbbacac1aaa688d0b8a104a42f8c4e541103d69170dcc2defc42d39770c87354"


def unpacked(name: str, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(gzip.decompress((V1 / f"{name}.gz").read_bytes()))
    return to


@pytest.fixture
def account(tmp_path: Path) -> Path:
    return unpacked("account.sqlite", tmp_path / "account.sqlite")


def test_the_log_is_kept_and_derived_again(tmp_path: Path) -> None:
    folder = unpacked("log.sqlite", tmp_path / "log" / "log.sqlite").parent
    with Log.open(folder) as log:
        assert (log.view.size, log.view.root.hex(), log.store.final_size()) == (SIZE, ROOT, SIZE)
        log.store.check()
        assert audit.replay(log.store.read, SIZE).root.hex() == ROOT  # every record under the rules of today
    with Log.open(folder) as again:
        assert again.view.size == SIZE


def test_a_hospitals_copy_goes_on(tmp_path: Path) -> None:
    folder = unpacked("mirror.sqlite", tmp_path / "mirror" / "log.sqlite").parent
    with Mirror.open(folder) as mirror:
        assert mirror.view is not None
        assert (mirror.size, mirror.view.root.hex(), mirror.final_size) == (SIZE, ROOT, SIZE)
        (job,) = mirror.view.state.jobs.values()
        assert (job.status, job.next_round) == ("finished", 32)


def test_what_was_spent_is_still_spent(account: Path) -> None:
    opened = Account.open(account)
    try:
        (statement,) = opened.history()
    finally:
        opened.close()
    assert (statement.epsilon_spent, len(statement.charges)) == ("3.31", 31)
    assert statement.lifetime.epsilon == 8
    assert {c.epsilon_job for c in statement.charges[-1:]} == {"3"}


def test_the_settings_mean_what_they_meant(tmp_path: Path) -> None:
    (tmp_path / config.FILE).write_bytes((V1 / config.FILE).read_bytes())
    found = config.load(tmp_path)
    assert (found.name, found.charter, found.dataset.kind) == ("northgate", CHARTER, "csv")
    assert (found.policy.approve, found.policy.max_epsilon_per_job) == ("built-in", "3")
