"""Every fault that `wardround hospital check` can report, provoked: code -> what makes it, and what is then found."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import httpx
import pytest

from client import config
from client import preflight_data as data
from client import preflight_files as files
from client import preflight_keys as keys
from client import preflight_log as log
from client import preflight_machine as machine
from client.config import Hospital
from client.consortium import Consortium
from client.preflight_codes import Finding
from client.preflight_network import Target, judge_port, look
from client.standing import FILE as STANDING
from client.standing import Standing
from coordinator.tls import ensure_tls
from ledger import example
from ledger.store import PENDING
from tests.client import hospital_folder
from tests.client import preflight_servers as servers
from tests.client.fake_coordinator import FakeCoordinator
from tests.client.preflight_servers import NOW, serving

SECONDS = 0.3  # for a step of the network
MEMINFO = "MemTotal:       16384000 kB\nMemFree: 1 kB\nMemAvailable:   4096000 kB\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where a fault is provoked."""

    path: Path
    patch: pytest.MonkeyPatch

    def folder(self) -> Path:
        made = hospital_folder.write(self.path / "alpha")
        for part in (made, made / "keys"):
            part.chmod(0o700)
        for part in (*(made / "keys").iterdir(), made / "patients.csv"):
            part.chmod(0o600)
        return made


Provoke = Callable[[Bench], Iterable[Finding]]
FAULTS: dict[str, Provoke] = {}


def fault(code: str) -> Callable[[Provoke], Provoke]:
    """Enter a provocation."""

    def enter(provoke: Provoke) -> Provoke:
        assert code not in FAULTS
        FAULTS[code] = provoke
        return provoke

    return enter


# --- the folder ---


@fault("settings.wrong")
def _(bench: Bench) -> Iterable[Finding]:
    folder = hospital_folder.write(bench.path / "alpha", changes={"size_class": 63})
    return [files.judge_settings(files.observe_settings(folder))]


@fault("settings.sample")
def _(bench: Bench) -> Iterable[Finding]:
    folder = hospital_folder.write(bench.path / "alpha", changes={"name": "my-dataset"})
    settings = files.observe_settings(folder)
    assert isinstance(settings, Hospital)
    return files.judge_samples(settings)


def folder_with(change: Callable[[Path], object]) -> Provoke:
    def provoke(bench: Bench) -> Iterable[Finding]:
        folder = bench.folder()
        change(folder)
        return files.judge_folder(files.observe_folder(folder))

    return provoke


FAULTS["folder.open"] = folder_with(lambda folder: folder.chmod(0o755))
FAULTS["folder.writable"] = folder_with(lambda folder: (folder / "keys").chmod(0o770))


@fault("folder.owner")
def _(bench: Bench) -> Iterable[Finding]:
    seen = files.observe_folder(bench.folder())
    return files.judge_folder(replace(seen, owner=990, user=1000))


def key_with(change: Callable[[Path], object]) -> Provoke:
    def provoke(bench: Bench) -> Iterable[Finding]:
        folder = bench.folder()
        change(folder / "keys")
        return keys.judge_keys(keys.observe_keys(folder), folder.stat().st_uid)

    return provoke


FAULTS["keys.missing"] = key_with(lambda folder: (folder / "node.pem").unlink())
FAULTS["keys.open"] = key_with(lambda folder: (folder / "identity.key").chmod(0o640))
FAULTS["keys.kind"] = key_with(
    lambda folder: (folder / "witness.key").write_text(example.KEYS["alpha"].to_text())
)


@fault("keys.owner")
def _(bench: Bench) -> Iterable[Finding]:
    seen = keys.observe_keys(bench.folder())
    return keys.judge_keys((replace(seen[0], owner=1000), *(replace(s, owner=990) for s in seen[1:])), 990)


def authority_after(days: int) -> Provoke:
    def provoke(bench: Bench) -> Iterable[Finding]:
        pem = ensure_tls(bench.path / "tls", [], NOW - timedelta(days=days)).authority.read_bytes()
        [found] = [keys.judge_authority(pem, bench.path / "ca.pem", NOW)]
        return [replace(found, sentence=re.sub(r"\d{4}-\d\d-\d\d", "DATE", found.sentence))]

    return provoke


