"""The coordinator's folder, its port, its start and its end; the status page and the commands."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from client.models import ModelSettings, build
from coordinator import cli, config, evidence_cli, layouts, public_port, service, status, status_page
from coordinator.back_office import BackOffice
from coordinator.config import CoordinatorConfig
from coordinator.errors import CoordinatorError, JobError
from ledger import envelope, example
from ledger.durable import write_private
from ledger.log import Log
from ledger.values import Setting
from tests.coordinator.public_port import signature
from tests.coordinator.ward import Ward, sha


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A coordinator's folder as founding leaves it."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "nodes").mkdir()
    for name, key in (("log", example.LOG_KEY), ("coordinator", example.KEYS["coordinator"])):
        write_private(tmp_path / "keys" / f"{name}.key", key.to_text().encode())
    (tmp_path / "coordinator.toml").write_text(f"port = {free_port()}\n")
    charter = envelope.sign(example.charter(), *example.KEYS.values())
    Log.create(tmp_path / "log", charter, [example.LOG_KEY], example.FOUNDED).close()
    return tmp_path


# --- settings ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "state the port"),
        ("port = 0", "port must be"),
        ("port = 70000", "port must be"),
        ('port = "8443"', "port must be"),
        ("port = true", "port must be"),
        ("port = 8443\nround_seconds = 0", "round_seconds must be"),
        ("port = 8443\nhost = 5", "host must be"),
        ("port = 8443\nprot = 1", "unknown setting 'prot'"),
        ("port = ", "not TOML"),
        ("\udcff", "not TOML"),
    ],
)
def test_wrong_settings_are_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "coordinator.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CoordinatorError, match=said) as caught:
        config.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CoordinatorError, match="cannot read"):
        config.load(tmp_path / "nowhere")


def test_only_the_port_has_to_be_stated(folder: Path) -> None:
    found = config.load(folder)
    assert (found.host, found.public_name, found.round_seconds) == ("127.0.0.1", "localhost", 60)
    assert found.url == f"https://127.0.0.1:{found.port}"
    assert replace(found, host="::1").url == f"https://[::1]:{found.port}"


def test_key_that_others_may_read_is_refused_and_never_shown(folder: Path) -> None:
    path = folder / "keys" / "log.key"
    path.chmod(0o644)
    with pytest.raises(CoordinatorError, match="others may read"):
        config.read_key(path)
    path.chmod(0o600)
    secret = path.read_text().replace("A", "B", 1)
    path.write_text(secret)
    with pytest.raises(CoordinatorError) as caught:
        config.read_key(path)
    assert secret[20:60] not in str(caught.value)
    write_private(path, example.WITNESSES["alpha"].to_text().encode())
    with pytest.raises(CoordinatorError, match="witness's key"):
        config.read_key(path)


# --- the service ---


@contextmanager
def quiet_office(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A back office without Flower; signal handlers as they were, afterwards."""

    def work(self: BackOffice) -> None:
        self.sequencer.wait(lambda standing: False)

    monkeypatch.setattr(BackOffice, "_work", work)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def first_status(folder: Path) -> dict[str, Any]:
    """What a service that is about to start shows, once it does."""
    for _ in range(200):
        with suppress(CoordinatorError):
            return status_page.fetch(str(folder), None)
        threading.Event().wait(0.05)
    raise AssertionError("it never answered")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_service_answers_until_a_signal_and_then_ends_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    events: list[Mapping[str, object]] = []
    shown: list[dict[str, Any]] = []

    def visit() -> None:
        try:
            shown.append(first_status(folder))
        finally:
            os.kill(os.getpid(), number)

    with quiet_office(monkeypatch):
        visitor = threading.Thread(target=visit)
        visitor.start()
        service.run(config.load(folder), events.append)
        visitor.join()
    assert [e["event"] for e in events] == ["serving", "stopped"]
    assert shown[0]["log"]["size"] == 1
    assert "waits for its witnesses" in "\n".join(status_page.lines(shown[0]))
    with Log.open(folder / "log", [example.LOG_KEY]):
        pass  # the log was closed
    with pytest.raises(CoordinatorError, match="no coordinator answers"):
        status_page.fetch(str(folder), None)


