"""A hardened systemd unit for a service of either side, and what the service tells systemd while it runs.

Follows systemd.service(5), systemd.exec(5), systemd.syntax(7) and sd_notify(3). `render` is pure. What a service
may do is stated by the side that it belongs to; everything else is forbidden here, in one place.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ledger.errors import MalformedError, StorageError

SAFE = frozenset(string.ascii_letters + string.digits + "_./=,:@+-")
HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 - what is hidden
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_WRITTEN = "# Written by `"
STOPPED, PERSON, USAGE, TEMPORARY = 0, 1, 2, 75  # exit statuses; the last is EX_TEMPFAIL of sysexits(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What one service needs."""

    description: str
    written_by: str  # the command that writes the unit
    command: tuple[str, ...]
    user: str
    folder: Path  # absolute; where it works and writes
    writes: tuple[Path, ...] = ()  # other folders that it writes to
    reads: tuple[Path, ...] = ()  # what must stay visible where systemd would hide it
    devices: bool = False  # needs /dev, for a GPU
    listens: bool = False
    reloads: bool = False  # SIGHUP makes it read its settings again
    low_port: bool = False  # below 1024
    memory_mib: int = 0  # 0: not limited
    processors: int = 0
    tasks: int = 512


def render(service: Service) -> str:
    """Return the unit's text.

    Raises:
        MalformedError: a path is relative, or has a character that no unit can hold.
    """
    lines = [
        f"{_WRITTEN}{service.written_by}`; write it again after a change of the settings.",
        "[Unit]",
        f"Description={_plain(service.description)}",
        "Wants=network-online.target",
        "After=network-online.target nss-lookup.target time-sync.target",
        f"RequiresMountsFor={_path(service.folder)}",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        *_run(service),
        "",
        *_limits(service),
        "",
        *_files(service),
        "",
        *_forbidden(service),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _run(service: Service) -> Iterable[str]:
    return (
        "Type=notify",
        "NotifyAccess=main",
        f"User={_plain(service.user)}",
        f"ExecStart={_command(service.command)}",
        *(("ExecReload=/bin/kill -HUP $MAINPID",) if service.reloads else ()),
        f"WorkingDirectory={_plain(str(service.folder))}",
        "Restart=on-failure",
        "RestartSec=15s",
        f"# {PERSON}: a person must repair something; {USAGE}: wrong usage. After {TEMPORARY}, or a crash: again.",
        f"RestartPreventExitStatus={PERSON} {USAGE}",
        "TimeoutStartSec=15min",
        "TimeoutStopSec=30s",
        "KillMode=mixed",
        "# A worker that takes too much memory dies alone.",
        "OOMPolicy=continue",
    )


def _limits(service: Service) -> Iterable[str]:
    if service.memory_mib:
        yield f"MemoryMax={service.memory_mib}M"
        yield "MemorySwapMax=0"
    if service.processors:
        yield f"CPUQuota={100 * service.processors}%"
    yield f"TasksMax={service.tasks}"
    yield "# A core dump would hold rows and keys."
    yield "LimitCORE=0"


def _files(service: Service) -> Iterable[str]:
    writes = (service.folder, *service.writes)
    bound = [path for path in writes if _hidden(path)]
    shown = [path for path in dict.fromkeys(service.reads) if _hidden(path)]
    yield "UMask=0077"
    yield "ProtectSystem=strict"
    yield f"ReadWritePaths={' '.join(map(_path, writes))}"
    yield "PrivateTmp=yes"
    if bound or shown:
        yield "# Home directories are empty but for what is named here."
        yield "ProtectHome=tmpfs"
        if bound:
            yield f"BindPaths={' '.join(map(_bind, bound))}"
        if shown:
            yield f"BindReadOnlyPaths={' '.join(map(_bind, shown))}"
    else:
        yield "ProtectHome=yes"
    yield "ProtectProc=invisible"
    if not service.devices:
        yield "PrivateDevices=yes"
    else:
        yield "# The GPU's device files have no fixed names, so all devices stay visible."


def _forbidden(service: Service) -> Iterable[str]:
    capabilities = "CAP_NET_BIND_SERVICE" if service.low_port else ""
    yield "NoNewPrivileges=yes"
    yield f"CapabilityBoundingSet={capabilities}"
    yield f"AmbientCapabilities={capabilities}"
    for name in (
        "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups",
        "ProtectClock", "ProtectHostname", "LockPersonality", "RestrictNamespaces", "RestrictRealtime",
        "RestrictSUIDSGID", "RemoveIPC",
    ):  # fmt: skip
        yield f"{name}=yes"
    yield "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"
    if not service.listens:
        yield "# Outbound connections only: it can bind to no port."
        yield "SocketBindDeny=any"
    yield "# The last four are for the confinement of a job's own code."
    yield "SystemCallFilter=@system-service landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp"
    yield "SystemCallFilter=~@privileged @mount @swap @reboot @obsolete"
    yield "SystemCallErrorNumber=EPERM"
    yield "SystemCallArchitectures=native"
    yield "# IPAddressDeny=any takes addresses, not names. Where yours are fixed, add it with IPAddressAllow= for the"
    yield "# other end (or your proxy) and your name server."


def _hidden(path: Path) -> bool:
    return any(path.is_relative_to(place) for place in HIDDEN)


def _plain(text: str) -> str:
    """Return a value that is taken as it stands, specifiers apart."""
    if not text.isprintable() or text != text.strip() or text.endswith("\\"):
        raise MalformedError(f"{text!r} cannot be written into a systemd unit: rename it")
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    if set(text) <= SAFE:
        return text
    return '"' + _plain(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _command(words: tuple[str, ...]) -> str:
    """Return a command line: in its arguments, but not in the program's path, `$` begins a variable."""
    program, *arguments = map(_quoted, words)
    return " ".join((program, *(word.replace("$", "$$") for word in arguments)))


def _path(path: Path) -> str:
    if not path.is_absolute():
        raise MalformedError(f"{path} is not an absolute path")
    return _quoted(str(path))


def _bind(path: Path) -> str:
    """Return a path of BindPaths=, where a colon outside quotes separates source and destination."""
    return f'"{path}"' if ":" in str(path) and set(str(path)) <= SAFE else _path(path)


def command(*arguments: str, executable: Path) -> tuple[str, ...]:
    """Return the command that runs `wardround` by the interpreter of now, wherever the service works.

    Args:
        arguments: Of `wardround`.
        executable: The interpreter, `sys.executable`.
    """
    script = executable.parent / "wardround"
    # Not `-m` without -P: a file in the working directory must never be imported.
    start = (str(script),) if script.is_file() else (str(executable), "-P", "-m", "wardround")
    return (*start, *arguments)


def choose_user(folder: Path, name: str) -> str:
    """Return who a service runs as: the user that was named, or its folder's owner; never root.

    Raises:
        MalformedError: it would be root, there is no such user, or the folder is another one's.
        StorageError: there is no such folder.
    """
    try:
        owner = folder.stat().st_uid
        name = name or pwd.getpwuid(owner).pw_name
        found = pwd.getpwnam(name) if _USER.fullmatch(name) else None
    except OSError as error:
        raise StorageError(f"cannot read {folder}: {error.strerror}") from None
    except KeyError:
        found = None
    make = f"`useradd --system --shell /usr/sbin/nologin wardround`, `chown -R wardround {folder}`"
    if found is None:
        raise MalformedError(f"there is no user {name or owner} here: {make}, then --user wardround")
    if found.pw_uid == 0:
        raise MalformedError(f"a service does not run as root: {make}, then --user wardround")
    if found.pw_uid != owner:
        raise MalformedError(
            f"{folder} is not {name}'s, who could not read its keys: `chown -R {name} {folder}`"
        )
    return name


def put(text: str, out: Path) -> None:
    """Write a unit, over an older one but over no other file. Raises StorageError."""
    try:
        if out.exists() and not out.read_text(errors="replace").startswith(_WRITTEN):
            raise StorageError(f"{out} exists and is no unit written by wardround: name another file")
        out.write_text(text)
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror}") from None


def notify(state: str, environment: Mapping[str, str] = os.environ) -> None:
    """Tell systemd something, such as "READY=1"; without systemd, or if it does not listen, nothing happens."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        try:
            out.sendto(state.replace("\0", "").encode(), name)
        except OSError:
            return
