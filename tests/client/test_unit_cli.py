"""`wardround hospital unit`: what the settings become."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client import config, unit
from client import unit_cli as hospital_unit
from client.cli import app
from ledger.errors import LedgerError
from ledger.unit import render
from tests.client import hospital_folder


def test_the_agents_unit_follows_its_settings(tmp_path: Path) -> None:
    hospital = config.load(hospital_folder.write(tmp_path / "alpha"))
    lines = render(unit.service(hospital, "wardround")).splitlines()
    assert "User=wardround" in lines
    assert f"MemoryMax={8192 + unit.AGENT_MIB}M" in lines
    assert "CPUQuota=200%" in lines
    assert "SocketBindDeny=any" in lines
    assert "ExecReload=/bin/kill -HUP $MAINPID" in lines
    elsewhere = replace(hospital, journal=replace(hospital.journal, file="/var/log/wardround/agent.log"))
    writable = next(
        line for line in render(unit.service(elsewhere, "wardround")).splitlines() if "ReadWritePaths" in line
    )
    assert writable == f"ReadWritePaths={hospital.folder} /var/log/wardround"


def test_the_command_writes_the_unit_and_says_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hospital_unit, "choose_user", lambda folder, name: name)
    folder, out = hospital_folder.write(tmp_path / "alpha"), tmp_path / "wardround.service"
    arguments = ["unit", str(folder), "--user", "ward", "--out", str(out)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "systemctl daemon-reload" in result.output
    assert "User=ward\n" in out.read_text()
    assert CliRunner().invoke(app, arguments[:-2], catch_exceptions=False).output == out.read_text()


def test_root_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = hospital_folder.write(tmp_path / "alpha")
    with pytest.raises(LedgerError, match="does not run as root"):
        CliRunner().invoke(app, ["unit", str(folder), "--user", "root"], catch_exceptions=False)