def test_a_stop_ends_long_polls_and_uploads_and_nothing_half_made_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, answers = config.load(folder), []
    content = b"x" * 100_000
    sent = threading.Event()

    def ask(method: str, target: str, body: bytes = b"") -> None:
        context = ssl.create_default_context(cafile=folder / "tls" / "ca.pem")
        signed = signature(method, target, example.KEYS["researcher"], body=body)
        head = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        length = f"content-length: {len(body)}\r\n" if body else ""
        request = f"{method} {target} HTTP/1.1\r\nhost: localhost\r\n{head}{length}\r\n".encode()
        with (
            socket.create_connection(("127.0.0.1", settings.port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(request + body[:1000])
            sent.set()
            with suppress(OSError):
                answers.append(connection.recv(65536)[:15])

    def visit() -> None:
        threads = []
        try:
            first_status(folder)
            wait = ("GET", "/log/checkpoint.pending?above=99&wait=30")
            for parts in (wait, ("PUT", f"/api/blobs/{sha(content)}?kind=code", content)):
                threads.append(threading.Thread(target=ask, args=parts))
                threads[-1].start()
                assert sent.wait(20)
                sent.clear()
            while not any((folder / "uploads").glob("*/*")):  # until the upload is under way
                threading.Event().wait(0.05)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            for thread in threads:
                thread.join()

    with quiet_office(monkeypatch):
        monkeypatch.setattr(public_port, "GRACE_SECONDS", 1)
        visitor = threading.Thread(target=visit)
        visitor.start()
        service.run(settings, lambda event: None)
        visitor.join()
    assert b"HTTP/1.1 200 OK" in answers  # of the long poll, at once
    assert list((folder / "blobs" / "incoming").iterdir()) == []
    assert list((folder / "uploads").glob("*/*")) == []
    with Log.open(folder / "log", [example.LOG_KEY]):
        pass


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_stranger_in_the_middle_of_a_handshake_does_not_hold_up_the_stop(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    settings = config.load(folder)
    with quiet_office(monkeypatch), socket.socket() as stranger:

        def visit() -> None:
            try:
                first_status(folder)
                stranger.connect(("127.0.0.1", settings.port))
                stranger.sendall(said)
                first_status(folder)  # whoever comes later is answered, so the stranger has been let in
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        visitor = threading.Thread(target=visit)
        visitor.start()
        service.run(settings, lambda event: None)
        visitor.join()
        stranger.settimeout(20)
        with suppress(ConnectionError):
            assert stranger.recv(1) == b""  # hung up on


def test_port_in_use_is_one_clear_line_and_nothing_is_started(folder: Path) -> None:
    settings = config.load(folder)
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", settings.port))
        other.listen()
        with pytest.raises(CoordinatorError, match="cannot listen on") as caught:
            service.run(settings, lambda event: None)
    assert "\n" not in str(caught.value)
    assert not (folder / "tls").exists()
    assert not (folder / "flower").exists()


def test_key_of_somebody_else_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(folder / "keys" / "coordinator.key", example.KEYS["alpha"].to_text().encode())
    with quiet_office(monkeypatch), pytest.raises(CoordinatorError, match="not the coordinator's key"):
        service.run(config.load(folder), lambda event: None)


def test_failure_behind_the_port_ends_the_service_with_its_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet_office(monkeypatch):

        def work(self: BackOffice) -> None:
            raise JobError("the SuperLink ended while starting")

        monkeypatch.setattr(BackOffice, "_work", work)
        with pytest.raises(CoordinatorError, match="ended while starting"):
            service.run(config.load(folder), lambda event: None)


def test_second_coordinator_of_one_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    settings = CoordinatorConfig(directory=folder, port=free_port())
    with (
        Log.open(folder / "log", [example.LOG_KEY]),
        pytest.raises(Exception, match="in use by another process"),
    ):
        service.run(settings, lambda event: None)


# --- commands ---


@pytest.mark.parametrize("app", [cli.app, evidence_cli.app], ids=["coordinator", "evidence"])
def test_every_command_has_help_with_an_example(app: typer.Typer) -> None:
    commands = [info.callback for info in app.registered_commands]
    assert commands
    for command in commands:
        assert command is not None
        assert re.search(r"Example: wardround \w+ " + command.__name__, command.__doc__ or "")
    assert "Example: wardround" in str(app.info.help)


def test_status_in_plain_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ward = Ward(tmp_path)
    ward.propose()
    ward.approve("alpha")
    found = status.status(ward.sequencer.standing, {}, {}, {ward.job.digest(): "model.py is not here"})
    monkeypatch.setattr(status_page, "fetch", lambda where, authority, key: found)
    text = CliRunner().invoke(cli.app, ["status", str(tmp_path)]).output
    assert "proposed, 0 of 3 rounds" in text
    assert "model.py is not here" in text
    assert "answered: alpha of alpha, bravo, charlie" in text


# --- layouts ---


@pytest.mark.parametrize(
    ("name", "features", "hidden"),
    [
        ("logistic-regression", (13,), ()),
        ("logistic-regression", (30,), ()),
        ("mlp", (30,), (64, 32)),
        ("mlp", (7,), (5,)),
        ("mlp", (7,), (9, 8, 4)),
        ("small-cnn", (1, 28, 28), ()),
    ],
)
def test_layouts_are_those_of_the_models_that_hospitals_build(
    name: str, features: tuple[int, ...], hidden: tuple[int, ...]
) -> None:
    module = build(ModelSettings(name=name, input_shape=features, hidden=hidden or (64, 32)))
    named = tuple((key, tuple(p.shape)) for key, p in module.named_parameters())
    total = sum(p.numel() for p in module.parameters())
    widths = tuple(Setting(name=f"hidden-{i}", value=str(w)) for i, w in enumerate(hidden, start=1))
    job = example.job()
    training = replace(job.training, model=name, parameters=total, settings=widths)
    assert layouts.layout(replace(job, training=training)) == named
    wrong = replace(training, parameters=total + 1)
    if name != "logistic-regression":  # which has one more parameter for one more feature
        with pytest.raises(JobError, match="parameters"):
            layouts.layout(replace(job, training=wrong))
