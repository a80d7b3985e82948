"""The kernel's own word: what a confined builder is refused, with no help from Python, and what a worker may do."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client import landlock, sandbox, seccomp
from client.errors import SandboxError
from client.sandbox import WorkerRights
from client.system_calls import BUILDER, NETWORK, NUMBERS, SYSTEM
from ledger import canonical

LIBRARY = ctypes.CDLL(None, use_errno=True)
COLUMN = {"x86_64": 0, "aarch64": 1}[platform.machine()]
FINE = 7  # exit status of a child that did what it was to do
KILLED = -signal.SIGSYS


def call(name: str, *arguments: int) -> int:
    """Make a system call as hostile code would: by its number. Return 0, or the error's number."""
    result = LIBRARY.syscall(NUMBERS[name][COLUMN], *arguments)
    return ctypes.get_errno() if result == -1 else 0


def in_child(action: Callable[[], object]) -> int:
    """Return how a child ended that does this and nothing else."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(FINE)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def confined(action: Callable[[], object]) -> int:
    """Return how a child ended that does this as a builder."""

    def run() -> None:
        sizes = sandbox.confine_files()
        sandbox.confine_calls(sizes, memory_mib=64, seconds=5)
        action()

    return in_child(run)


def test_a_builder_can_still_compute_and_say_so() -> None:
    assert confined(lambda: sum(range(10_000))) == FINE
    assert confined(lambda: os.write(1, b"")) == FINE


@pytest.mark.parametrize("name", sorted({*SYSTEM, *NETWORK}))
def test_a_builder_that_makes_an_attackers_call_is_killed(name: str) -> None:
    if name == "vfork" or NUMBERS[name][COLUMN] < 0:
        pytest.skip("not to be called by number, or not there")
    assert confined(lambda: call(name, 0, 0, 0, 0, 0)) == KILLED


@pytest.mark.parametrize("name", ["kill", "tgkill"])
@pytest.mark.parametrize("target", [-1, 0, 1, os.getpid()], ids=["all", "group", "init", "own"])
def test_a_builder_cannot_signal_another_process(name: str, target: int) -> None:
    assert confined(lambda: call(name, target, 0, 0)) == KILLED


@pytest.mark.parametrize("name", ["clone3", "clone"])
def test_a_builder_starts_no_thread_and_no_process(name: str) -> None:
    def start() -> None:
        assert call(name, 0, 0, 0, 0, 0) == errno.EPERM

    assert confined(start) == FINE
    assert confined(lambda: threading.Thread(target=print).start()) == 1


def test_a_builder_learns_nothing_of_any_path(tmp_path: Path) -> None:
    """Whether a file is there, and how large it is, could be told in a refusal's code."""
    (tmp_path / "there").write_text("rows")

    def look() -> None:
        for name in ("there", "not-there"):
            path = tmp_path / name
            attempts: list[Callable[[], Any]] = [path.stat, path.read_bytes, path.iterdir, path.readlink]
            for attempt in attempts:
                with pytest.raises(OSError, match="not permitted"):
                    list(attempt())
            assert not os.access(path, os.R_OK)

    assert confined(look) == FINE


def test_before_its_calls_are_filtered_a_builder_reads_python_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("rows")

    def look() -> None:
        sandbox.confine_files()
        assert Path(os.__file__).read_bytes()
        for place in (tmp_path / "rows", Path("/etc/passwd"), Path("/proc/self/environ")):
            with pytest.raises(PermissionError):
                place.read_bytes()
        with pytest.raises(PermissionError):
            (tmp_path / "new").write_text("")

    assert in_child(look) == FINE


def test_a_builder_has_no_more_memory_than_it_was_given() -> None:
    def private() -> None:
        with pytest.raises(MemoryError):
            bytearray(80 << 20)

    def shared() -> None:
        with pytest.raises(OSError, match="allocate memory"):
            mmap.mmap(-1, 80 << 20)

    assert confined(private) == FINE
    assert confined(shared) == FINE
    assert confined(lambda: bytearray(32 << 20)) == FINE


def test_a_builder_that_computes_too_long_is_ended_by_the_kernel_too() -> None:
    def forever() -> None:
        sizes = sandbox.confine_files()
        sandbox.confine_calls(sizes, memory_mib=64, seconds=-1)
        while True:
            pass

    assert in_child(forever) in (-signal.SIGKILL, -signal.SIGXCPU)


