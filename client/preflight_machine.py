"""What `wardround hospital check` finds on the machine: disk, memory, processors, software, GPU.

Each `observe_` reads, and leaves nothing behind; each `judge_` decides on what was read. torch is imported by a
process of its own: on a processor that is too old for it, the import ends the process.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

from client.config import Hospital
from client.errors import LocalStateError
from client.preflight_codes import Finding
from client.private_file import write_private
from client.settings import Limits

MEBIBYTE = 1 << 20
LOG_MIB = 512  # for the copy of the log, the account and the jobs' snapshots, besides the journal
TORCH_SECONDS = 120.0  # a cold disk takes long
PINNED = ("flwr", "opacus", "torch")  # their exact versions are stated in wardround's own requirements
_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)==([^\s;]+)")
_GROUP_FILES = (  # limit and use, of the two kinds of control groups
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
_PROBE = """\
import json, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(json.dumps({"version": torch.__version__, "built_for": torch.version.cuda or "", "gpus": gpus}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The disk under the folder."""

    path: Path
    free_mib: int
    trouble: str  # why a file could not be written and synced, or ""


def observe_disk(directory: Path) -> Disk:
    """Write one small file with fsync, and remove it."""
    probe = directory / ".check"
    trouble = ""
    try:
        write_private(probe, b"written by wardround hospital check\n")
        probe.unlink()
    except (LocalStateError, OSError) as error:
        trouble = str(error)
    return Disk(path=directory, free_mib=shutil.disk_usage(directory).free // MEBIBYTE, trouble=trouble)


def needed_mib(hospital: Hospital | None) -> int:
    """Return how much disk the agent may come to use, in MiB, besides the data that is there."""
    if hospital is None:
        return LOG_MIB
    journal = hospital.journal.max_mib * (hospital.journal.keep + 1) if hospital.journal.file else 0
    data = _size(hospital.data_file) // MEBIBYTE
    return LOG_MIB + journal + 2 * data  # a snapshot a job, and one being made


def _size(place: Path) -> int:
    """Return the bytes of a file, or of all files below a folder: an export, or images. 0: there is none."""
    try:
        if not place.is_dir():
            return place.stat().st_size
        return sum(
            Path(folder, name).lstat().st_size for folder, _, names in os.walk(place) for name in names
        )
    except OSError:
        return 0


def judge_disk(disk: Disk, needed: int) -> Iterator[Finding]:
    """Decide whether what the agent must keep can be kept; `needed` in MiB."""
    if disk.trouble:
        yield Finding(code="disk.fails", sentence=disk.trouble)
    if disk.free_mib < needed:
        yield Finding(
            code="disk.full",
            sentence=f"{disk.free_mib} MiB are free under {disk.path}, {needed} MiB are needed",
        )
    elif not disk.trouble:
        yield Finding(
            code="disk",
            sentence=f"{disk.free_mib} MiB are free, {needed} MiB are needed; a file was written and synced",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """In MiB, of the machine or of the container, whichever is less."""

    total: int
    available: int


def observe_memory(root: Path = Path("/")) -> Memory:
    """Read the machine's memory and the limit of this process's control group. `root` is for tests."""
    found = dict.fromkeys(("MemTotal", "MemAvailable"), 0)
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) // 1024
    total, available = found["MemTotal"], found["MemAvailable"]
    group = root / "sys/fs/cgroup"
    for most, used in _GROUP_FILES:
        try:
            limit = int((group / most).read_text()) // MEBIBYTE
            now = int((group / used).read_text()) // MEBIBYTE
        except (OSError, ValueError):  # not limited, or not this kind of group
            continue
        total, available = min(total, limit), min(available, max(limit - now, 0))
    return Memory(total=total, available=available)


def judge_memory(memory: Memory, limits: Limits) -> Finding:
    """Decide whether the worker can have what the settings allow it."""
    sentence = f"{memory.available} MiB of {memory.total} MiB are available, limits.memory_mib is {limits.memory_mib}"
    if memory.total < limits.memory_mib:
        return Finding(code="memory.small", sentence=sentence)
    if memory.available < limits.memory_mib:
        return Finding(code="memory.busy", sentence=sentence)
    return Finding(code="memory", sentence=sentence)


def judge_processors(count: int, limits: Limits) -> Finding:
    """Decide whether there are as many processors as the settings give away."""
    sentence = f"{count} may be used, limits.threads is {limits.threads}"
    return Finding(code="processors" if count >= limits.threads else "processors.few", sentence=sentence)


def observe_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package with an exact version."""

    name: str
    wanted: str
    found: str  # "" if it is not installed


def observe_software(version: Callable[[str], str] = metadata.version) -> tuple[Package, ...]:
    """Compare what is installed with the versions that Wardround's own metadata state."""
    try:
        required = metadata.requires("wardround") or []
    except metadata.PackageNotFoundError:  # run from its source
        required = []
    wanted = {match[1]: match[2] for match in map(_REQUIREMENT.match, required) if match}
    packages = []
    for name in PINNED:
        try:
            found = version(name)
        except metadata.PackageNotFoundError:
            found = ""
        packages.append(Package(name=name, wanted=wanted.get(name, ""), found=found))
    return tuple(packages)


def judge_software(packages: Sequence[Package]) -> Iterator[Finding]:
    """Decide on the versions; a local part such as +cpu is a build of the same version."""
    sound = True
    for package in packages:
        if not package.found:
            sound = False
            yield Finding(code="software.missing", sentence=f"{package.name} is not installed")
        elif package.wanted and package.found.partition("+")[0] != package.wanted:
            sound = False
            yield Finding(
                code="software.version",
                sentence=f"{package.name} {package.found} is installed, {package.wanted} is needed",
            )
    if sound:
        yield Finding(code="software", sentence=", ".join(f"{p.name} {p.found}" for p in packages))


@dataclass(frozen=True, slots=True, kw_only=True)
class Torch:
    """What a process that imported torch says of it."""

    trouble: str  # why it could not be imported, or ""
    version: str = ""
    built_for: str = ""  # CUDA version; none for a CPU build
    gpus: tuple[str, ...] = ()


def observe_torch(
    command: Sequence[str] = (sys.executable, "-c", _PROBE), seconds: float = TORCH_SECONDS
) -> Torch:
    """Import torch in a process of its own; the arguments are for tests."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return Torch(trouble=f"importing torch took longer than {seconds:g} s")
    if done.returncode < 0:
        return Torch(trouble=f"importing torch ends the process (signal {-done.returncode})")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
        return Torch(trouble=f"importing torch fails: {last}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Torch(
        trouble="", version=found["version"], built_for=found["built_for"], gpus=tuple(found["gpus"])
    )


def judge_torch(torch: Torch, *, gpu: bool) -> Finding:
    """Decide whether torch works, on a GPU where the settings want one."""
    if torch.trouble:
        return Finding(code="torch.fails", sentence=torch.trouble)
    if not gpu:
        return Finding(code="torch", sentence=f"torch {torch.version} was imported; limits.gpu is false")
    if torch.gpus:
        return Finding(code="torch", sentence=f"torch {torch.version} sees {', '.join(torch.gpus)}")
    why = f"it was built for CUDA {torch.built_for}" if torch.built_for else "it was built without CUDA"
    return Finding(code="torch.gpu", sentence=f"limits.gpu is true, but torch sees no GPU: {why}")


def observe_sandbox() -> tuple[str, ...] | None:
    """Return what the sandbox of a job's own code lacks here, in words; None where there is no sandbox."""
    try:
        module = import_module("client.sandbox")
    except ModuleNotFoundError:
        return None
    return tuple(str(line) for line in module.available())


def judge_sandbox(lacks: Sequence[str]) -> Iterator[Finding]:
    """Decide whether a job's own code can be contained."""
    for line in lacks:
        yield Finding(code="sandbox.missing", sentence=line)
    if not lacks:
        yield Finding(code="sandbox", sentence="a job's own code can be contained")
