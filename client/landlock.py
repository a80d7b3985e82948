"""Which files this process may touch, enforced by the kernel for ever: Landlock, without root or a library.

A rule gives rights beneath one place; whatever has no rule is refused. A rule belongs to the file or folder that is
there when it is made: one put in its place later has none. Files that are open already stay open. Sources: the
kernel's Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from client.errors import SandboxError

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # of x86_64 and aarch64 alike
_VERSION = 1
_BENEATH = 1  # LANDLOCK_RULE_PATH_BENEATH
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
_ALL = (1 << 13) - 1  # what the first version knows
_SINCE = {2: _REFER, 3: _TRUNCATE, 5: _IOCTL}
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_READ = _READ_FILE | _READ_DIR
_WRITE = _ALL & ~_EXECUTE & ~(1 << 6) & ~(1 << 11) | _REFER | _TRUNCATE  # no character or block devices
_TCP = 3  # bind and connect, since version 4
_SCOPED = 3  # abstract sockets and signals of processes outside, since version 6
_NO_NEW_PRIVS = 38
_library = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Return the version of Landlock that the kernel offers; 0 where it offers none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_library.syscall(_CREATE, 0, 0, _VERSION)))


def missing() -> list[str]:
    """Return what keeps this machine from confining files, in plain words; nothing when it can."""
    if version():
        return []
    return [
        "the kernel has no Landlock: it needs Linux 5.13 or newer, and landlock among the modules of lsm="
    ]


def _attributes(offered: int, network: bool) -> tuple[bytes, int]:
    """Return `struct landlock_ruleset_attr` as this version of Landlock knows it, and the rights it handles."""
    handled = _ALL
    for since, right in _SINCE.items():
        handled |= right if offered >= since else 0
    parts = [handled]
    if offered >= 4:
        parts.append(0 if network else _TCP)
    if offered >= 6:
        parts.append(_SCOPED)
    return struct.pack(f"={len(parts)}Q", *parts), handled


def _add(ruleset: int, place: Path, rights: int) -> None:
    try:
        opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # nothing there: nothing to give rights to
    except OSError as error:
        raise SandboxError(f"cannot give rights to {place}: {error.strerror}") from None
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= _OF_A_FILE
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, opened), 12)
        if _library.syscall(_ADD, ruleset, _BENEATH, rule, 0) != 0:
            raise SandboxError(f"cannot give rights to {place}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(opened)


def restrict(
    *, read: Iterable[Path], write: Iterable[Path] = (), devices: Iterable[Path] = (), network: bool = False
) -> None:
    """Take from this thread, and from all that it starts, every right but these; there is no way back.

    Call it while the process has one thread.

    Args:
        read: Files and folders that may be read; what does not exist is left out.
        write: Folders beneath which files may be read, made, changed and removed.
        devices: Device files that may be read, written and controlled.
        network: Whether TCP connections stay allowed.

    Raises:
        SandboxError: the kernel refuses.
    """
    attributes, handled = _attributes(version(), network)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    ruleset = int(_library.syscall(_CREATE, buffer, len(attributes), 0))
    if ruleset < 0:
        raise SandboxError(f"the kernel refuses Landlock: {os.strerror(ctypes.get_errno())}")
    try:
        for place in read:
            _add(ruleset, place, _READ & handled)
        for place in write:
            _add(ruleset, place, (_READ | _WRITE) & handled)
        for place in devices:
            _add(ruleset, place, (_READ | _WRITE_FILE | _IOCTL) & handled)
        if _library.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or _library.syscall(_RESTRICT, ruleset, 0):
            raise SandboxError(f"the kernel refuses Landlock: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(ruleset)
