"""The witness protocol of the public specs: the `add-checkpoint` decision, its answers, and the client's half.

Follows C2SP tlog-witness (2026-07), without the optional sign-subtree. Pure: the caller looks up the latest
cosigned note, stores the new one durably, and only then sends the answer; lookup and store are one
transaction. Consortium witnesses, which also replay the entries, are `witness`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from ledger.checkpoint import Checkpoint, cosign
from ledger.encoding import MAX_UINT63, encode_base64, parse_decimal
from ledger.errors import MalformedError, VerificationError
from ledger.merkle import verify_consistency
from ledger.note import MAX_NOTE_SIZE, Note, OpenedNote, Verified, open_note
from ledger.proof import check_hashes, parse_hashes, split_head
from ledger.signature import Signature, SigningKey, VerifierKey

MAX_REQUEST_SIZE = 131_072  # bytes; some public witnesses read no more than 16 KiB
SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The body of `POST <submission prefix>/add-checkpoint`; nothing in it is verified.

    Attributes:
        old_size: Size that the sender believes the witness cosigned last.
        proof: Consistency proof from there.
        note: The signed checkpoint.
    """

    old_size: int
    proof: tuple[bytes, ...]
    note: Note

    def __post_init__(self) -> None:
        if not 0 <= self.old_size <= MAX_UINT63:
            raise MalformedError(f"old size {self.old_size} is not from 0 to 2**63 - 1")
        check_hashes(self.proof)
        Checkpoint.from_text(self.note.text)

    @property
    def checkpoint(self) -> Checkpoint:
        """The note's text, parsed."""
        return Checkpoint.from_text(self.note.text)

    def to_bytes(self) -> bytes:
        """Return the body."""
        hashes = "".join(f"{encode_base64(value)}\n" for value in self.proof)
        return f"old {self.old_size}\n{hashes}\n".encode() + self.note.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Request:
        """Parse a body; `to_bytes` gives the same bytes back.

        Raises:
            MalformedError: any bytes that are not such a body.
        """
        if len(data) > MAX_REQUEST_SIZE:
            raise MalformedError(f"request is longer than {MAX_REQUEST_SIZE} bytes")
        (first, *hashes), note = split_head(data)
        if not first.startswith("old "):
            raise MalformedError("request does not start with an old size")
        old_size = parse_decimal(first.removeprefix("old "), "old size")
        return cls(old_size=old_size, proof=parse_hashes(hashes), note=note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An HTTP answer.

    Attributes:
        status: HTTP status.
        content_type: Value of Content-Type.
        body: The bytes.
        cosigned: With status 200 to add-checkpoint, the origin's new latest note: store it durably before
            answering. Else None: nothing changes.
    """

    status: int
    content_type: str
    body: bytes
    cosigned: Note | None = None


def add_checkpoint(
    body: bytes,
    *,
    logs: Mapping[str, Sequence[VerifierKey]],
    latest: Callable[[str], Note | None],
    signers: Sequence[SigningKey],
    now: int,
) -> Response:
    """Answer an add-checkpoint request.

    Args:
        body: The request body.
        logs: Trusted keys by origin.
        latest: Returns the note last cosigned for an origin, or None; its size is the witness's state.
        signers: The witness's keys, type 0x04 or 0x06.
        now: POSIX seconds, above 0.
    """
    try:
        request = Request.from_bytes(body)
    except MalformedError as error:
        return _refusal(400, str(error))
    origin = request.checkpoint.origin
    if origin not in logs:
        return _refusal(404, "unknown origin")
    return decide(latest(origin), request, logs[origin], signers, now)


def decide(
    latest: Note | None,
    request: Request,
    log_keys: Sequence[VerifierKey],
    signers: Sequence[SigningKey],
    now: int,
) -> Response:
    """Answer a request for a known origin, checks in the spec's order.

    Args:
        latest: The note last cosigned for this origin; None when there is none.
        request: The parsed request.
        log_keys: Keys trusted for this origin.
        signers: The witness's keys.
        now: POSIX seconds, above 0.
    """
    try:
        opened = open_note(request.note, log_keys)
    except (MalformedError, VerificationError) as error:
        return _refusal(403, str(error))
    new = request.checkpoint
    old = Checkpoint.empty(new.origin) if latest is None else Checkpoint.from_text(latest.text)
    if request.old_size > new.size:
        return _refusal(400, f"old size {request.old_size} is above the checkpoint's size {new.size}")
    if request.old_size != old.size:
        return Response(status=409, content_type=SIZE_TYPE, body=f"{old.size}\n".encode())
    try:
        verify_consistency(old.size, old.root, new.size, new.root, request.proof)
    except VerificationError as error:
        return _refusal(422, str(error))
    lines = tuple(cosign(opened.text, signer, now) for signer in signers)
    # Unknown lines are dropped: a witness passes on only what it has verified.
    note = Note(text=opened.text, signatures=_logs_own(opened)).with_signatures(*lines)
    body = "".join(line.to_line() for line in lines).encode()
    return Response(status=200, content_type=TEXT_TYPE, body=body, cosigned=note)


def monitor_path(origin: str) -> str:
    """Return the path, below the monitoring prefix, of the latest checkpoint cosigned for an origin."""
    return f"{sha256(origin.encode()).hexdigest()}/checkpoint"


def get_checkpoint(latest: Note | None) -> Response:
    """Answer a GET of `monitor_path`: the note last cosigned for that origin, or 404."""
    if latest is None:
        return _refusal(404, "no checkpoint of this origin was ever cosigned")
    return Response(status=200, content_type=TEXT_TYPE, body=latest.to_bytes())


def request_for(
    note: Note, log_keys: Sequence[VerifierKey], old_size: int, proof: Sequence[bytes]
) -> Request:
    """Return the request to send to an outside witness: the log's own lines only, to stay within its limits.

    Raises:
        MalformedError: not a signed checkpoint, or a proof that no request can carry.
        VerificationError: the log has not signed it.
    """
    own = Note(text=note.text, signatures=_logs_own(open_note(note, log_keys)))
    return Request(old_size=old_size, proof=tuple(proof), note=own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """The witness's last cosigned size is another: send a proof from there. None: it did not say which."""

    size: int | None


def parse_response(
    status: int, content_type: str, body: bytes, text: str, witness_keys: Sequence[VerifierKey]
) -> tuple[Verified, ...] | Conflict:
    """Read a witness's answer to a request.

    Args:
        status: HTTP status.
        content_type: Value of Content-Type.
        body: The bytes.
        text: Note text of the checkpoint that was sent.
        witness_keys: The witness's keys; lines of others are ignored.

    Returns:
        The verified cosignatures, at least one; or, after status 409, the witness's size.

    Raises:
        MalformedError: the body does not have the form that its status calls for.
        VerificationError: refused, or a cosignature is missing, wrong or without a time.
    """
    if status == 409:
        return Conflict(size=_conflict_size(body) if content_type == SIZE_TYPE else None)
    if status != 200:
        raise VerificationError(f"witness refused the checkpoint with status {status}")
    if len(body) > MAX_NOTE_SIZE:
        raise MalformedError(f"witness answer is longer than {MAX_NOTE_SIZE} bytes")
    try:
        lines = body.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise MalformedError("witness answer is not UTF-8") from None
    if lines.pop():
        raise MalformedError("witness answer does not end in a newline")
    signatures = tuple(Signature.from_line(f"{line}\n") for line in lines)
    opened = open_note(Note(text=text, signatures=signatures), witness_keys)
    if not all(line.time for line in opened.verified):
        raise VerificationError("witness answered with a cosignature without a time")
    return opened.verified


def _conflict_size(body: bytes) -> int:
    if not body.endswith(b"\n") or not body.isascii():
        raise MalformedError("witness answered 409 without its size")
    return parse_decimal(body[:-1].decode("ascii"), "witness's size")


def _logs_own(opened: OpenedNote) -> tuple[Signature, ...]:
    """Return one verified line for each log key; a key may have signed more than once."""
    return tuple({line.key: line.signature for line in opened.verified}.values())


def _refusal(status: int, reason: str) -> Response:
    return Response(status=status, content_type=TEXT_TYPE, body=f"{reason}\n".encode())
