"""Which system calls the builder of a job's model may make, and which the worker may not: numbers by architecture.

The builder has a list of what is allowed: its pipe, memory, the clock, its own end. Everything else
is refused, and what no model needs by any mistake (a connection, a process, another process's memory) ends it. The
worker is our own code with libraries of many kinds, so it has a list of what is refused. Numbers are the kernel's:
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

ABSENT = -1  # the architecture has no such call
NUMBERS: dict[str, tuple[int, int]] = {  # name: (x86_64, aarch64)
    "bpf": (321, 280), "brk": (12, 214), "chroot": (161, 51),
    "clock_getres": (229, 114), "clock_gettime": (228, 113), "clock_nanosleep": (230, 115),
    "clone": (56, 220), "clone3": (435, 435), "close": (3, 57), "add_key": (248, 217),
    "delete_module": (176, 106), "dup": (32, 23), "execve": (59, 221), "execveat": (322, 281),
    "exit": (60, 93), "exit_group": (231, 94), "finit_module": (313, 273), "fork": (57, ABSENT),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430), "fstat": (5, 80), "futex": (202, 98),
    "getcwd": (79, 17), "getegid": (108, 177), "geteuid": (107, 175),
    "getgid": (104, 176), "getpid": (39, 172), "getrandom": (318, 278), "getrlimit": (97, 163),
    "getrusage": (98, 165), "gettid": (186, 178), "gettimeofday": (96, 169), "getuid": (102, 174),
    "init_module": (175, 105), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425), "kcmp": (312, 272), "kexec_file_load": (320, 294), "kexec_load": (246, 104),
    "keyctl": (250, 219), "kill": (62, 129), "lseek": (8, 62), "madvise": (28, 233),
    "mmap": (9, 222), "mount": (165, 40), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "mprotect": (10, 226), "mremap": (25, 216), "munmap": (11, 215),
    "nanosleep": (35, 101), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41), "poll": (7, ABSENT), "ppoll": (271, 73), "pread64": (17, 67),
    "process_madvise": (440, 440), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "ptrace": (101, 117), "read": (0, 63),
    "readv": (19, 65), "reboot": (169, 142), "request_key": (249, 218), "rseq": (334, 293),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigqueueinfo": (129, 138),
    "rt_sigreturn": (15, 139), "rt_tgsigqueueinfo": (297, 240), "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124), "set_robust_list": (273, 99), "setns": (308, 268), "sigaltstack": (131, 132),
    "socket": (41, 198), "socketpair": (53, 199),
    "swapoff": (168, 225), "swapon": (167, 224), "tgkill": (234, 131),
    "tkill": (200, 130), "umount2": (166, 39), "uname": (63, 160), "unshare": (272, 97),
    "userfaultfd": (323, 282), "vfork": (58, ABSENT), "write": (1, 64), "writev": (20, 66),
}  # fmt: skip

# Whoever makes one of these means harm, or is a library that has no place here.
SYSTEM = (
    "bpf", "chroot", "delete_module", "add_key", "execve", "execveat", "finit_module", "fork", "fsconfig",
    "fsmount", "fsopen", "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup", "kcmp",
    "kexec_file_load", "kexec_load", "keyctl", "mount", "mount_setattr", "move_mount",
    "open_by_handle_at", "open_tree", "perf_event_open", "pidfd_getfd", "pidfd_open", "pidfd_send_signal",
    "pivot_root", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace", "reboot",
    "request_key", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "setns", "swapoff", "swapon", "tkill", "umount2",
    "unshare", "userfaultfd", "vfork",
)  # fmt: skip
NETWORK = ("socket", "socketpair")

# All that building a model needs once everything is imported. No file is named any more: what a call says of a path
# that it may not open (is it there, how large is it) could still be told in a refusal's code.
BUILDER = (
    "brk", "clock_getres", "clock_gettime", "clock_nanosleep", "close", "dup", "exit", "exit_group", "fstat",
    "futex", "getcwd", "getegid", "geteuid", "getgid", "getpid", "getrandom", "getrlimit", "getrusage", "gettid",
    "gettimeofday", "getuid", "lseek", "madvise", "mmap", "mprotect", "mremap", "munmap", "nanosleep", "poll",
    "ppoll", "pread64", "read", "readv", "rseq", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
    "sched_getaffinity", "sched_yield", "set_robust_list", "sigaltstack", "uname", "write", "writev",
)  # fmt: skip