FAULTS["authority.expired"] = authority_after(3651)
FAULTS["authority.expires"] = authority_after(3640)
FAULTS["authority.wrong"] = lambda bench: [keys.judge_authority(b"x", bench.path / "ca.pem", NOW)]


@fault("person.waits")
def _(bench: Bench) -> Iterable[Finding]:
    folder = bench.folder()
    Standing(folder).ask_person("restored")
    return [files.judge_person(files.observe_person(folder))]


@fault("person.damaged")
def _(bench: Bench) -> Iterable[Finding]:
    folder = bench.folder()
    (folder / STANDING).write_text("{")
    return [files.judge_person(files.observe_person(folder))]


def copy_with(change: Callable[[Path], object], *, name: str = "alpha", charter: str = "") -> Provoke:
    """A hospital with a copy of the log, then `change` does its damage to the folder."""

    def provoke(bench: Bench) -> Iterable[Finding]:
        folder = bench.folder()
        FakeCoordinator(folder / "mirror").close()
        change(folder)
        hospital = config.load(folder)
        return files.judge_copy(files.observe_copy(hospital), name, charter or hospital.charter)

    return provoke


FAULTS["copy.damaged"] = copy_with(lambda folder: (folder / "mirror" / PENDING).write_text("?"))
FAULTS["copy.charter"] = copy_with(lambda folder: None, charter="c0" * 32)
FAULTS["copy.member"] = copy_with(lambda folder: None, name="northgate")
FAULTS["copy.key"] = copy_with(
    lambda folder: (folder / "keys" / "identity.key").write_text(example.KEYS["bravo"].to_text())
)


@fault("account.damaged")
def _(bench: Bench) -> Iterable[Finding]:
    (bench.path / "account.sqlite").write_bytes(b"x" * 5000)
    return [files.judge_account(bench.path / "account.sqlite")]


# --- the data ---


@fault("dictionary.wrong")
def _(bench: Bench) -> Iterable[Finding]:
    folder = bench.folder()
    (folder / "dictionary.json").write_text("{}")
    return [data.judge_dictionary(data.observe_dictionary(config.load(folder)))]


def data_with(change: Callable[[Path], object]) -> Provoke:
    def provoke(bench: Bench) -> Iterable[Finding]:
        folder = bench.folder()
        change(folder / "patients.csv")
        hospital = config.load(folder)
        found = data.observe_data(hospital, hospital_folder.DICTIONARY)
        return data.judge_data(found, hospital, data.observe_data_mode(hospital))

    return provoke


def lines(*more: str, count: int = hospital_folder.SIZE_CLASS) -> Callable[[Path], object]:
    return lambda file: file.write_text(hospital_folder.table([*hospital_folder.rows(count), *more]))


FAULTS["data.unusable"] = data_with(lines("x,40,1,7"))


@fault("data.mapping")
def _(bench: Bench) -> Iterable[Finding]:
    folder = bench.folder()
    (folder / "mapping.toml").write_text('[columns.sex]\nvalues = { f = "0", m = "1" }\n')
    text = "id,age,sex,num\n" + "".join(f"p{i},{40 + i},{'fmx'[i % 3]},{i % 2}\n" for i in range(64))
    (folder / "patients.csv").write_text(text)
    settings = folder / "hospital.toml"
    settings.write_text(settings.read_text().replace("[dataset]", '[dataset]\nmapping = "mapping.toml"'))
    hospital = config.load(folder)
    return data.judge_data(data.observe_data(hospital, hospital_folder.DICTIONARY), hospital, 0o600)


FAULTS["data.size-class"] = data_with(lines(count=20))
FAULTS["data.dropped"] = data_with(lines("x,old,1,1", "y,,0,1"))
FAULTS["data.clipped"] = data_with(lines("x,400,1,1"))
FAULTS["data.open"] = data_with(lambda file: file.chmod(0o644))


# --- the machine ---


@fault("disk.fails")
def _(bench: Bench) -> Iterable[Finding]:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    bench.patch.setattr(os, "fsync", fsync)
    seen = machine.observe_disk(bench.path)
    assert not list(bench.path.iterdir())
    return machine.judge_disk(seen, 0)


@fault("disk.full")
def _(bench: Bench) -> Iterable[Finding]:
    seen = machine.observe_disk(bench.path)
    needed = machine.needed_mib(config.load(bench.folder()))
    return machine.judge_disk(replace(seen, free_mib=100), needed)


