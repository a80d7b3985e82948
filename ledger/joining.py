"""What passes between a coordinator and somebody who is no member yet: an invitation, and the keys deposited for it.

An invitation is one line of text that a person passes on; whoever has it can join in its name once, so it is as
secret as a password until it is used. A deposit names public keys, and each of them has signed it: nobody can deposit
another's key. Both name the log's origin and each other, so that neither serves anywhere else. Signatures are over
DSSE's encoding with payload types of their own: no record, checkpoint or cosignature can be mistaken for one.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Annotated, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger import canonical
from ledger.canonical import Text
from ledger.encoding import decode_base64, encode_base64
from ledger.errors import MalformedError, VerificationError
from ledger.signature import KeyType, SigningKey, VerifierKey
from ledger.values import (
    ROLES,
    Code,
    Count,
    Digest,
    Key,
    MaybeDigest,
    MaybeVerifierKey,
    Member,
    Name,
    Origin,
    Part,
    Seconds,
)

PREFIX = "wardround-invitation-1:"
CODE_SIZE = 20  # bytes: 160 bits
CODE_HEADER = "wardround-invitation"  # carries the code, so that no address ever does
MAX_INVITATION = 4_096  # characters
MAX_DEPOSIT = 8_192  # bytes
JOINING_ROLES = tuple(role for role in ROLES if role != "coordinator")
_CHECK = 4  # bytes that tell a mistyped invitation from a wrong one
_TYPE = b"application/vnd.wardround.deposit.v1+json"
_GROUP = 4  # hex digits that one reads out in a breath
_Kind = TypeVar("_Kind")

Address = Annotated[str, Text(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):[0-9]{1,5}", '"host:port"')]
OneTime = Annotated[str, Text(rf"[0-9a-f]{{{2 * CODE_SIZE}}}", "a code of 40 hex digits")]
MaybePem = Annotated[
    str, Text(r"(?:-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/=\n]{80,400}\n-----END PUBLIC KEY-----\n)?", "PEM")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation(Part):
    """One person's way in. Everything but the code is public."""

    address: Address
    authority: Digest  # of the certificate (DER) that the coordinator's TLS is checked against
    code: OneTime
    name: Name
    role: Code  # one of JOINING_ROLES
    origin: Origin
    expires_at: Seconds
    charter: MaybeDigest  # of the log's entry 0, once there is one
    size: Count  # of the newest final checkpoint, 0 before there is one
    root: MaybeDigest

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        if self.role not in JOINING_ROLES:
            raise MalformedError(f"invitation.role must be one of {', '.join(JOINING_ROLES)}")

    def to_text(self) -> str:
        """Return the line that is passed on."""
        data = canonical.dumps(canonical.plain(self))
        return PREFIX + base64.urlsafe_b64encode(data + _check(data)).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> Invitation:
        """Read an invitation, however it was wrapped on its way.

        Raises:
            MalformedError: it is none, or was mistyped or cut off.
        """
        packed = "".join(text.split())
        if not packed.startswith(PREFIX) or len(packed) > MAX_INVITATION:
            raise MalformedError(f"this is no invitation: it begins with {PREFIX}")
        encoded = packed.removeprefix(PREFIX)
        try:
            data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raise MalformedError("the invitation was mistyped or cut off: copy all of it again") from None
        data, check = data[:-_CHECK], data[-_CHECK:]
        if check != _check(data):
            raise MalformedError("the invitation was mistyped or cut off: copy all of it again")
        return canonical.build(cls, canonical.loads(data, MAX_INVITATION))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposit(Part):
    """The public halves of somebody's keys."""

    origin: Origin
    invitation: Digest  # of the code
    name: Name
    role: Code
    key: Key  # will sign this member's records
    witness: MaybeVerifierKey  # will cosign checkpoints; hospitals only
    node: MaybePem  # of the Flower node; hospitals only

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        hospital = self.role == "hospital"
        if self.role not in JOINING_ROLES or bool(self.witness) != hospital or bool(self.node) != hospital:
            raise MalformedError("a hospital deposits three keys, everybody else an identity key")

    @property
    def member(self) -> Member:
        """What the charter or an amendment says of this member."""
        return Member(name=self.name, role=self.role, key=self.key, witness=self.witness)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChange(Part):
    """A hospital's next Flower node key. Naming the key before it, it can take effect once."""

    origin: Origin
    hospital: Name
    replaces: Digest  # of the PEM of the key of now
    key: Key  # the hospital's identity key
    node: MaybePem  # never empty

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        if not self.node:
            raise MalformedError("nodechange.node must be the new key")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed(Part):
    body: str  # base64 of the canonical JSON
    by_identity: str
    by_witness: str
    by_node: str


