"""The coordinator as a service: its systemd unit, what systemd is told, and the exit statuses that go with it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

import wardround
from coordinator import service, unit_cli
from coordinator.cli import app
from coordinator.config import CoordinatorConfig
from coordinator.errors import ServiceError
from ledger.errors import LedgerError
from ledger.unit import render


def test_the_coordinators_unit_listens_and_is_not_sent_sighup(tmp_path: Path) -> None:
    lines = render(
        unit_cli.service(CoordinatorConfig(directory=tmp_path, port=443), "wardround")
    ).splitlines()
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in lines
    assert not any(line.startswith(("ExecReload", "SocketBindDeny", "MemoryMax")) for line in lines)
    high = render(unit_cli.service(CoordinatorConfig(directory=tmp_path, port=8443), "wardround"))
    assert "AmbientCapabilities=\n" in high


def test_root_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "coordinator.toml").write_text("port = 8443\n")
    with pytest.raises(LedgerError, match="does not run as root"):
        CliRunner().invoke(app, ["unit", str(tmp_path), "--user", "root"], catch_exceptions=False)


@pytest.mark.parametrize(("serves", "status"), [(True, 75), (False, 1)], ids=["after it served", "before"])
def test_the_exit_status_says_whether_a_restart_may_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serves: bool, status: int
) -> None:
    def run(config: CoordinatorConfig, announce: service.Announce) -> None:
        if serves:
            announce({"event": "serving", "url": "https://localhost:8443"})
        raise ServiceError("the SuperLink ended")

    (tmp_path / "coordinator.toml").write_text("port = 8443\n")
    monkeypatch.setattr(service, "run", run)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with pytest.raises(SystemExit) as ended:
            wardround.main(["coordinator", "up", str(tmp_path)])
        assert ended.value.code == status
        if serves:
            assert manager.recv(1000).startswith(b"READY=1\nSTATUS=serving")
