"""Requests that name their sender: HTTP Message Signatures (RFC 9421) by Ed25519, in one strict profile of ours.

A member signs each request with its identity key, so that the coordinator knows who reads. Covered are "@method",
"@path", "@query" and, where there is a body, "content-digest" (RFC 9530, sha-256); the parameters are these, in this
order: created (Unix seconds), nonce (32 lowercase hex digits), keyid (the public key in hex), alg, tag.

    Signature-Input: wardround=("@method" "@path" "@query");created=1767225600;nonce="HEX";keyid="HEX";alg="ed25519";
        tag="wardround"                                            (one line, without this break)
    Signature: wardround=:BASE64:

"@authority" is left out: members reach one coordinator by names, addresses and forwarded ports that it cannot know,
so it would compare the header with itself. TLS says who is asked, and an identity key belongs to one consortium.
A signature has one spelling: what was parsed is written again and compared. How old it may be and whether it was seen
before is for whoever checks it; here are only the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger.encoding import decode_base64, encode_base64
from ledger.errors import MalformedError, VerificationError
from ledger.signature import SigningKey

INPUT = "signature-input"  # the three headers, as servers spell them
SIGNATURE = "signature"
DIGEST = "content-digest"
LABEL = "wardround"
MAX_TARGET = 4096  # characters of a path, and of a query
_METHOD = re.compile(r"[A-Z]{3,7}")
_PATH = re.compile(r"/[!-\"$->@-~]*")  # visible ASCII without "?" and "#", as it stands in the request line
_QUERY = re.compile(r"[!-\"$-~]*")
_NONCE = re.compile(r"[0-9a-f]{32}")
_INPUT = re.compile(
    r'wardround=\([a-z@" -]{0,80}\);created=(0|[1-9][0-9]{0,14});nonce="([0-9a-f]{32})";keyid="([0-9a-f]{64})"'
    r';alg="ed25519";tag="wardround"'
)
_SIGNATURE = re.compile(r"wardround=:([A-Za-z0-9+/=]{88}):")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a request asks for, byte for byte as it is sent."""

    method: str
    path: str  # percent-encoded, without the query
    query: str  # without its question mark; "" for none
    content_digest: str = ""  # the header of `content_digest`; "" without a body

    def __post_init__(self) -> None:
        fits = _METHOD.fullmatch(self.method) and _PATH.fullmatch(self.path) and _QUERY.fullmatch(self.query)
        if not fits or max(len(self.path), len(self.query)) > MAX_TARGET:
            raise MalformedError("the request's method, path or query cannot be signed")
        if self.content_digest:
            parse_digest(self.content_digest)

    @property
    def components(self) -> tuple[tuple[str, str], ...]:
        """What is covered: names and values. Source: RFC 9421 §2.2."""
        found = (("@method", self.method), ("@path", self.path), ("@query", f"?{self.query}"))
        return (*found, (DIGEST, self.content_digest)) if self.content_digest else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """Who signed a request, and when by its own clock."""

    key: str  # public key, hex
    created: int  # Unix seconds
    nonce: str


def signature_base(components: Sequence[tuple[str, str]], params: str) -> bytes:
    """Return the bytes that are signed.

    Args:
        components: Covered names, lowercase, with their values, in the signature's order.
        params: The value of the signature's member in Signature-Input.

    Source: RFC 9421 §2.5.
    """
    lines = [f'"{name}": {value}' for name, value in components]
    return "\n".join([*lines, f'"@signature-params": {params}']).encode("ascii")


def signature_params(components: Sequence[tuple[str, str]], parameters: str) -> str:
    """Return the inner list of covered names followed by its parameters. Source: RFC 9421 §2.3."""
    return "(" + " ".join(f'"{name}"' for name, _ in components) + ")" + parameters


def content_digest(body_sha256: bytes) -> str:
    """Return the Content-Digest header of a body with this SHA-256. Source: RFC 9530 §2."""
    return f"sha-256=:{encode_base64(body_sha256)}:"


def parse_digest(header: str) -> bytes:
    """Return the SHA-256 that a Content-Digest header states, in its one spelling. Raises MalformedError."""
    if not (header.startswith("sha-256=:") and header.endswith(":")):
        raise MalformedError("content-digest must be sha-256=:base64:")
    return decode_base64(header[len("sha-256=:") : -1], DIGEST, 32)


def sign(
    key: SigningKey, *, method: str, target: str, body: bytes | None, created: int, nonce: str
) -> dict[str, str]:
    """Return the headers that sign a request.

    Args:
        key: The sender's identity key, of type 0x01.
        method: In capitals.
        target: Path and query as they are sent, percent-encoded.
        body: None or empty where there is none.
        created: This clock's Unix seconds.
        nonce: 32 lowercase hex digits, random, never used before.

    Raises:
        MalformedError: one of them cannot be signed.
    """
    if not _NONCE.fullmatch(nonce):
        raise MalformedError("the nonce must be 32 lowercase hex digits")
    digest = content_digest(sha256(body).digest()) if body else ""
    path, mark, query = target.partition("?")
    if mark and not query:
        raise MalformedError("a question mark without a query cannot be signed")
    asked = Target(method=method, path=path, query=query, content_digest=digest)
    params = _params(asked, Signed(key=key.verifier.public.hex(), created=created, nonce=nonce))
    value = encode_base64(key.sign_bytes(signature_base(asked.components, params)))
    headers = {INPUT: f"{LABEL}={params}", SIGNATURE: f"{LABEL}=:{value}:"}
    return {**headers, DIGEST: digest} if digest else headers


def verify(target: Target, signature_input: str, signature: str) -> Signed:
    """Check who signed a request; its body has yet to be compared with `target.content_digest`.

    Raises:
        MalformedError: the headers are not written as above.
        VerificationError: the signature is not this key's of this request.
    """
    found, value = _INPUT.fullmatch(signature_input), _SIGNATURE.fullmatch(signature)
    if found is None or value is None:
        raise MalformedError("the request's signature is not written as this service reads it")
    signed = Signed(created=int(found[1]), nonce=found[2], key=found[3])
    params = _params(target, signed)
    if signature_input != f"{LABEL}={params}":
        raise MalformedError("the request's signature does not cover what it must, or covers more")
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signed.key))
        public.verify(
            decode_base64(value[1], SIGNATURE, 64),
            signature_base(target.components, params),
        )
    except (InvalidSignature, ValueError):
        raise VerificationError("the request's signature is wrong") from None
    return signed


def _params(target: Target, signed: Signed) -> str:
    parameters = (
        f';created={signed.created};nonce="{signed.nonce}";keyid="{signed.key}";alg="ed25519";tag="{LABEL}"'
    )
    return signature_params(target.components, parameters)
