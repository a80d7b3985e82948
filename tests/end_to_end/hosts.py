"""Where a deployment's processes run: all on this machine's loopback, or each on a host of its own.

Separate hosts are network namespaces on one bridge, which is in a namespace too: nothing of this machine's own
network is touched. Each has its firewall: a hospital's drops everything inbound, the coordinator's all but its one
port, both count what they drop; a confined host's also drops what goes out to anything but that one port. Names are
resolved by a hosts file of each namespace; only IPv4 is spoken. Needs root, `ip` and `nft`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120  # for one command
STOP_SECONDS = 20
NETWORK = "198.51.100"  # TEST-NET-2: these addresses exist nowhere else
SWITCH = "switch"
_NAMES = Path("/etc/netns")


def obstacle() -> str:
    """Return why there can be no separate hosts here, or ""."""
    if missing := [tool for tool in ("ip", "nft") if shutil.which(tool) is None]:
        return f"separate hosts need {' and '.join(missing)}: install iproute2 and nftables"
    if os.geteuid() != 0:
        return "separate hosts need root, to make network namespaces"
    tried = subprocess.run(["ip", "netns", "add", f"wr{os.getpid()}"], capture_output=True, text=True)
    if tried.returncode:
        return f"this kernel gives no network namespaces: {tried.stderr.strip()}"
    _ip("netns", "del", f"wr{os.getpid()}")
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A place where commands are typed."""

    name: str
    address: str  # how others reach it
    prefix: tuple[str, ...] = ()  # put before every command
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(
        self, *arguments: str | Path, log: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `wardround` with these arguments; its output goes to a file."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "wardround", *map(str, arguments)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_QUIET, **self.environment, **(environment or {})},
                start_new_session=True,
            )

    def wardround(self, *arguments: str | Path, status: int = 0, typed: str = "") -> str:
        """Type one `wardround` command to its end; return what it printed, or its error where one is expected."""
        command = [sys.executable, "-m", "wardround", *map(str, arguments)]
        done = self.run(*command, typed=typed)
        said = f"wardround {' '.join(map(str, arguments))}: {done.stderr[-3000:]}{done.stdout[-1000:]}"
        assert done.returncode == status, said
        assert "Traceback" not in done.stderr, said
        return done.stdout if status == 0 else done.stderr

    def converse(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a `wardround` command that is answered while it runs, by pipes."""
        return subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "wardround", *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **_QUIET, **self.environment, "PYTHONUNBUFFERED": "1"},
        )

    def run(self, *command: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        """Run any command to its end."""
        return subprocess.run(
            [*self.prefix, *command],
            cwd=ROOT,
            input=typed,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env={**os.environ, **_QUIET, **self.environment},
        )


_QUIET = {"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0", "COLUMNS": "200"}


def stop(process: subprocess.Popen[bytes]) -> int:
    """End a process that `start` started, as a service manager would; return its exit status."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        kill(process)
        return process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    """End it and all that it started, without a word: what a power cut leaves."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def one_machine(names: Sequence[str]) -> dict[str, Host]:
    """Return hosts that are all this machine."""
    return {name: Host(name=name, address="localhost") for name in names}


@contextmanager
def separate(
    names: Sequence[str], *, serving: str, port: int, confined: Sequence[str] = ()
) -> Iterator[dict[str, Host]]:
    """Yield one host for each name, on one network; all is gone at the end.

    Args:
        names: Of the hosts, at most 200.
        serving: The one that others may connect to.
        port: Its only open TCP port.
        confined: Hosts that can begin no connection but to that port.
    """
    with ExitStack() as stack:
        tag = f"wr{os.getpid()}"
        switch = f"{tag}-{SWITCH}"
        _ip("netns", "add", switch)
        stack.callback(_ip, "netns", "del", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, start=1)}
        resolved = "".join(f"{address} {name}.test\n" for name, address in addresses.items())
        hosts = {}
        for number, name in enumerate(names, start=1):
            space = f"{tag}-{number}"
            _ip("netns", "add", space)
            stack.callback(_ip, "netns", "del", space)
            _connect(space, switch, number, addresses[name])
            _name(space, resolved)
            stack.callback(shutil.rmtree, _NAMES / space, ignore_errors=True)
            only = (addresses[serving], port) if name in confined else None
            firewall(space, port if name == serving else None, only=only)
            hosts[name] = Host(name=name, address=f"{name}.test", prefix=("ip", "netns", "exec", space))
        yield hosts


def firewall(space: str, port: int | None, *, only: tuple[str, int] | None = None) -> None:
    """Drop everything inbound that answers nothing of our own, but for one port where there is one.

    Args:
        space: The namespace.
        port: The TCP port that is open to others.
        only: The one address and TCP port that may be connected to from here; None: all may.
    """
    opened = f"tcp dport {port} accept" if port else ""
    rules = f"""
table inet wardround {{
  chain input {{
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established,related accept
    {opened}
    counter comment "dropped"
  }}
}}
"""
    if only:
        rules += f"""
table inet wardround {{
  chain output {{
    type filter hook output priority 0; policy drop;
    oif lo accept
    ct state established,related accept
    ip daddr {only[0]} tcp dport {only[1]} accept
    counter comment "dropped"
  }}
}}
"""
    subprocess.run(
        ["ip", "netns", "exec", space, "nft", "-f", "-"],
        input=rules,
        text=True,
        check=True,
        capture_output=True,
    )


def dropped(host: Host, chain: str = "input") -> int:
    """Return how many packets a host's firewall has dropped so far: inbound, or `output`, where it is confined."""
    listed = host.run("nft", "list", "chain", "inet", "wardround", chain).stdout
    line = next(line for line in listed.splitlines() if "counter packets" in line)
    return int(line.split("packets")[1].split()[0])


def cut(host: Host) -> None:
    """Unplug a host's network."""
    _ip("-n", host.prefix[-1], "link", "set", "uplink", "down")


def mend(host: Host) -> None:
    """Plug it in again."""
    _ip("-n", host.prefix[-1], "link", "set", "uplink", "up")


def _connect(space: str, switch: str, number: int, address: str) -> None:
    _ip("-n", space, "link", "set", "lo", "up")
    port = f"port{number}"
    _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "uplink", "netns", space)
    _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
    _ip(
        "netns", "exec", space, "sysctl", "-qw", "net.ipv6.conf.uplink.disable_ipv6=1"
    )  # its chatter is no attempt
    _ip("-n", space, "addr", "add", f"{address}/24", "dev", "uplink")
    _ip("-n", space, "link", "set", "uplink", "up")


def _name(space: str, resolved: str) -> None:
    folder = _NAMES / space
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{resolved}")
    (folder / "resolv.conf").write_text("")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
