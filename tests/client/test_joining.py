"""Joining at the member's side: what is checked before anything is sent, signed or written; attacks by name."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from client import charter_check, config, doorstep, join_command, settings_file
from client.errors import InterceptedError, JoiningError, LocalStateError, UnreachableError
from client.joining import FILE, Joining, new_keys
from coordinator.tls import ensure_tls
from ledger import canonical, envelope, example
from ledger.errors import LedgerError
from ledger.joining import CODE_SIZE, Deposit, Invitation, groups
from ledger.log import Log
from ledger.records import Amendment, Charter
from ledger.source import open_source

INVITATION = Invitation(
    address="coordinator.test:8443", authority="0" * 64, code="ab" * CODE_SIZE, name="alpha", role="hospital",
    origin=example.ORIGIN, expires_at=2_000_000_000, charter="", size=0, root="",
)  # fmt: skip
ALPHA = next(m for m in example.charter().terms.members if m.name == "alpha")
NODE = new_keys(INVITATION, "", b"").deposited.node
DEPOSIT = Deposit(
    origin=example.ORIGIN, invitation="0" * 64, name="alpha", role="hospital", key=ALPHA.key, witness=ALPHA.witness,
    node=NODE,
)  # fmt: skip


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return ensure_tls(tmp_path_factory.mktemp("tls"), [], datetime.now(UTC)).authority.read_bytes()


def fingerprint(pem: bytes) -> str:
    certificate = x509.load_pem_x509_certificate(pem)
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def shows(content: bytes, status: int = 200) -> httpx.MockTransport:
    return httpx.MockTransport(lambda _: httpx.Response(status, content=content))


# --- the first connection ---


def test_the_authority_that_the_invitation_names(authority: bytes) -> None:
    wanted = replace(INVITATION, authority=fingerprint(authority))
    assert doorstep.fetch_authority(wanted, "", shows(authority)).strip() == authority.strip()


@pytest.mark.parametrize("shown", [b"", b"<html>", b"x" * 20_000, "another"])
def test_attack_intercepted_tls_shows_another_authority(
    authority: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: bytes | str
) -> None:
    content = shown if isinstance(shown, bytes) else authority
    real = doorstep.fetch_authority
    monkeypatch.setattr("client.joining.fetch_authority", lambda i, proxy: real(i, proxy, shows(content)))
    folder = tmp_path / "alpha"
    joining = Joining(folder, lambda line: None, lambda charter: True)
    with pytest.raises((InterceptedError, UnreachableError)) as caught:
        joining.run(INVITATION, "")
    assert "\n" not in str(caught.value)
    if shown == "another":
        assert "opens TLS" in str(caught.value)
    assert not folder.exists()


def test_attack_nothing_is_sent_over_a_connection_that_was_not_checked(authority: bytes) -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, content=authority)

    with pytest.raises(InterceptedError):
        doorstep.fetch_authority(INVITATION, "", httpx.MockTransport(answer))
    assert [(r.method, r.url.path, r.content) for r in sent] == [("GET", "/api/authority", b"")]
    assert INVITATION.code not in str(sent[0].headers) + str(sent[0].url)


def test_the_code_is_in_a_header_and_never_in_an_address(authority: bytes) -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"phase": "joining"})

    door = doorstep.Doorstep(INVITATION, authority, "", httpx.MockTransport(answer))
    door.standing()
    door.close()
    assert sent[0].headers["wardround-invitation"] == INVITATION.code
    assert INVITATION.code not in str(sent[0].url)


@pytest.mark.parametrize(
    ("status", "content", "error"),
    [
        (403, b'{"error": "no\\u001b[2J such\\ninvitation"}', JoiningError),
        (409, b'{"error": "x"}', JoiningError),
        (429, b'{"error": "slow"}', UnreachableError),
        (503, b'{"error": "later"}', UnreachableError),
        (200, b"[]", UnreachableError),
        (200, b"\xff", UnreachableError),
        (502, b"<html>", UnreachableError),
    ],
)
def test_every_refusal_is_one_printable_line(
    authority: bytes, status: int, content: bytes, error: type[Exception]
) -> None:
    door = doorstep.Doorstep(INVITATION, authority, "", shows(content, status))
    with pytest.raises(error) as caught:
        door.standing()
    door.close()
    assert str(caught.value).isprintable()


# --- the charter before it is signed ---


def changed(**terms: Any) -> Charter:
    charter = example.charter()
    return replace(charter, terms=replace(charter.terms, **terms))


def test_the_right_charter_may_be_signed() -> None:
    charter_check.require_mine(example.charter(), DEPOSIT)
    shown = "".join("".join(charter_check.describe(example.charter())).split())
    assert example.charter().digest() in shown


FORGED: dict[str, tuple[Callable[[], Charter], str]] = {
    "my key replaced": (
        lambda: changed(
            members=tuple(
                replace(m, key="cd" * 32) if m.name == "alpha" else m for m in example.charter().terms.members
            )
        ),
        "own keys",
    ),
    "left out": (
        lambda: changed(members=tuple(m for m in example.charter().terms.members if m.name != "alpha")),
        "own keys",
    ),
    "another consortium's": (
        lambda: replace(example.charter(), origin="elsewhere.example/log"),
        "invitation of",
    ),
    "a quorum too small": (lambda: changed(quorum=1), "breaks a rule"),
    "rules of the future": (lambda: changed(rules=99), "breaks a rule"),
}


@pytest.mark.parametrize("name", FORGED)
def test_attack_forged_charter_is_not_signed(name: str) -> None:
    make, said = FORGED[name]
    with pytest.raises(JoiningError, match=said):
        charter_check.require_mine(make(), DEPOSIT)


def test_a_digest_compared_in_part_is_not_enough() -> None:
    digest = example.charter().digest()
    spoken = " ".join(groups(digest))
    assert charter_check.agrees(digest, spoken)
    assert charter_check.agrees(digest, digest[: charter_check.COMPARED].upper())
    assert not charter_check.agrees(digest, digest[: charter_check.COMPARED - 1])
    assert not charter_check.agrees(digest, "")
    assert not charter_check.agrees(digest, digest[:-1] + ("0" if digest[-1] != "0" else "1"))


ADMISSION = Amendment(
    origin=example.ORIGIN, replaces=1, add=(DEPOSIT.member,), remove=(), rotate=(), revoke=(), max_dishonest=1,
    quorum=4, log="", rules=1,
)  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{"remove": ("bravo",)}, {"revoke": ("cd" * 32,)}, {"add": ()}, {"origin": "elsewhere.example/log"}],
)
def test_attack_newcomer_is_given_another_amendment_to_sign(changes: dict[str, Any]) -> None:
    charter_check.require_admission(ADMISSION, DEPOSIT)
    with pytest.raises(JoiningError, match="sign nothing"):
        charter_check.require_admission(replace(ADMISSION, **changes), DEPOSIT)


class Shows:
    """A door behind which somebody answers the same to everything."""

    def __init__(self, **answer: object) -> None:
        self._answer = answer

    def deposit(self, data: bytes) -> dict[str, object]:
        return self._answer

    def standing(self) -> dict[str, object]:
        raise KeyboardInterrupt  # enough was seen


def followed(folder: Path, invitation: Invitation, **answer: object) -> list[str]:
    """Go on with a joining whose coordinator answers so; return what was said."""
    said: list[str] = []
    joining = Joining(folder, said.append, lambda charter: True)
    folder.mkdir(exist_ok=True)
    with suppress(KeyboardInterrupt):
        joining._follow(new_keys(invitation, "", b""), cast(doorstep.Doorstep, Shows(**answer)))
    return said


def test_attack_whom_the_invitation_gives_a_charter_is_shown_another_one(tmp_path: Path) -> None:
    record = base64.b64encode(example.charter().to_bytes()).decode()
    invitation = replace(INVITATION, charter="ab" * 32, size=1, root="cd" * 32)
    with pytest.raises(JoiningError, match="than the one that the invitation names"):
        followed(tmp_path / "alpha", invitation, phase="signing", record=record)
    assert not (tmp_path / "alpha" / FILE).exists()


@pytest.mark.parametrize(
    "answer",
    [
        {"phase": "joining", "problem": "\x1b[2Jall is well\x1b]0;fine\x07"},
        {"phase": "joining", "missing": ["bravo\x1b[8m", "\u202eecho"], "joined": ["\r\n  signed"]},
        {"phase": "signing", "signed": ["alpha", "\x9b2J"], "record": ""},
        {"phase": "voting", "signed": ["\x1b[1A"], "needed": "\x1b[2K"},
    ],
)
def test_attack_coordinator_writes_on_the_terminal_of_whoever_joins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: dict[str, object]
) -> None:
    monkeypatch.setattr("client.joining.WAITS", (0.0, 0.0))
    said = followed(tmp_path / "alpha", INVITATION, **answer)
    assert said
    assert all(line.isprintable() for line in said)


# --- the log before it is believed ---


def test_attack_coordinator_founds_another_charter_than_the_one_signed(tmp_path: Path) -> None:
    other = replace(example.charter(), founded_at=example.FOUNDED + 1)
    first = envelope.sign(other, *example.KEYS.values())
    Log.create(tmp_path / "log", first, [example.LOG_KEY], example.FOUNDED + 1).close()
    read = open_source(str(tmp_path / "log"))
    signed = example.charter().digest()
    with pytest.raises(JoiningError, match="not with the charter"):
        charter_check.verify_log(read, DEPOSIT, charter=signed, size=0, root="")
    assert charter_check.verify_log(read, DEPOSIT, charter=other.digest(), size=0, root="") == other.digest()
    with pytest.raises(JoiningError, match="another log"):  # a log that lost what the invitation knows
        charter_check.verify_log(read, DEPOSIT, charter=other.digest(), size=2, root="0" * 64)
    with pytest.raises(JoiningError, match="does not continue"):
        charter_check.verify_log(read, DEPOSIT, charter=other.digest(), size=1, root="0" * 64)
    stranger = replace(DEPOSIT, name="stranger")
    with pytest.raises(UnreachableError, match="not on the log yet"):
        charter_check.verify_log(read, stranger, charter=other.digest(), size=0, root="")


# --- the folder ---


def test_the_settings_explain_every_line_and_can_be_read(tmp_path: Path) -> None:
    text = settings_file.explained(
        role="hospital", name="alpha", coordinator="localhost:8443", authority="ca.pem",
        charter=example.charter().digest(), proxy="http://proxy.example:3128",
    )  # fmt: skip
    (tmp_path / config.FILE).write_text(text)
    found = config.load(tmp_path)
    assert (found.name, found.proxy, found.policy.approve) == ("alpha", "http://proxy.example:3128", "ask")
    settings = [line for line in text.splitlines() if " = " in line]
    assert settings
    assert all("  # " in line for line in settings)


def test_an_unfinished_joining_of_another_invitation_is_left_alone(tmp_path: Path) -> None:
    state = new_keys(INVITATION, "", b"")
    tmp_path.joinpath(FILE).write_bytes(canonical.dumps(canonical.plain(state)))
    joining = Joining(tmp_path, lambda line: None, lambda charter: True)
    with pytest.raises(JoiningError, match="another invitation"):
        joining.run(replace(INVITATION, code="cd" * CODE_SIZE), "")
    assert json.loads(tmp_path.joinpath(FILE).read_text())["invitation"] == INVITATION.to_text()
    tmp_path.joinpath(FILE).write_text("{}")
    with pytest.raises(LocalStateError, match="is damaged"):
        joining.run(INVITATION, "")


@pytest.mark.parametrize("given", ["nonsense", "wardround-invitation-1:AAAA", "/nowhere/at/all"])
def test_what_is_no_invitation_is_one_line(tmp_path: Path, given: str) -> None:
    with pytest.raises((JoiningError, LedgerError)) as caught:
        join_command.hospital(tmp_path / "alpha", given)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "alpha").exists()


def test_a_researchers_invitation_is_not_a_hospitals(tmp_path: Path) -> None:
    text = replace(INVITATION, role="researcher").to_text()
    with pytest.raises(JoiningError, match="wardround member join"):
        join_command.hospital(tmp_path / "alpha", text)