def memory_with(memory_mib: int) -> Provoke:
    def provoke(bench: Bench) -> Iterable[Finding]:
        (bench.path / "proc").mkdir()
        (bench.path / "proc" / "meminfo").write_text(MEMINFO)
        limits = replace(config.load(bench.folder()).limits, memory_mib=memory_mib)
        return [machine.judge_memory(machine.observe_memory(bench.path), limits)]

    return provoke


FAULTS["memory.small"] = memory_with(20_000)
FAULTS["memory.busy"] = memory_with(8_192)


@fault("processors.few")
def _(bench: Bench) -> Iterable[Finding]:
    bench.patch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    limits = replace(config.load(bench.folder()).limits, threads=8)
    return [machine.judge_processors(machine.observe_processors(), limits)]


def version(name: str, **versions: str) -> str:
    if name not in versions:
        raise PackageNotFoundError(name)
    return versions[name]


FAULTS["software.missing"] = lambda bench: machine.judge_software(
    machine.observe_software(partial(version, flwr="1.41.0", torch="2.13.0+cpu"))
)
FAULTS["software.version"] = lambda bench: machine.judge_software(
    machine.observe_software(partial(version, flwr="1.41.0", opacus="1.6.0", torch="2.9.1"))
)


def torch_with(code: str, *, gpu: bool) -> Provoke:
    def provoke(bench: Bench) -> Iterable[Finding]:
        return [machine.judge_torch(machine.observe_torch((sys.executable, "-c", code), 30), gpu=gpu)]

    return provoke


FAULTS["torch.fails"] = torch_with(f"import os; os.kill(os.getpid(), {signal.SIGILL.value})", gpu=False)
FAULTS["torch.gpu"] = torch_with(
    'print(\'{"version": "2.13.0+cpu", "built_for": "", "gpus": []}\')', gpu=True
)
FAULTS["sandbox.missing"] = lambda bench: machine.judge_sandbox(["this kernel has no user namespaces"])


# --- the network ---


def network(
    bench: Bench,
    port: int,
    *,
    host: str = "127.0.0.1",
    proxy: str = "",
    authority: bytes = b"",
    now: float | None = None,
) -> list[Finding]:
    """Everything found on the way to a port, with ports replaced by PORT."""
    pem = authority or ensure_tls(bench.path / "tls", [], NOW).authority.read_bytes()
    target = Target(address=f"{host}:{port}", proxy=proxy, authority=pem, seconds=SECONDS)
    found = look(target, time.time if now is None else lambda: now or 0.0)
    return [
        replace(f, sentence=re.sub(r"(127\.0\.0\.[12]|255\.255\.255\.255):\d+", r"\1:PORT", f.sentence))
        for f in found
    ]


@fault("name.unknown")
def _(bench: Bench) -> Iterable[Finding]:
    def getaddrinfo(*_: object, **__: object) -> None:  # what a resolver says depends on where this runs
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    bench.patch.setattr(socket, "getaddrinfo", getaddrinfo)
    return network(bench, 1, host="coordinator.invalid")


@fault("name.silent")
def _(bench: Bench) -> Iterable[Finding]:
    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        time.sleep(2 * SECONDS)
        return []

    bench.patch.setattr(socket, "getaddrinfo", getaddrinfo)
    return network(bench, 1, host="coordinator.invalid")


FAULTS["port.refused"] = lambda bench: network(bench, servers.closed_port())
FAULTS["port.route"] = lambda bench: network(bench, 1, host="255.255.255.255")
FAULTS["port.failed"] = lambda bench: [
    judge_port(OSError(errno.EPERM, os.strerror(errno.EPERM)), "127.0.0.1:PORT", proxy=False)
]


@fault("port.silent")
def _(bench: Bench) -> Iterable[Finding]:
    with servers.full_backlog() as port:
        return network(bench, port)


def proxy_that(talk: servers.Talk) -> Provoke:
    def provoke(bench: Bench) -> Iterable[Finding]:
        with serving(talk) as port:
            return network(bench, 1, proxy=f"http://127.0.0.1:{port}")

    return provoke


