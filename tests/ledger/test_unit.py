"""The systemd unit: accepted by systemd's own tools, as hard as it claims, and right about awkward paths."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.errors import MalformedError, StorageError
from ledger.unit import Service, choose_user, command, notify, put, render

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed here")
AGENT = Service(
    description="Wardround agent of alpha",
    written_by="wardround hospital unit /srv/wardround",
    command=("/bin/true", "hospital", "run", "/srv/wardround"),
    user="wardround",
    folder=Path("/srv/wardround"),
    reloads=True,
    memory_mib=8192,
    processors=2,
)
WORST_EXPOSURE = 2.0  # of systemd-analyze, from 0 (safe) to 10; a service without any of it has 9.6


def lines(service: Service, name: str) -> list[str]:
    return [line.partition("=")[2] for line in render(service).splitlines() if line.startswith(f"{name}=")]


def analyze(verb: str, file: Path, *options: str) -> tuple[int, str]:
    assert ANALYZE is not None
    done = subprocess.run(
        [ANALYZE, *options, verb, str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


AWKWARD = Path('/srv/our "ward" 100% $HOME: it\'s \\here')
CASES = {
    "agent": AGENT,
    "agent with a GPU": replace(AGENT, devices=True),
    "coordinator below 1024": replace(AGENT, listens=True, low_port=True),
    "in a home": replace(AGENT, folder=Path("/home/it/ward round"), reads=(Path("/root/python"),)),
    "awkward path": replace(AGENT, folder=AWKWARD, command=("/bin/true", str(AWKWARD), ";", "$A", "50%")),
}


@needs_systemd
@pytest.mark.parametrize("case", CASES, ids=CASES)
def test_systemd_accepts_it_without_a_word(case: str, tmp_path: Path) -> None:
    file = tmp_path / "wardround.service"
    file.write_text(render(CASES[case]))
    status, said = analyze("verify", file)
    mine = [line for line in said.splitlines() if "wardround.service" in line]
    assert (status, mine) == (0, []), said


@needs_systemd
@pytest.mark.parametrize("case", CASES, ids=CASES)
def test_systemd_finds_it_hard(case: str, tmp_path: Path) -> None:
    file = tmp_path / "wardround.service"
    file.write_text(render(CASES[case]))
    _, said = analyze("security", file, "--offline=true", "--no-pager")
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= WORST_EXPOSURE
    print(found[0])  # shown by `pytest -rP`


def test_only_who_reloads_at_sighup_gets_one() -> None:
    """SIGHUP ends a process that does not expect it."""
    assert lines(AGENT, "ExecReload") == ["/bin/kill -HUP $MAINPID"]
    assert lines(replace(AGENT, reloads=False), "ExecReload") == []


def test_nothing_is_writable_but_the_folder() -> None:
    assert lines(AGENT, "ProtectSystem") == ["strict"]
    assert lines(AGENT, "ReadWritePaths") == ["/srv/wardround"]
    assert lines(AGENT, "ProtectHome") == ["yes"]
    assert lines(AGENT, "CapabilityBoundingSet") == [""]
    assert lines(AGENT, "SocketBindDeny") == ["any"]
    assert lines(AGENT, "RestartPreventExitStatus") == ["1 2"]
    assert lines(AGENT, "PrivateDevices") == ["yes"]
    assert lines(replace(AGENT, devices=True), "PrivateDevices") == []


def test_only_a_port_below_1024_brings_a_capability() -> None:
    low = replace(AGENT, listens=True, low_port=True)
    assert (
        lines(low, "AmbientCapabilities") == lines(low, "CapabilityBoundingSet") == ["CAP_NET_BIND_SERVICE"]
    )
    assert lines(replace(AGENT, listens=True), "AmbientCapabilities") == [""]
    assert lines(replace(AGENT, listens=True), "SocketBindDeny") == []


def test_a_folder_in_a_home_is_all_that_is_seen_of_it() -> None:
    home = CASES["in a home"]
    assert lines(home, "ProtectHome") == ["tmpfs"]
    assert lines(home, "BindPaths") == ['"/home/it/ward round"']
    assert lines(home, "BindReadOnlyPaths") == ["/root/python"]


def test_what_an_awkward_path_becomes() -> None:
    quoted = '"/srv/our \\"ward\\" 100%% {}HOME: it\'s \\\\here"'
    awkward = CASES["awkward path"]
    assert lines(awkward, "ReadWritePaths") == [quoted.format("$")]
    assert lines(awkward, "WorkingDirectory") == ['/srv/our "ward" 100%% $HOME: it\'s \\here']
    assert lines(awkward, "ExecStart") == [f'/bin/true {quoted.format("$$")} ";" "$$A" "50%%"']
    bound = replace(AGENT, folder=Path("/home/a:b"))
    assert lines(bound, "BindPaths") == ['"/home/a:b"']


@pytest.mark.parametrize(
    "path", ["/srv/a\nExecStartPre=/bin/evil", "/srv/tab\there", "/srv/end\\", "srv/relative"]
)
def test_a_path_that_would_be_more_than_a_path_is_refused(path: str) -> None:
    with pytest.raises(MalformedError):
        render(replace(AGENT, folder=Path(path)))


def test_it_runs_as_the_owner_and_never_as_root(tmp_path: Path) -> None:
    import os
    import pwd

    owner = pwd.getpwuid(tmp_path.stat().st_uid).pw_name
    with pytest.raises(MalformedError, match="does not run as root"):
        choose_user(Path("/"), "root")
    with pytest.raises(MalformedError, match="does not run as root"):
        choose_user(Path("/"), "")
    with pytest.raises(MalformedError, match="no user no-such-user"):
        choose_user(tmp_path, "no-such-user")
    with pytest.raises(MalformedError, match="no user -x"):
        choose_user(tmp_path, "-x")
    with pytest.raises(StorageError):
        choose_user(tmp_path / "nowhere", "")
    other = next(e.pw_name for e in pwd.getpwall() if e.pw_uid not in (0, os.geteuid()))
    with pytest.raises(MalformedError, match=f"is not {other}'s"):
        choose_user(tmp_path, other)
    if owner != "root":
        assert choose_user(tmp_path, "") == owner


def test_only_an_older_unit_is_written_over(tmp_path: Path) -> None:
    out = tmp_path / "wardround.service"
    put(render(AGENT), out)
    put(render(replace(AGENT, tasks=7)), out)
    assert "TasksMax=7" in out.read_text()
    out.write_text("[Unit]\n")
    with pytest.raises(StorageError, match="no unit written by wardround"):
        put(render(AGENT), out)
    assert out.read_text() == "[Unit]\n"
    with pytest.raises(StorageError, match="cannot write"):
        put(render(AGENT), tmp_path / "nowhere" / "x.service")


def test_the_command_never_imports_from_the_folder_that_it_works_in(tmp_path: Path) -> None:
    python = tmp_path / "python"
    assert command("ledger", executable=python) == (str(python), "-P", "-m", "wardround", "ledger")
    (tmp_path / "wardround").touch()
    assert command("ledger", executable=python) == (str(tmp_path / "wardround"), "ledger")


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, abstract: bool) -> None:
    name = f"\0wardround-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(5)
        notify("READY=1", {"NOTIFY_SOCKET": name.replace("\0", "@")})
        assert manager.recv(100) == b"READY=1"


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    notify("READY=1", {})
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    notify("READY=1", {"NOTIFY_SOCKET": "vsock:2:1"})
