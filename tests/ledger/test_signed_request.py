"""Signed requests: the RFC's own vector, every changed byte, and one spelling of everything."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from ledger import example
from ledger.errors import LedgerError, MalformedError
from ledger.signed_request import (
    DIGEST,
    INPUT,
    SIGNATURE,
    Signed,
    Target,
    content_digest,
    parse_digest,
    sign,
    signature_base,
    signature_params,
    verify,
)

KEY = example.KEYS["alpha"]
NONCE = "0123456789abcdef" * 2
PATHS = st.from_regex(r"/[!\"$->@-~]{0,30}", fullmatch=True)
QUERIES = st.from_regex(r"[!\"$-~]{0,30}", fullmatch=True)
METHODS = st.sampled_from(["GET", "PUT", "POST", "DELETE"])


def target_of(headers: dict[str, str], method: str, path: str, query: str) -> Target:
    return Target(method=method, path=path, query=query, content_digest=headers.get(DIGEST, ""))


def checked(headers: dict[str, str], method: str, path: str, query: str) -> Signed:
    return verify(target_of(headers, method, path, query), headers[INPUT], headers[SIGNATURE])


def test_signature_of_the_rfc() -> None:  # RFC 9421 appendices B.1.4 and B.2.6
    pem = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF
-----END PRIVATE KEY-----
"""
    components = [
        ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("@method", "POST"),
        ("@path", "/foo"),
        ("@authority", "example.com"),
        ("content-type", "application/json"),
        ("content-length", "18"),
    ]
    params = signature_params(components, ';created=1618884473;keyid="test-key-ed25519"')
    base = signature_base(components, params)
    assert (
        base
        == b"""\
"date": Tue, 20 Apr 2021 02:07:55 GMT
"@method": POST
"@path": /foo
"@authority": example.com
"content-type": application/json
"content-length": 18
"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length")\
;created=1618884473;keyid="test-key-ed25519\""""
    )
    key = load_pem_private_key(pem, None)
    assert isinstance(key, Ed25519PrivateKey)
    made = base64.b64encode(key.sign(base)).decode()
    assert made == "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="


def test_digest_of_the_rfc() -> None:  # RFC 9530 appendix B.1: {"hello": "world"} and a newline
    header = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
    assert content_digest(hashlib.sha256(b'{"hello": "world"}\n').digest()) == header
    assert content_digest(parse_digest(header)) == header


@given(METHODS, PATHS, QUERIES, st.binary(max_size=40), st.integers(0, 10**14))
def test_what_was_signed_verifies(method: str, path: str, query: str, body: bytes, created: int) -> None:
    headers = sign(
        KEY,
        method=method,
        target=path + (f"?{query}" if query else ""),
        body=body,
        created=created,
        nonce=NONCE,
    )
    found = checked(headers, method, path, query)
    assert found == Signed(key=KEY.verifier.public.hex(), created=created, nonce=NONCE)
    assert (DIGEST in headers) == bool(body)
    if body:
        assert parse_digest(headers[DIGEST]) == hashlib.sha256(body).digest()


@given(st.data())
def test_any_changed_byte_of_the_request_fails(data: st.DataObject) -> None:
    parts = {"method": "PUT", "path": "/api/blobs/ab%20c", "query": "above=1&wait=2"}
    headers = sign(
        KEY,
        method="PUT",
        target="?".join(list(parts.values())[1:]),
        body=b"body",
        created=1_700_000_000,
        nonce=NONCE,
    )
    every = {**parts, **headers}
    name = data.draw(st.sampled_from(sorted(every)))
    place = data.draw(st.integers(0, len(every[name]) - 1))
    other = data.draw(st.characters(min_codepoint=1, max_codepoint=255))
    changed = every[name][:place] + other + every[name][place + 1 :]
    if changed == every[name]:
        return
    every[name] = changed
    with pytest.raises(LedgerError):
        checked({k: every[k] for k in headers}, every["method"], every["path"], every["query"])


@given(st.data())
def test_any_cut_or_lengthened_header_fails(data: st.DataObject) -> None:
    headers = sign(KEY, method="GET", target="/x", body=None, created=7, nonce=NONCE)
    name = data.draw(st.sampled_from([INPUT, SIGNATURE]))
    place = data.draw(st.integers(0, len(headers[name])))
    extra = data.draw(st.text(st.characters(max_codepoint=255), max_size=3))
    changed = headers[name][:place] + extra
    if changed == headers[name]:
        return
    with pytest.raises(LedgerError):
        checked({**headers, name: changed}, "GET", "/x", "")


def test_a_signature_without_the_body_does_not_cover_one() -> None:
    headers = sign(KEY, method="PUT", target="/x", body=None, created=7, nonce=NONCE)
    headers[DIGEST] = content_digest(hashlib.sha256(b"body").digest())
    with pytest.raises(MalformedError, match="does not cover"):
        checked(headers, "PUT", "/x", "")


@pytest.mark.parametrize(
    "spelling",
    [
        lambda text: text.replace("created=7", "created=07"),
        lambda text: text.replace("created=7", "created=+7"),
        lambda text: text.replace("created=7", "created=7.0"),
        lambda text: text.replace(";created", "; created"),
        lambda text: text.replace('"@method" ', '"@method"  '),
        lambda text: text.replace('"@method" "@path"', '"@path" "@method"'),
        lambda text: text.replace('"@method" ', ""),
        lambda text: text.replace(' "@query"', ""),
        lambda text: text.replace('"@query"', '"@query" "host"'),
        lambda text: text.replace(";alg", ";expires=9;alg"),
        lambda text: text.replace("ed25519", "hmac-sha256"),
        lambda text: text.replace('tag="wardround"', 'tag="other"'),
        lambda text: text.replace("wardround=(", "other=("),
        lambda text: re.sub('keyid="([0-9a-f]*)"', lambda found: found[0].upper().replace("KEYID", "keyid"), text),
        lambda text: text + ", " + text,
        lambda text: " " + text,
        lambda text: text + "\n",
        lambda text: "",
    ],
)  # fmt: skip
def test_second_spellings_and_other_profiles_are_malformed(spelling: object) -> None:
    headers = sign(KEY, method="GET", target="/x", body=None, created=7, nonce=NONCE)
    assert callable(spelling)
    with pytest.raises(MalformedError):
        checked({**headers, INPUT: spelling(headers[INPUT])}, "GET", "/x", "")


@pytest.mark.parametrize(
    "change",
    [
        *({"method": text} for text in ("get", "", "G T")),
        *(
            {"target": text}
            for text in ("x", "/ ", "/?", "/é", "/?a b", "/?a#b", "/#a", "/?a\n", "/" * 5000, "")
        ),
        *({"nonce": text} for text in ("1", NONCE.upper(), NONCE + "0")),
    ],
)
def test_what_cannot_be_signed_is_refused(change: dict[str, str]) -> None:
    parts = {"method": "GET", "target": "/x", "nonce": NONCE, **change}
    with pytest.raises(MalformedError):
        sign(KEY, method=parts["method"], target=parts["target"], body=None, created=7, nonce=parts["nonce"])


def test_a_key_that_is_none_is_wrong_not_a_crash() -> None:
    headers = sign(KEY, method="GET", target="/x", body=None, created=7, nonce=NONCE)
    for public in ("00" * 32, "ff" * 32):
        forged = re.sub('keyid="[0-9a-f]*"', f'keyid="{public}"', headers[INPUT])
        with pytest.raises(LedgerError):
            checked({**headers, INPUT: forged}, "GET", "/x", "")
