"""A filter of system calls that the kernel applies to this process for ever: seccomp, without root or a library.

The filter is a small program for the kernel's own interpreter (classic BPF over `struct seccomp_data`; the kernel's
Documentation/userspace-api/seccomp_filter.rst). It looks at the architecture first, so that no second numbering of
the calls can be used to get round it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence

from client.errors import SandboxError
from client.system_calls import ABSENT, BUILDER, NETWORK, NUMBERS, SYSTEM

_ARCHITECTURES = {
    "x86_64": (0, 0xC000003E, 317),
    "aarch64": (1, 0xC00000B7, 277),
}  # column, AUDIT_ARCH, seccomp
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000  # SECCOMP_RET_KILL_PROCESS, ...
_SET_MODE_FILTER, _GET_ACTION_AVAIL, _TSYNC = 1, 2, 1
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # offsets in seccomp_data; the low half of the argument: little-endian
_X32 = 0x40000000
_THREAD = 0x00010000  # CLONE_THREAD
_NO_NEW_PRIVS = 38
_library = ctypes.CDLL(None, use_errno=True)


def _refuse(number: int) -> int:
    return _ERRNO | number


def missing() -> list[str]:
    """Return what keeps this machine from filtering system calls, in plain words; nothing when it can."""
    if sys.platform != "linux":
        return ["system calls are filtered on Linux only"]
    if platform.machine() not in _ARCHITECTURES or struct.calcsize("P") != 8 or sys.byteorder != "little":
        return [f"no list of system calls for the processor {platform.machine()}: use x86_64 or aarch64"]
    action = ctypes.c_uint32(_KILL)
    number = _ARCHITECTURES[platform.machine()][2]
    if _library.syscall(number, _GET_ACTION_AVAIL, 0, ctypes.byref(action)) != 0:
        return ["the kernel has no seccomp filters: it needs CONFIG_SECCOMP_FILTER"]
    return []


class _Program:
    """The filter as it is written, rule by rule; the first rule that fits decides."""

    def __init__(self, machine: str) -> None:
        self._column, audit, _ = _ARCHITECTURES[machine]
        self._code: list[tuple[int, int, int, int]] = []
        self._add(_LOAD, _ARCH)
        self._add(_EQUAL, audit, 1, 0)
        self._add(_RETURN, _KILL)
        self._add(_LOAD, _NR)
        if machine == "x86_64":
            self._add(_AT_LEAST, _X32, 0, 1)
            self._add(_RETURN, _KILL)

    def _add(self, code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        self._code.append((code, if_true, if_false, value))

    def decide(self, names: Sequence[str], action: int) -> None:
        for name in names:
            if (number := NUMBERS[name][self._column]) != ABSENT:
                self._add(_EQUAL, number, 0, 1)
                self._add(_RETURN, action)

    def decide_by_argument(self, name: str, test: int, value: int, otherwise: int) -> None:
        """Allow a call whose first argument passes a test."""
        self._add(_EQUAL, NUMBERS[name][self._column], 0, 4)
        self._add(_LOAD, _FIRST_ARGUMENT)
        self._add(test, value, 0, 1)
        self._add(_RETURN, _ALLOW)
        self._add(_RETURN, otherwise)

    def to_bytes(self, default: int) -> bytes:
        return b"".join(struct.pack("=HBBI", *line) for line in (*self._code, (_RETURN, 0, 0, default)))


def builder_program(machine: str, pid: int) -> bytes:
    """Return the filter for code that nobody trusts: what is not listed is refused, an attack ends the process."""
    made = _Program(machine)
    made.decide(BUILDER, _ALLOW)
    made.decide((*SYSTEM, *NETWORK), _KILL)
    for name in ("kill", "tgkill"):
        made.decide_by_argument(name, _EQUAL, pid, _KILL)
    return made.to_bytes(_refuse(errno.EPERM))


def worker_program(machine: str, pid: int, *, network: bool) -> bytes:
    """Return the filter for our own code: no process, no program, no other process's memory, and no connection."""
    made = _Program(machine)
    made.decide(SYSTEM if network else (*SYSTEM, *NETWORK), _refuse(errno.EPERM))
    made.decide(("clone3",), _refuse(errno.ENOSYS))  # the C library then takes clone, whose flags can be read
    made.decide_by_argument("clone", _ANY_BIT, _THREAD, _refuse(errno.EPERM))
    for name in ("kill", "tgkill"):
        made.decide_by_argument(name, _EQUAL, pid, _refuse(errno.EPERM))
    return made.to_bytes(_ALLOW)


def install(program: bytes) -> None:
    """Put every thread of this process under a filter; there is no way back.

    Raises:
        SandboxError: the kernel refuses.
    """
    _, _, number = _ARCHITECTURES[platform.machine()]
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, six bytes of padding, and where they are
    frame = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(code))
    if _library.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or _library.syscall(
        number, _SET_MODE_FILTER, _TSYNC, ctypes.create_string_buffer(frame, len(frame))
    ):
        raise SandboxError(
            f"the kernel refuses the filter of system calls: {os.strerror(ctypes.get_errno())}"
        )
