"""Signed notes and their keys: vectors, refusals, and one spelling for each note."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import LedgerError, MalformedError, VerificationError
from ledger.note import MAX_NOTE_SIZE, Note, open_note, sign_note
from ledger.signature import KeyType, Signature, SigningKey, VerifierKey
from tests.ledger.vectors import Case, cases, is_valid, known_key, load

quick = settings(max_examples=100, deadline=None)
LOG = known_key("ledger.example/fl-consortium")
OTHER = known_key("ledger.example/other")
WITNESS = known_key("alpha.hospital.example/witness")
TEXT = "ledger.example/fl-consortium\n257\nDTUxkHRyKXG+LY2dnQQ6bmzlzHm2RHLx7csbK+4eQLc=\n"
SIGNED = sign_note(TEXT, LOG)
LINE = SIGNED.signatures[0].to_line()

names = st.from_regex(r"[^\s+\x00-\x1f]+", fullmatch=True)
hexes = st.binary(min_size=4, max_size=4).map(bytes.hex)
base64s = st.binary(max_size=40).map(lambda data: base64.b64encode(b"\x01" + data).decode())
signatures = st.builds(
    Signature, name=names, key_id=st.binary(min_size=4, max_size=4), value=st.binary(min_size=1, max_size=80)
)
texts = st.text(st.characters(blacklist_categories=["Cs", "Cc"], whitelist_characters="\n")).map(
    lambda text: text + "\n"
)
notes = st.builds(Note, text=texts, signatures=st.lists(signatures, min_size=1, max_size=5).map(tuple))


@pytest.mark.parametrize("case", cases("notes"))
def test_note_vectors(case: Case) -> None:
    data = case["note"].encode()
    if not is_valid(case):
        with pytest.raises(LedgerError):
            open_note(data, [VerifierKey.from_text(vkey) for vkey in case["vkeys"]])
        return
    opened = open_note(data, [VerifierKey.from_text(vkey) for vkey in case["vkeys"]])
    assert opened.text == case["note"].rpartition("\n\n")[0] + "\n"
    assert Note.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize("case", [pytest.param(key, id=key["name"]) for key in load("keys")["keys"]])
def test_key_vectors(case: Case) -> None:
    key = SigningKey(
        name=case["name"], type=KeyType(int(case["type"], 16)), seed=bytes.fromhex(case["seed_hex"])
    )
    assert key.verifier.to_text() == case["vkey"]
    assert key.verifier.key_id.hex() == case["key_id_hex"]
    assert key.verifier.public.hex() == case["public_hex"]
    assert VerifierKey.from_text(case["vkey"]) == key.verifier
    assert SigningKey.from_text(key.to_text()) == key


def test_signing_matches_the_vector_made_in_go() -> None:
    case = next(c for c in load("notes")["cases"] if c["name"] == "unknown signature beside a known one")
    assert sign_note(TEXT, OTHER, LOG).to_bytes().decode() == case["note"]


def test_empty_lines_in_the_text_belong_to_it() -> None:
    text = "first\n\n\nlast\n\n"
    note = Note.from_bytes(sign_note(text, LOG).to_bytes())
    assert open_note(note, [LOG.verifier]).text == text


MALFORMED: dict[str, Callable[[str], str]] = {
    "no text": lambda d: d.partition("\n\n")[2],
    "no signature": lambda d: d.partition("— ")[0],
    "no final newline": lambda d: d[:-1],
    "empty line at the end": lambda d: d + "\n",
    "line that is no signature": lambda d: d + "hello\n",
    "hyphen for the dash": lambda d: d.replace("— ", "- "),
    "two spaces": lambda d: d.replace("consortium Rk", "consortium  Rk"),
    "space at the end": lambda d: d[:-1] + " \n",
    "name with a plus": lambda d: d.replace("— ledger", "— led+ger"),
    "name with a Unicode space": lambda d: d.replace("— ledger", "— led\u2003ger"),
    "tab in the text": lambda d: "\t" + d,
    "zero byte in the text": lambda d: "\0" + d,
    "carriage return": lambda d: d.replace("\n257", "\r\n257"),
    "no padding": lambda d: d.replace("=\n", "\n"),
    "spare bits in base64": lambda d: d.replace("fg0=\n", "fg1=\n"),
    "URL-safe base64": lambda d: d[:-88] + d[-88:].replace("/", "_").replace("+", "-"),
    "newline in base64": lambda d: d[:-20] + "\n" + d[-20:],
    "only a key ID": lambda d: d + "— x YWJjZA==\n",
    "no base64": lambda d: d + "— x\n",
}
MALFORMED_KEYS: dict[str, Callable[[str], str]] = {
    "upper-case key ID": lambda v: v.replace("46454e6b", "46454E6B"),
    "another key ID": lambda v: v.replace("46454e6b", "46454e6c"),
    "short key ID": lambda v: v.replace("46454e6b", "46454e"),
    "no name": lambda v: v[v.index("+") :],
    "name with a space": lambda v: "my " + v,
    "trailing newline": lambda v: v + "\n",
    "trailing plus": lambda v: v + "+",
    "no key": lambda v: v[: v.rindex("+") + 1],
    "short key": lambda v: v[:-4],
    "type 0x02": lambda v: v.replace("+AU", "+Ak"),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_notes_are_refused(change: Callable[[str], str]) -> None:
    wrong = change(SIGNED.to_bytes().decode())
    assert wrong.encode() != SIGNED.to_bytes()
    with pytest.raises(MalformedError):
        open_note(wrong.encode(), [LOG.verifier])


@pytest.mark.parametrize("wrong", [b"\xff" + SIGNED.to_bytes(), b"\xed\xa0\x80" + SIGNED.to_bytes()])
def test_notes_that_are_not_utf8_are_refused(wrong: bytes) -> None:
    with pytest.raises(MalformedError):
        Note.from_bytes(wrong)


def test_a_huge_note_is_refused_unread() -> None:
    with pytest.raises(MalformedError, match="longer"):
        Note.from_bytes(b"a" * MAX_NOTE_SIZE + SIGNED.to_bytes())


@pytest.mark.parametrize(("count", "accepted"), [(16, True), (100, True), (101, False)])
def test_number_of_signatures(count: int, accepted: bool) -> None:
    data = (TEXT + "\n" + LINE * count).encode()
    if accepted:
        assert len(open_note(data, [LOG.verifier]).verified) == count
    else:
        with pytest.raises(MalformedError):
            open_note(data, [LOG.verifier])


def test_bad_second_line_of_a_known_key_rejects_the_note() -> None:
    """A verifier that skips further lines of a key it has seen would let this one pass."""
    good = SIGNED.signatures[0]
    bad = replace(good, value=bytes([good.value[0] ^ 1]) + good.value[1:])
    for lines in ((good, bad), (bad, good)):
        with pytest.raises(VerificationError):
            open_note(Note(text=TEXT, signatures=lines), [LOG.verifier])


@pytest.mark.parametrize("keys", [[], [OTHER.verifier]], ids=["no keys", "another log's key"])
def test_a_note_without_a_known_signature_is_refused(keys: list[VerifierKey]) -> None:
    with pytest.raises(VerificationError, match="not signed"):
        open_note(SIGNED, keys)


def test_a_line_with_a_known_name_but_another_id_is_unknown() -> None:
    stranger = replace(SIGNED.signatures[0], key_id=bytes(4))
    opened = open_note(Note(text=TEXT, signatures=(stranger, *SIGNED.signatures)), [LOG.verifier])
    assert opened.unknown == (stranger,)


def test_a_line_with_a_known_id_but_another_name_is_unknown() -> None:
    stranger = replace(SIGNED.signatures[0], name="ledger.example/stranger")
    with pytest.raises(VerificationError, match="not signed"):
        open_note(Note(text=TEXT, signatures=(stranger,)), [LOG.verifier])


def test_two_keys_with_one_name_and_id_are_refused() -> None:
    twin = replace(OTHER.verifier, name=LOG.name)
    object.__setattr__(twin, "key_id", LOG.verifier.key_id)  # a collision takes 2**32 tries
    with pytest.raises(MalformedError, match="two keys"):
        open_note(SIGNED, [LOG.verifier, twin])


@quick
@given(st.integers(0, 8 * len(SIGNED.to_bytes()) - 1))
def test_every_flipped_bit_of_a_note_is_noticed(bit: int) -> None:
    data = bytearray(SIGNED.to_bytes())
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(LedgerError):
        open_note(bytes(data), [LOG.verifier])


@quick
@given(notes)
def test_notes_are_read_back(note: Note) -> None:
    assert Note.from_bytes(note.to_bytes()) == note


@quick
@given(st.binary() | st.binary().map(lambda junk: TEXT.encode() + b"\n" + junk + LINE.encode() + junk))
def test_any_bytes_are_a_note_or_refused(data: bytes) -> None:
    try:
        note = Note.from_bytes(data)
    except MalformedError:
        return
    assert note.to_bytes() == data


@quick
@given(
    st.text() | st.builds("{}{}+{}+{}".format, st.sampled_from(["", "PRIVATE+KEY+"]), names, hexes, base64s)
)
def test_any_text_is_a_key_or_refused(text: str) -> None:
    for parse in (VerifierKey.from_text, SigningKey.from_text):
        try:
            key = parse(text)
        except MalformedError:
            continue
        assert key.to_text() == text


@pytest.mark.parametrize("change", MALFORMED_KEYS.values(), ids=MALFORMED_KEYS.keys())
def test_malformed_vkeys_are_refused(change: Callable[[str], str]) -> None:
    wrong = change(LOG.verifier.to_text())
    assert wrong != LOG.verifier.to_text()
    with pytest.raises(MalformedError):
        VerifierKey.from_text(wrong)


def test_a_signing_key_shows_its_seed_only_when_asked() -> None:
    assert LOG.seed.hex() not in repr(LOG)
    assert str(LOG.seed) not in repr(LOG)
    wrong = LOG.to_text().replace("46454e6b", "00000000")
    with pytest.raises(MalformedError) as raised:
        SigningKey.from_text(wrong)
    assert wrong[-20:] not in str(raised.value)


def test_a_cosigner_needs_a_time() -> None:
    with pytest.raises(MalformedError, match="time"):
        sign_note(TEXT, WITNESS)


def test_a_line_is_added_once() -> None:
    cosigned = sign_note(TEXT, WITNESS, time=5).signatures
    note = SIGNED.with_signatures(*cosigned).with_signatures(*cosigned)
    assert note.signatures == (*SIGNED.signatures, *cosigned)


@pytest.mark.parametrize("text", ["", "no newline", "bell\a\n", "\ud800\n"])
def test_texts_that_no_note_can_hold_are_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        Note(text=text, signatures=SIGNED.signatures)
