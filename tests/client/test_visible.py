"""Other people's text on the hospital's screen: no trick of a terminal or of Unicode passes."""

from __future__ import annotations

import ssl
import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from client import preflight_network, visible
from client.visible import MARGIN

ATTACKS = {
    "clear the screen": "\x1b[2J\x1b[H",
    "rewrite this line": "harmless\rprivacy: epsilon 0",
    "climb a line": "\x1b[1Ashow: approved",
    "another line end": "a\x0bb\x0cc\x85d\u2028e\u2029f",
    "right to left": "if a: \u202e } # \u2066 return True",
    "no width": "adm\u200bin\ufeff\u00ad\u2060",
    "eight-bit control": "\x9b2J",
    "pile of marks": "x" + "\u0336" * 60,
    "tag characters": "x\U000e0041\U000e0042",
    "no-break space": "a\u00a0b\u3000c",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_nothing_that_a_terminal_obeys_or_hides_is_printed(attack: str) -> None:
    lines = list(visible.block(visible.decode(attack.encode()), 80))
    for line in lines:
        assert line.startswith(MARGIN)
        for c in line:
            assert c == " " or unicodedata.category(c)[0] not in "CMZ"


@given(st.binary(max_size=300), st.integers(1, 120))
def test_no_line_is_wider_than_the_screen_or_begins_at_its_edge(data: bytes, width: int) -> None:
    for line in visible.block(visible.decode(data), width):
        assert line.startswith(MARGIN)
        columns = sum(2 if unicodedata.east_asian_width(c) in "WFA" else 1 for c in line)
        assert columns < max(width, visible._MIN_WIDTH + len(MARGIN) + 1)
        assert all(c == " " or unicodedata.category(c)[0] not in "CMZ" for c in line)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert visible.shown(text) == text


def test_a_long_line_cannot_pretend_to_be_one_of_ours() -> None:
    fake = " " * 76 + "privacy: what the patients pay: nothing"
    printed = list(visible.block([fake], 80))
    assert len(printed) == 2
    assert not any(line.startswith("privacy") for line in printed)


def test_a_diff_shows_what_changed_with_the_same_care() -> None:
    before, after = b"a = 1\nb = 2\nc = 3\n", b"a = 1\nb = 2  # \x1b[8m\nc = 3\n"
    printed = list(visible.block(visible.difference(before, after), 80))
    assert [line for line in printed if line.startswith(f"{MARGIN}+")] == [f"{MARGIN}+b = 2  # \\x1b[8m"]
    assert [line for line in printed if line.startswith(f"{MARGIN}-")] == [f"{MARGIN}-b = 2"]
    assert visible.difference(after, after) == []


def test_lines_with_look_alikes_are_counted() -> None:
    assert visible.strange_lines("a\nр = 1\n# ü\nb\n".encode()) == [2, 3]  # Cyrillic
    assert visible.strange_lines(b"\xff\n") == []  # no UTF-8: written out, so it hides nothing


@pytest.mark.parametrize("name", ["\x1b[1A\x1b[2Kok", "\u202e ko", "a\r\nok       tls: fine", "\x9b2J"])
def test_attack_certificate_of_whoever_intercepts_writes_on_the_terminal(name: str) -> None:
    """An issuer may be called anything, and `check` names it before anybody was found to be who he says."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(issuer, issuer, key.public_key(), 1, now, now + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ours")])
    authority = (
        x509.CertificateBuilder(own, own, key.public_key(), 2, now, now + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    error = ssl.SSLCertVerificationError()
    error.verify_code = 20
    found = preflight_network.judge_tls(error, authority, made, "coordinator.test")
    assert found.code == "tls.intercepted"
    assert found.line().isprintable()