def worker(action: str, tmp_path: Path, **rights: object) -> str:
    """Return what a script says that runs with a worker's rights; its own folder is `own`."""
    plain: dict[str, object] = {"read": [], "network": False, "gpu": False, "memory_mib": 4096, "threads": 1}
    code = (
        "import json, os, sys, socket, subprocess\nfrom pathlib import Path\nfrom client import sandbox\n"
        "from ledger import canonical\nrights = canonical.build(sandbox.WorkerRights, json.loads(sys.argv[1]))\n"
        "tmp = Path(sys.argv[2])\nsandbox.confine_worker(tmp / 'own', rights)\ntry:\n    " + action +
        "\nexcept (OSError, MemoryError) as error:\n    print(type(error).__name__)\nelse:\n    print('done')\n"
    )  # fmt: skip
    command = [sys.executable, "-c", code, json.dumps(plain | rights), str(tmp_path)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.parametrize(
    ("action", "outcome"),
    [
        ("(tmp / 'rows').read_text()", "done"),
        ("(tmp / 'own' / 'new').write_text('x'); (tmp / 'own' / 'new').rename(tmp / 'own' / 'b')", "done"),
        ("(tmp / 'rows').write_text('x')", "PermissionError"),
        ("(tmp / 'keys').read_text()", "PermissionError"),
        ("(tmp / 'new').write_text('x')", "PermissionError"),
        ("(tmp / 'own' / 'link').symlink_to(tmp / 'keys'); (tmp / 'own' / 'link').read_text()", "PermissionError"),
        ("os.listdir(tmp)", "PermissionError"),
        ("Path('/proc/1/environ').read_bytes()", "PermissionError"),
        ("socket.socket()", "PermissionError"),
        ("os.fork()", "PermissionError"),
        ("subprocess.run([sys.executable, '-V'])", "PermissionError"),
        ("os.execv(sys.executable, ['python', '-V'])", "PermissionError"),
        ("os.kill(os.getppid(), 0)", "PermissionError"),
        ("__import__('threading').Thread(target=list).start()", "done"),
        ("bytearray(1 << 33)", "MemoryError"),
    ],
)  # fmt: skip
def test_a_worker_reads_its_rows_writes_to_its_folder_and_nothing_more(
    action: str, outcome: str, tmp_path: Path
) -> None:
    for name in ("rows", "keys"):
        (tmp_path / name).write_text(name)
    assert worker(action, tmp_path, read=[str(tmp_path / "rows")]) == outcome


def test_a_worker_for_a_database_may_connect(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        action = f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]})).close()"
        assert worker(action, tmp_path, network=True) == "done"
        assert worker(action, tmp_path) == "PermissionError"


def test_rights_travel_as_json() -> None:
    rights = WorkerRights(read=("/rows",), network=False, gpu=True, memory_mib=1, threads=2)
    assert canonical.build(WorkerRights, json.loads(json.dumps(canonical.plain(rights)))) == rights


def test_what_a_machine_lacks_is_said_in_words_and_stops_the_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sandbox.available() == ()
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert "riscv64" in sandbox.available()[0]
    with pytest.raises(SandboxError, match="riscv64"):
        sandbox.confine_files()
    monkeypatch.undo()
    monkeypatch.setattr(landlock, "version", lambda: 0)
    assert "Landlock" in sandbox.available()[0]
    with pytest.raises(SandboxError, match="Landlock"):
        sandbox.confine_files()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filters_look_at_the_architecture_first(machine: str) -> None:
    for program in (
        seccomp.builder_program(machine, 1),
        seccomp.worker_program(machine, 1, network=False),
        seccomp.worker_program(machine, 1, network=True),
    ):
        assert len(program) % 8 == 0
        assert program[:8] == bytes([0x20, 0, 0, 0, 4, 0, 0, 0])  # load the architecture
        assert len(program) // 8 < 4096  # the kernel's limit


def test_lists_of_system_calls_do_not_contradict_each_other() -> None:
    assert not {*BUILDER} & {*SYSTEM, *NETWORK}
    for column in (0, 1):
        numbers = [numbers[column] for numbers in NUMBERS.values() if numbers[column] >= 0]
        assert len(numbers) == len(set(numbers))
