"""The preflight: every fault it can report is provoked, and its line is the one that the guide prints.

`WARDROUND_WRITE_GUIDE=1` writes the lines into client/README.md instead of comparing them.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from client import preflight
from client.cli import app
from client.errors import ConfigError
from client.preflight_codes import FAULTS, WARNING, WRONG, Finding
from client.preflight_machine import Torch
from client.preflight_network import Target, look
from client.preflight_wire import within
from coordinator.tls import ensure_tls
from tests.client import preflight_faults
from tests.client import preflight_servers as servers
from tests.client.preflight_faults import Bench
from tests.client.preflight_servers import NOW, serving

GUIDE = Path(__file__).parents[2] / "client" / "README.md"
BEGIN, END = "<!-- faults: begin -->\n", "<!-- faults: end -->"


def provoked(code: str, path: Path, patch: pytest.MonkeyPatch) -> Finding:
    """The finding with that code; nothing of the test's own place is in its sentence."""
    found = list(preflight_faults.FAULTS[code](Bench(path=path, patch=patch)))
    (mine,) = (f for f in found if f.code == code)
    return Finding(code=code, sentence=mine.sentence.replace(f"{path}/", "").replace(str(path), "DIR"))


def row(found: Finding) -> str:
    cells = (f"`{found.code}`", found.level, found.sentence, found.remedy)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def test_every_fault_of_the_table_is_provoked() -> None:
    assert set(preflight_faults.FAULTS) == set(FAULTS)
    assert {level for level, _ in FAULTS.values()} == {WARNING, WRONG}