def code_digest(code: str) -> str:
    """Return what a coordinator keeps of an invitation's code, and a deposit says of it."""
    return hashlib.sha256(b"wardround invitation " + code.encode()).hexdigest()


def witness_name(origin: str, name: str) -> str:
    """Return what a hospital calls its witness key: no two members', and no log's, are called alike."""
    return f"{origin}/witness/{name}"


def groups(digest: str) -> tuple[str, ...]:
    """Return a digest in groups that can be read out by telephone."""
    return tuple(digest[i : i + _GROUP] for i in range(0, len(digest), _GROUP))


def sign_deposit(deposit: Deposit, identity: SigningKey, witness: SigningKey | None, node: bytes) -> bytes:
    """Return a deposit with the signature of each key that it names.

    Args:
        deposit: Its keys are those of the other arguments.
        identity: The identity key.
        witness: The witness key, where there is one.
        node: Private key of the Flower node, PEM; empty where there is none.

    Raises:
        MalformedError: the node's key is none.
    """
    return _sign(canonical.dumps(canonical.plain(deposit)), identity, witness, node)


def open_deposit(data: bytes) -> Deposit:
    """Read a deposit and check that every key in it has signed it.

    Raises:
        MalformedError: not the one encoding of a deposit.
        VerificationError: a key that it names has not signed it.
    """
    signed, body = _unpack(data)
    deposit = _built(Deposit, body)
    _check_key(deposit.key, signed.by_identity, body)
    if deposit.witness:
        witness = VerifierKey.from_text(deposit.witness)
        if witness.type is not KeyType.COSIGNATURE or not witness.accepts(
            _pae(body), decode_base64(signed.by_witness, "signature")
        ):
            raise VerificationError("the witness key has not signed this deposit")
    if deposit.node:
        _check_node(deposit.node, signed.by_node, body)
    return deposit


def sign_node_change(change: NodeChange, identity: SigningKey, node: bytes) -> bytes:
    """Return a change of the node's key, signed by the identity key and the new node key. Raises MalformedError."""
    return _sign(canonical.dumps(canonical.plain(change)), identity, None, node)


def open_node_change(data: bytes) -> NodeChange:
    """Read a change and check its signatures. Raises MalformedError or VerificationError."""
    signed, body = _unpack(data)
    change = _built(NodeChange, body)
    _check_key(change.key, signed.by_identity, body)
    _check_node(change.node, signed.by_node, body)
    return change


def node_digest(node: str) -> str:
    """Return how a change names the key that it replaces."""
    return hashlib.sha256(node.encode()).hexdigest()


def _sign(body: bytes, identity: SigningKey, witness: SigningKey | None, node: bytes) -> bytes:
    signed = _pae(body)
    by_node = b""
    if node:
        key = _load_node_key(node)
        by_node = key.sign(signed, ec.ECDSA(hashes.SHA384()))
    wire = _Signed(
        body=encode_base64(body),
        by_identity=encode_base64(identity.sign_bytes(signed)),
        by_witness=encode_base64(witness.sign_bytes(signed)) if witness else "",
        by_node=encode_base64(by_node),
    )
    return canonical.dumps(canonical.plain(wire))


def _unpack(data: bytes) -> tuple[_Signed, bytes]:
    signed = canonical.build(_Signed, canonical.loads(data, MAX_DEPOSIT))
    return signed, decode_base64(signed.body, "body")


def _built(cls: type[_Kind], body: bytes) -> _Kind:
    value = canonical.loads(body, MAX_DEPOSIT)
    made = canonical.build(cls, value)
    if canonical.dumps(value) != body:
        raise MalformedError(f"the {cls.__name__.lower()} is not in canonical form")
    return made


def _check_key(key: str, signature: str, body: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(
            decode_base64(signature, "signature", 64), _pae(body)
        )
    except (InvalidSignature, ValueError):
        raise VerificationError("the identity key has not signed this deposit") from None


def _check_node(pem: str, signature: str, body: bytes) -> None:
    try:
        key = serialization.load_pem_public_key(pem.encode())
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise MalformedError("the node's key is no elliptic-curve key")
        key.verify(decode_base64(signature, "signature"), _pae(body), ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, ValueError):
        raise VerificationError("the node's key has not signed this deposit") from None


def _load_node_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise MalformedError("the node's key is not an unencrypted elliptic-curve key in PEM")
    return key


def _pae(body: bytes) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(_TYPE), _TYPE, len(body), body)


def _check(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_CHECK]


def require_role(name: str, role: str) -> None:
    """Refuse a role that nobody can be invited to. Raises MalformedError."""
    if role not in JOINING_ROLES:
        raise MalformedError(f"{name}: the role {role!r} is none of {', '.join(JOINING_ROLES)}")
