"""How a process of ours is confined before it does anything that it could be misled into: one page for both kinds.

The *builder* runs a job's `model.py`. It may read Python and its libraries, and nothing else; it may write nowhere
but into the pipe that it was given; it may start nothing and reach nothing. The *worker* is our own code and holds
rows; it is confined as a second line, in case a library that reads its files can be misled.

The kernel is the boundary: Landlock for files, seccomp for system calls, limits for memory and time. Not covered:
faults of the kernel itself; what can be told from how long a process takes; a hospital whose own Python was changed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import client
import ledger
from client import landlock, seccomp
from client.errors import SandboxError
from ledger.values import Part

_MIB = 1 << 20
_PDEATHSIG = 1
_BUILDER_FILES = 64  # open at one time
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_NETWORK = ("/etc", "/run/systemd/resolve", "/usr/share/ca-certificates", "/usr/share/zoneinfo")
_MACHINE = ("/dev/urandom", "/proc/cpuinfo", "/sys/devices/system")  # what torch asks about processors
_GPU = ("/proc", "/sys", "/etc", "/usr/share", "/usr/local")
_library = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRights(Part):
    """What a worker may have beside its own folder; travels to it as JSON."""

    read: tuple[str, ...]  # files and folders
    network: bool
    gpu: bool
    memory_mib: int
    threads: int


def available() -> tuple[str, ...]:
    """Return what this machine lacks for running a job's own `model.py`, in plain words; nothing when it can."""
    return (*seccomp.missing(), *landlock.missing())


def installation() -> tuple[Path, ...]:
    """Return where Python, its libraries and our own packages are, and what torch reads to know the processor."""
    own = [Path(place) for package in (client, ledger) for place in package.__path__]
    packages = [p for p in map(Path, sys.path) if p.name in ("site-packages", "dist-packages")]
    return (
        Path(sys.prefix),
        Path(sys.base_prefix),
        *map(Path, _LIBRARIES),
        *map(Path, _MACHINE),
        *packages,
        *own,
    )


def confine_files() -> int:
    """Begin the builder's confinement: before torch is imported, while there is one thread.

    Returns:
        A descriptor of this process's sizes, which nothing can open afterwards; `confine_calls` closes it.

    Raises:
        SandboxError: this machine cannot, and nothing may be run here.
    """
    if lacking := available():
        raise SandboxError(lacking[0])
    _library.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # when the thread that started this process ends
    sizes = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    landlock.restrict(read=installation())
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _BUILDER_FILES)
    return sizes


def confine_calls(sizes: int, *, memory_mib: int, seconds: int) -> None:
    """Complete the builder's confinement: after all that it needs was imported, before a byte of the job is read.

    Args:
        sizes: What `confine_files` returned.
        memory_mib: What it may take from now on, MiB.
        seconds: Processor time from now on; whoever started it counts the time on the wall.

    Raises:
        SandboxError: this machine cannot, and nothing may be run here.
    """
    pages = int(os.pread(sizes, 64, 0).split()[0])
    os.close(sizes)
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + memory_mib * _MIB)
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds + 1)
    _limit(resource.RLIMIT_NPROC, 0)
    seccomp.install(seccomp.builder_program(platform.machine(), os.getpid()))


def confine_worker(folder: Path, rights: WorkerRights) -> tuple[str, ...]:
    """Confine the worker, while it has one thread and has read nothing.

    Args:
        folder: Its own, the only one where it may write.
        rights: What it may have besides.

    Returns:
        What this machine lacks; the worker runs with what there is, its code being ours.

    Raises:
        SandboxError: the kernel offers it and then refuses.
    """
    _limit(resource.RLIMIT_CORE, 0)  # a core would hold rows
    _limit(resource.RLIMIT_DATA, rights.memory_mib * _MIB)
    if not landlock.missing():
        read = [*installation(), *map(Path, rights.read)]
        read += map(Path, _NETWORK if rights.network else ())
        read += map(Path, _GPU if rights.gpu else ())
        devices = [Path("/dev/null"), *(Path("/dev").glob("nvidia*") if rights.gpu else ())]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        landlock.restrict(read=read, write=[folder], devices=devices, network=rights.network)
    if not seccomp.missing():
        seccomp.install(seccomp.worker_program(platform.machine(), os.getpid(), network=rights.network))
    return available()


def _limit(what: int, value: int) -> None:
    _, most = resource.getrlimit(what)
    if most != resource.RLIM_INFINITY:
        value = min(value, most)
    resource.setrlimit(what, (value, value))
