"""Envelopes: DSSE's own vector, one spelling, every flipped bit refused, sizes."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import canonical, envelope, example, records
from ledger.envelope import (
    PAYLOAD_TYPE,
    assemble,
    check_signatures,
    open_entry,
    pae,
    parse_entry,
    public_hex,
    sign,
)
from ledger.errors import MalformedError, VerificationError
from ledger.signature import SigningKey
from ledger.values import LeftOut
from tests.ledger.consortium import Consortium

quick = settings(max_examples=100, deadline=None)
TICK = records.Tick(origin=example.ORIGIN, time=example.FOUNDED)
ALPHA, BRAVO = example.KEYS["alpha"], example.KEYS["bravo"]


def encoding(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, for any type."""
    return b" ".join(
        [b"DSSEv1", b"%d" % len(payload_type), payload_type.encode(), b"%d" % len(payload), payload]
    )


def test_pae_vector_of_the_dsse_specification() -> None:
    assert encoding("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    for payload in (b"hello world", b"", TICK.to_bytes(), bytes(70_000)):
        assert pae(payload) == encoding(PAYLOAD_TYPE, payload)


def test_one_signature() -> None:
    entry = open_entry(sign(TICK, ALPHA))
    assert entry.record == TICK
    assert entry.payload == TICK.to_bytes()
    assert entry.digest == TICK.digest()
    assert entry.signers == {public_hex(ALPHA)}
    assert ALPHA.verifier.accepts(pae(entry.payload), entry.signatures[public_hex(ALPHA)])


def test_several_signatures_in_one_order() -> None:
    data = sign(TICK, ALPHA, BRAVO)
    assert data == sign(TICK, BRAVO, ALPHA)
    assert open_entry(data).signers == {public_hex(ALPHA), public_hex(BRAVO)}
    apart = {k: s for key in (ALPHA, BRAVO) for k, s in open_entry(sign(TICK, key)).signatures.items()}
    assert assemble(TICK, apart) == data


def test_one_wrong_signature_among_several() -> None:
    good = parse_entry(sign(TICK, ALPHA, BRAVO)).signatures
    for name in (ALPHA, BRAVO):
        data = assemble(TICK, {**good, public_hex(name): ALPHA.sign_bytes(b"something else")})
        with pytest.raises(VerificationError, match="signature of key"):
            open_entry(data)


def test_signature_of_another_key_and_of_another_record() -> None:
    with pytest.raises(VerificationError):
        open_entry(assemble(TICK, {public_hex(BRAVO): ALPHA.sign_bytes(pae(TICK.to_bytes()))}))
    later = replace(TICK, time=TICK.time + 1)
    with pytest.raises(VerificationError):
        open_entry(assemble(later, parse_entry(sign(TICK, ALPHA)).signatures))
    with pytest.raises(VerificationError):  # signed without DSSE's encoding
        open_entry(assemble(TICK, {public_hex(ALPHA): ALPHA.sign_bytes(TICK.to_bytes())}))


def test_a_key_that_is_no_point() -> None:
    for key in ("02" + "00" * 31, "ff" * 32):
        with pytest.raises(VerificationError):
            open_entry(assemble(TICK, {key: bytes(64)}))


@pytest.mark.parametrize("signers", [("alpha",), ("alpha", "bravo")], ids=len)
def test_every_flipped_bit_is_refused(signers: tuple[str, ...]) -> None:
    data = sign(TICK, *(example.KEYS[name] for name in signers))
    for bit in range(8 * len(data)):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises((MalformedError, VerificationError)):
            open_entry(bytes(altered))


@quick
@given(st.binary() | st.binary().map(lambda b: b'{"payload":"' + b))
def test_any_bytes_are_an_entry_or_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_entry(data)


@quick
@given(st.integers(0, 600), st.binary(max_size=4), st.integers(0, 4))
def test_a_spliced_entry_is_refused(at: int, put: bytes, cut: int) -> None:
    data = sign(TICK, ALPHA)
    altered = data[:at] + put + data[at + cut :]
    if altered != data:
        with pytest.raises((MalformedError, VerificationError)) as caught:
            open_entry(altered)
        assert "\n" not in str(caught.value)


def wire(**changes: Any) -> bytes:
    return canonical.dumps({**json.loads(sign(TICK, ALPHA)), **changes})


def signature(**changes: Any) -> list[Any]:
    return [{**json.loads(sign(TICK, ALPHA))["signatures"][0], **changes}]


def respelled(text: str) -> str:
    """Base64 of the same bytes, with a spare bit set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = text.rstrip("=")[-1]
    other = text.replace(
        last + "=" * text.count("="), alphabet[alphabet.index(last) + 1] + "=" * text.count("=")
    )
    assert base64.b64decode(other) == base64.b64decode(text)
    return other


SIG = signature()[0]["sig"]
TICK_TEXT = base64.b64encode(TICK.to_bytes()).decode()
WRONG = {
    "no signatures": wire(signatures=[]),
    "signatures unsorted": wire(signatures=sorted(json.loads(sign(TICK, ALPHA, BRAVO))["signatures"],
                                                  key=lambda s: str(s["keyid"]), reverse=True)),
    "a signature twice": wire(signatures=signature() * 2),
    "another payload type": wire(payloadType="application/json"),
    "an unknown field": wire(more=1),
    "an unknown field of a signature": wire(signatures=signature(more=1)),
    "keyid in capitals": wire(signatures=signature(keyid=public_hex(ALPHA).upper())),
    "keyid too short": wire(signatures=signature(keyid="00")),
    "63 bytes": wire(signatures=signature(sig=base64.b64encode(bytes(63)).decode())),
    "65 bytes": wire(signatures=signature(sig=base64.b64encode(bytes(65)).decode())),
    "no base64": wire(signatures=signature(sig="*" * 88)),
    "base64 with spare bits": wire(signatures=signature(sig=respelled(SIG))),
    "base64 without padding": wire(signatures=signature(sig=SIG.rstrip("="))),
    "base64 with a newline": wire(signatures=signature(sig=SIG[:40] + "\n" + SIG[40:])),
    "base64 for URLs": wire(signatures=signature(sig=base64.urlsafe_b64encode(b"\xff" * 64).decode())),
    "base64 not ASCII": wire(signatures=signature(sig="é" + SIG[1:])),
    "payload with a newline": wire(payload=TICK_TEXT[:4] + "\n" + TICK_TEXT[4:]),
    "payload is not a record": wire(payload=base64.b64encode(b"{}").decode()),
    "payload in another spelling": wire(payload=base64.b64encode(TICK.to_bytes() + b" ").decode()),
    "space in the envelope": sign(TICK, ALPHA).replace(b'","sig"', b'", "sig"'),
    "a newline at the end": sign(TICK, ALPHA) + b"\n",
    "a list": b"[]",
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_refused(name: str) -> None:
    with pytest.raises(MalformedError):
        parse_entry(WRONG[name])


def large(receipts: int) -> records.Receipt:
    """A receipt with many mechanisms."""
    c = Consortium.founded()
    c.offer("alpha", "bravo")
    made = c.receipt("alpha", c.run("alpha", "bravo"))
    return replace(made, mechanisms=(example.TRAINING,) * receipts)


def test_a_receipt_has_at_most_4_kib() -> None:
    sizes = [len(assemble_unchecked(large(n), ALPHA)) for n in range(1, 30)]
    fits = max(n for n, size in enumerate(sizes, 1) if size <= 4096)
    assert parse_entry(sign(large(fits), ALPHA)).record == large(fits)
    with pytest.raises(MalformedError, match=r"a receipt entry has \d+ bytes where at most 4096"):
        sign(large(fits + 1), ALPHA)
    with pytest.raises(MalformedError, match=r"a receipt entry has \d+ bytes where at most 4096"):
        parse_entry(assemble_unchecked(large(fits + 1), ALPHA))


def assemble_unchecked(record: records.Record, *keys: SigningKey) -> bytes:
    """An entry of any size."""
    payload = record.to_bytes()
    signatures = sorted((public_hex(k), base64.b64encode(k.sign_bytes(pae(payload))).decode()) for k in keys)
    return canonical.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": k, "sig": s} for k, s in signatures],
        }
    )


def test_another_record_fits_into_an_entry_bundle() -> None:
    def round_of(count: int) -> records.Round:
        out = tuple(LeftOut(hospital=f"hospital-{i:04}", code="unreachable") for i in range(count))
        return replace(example.round_(1, []), left_out=out)

    assert len(sign(round_of(870), ALPHA)) <= 65_535
    with pytest.raises(MalformedError, match=r"a round entry has \d+ bytes where at most 65535"):
        sign(round_of(1_000), ALPHA)
    with pytest.raises(MalformedError, match="at most 65535 are allowed"):
        parse_entry(assemble_unchecked(round_of(1_000), ALPHA))


def test_parsing_leaves_signatures_to_be_checked() -> None:
    entry = parse_entry(assemble(TICK, {public_hex(ALPHA): bytes(64)}))
    with pytest.raises(VerificationError):
        check_signatures(entry)
    assert envelope.parse_entry(sign(TICK, ALPHA)).data == sign(TICK, ALPHA)
