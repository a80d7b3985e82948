"""What `wardround hospital check` finds in the coordinator's log: its charter, and its newest checkpoint's age."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from client.consortium import Consortium
from client.errors import ClientError, PostRefusedError, UnreachableError
from client.preflight_codes import Finding
from client.preflight_wire import within
from ledger import envelope
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError, MalformedError
from ledger.note import Note, open_note
from ledger.records import Charter, Succession
from ledger.signature import VerifierKey
from ledger.source import Read
from ledger.store import CHECKPOINT
from ledger.tiles import read_bundle

READ_SECONDS = 20.0  # for all of it
OLD_SECONDS = 3 * 3600  # a healthy log states its time every hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the log shows of itself."""

    charter: str  # hex digest of entry 0's payload
    size: int  # entries of the newest final checkpoint
    cosigned_at: int | None  # Unix seconds, of the newest cosignature by a founding witness


Shown = Head | ClientError | LedgerError | None


def observe_log(connect: Callable[[], Consortium], seconds: float = READ_SECONDS) -> Shown:
    """Read the newest final checkpoint and entry 0; None where no checkpoint is final yet.

    Args:
        connect: Opens the door to the coordinator.
        seconds: After which it is given up.
    """

    def task() -> Shown:
        try:
            with closing(connect()) as door:
                return read_head(door.read)
        except FileNotFoundError:
            return None
        except (ClientError, LedgerError) as error:
            return error

    try:
        return within(seconds, task)
    except TimeoutError as error:
        return UnreachableError(str(error))


def read_head(read: Read) -> Head:
    """Read a log's newest final checkpoint and its charter.

    Raises:
        FileNotFoundError: there is no final checkpoint.
        LedgerError, ClientError: what is there is no log, or it cannot be read.
    """
    note = Note.from_bytes(read(CHECKPOINT))
    size = Checkpoint.from_text(note.text).size
    founding = envelope.open_entry(read_bundle(read, 0, size)[0])
    record, keys = founding.record, []
    if isinstance(record, Charter | Succession):
        keys = [VerifierKey.from_text(m.witness) for m in record.terms.members if m.witness]
        keys.append(VerifierKey.from_text(record.terms.log))
    times = [found.time for found in open_note(note, keys).verified if found.time is not None]
    return Head(charter=founding.digest, size=size, cosigned_at=max(times, default=None))


def judge_log(head: Shown, charter: str, now: float) -> Iterator[Finding]:
    """Decide whether it is the log that this hospital was invited to, and alive."""
    if head is None:
        yield Finding(code="checkpoint.none", sentence="no checkpoint is final yet")
        return
    if isinstance(head, PostRefusedError):
        yield Finding(code="service.refused", sentence=str(head))
        return
    if isinstance(head, UnreachableError):
        refused = any(f"status {status}" in str(head) for status in (401, 403))
        yield Finding(code="service.refused" if refused else "service.down", sentence=f"the log: {head}")
        return
    if isinstance(head, MalformedError):
        yield Finding(code="service.other", sentence=f"what the coordinator shows is no log: {head}")
        return
    if isinstance(head, Exception):
        yield Finding(
            code="charter.other", sentence=f"the coordinator's log cannot be that of our charter: {head}"
        )
        return
    if head.charter != charter:
        yield Finding(
            code="charter.other",
            sentence=f"the coordinator's log begins with the charter {head.charter[:16]}, not {charter[:16]}",
        )
        return
    yield Finding(code="charter", sentence=f"the log begins with the charter {charter[:16]}, as settings say")
    if head.cosigned_at is None:
        yield Finding(
            code="checkpoint", sentence=f"{head.size} entries are final, cosigned by later witnesses"
        )
        return
    when = f"{datetime.fromtimestamp(head.cosigned_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    old = now - head.cosigned_at > OLD_SECONDS
    yield Finding(
        code="checkpoint.old" if old else "checkpoint",
        sentence=f"{head.size} entries are final, last cosigned {when}",
    )