@pytest.mark.parametrize("code", FAULTS)
def test_a_provoked_fault_says_the_line_of_the_guide(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = row(provoked(code, tmp_path, monkeypatch))
    assert "\n" not in line[:-1]
    text = GUIDE.read_text()
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    if os.environ.get("WARDROUND_WRITE_GUIDE"):
        rows = {r.split("`")[1]: r for r in table.splitlines(keepends=True)[2:]} | {code: line}
        head = "| code | level | what the line says, for example | what to do |\n|---|---|---|---|\n"
        whole = head + "".join(rows[c] for c in FAULTS if c in rows)
        GUIDE.write_text(before + BEGIN + whole + END + after)
    else:
        assert line in table


# --- the whole of it ---


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A hospital's folder, private, whose coordinator answers with its health and nothing else."""
    path = tmp_path_factory.mktemp("healthy")
    tls = ensure_tls(path / "tls", [], NOW)
    folder = Bench(path=path, patch=pytest.MonkeyPatch()).folder()
    (folder / "ca.pem").write_bytes(tls.authority.read_bytes())
    with serving(servers.http(date=time.time()), servers.server_context(tls)) as port:
        settings = folder / "hospital.toml"
        settings.write_text(settings.read_text().replace("localhost:8443", f"127.0.0.1:{port}"))
        yield folder


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the import of torch, which takes seconds, to one test."""
    monkeypatch.setattr(preflight, "observe_torch", lambda: Torch(trouble="", version="2"))


def check(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", str(folder), *arguments], catch_exceptions=False)


def test_a_sound_folder_is_ok_and_exits_0(healthy: Path) -> None:
    result = check(healthy, "--offline")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert all(line.startswith(("ok", "-")) for line in lines[:-1]), result.output
    assert "64 rows, 64 usable; 64 patients" in result.output
    assert "size class to publish: 64" in result.output
    assert lines[-1].startswith("0 wrong, 0 warnings")
    assert ".check" not in {p.name for p in healthy.iterdir()}


@pytest.mark.usefixtures("light")
def test_json_for_a_program_says_level_code_sentence_and_remedy(healthy: Path) -> None:
    result = check(healthy, "--json")
    found = json.loads(result.output)
    codes = [f["code"] for f in found["findings"]]
    assert result.exit_code == 1
    assert found["wrong"] is True
    assert [c for c in codes if c in FAULTS] == ["service.other"]  # health, and no log behind it
    order = ["settings", "folder", "keys", "copy", "name", "port", "tls", "service", "clock", "disk", "data"]
    assert [c for c in codes if c in order] == order
    assert all(f["remedy"] for f in found["findings"] if f["level"] != "ok")
    secrets = [(healthy / "keys" / name).read_bytes() for name in ("identity.key", "node.pem")]
    assert not any(s.strip().decode() in result.output for s in secrets)


@pytest.mark.usefixtures("light")
def test_settings_that_cannot_be_read_hide_no_other_fault(tmp_path: Path) -> None:
    folder = Bench(path=tmp_path, patch=pytest.MonkeyPatch()).folder()
    (folder / "hospital.toml").write_text("name = ")
    (folder / "keys" / "node.pem").chmod(0o644)
    codes = {f["code"] for f in json.loads(check(folder, "--json").output)["findings"]}
    assert {"settings.wrong", "keys.open", "disk", "software", "torch"} <= codes


def test_no_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        check(tmp_path / "nowhere")


def test_nothing_but_a_handshake_is_sent_to_whoever_intercepts_tls(tmp_path: Path) -> None:
    heard: list[bytes] = []

    def listen(line: socket.socket) -> None:
        while data := line.recv(4096):
            heard.append(data)

    theirs = servers.inspection_files(tmp_path / "inspection")
    with serving(listen, servers.server_context(theirs)) as port:
        found = look_at(tmp_path, port)
    assert found[-1].code == "tls.intercepted"
    assert heard == []


def test_the_inspection_would_have_read_what_an_unwary_client_sends(tmp_path: Path) -> None:
    """The intercepting server of these tests is a real one: whoever trusts its authority gets the real answer."""
    ours, theirs = ensure_tls(tmp_path / "tls", [], NOW), servers.inspection_files(tmp_path / "inspection")
    with (
        serving(servers.http(), servers.server_context(ours)) as real,
        serving(servers.intercepting(real), servers.server_context(theirs)) as port,
        httpx.Client(verify=False, trust_env=False) as unwary,
    ):
        assert unwary.get(f"https://127.0.0.1:{port}/health").json() == {"status": "ok"}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_way_through_a_proxy(tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ensure_tls(tmp_path / "tls", [], NOW)
    seen: list[bytes] = []
    monkeypatch.setenv(
        "SSL_CERT_FILE", str(ours.authority)
    )  # what the machine trusts, for the proxy's own TLS
    context = servers.server_context(ours) if scheme == "https" else None
    with (
        serving(servers.http(date=time.time()), servers.server_context(ours)) as port,
        serving(servers.proxying(seen=seen), context) as proxy,
    ):
        found = look_at(tmp_path, port, proxy=f"{scheme}://ward:s%40fe@127.0.0.1:{proxy}")
    assert [f.code for f in found] == ["name", "port", "proxy", "tls", "service", "clock"]
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"ward:s@fe") in seen[0]
    assert not any("s@fe" in f.sentence or "s%40fe" in f.sentence for f in found)


def test_a_hanging_network_ends_within_its_limits(tmp_path: Path) -> None:
    """Whatever hangs, wherever it hangs: a bound on the whole, far above the limits and far below for ever."""

    def trickle(line: socket.socket) -> None:
        for _ in range(1000):
            line.sendall(b"H")
            time.sleep(0.05)

    ours = ensure_tls(tmp_path / "tls", [], NOW)
    with serving(trickle, servers.server_context(ours)) as port:
        codes = within(20.0, lambda: [f.code for f in look_at(tmp_path, port)])
    assert codes[-1] in ("service.other", "service.down")


def look_at(path: Path, port: int, proxy: str = "") -> list[Finding]:
    authority = ensure_tls(path / "tls", [], NOW).authority.read_bytes()
    target = Target(address=f"127.0.0.1:{port}", proxy=proxy, authority=authority, seconds=2.0)
    return list(look(target, time.time))
