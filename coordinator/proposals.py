"""Records that wait for several signatures: amendments and agreements, each in a file of its own until it is decided.

Whoever's signature counts may propose, sign or decline; when the rules accept what is assembled it goes on the log. A
proposal that never can, because the charter has moved on or a member has left, is closed with the reason, which is
kept for a while. Everything is on the disk before it is answered and may be sent again. Whose signature counts is
`assent`; a proposal's name is its record's digest.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from immutables import Map

from coordinator import assent
from coordinator.assent import Assent
from coordinator.errors import ConfigError, ProposalError, StorageError
from coordinator.sequencer import Sequencer
from ledger import canonical, envelope, records
from ledger.durable import write_private
from ledger.encoding import decode_base64, encode_base64
from ledger.envelope import Entry
from ledger.errors import LedgerError, MalformedError, ReadOnlyError, RuleError
from ledger.record import Record
from ledger.state import State
from ledger.values import Name, Part, Seconds

FOLDER = "proposals"
MAX_OPEN = 256
MAX_PER_MEMBER = 16  # open ones of one proposer
OPEN_SECONDS = 30 * 86_400
KEPT_SECONDS = 7 * 86_400  # after the end
MAX_FILE = 1 << 20  # bytes
ACCEPTED = "accepted: it is on the log"
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal(Part):
    """One file."""

    record: str  # base64
    signatures: Map[str, str]  # key -> base64
    by: Name  # who proposed it
    at: Seconds
    declined: tuple[Name, ...]  # sorted; a note, it decides nothing
    ended: str  # "" while open, then why
    ended_at: Seconds

    @property
    def parsed(self) -> Record:
        """The record."""
        return records.parse(decode_base64(self.record, "record"))

    @property
    def given(self) -> dict[str, bytes]:
        """Signatures by key."""
        return {key: decode_base64(text, "signature", 64) for key, text in self.signatures.items()}


class Proposals:
    """The open proposals and those that ended lately. Any thread may call."""

    def __init__(self, directory: Path, sequencer: Sequencer, clock: Callable[[], float]) -> None:
        """Read what is there.

        Args:
            directory: The coordinator's folder.
            sequencer: Owner of the log.
            clock: Unix seconds.

        Raises:
            ConfigError, StorageError: the folder cannot be read or made.
        """
        self._folder = directory / FOLDER
        self._sequencer = sequencer
        self._clock = clock
        self._lock = threading.RLock()
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._known = {path.stem: _read(path) for path in sorted(self._folder.glob("*.json"))}
        except OSError as error:
            raise StorageError(f"cannot use {self._folder}: {error.strerror}; see to the disk") from None

    def state(self) -> State:
        """Return the log's newest state."""
        return self._sequencer.standing.state

    def propose(self, data: bytes) -> str:
        """Take a proposal that a present member has signed; return its digest. The same one again adds signatures.

        Raises:
            MalformedError, VerificationError: it is no signed record.
            RuleError: the log would not take it, whoever signed.
            ProposalError: none of those who signed is a member, or too many proposals are open.
        """
        entry = envelope.open_entry(data)
        state = self.state()
        mine = [span.member for key in entry.signers if (span := state.keys.get(key)) is not None]
        present = [
            m.name for name in mine if (m := state.member(name)) is not None and m.key in entry.signers
        ]
        if not present:
            raise ProposalError("a member must sign what is proposed, with the key of now")
        return self._open(entry, min(present))

    def admit(self, entry: bytes, name: str) -> str:
        """Take a newcomer's admission, which the invitation and the newcomer's own signature stand for."""
        return self._open(envelope.open_entry(entry), name)

    def add_signature(self, digest: str, data: bytes) -> None:
        """Add somebody's signature; again, it changes nothing.

        Raises:
            LookupError: there is no such open proposal.
            MalformedError, VerificationError: it is no signed record, or another one than the proposal.
            ProposalError: this signature does not count.
        """
        entry = envelope.open_entry(data)
        with self._lock:
            known = self._of(digest)
            if entry.digest != digest:
                raise ProposalError("another record was signed than the one that was proposed")
            if not entry.signers <= set(assent.signers(self.state(), known.parsed)):
                raise ProposalError("this key has no say in this proposal")
            self._keep(digest, _signed(known, entry, dict.fromkeys(entry.signers, "")))
            self._decide(digest)

    def decline(self, digest: str, name: str) -> None:
        """Note that a member will not sign. Raises LookupError."""
        with self._lock:
            known = self._of(digest)
            if name not in known.declined:
                self._keep(digest, replace(known, declined=tuple(sorted({*known.declined, name}))))

    def votes(self, digest: str) -> tuple[tuple[str, ...], int] | None:
        """Return who has signed an open proposal and how many must, or None where there is none."""
        known = self._known.get(digest)
        if known is None or known.ended:
            return None
        weighed = assent.weigh(self.state(), known.parsed, known.given)
        return weighed.signed, weighed.needed

    def listing(self) -> list[dict[str, Any]]:
        """Return every proposal, the newest first."""
        return [self.show(digest) for digest in sorted(self._known, key=lambda d: -self._known[d].at)]

    def show(self, digest: str) -> dict[str, Any]:
        """Return one proposal. Raises LookupError."""
        known = self._known.get(digest)
        if known is None:
            raise LookupError(f"there is no proposal {digest[:16]}")
        record = known.parsed
        weighed = assent.weigh(self.state(), record, known.given)
        return {
            "digest": digest,
            "type": record.TYPE,
            "record": known.record,
            "by": known.by,
            "at": known.at,
            "expires_at": known.at + OPEN_SECONDS,
            "signed": list(weighed.signed),
            "may_sign": sorted(set(weighed.signers.values())),
            "needed": weighed.needed,
            "declined": list(known.declined),
            "ended": known.ended,
        }

    def turn(self) -> None:
        """Do what the log or the time have brought: close, append, forget. Raises StorageError."""
        now = int(self._clock())
        with self._lock:
            for digest, known in list(self._known.items()):
                if known.ended and now - known.ended_at >= KEPT_SECONDS:
                    self._forget(digest)
                elif not known.ended and now - known.at >= OPEN_SECONDS:
                    self._end(digest, "nobody decided it in time")
                elif not known.ended:
                    self._decide(digest)

    def _open(self, entry: Entry, by: str) -> str:
        record, digest = entry.record, entry.digest
        with self._lock:
            known = self._known.get(digest)
            if known is None or known.ended:
                weighed = assent.weigh(self.state(), record, entry.signatures)
                if weighed.hopeless:
                    raise ProposalError(weighed.hopeless)
                self._require_room(by)
                known = Proposal(
                    record=encode_base64(entry.payload), signatures=Map(), by=by, at=int(self._clock()),
                    declined=(), ended="", ended_at=0,
                )  # fmt: skip
            self._keep(digest, _signed(known, entry, assent.signers(self.state(), record)))
            self._decide(digest)
        return digest

    def _decide(self, digest: str) -> None:
        """Append a proposal that is ready; close one that is hopeless. Idempotent, also over a crash."""
        known = self._known[digest]
        state = self.state()
        if digest in state.seen:
            return self._end(digest, ACCEPTED)
        weighed: Assent = assent.weigh(state, known.parsed, known.given)
        if weighed.hopeless:
            return self._end(digest, f"it cannot succeed any more: {weighed.hopeless}")
        if weighed.ready:
            counted = {key: value for key, value in known.given.items() if key in weighed.signers}
            try:
                self._sequencer.submit(envelope.assemble(known.parsed, counted))
            except ReadOnlyError as error:
                _log.info("proposal %s waits: %s", digest[:16], error)
                return None
            except (RuleError, MalformedError) as error:  # the log moved on just now
                _log.info("proposal %s is looked at again: %s", digest[:16], error)
                return None
            # On the log: a crash on this line is made good by the next turn, which finds it there.
            self._end(digest, ACCEPTED)
        return None

    def _of(self, digest: str) -> Proposal:
        known = self._known.get(digest)
        if known is None or known.ended:
            raise LookupError(f"proposal {digest[:16]} is not open{f': {known.ended}' if known else ''}")
        return known

    def _require_room(self, by: str) -> None:
        waiting = Counter(p.by for p in self._known.values() if not p.ended)
        if waiting[by] >= MAX_PER_MEMBER or waiting.total() >= MAX_OPEN:
            raise ProposalError(f"too many proposals are open ({waiting[by]} of {by}): decide those first")

    def _end(self, digest: str, why: str) -> None:
        self._keep(digest, replace(self._known[digest], ended=why[:500], ended_at=int(self._clock())))

    def _keep(self, digest: str, proposal: Proposal) -> None:
        if self._known.get(digest) == proposal:
            return
        try:
            write_private(self._folder / f"{digest}.json", canonical.dumps(canonical.plain(proposal)))
        except OSError as error:
            raise StorageError(f"cannot write {self._folder}: {error.strerror}; see to the disk") from None
        self._known[digest] = proposal

    def _forget(self, digest: str) -> None:
        try:
            (self._folder / f"{digest}.json").unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot remove from {self._folder}: {error.strerror}") from None
        del self._known[digest]


def _signed(known: Proposal, entry: Entry, counted: Any) -> Proposal:
    new = {key: encode_base64(value) for key, value in entry.signatures.items() if key in counted}
    return replace(known, signatures=known.signatures.update(new))


def _read(path: Path) -> Proposal:
    try:
        with path.open("rb") as file:
            found = canonical.build(Proposal, canonical.loads(file.read(MAX_FILE + 1), MAX_FILE))
        if not _DIGEST.fullmatch(path.stem) or found.parsed.digest() != path.stem:
            raise MalformedError("another record")
    except LedgerError:
        raise ConfigError(f"{path} is damaged: remove it, its proposer can send it again") from None
    return found