FAULTS["proxy.unreachable"] = lambda bench: network(
    bench, 1, proxy=f"http://127.0.0.1:{servers.closed_port()}"
)
FAULTS["proxy.password"] = proxy_that(servers.proxying(407))
FAULTS["proxy.forbidden"] = proxy_that(servers.proxying(403))
FAULTS["proxy.answer"] = proxy_that(lambda line: line.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"))


@fault("tls.intercepted")
def _(bench: Bench) -> Iterable[Finding]:
    ours = ensure_tls(bench.path / "tls", [], NOW)
    theirs = servers.inspection_files(bench.path / "inspection")
    with (
        serving(servers.http(), servers.server_context(ours)) as real,
        serving(servers.intercepting(real), servers.server_context(theirs)) as port,
    ):
        return network(bench, port)


def tls_of(made: timedelta, host: str = "127.0.0.1") -> Provoke:
    """A coordinator whose certificates were made so long after now."""

    def provoke(bench: Bench) -> Iterable[Finding]:
        tls = ensure_tls(bench.path / "made", [], NOW + made)
        with serving(servers.http(), servers.server_context(tls), host) as port:
            found = network(bench, port, host=host, authority=tls.authority.read_bytes())
        return [replace(f, sentence=re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", f.sentence)) for f in found]

    return provoke


FAULTS["tls.expired"] = tls_of(timedelta(days=-500))
FAULTS["tls.early"] = tls_of(timedelta(days=2))
FAULTS["tls.name"] = tls_of(timedelta(0), "127.0.0.2")


@fault("tls.authority")
def _(bench: Bench) -> Iterable[Finding]:
    other = ensure_tls(bench.path / "other", [], NOW)
    with serving(servers.http(), servers.server_context(other)) as port:
        return network(bench, port)


def answered_by(talk: servers.Talk, context: Callable[..., ssl.SSLContext] | None = None) -> Provoke:
    def provoke(bench: Bench) -> Iterable[Finding]:
        tls = ensure_tls(bench.path / "tls", [], NOW)
        with serving(talk, context(tls) if context else None) as port:
            return network(bench, port)

    return provoke


FAULTS["tls.version"] = answered_by(servers.http(), servers.old_context)
FAULTS["tls.none"] = answered_by(servers.closing)
FAULTS["tls.silent"] = answered_by(servers.silent)
FAULTS["service.other"] = answered_by(servers.http(404, "no such page"), servers.server_context)
FAULTS["service.waits"] = answered_by(
    servers.http(body='{"status": "read-only", "reason": "the log waits for a quorum of its witnesses"}'),
    servers.server_context,
)
FAULTS["service.down"] = answered_by(servers.http(503), servers.server_context)
FAULTS["clock.unknown"] = answered_by(servers.http(), servers.server_context)


def clock_off(seconds: int) -> Provoke:
    def provoke(bench: Bench) -> Iterable[Finding]:
        tls = ensure_tls(bench.path / "tls", [], NOW)
        with serving(servers.http(date=1_800_000_000), servers.server_context(tls)) as port:
            return network(bench, port, now=1_800_000_000.0 + seconds)

    return provoke


FAULTS["clock.off"] = clock_off(-60)
FAULTS["clock.wrong"] = clock_off(600)


def log_with(change: Callable[[FakeCoordinator], object], *, charter: str = "", later: int = 0) -> Provoke:
    def provoke(bench: Bench) -> Iterable[Finding]:
        coordinator = FakeCoordinator(bench.path / "log")
        change(coordinator)
        shown = log.observe_log(coordinator.door)
        now = coordinator.now + later
        coordinator.close()
        return log.judge_log(shown, charter or example.charter().digest(), now)

    return provoke


def unfinished(coordinator: FakeCoordinator) -> None:
    (coordinator.folder.path / "checkpoint").unlink()


FAULTS["checkpoint.none"] = log_with(unfinished)
FAULTS["checkpoint.old"] = log_with(lambda coordinator: None, later=4 * 3600)
FAULTS["charter.other"] = log_with(lambda coordinator: None, charter="c0" * 32)


@fault("service.refused")
def _(bench: Bench) -> Iterable[Finding]:
    authority = ensure_tls(bench.path / "tls", [], NOW).authority.read_bytes()
    refuse = httpx.MockTransport(lambda request: httpx.Response(403, json={"error": "no member's key"}))
    shown = log.observe_log(lambda: Consortium("127.0.0.1:1", authority, transport=refuse))
    return log.judge_log(shown, "c0" * 32, 0)
