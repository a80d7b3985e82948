"""A SuperLink that dies is started again with all that hangs on it, and the job goes on at the round under way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coordinator.back_office import BackOffice
from coordinator.config import CoordinatorConfig
from coordinator.errors import FlowerEndedError, TransportError
from coordinator.nodes import DepositedNodes
from coordinator.runner import Runner
from coordinator.tls import TlsFiles
from ledger import example
from ledger.records import Abort
from tests.coordinator.test_runner import CarryingFlower, finished
from tests.coordinator.ward import HOSPITALS, Ward

TLS = TlsFiles(authority=Path("ca.pem"), certificate=Path("cert.pem"), key=Path("key.pem"))


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


def test_runner_ends_when_the_superlink_is_dead_and_says_so(ward: Ward) -> None:
    flower = CarryingFlower(ward)
    flower.dead = True
    config = CoordinatorConfig(directory=ward.folder, port=1)
    with pytest.raises(FlowerEndedError):
        Runner(ward.desk(), flower, DepositedNodes(config.nodes, flower), config).run()


class MortalSuperLink(CarryingFlower):
    """Stands for a SuperLink's processes; dies with its run as often as the test says."""

    made: list[MortalSuperLink]
    deaths: list[int]  # exchanges that each carries before it dies; the last one lives

    def __init__(self, ward: Ward) -> None:
        super().__init__(ward)
        self.address = f"127.0.0.1:{40_000 + len(self.made)}"
        self.made.append(self)
        if self.deaths:
            self.dies_after = [self.deaths.pop(0)]
            self.mortal = True
        else:
            self.mortal = False

    def __enter__(self) -> MortalSuperLink:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self.threads:
            thread.join(10)

    def alive(self) -> bool:
        return not (self.mortal and self.failed)

    def run_state(self, run_id: int) -> Any:
        if not self.alive():
            raise TransportError("the SuperLink cannot be reached (ConnectError)")
        return super().run_state(run_id)


@contextmanager
def office(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, deaths: list[int], wait: float = 0.01
) -> Iterator[BackOffice]:
    """A back office at work, in whose SuperLinks nothing is real."""
    kind = type("Mortal", (MortalSuperLink,), {"made": [], "deaths": deaths})
    monkeypatch.setattr("coordinator.back_office.SuperLink", lambda settings: kind(ward))
    monkeypatch.setattr("coordinator.back_office.RESTART_SECONDS", (wait, wait))
    monkeypatch.setattr("coordinator.runner.WATCH_SECONDS", 0.05)
    monkeypatch.setattr("coordinator.runner.IDLE_SECONDS", 0.02)
    keys = ward.folder / "nodes"
    keys.mkdir()
    for name in HOSPITALS:
        (keys / f"{name}.pub").write_text("a key")
    config = CoordinatorConfig(directory=ward.folder, port=1, patience_seconds=0)
    made = BackOffice(
        config, ward.sequencer, ward.blobs, example.KEYS["coordinator"], TLS, lambda event: None, ward.clock
    )
    over = threading.Event()
    made.start(on_end=over.set)
    try:
        yield made
    finally:
        made.stop()
        assert over.is_set()
        assert made.failure == ""


def test_superlink_that_dies_in_every_round_costs_no_round_and_no_second_charge(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    with office(ward, monkeypatch, deaths=[0, 1, 1]) as made:
        ward.propose()
        ward.approve()
        assert finished(ward, ward.job)
        assert made.gateway is not None
        assert made.gateway.address == "127.0.0.1:40003"  # the fourth
        assert made.trouble == ""
    assert [r.round for r in ward.closed] == [1, 2, 3, 4]
    assert not any(isinstance(r, Abort) for r in ward.closed)
    assert [h.charge for h in ward.hospitals.values()] == [4, 4, 4]


def test_status_says_that_no_round_goes_on(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    with office(ward, monkeypatch, deaths=[0], wait=30.0) as made:
        ward.propose()
        ward.approve()
        for _ in range(500):
            if made.trouble:
                break
            threading.Event().wait(0.02)
        assert "it is started again" in made.status()["trouble"]
        assert made.gateway is None
