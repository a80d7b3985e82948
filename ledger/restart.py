"""Whether a log that was stopped may write again: its witnesses are its memory.

A log restored from a backup that signs on would split the view, and cannot see that by itself. So it stays
read-only until a quorum of witnesses has reported the last checkpoint that each cosigned (PROTOCOL.md, "A
coordinator that will not append, and a log that dies"). Pure; fetching reports and tails is for the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError, VerificationError
from ledger.merkle import NodeReader, tree_root
from ledger.note import Note, open_note
from ledger.signature import VerifierKey
from ledger.state import WitnessSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a witness cosigned last.

    Attributes:
        witness: Its key.
        note: The checkpoint with the log's signature and the witness's cosignature; None: it never cosigned one.
            A None carries no signature, so the caller must know that it comes from this witness, and any report
            that it answers a question asked after the log was opened.
    """

    witness: VerifierKey
    note: Note | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Writable:
    """A quorum reported, and nobody saw more than the log holds: it may write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """`more` further witnesses must report. `refused` says why reports that came do not count."""

    more: int
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingTail:
    """The log signed more than it holds: fetch the entries up to `size` from a witness, restore them, judge again.

    Attributes:
        size: Entries under the largest reported checkpoint.
        note: That checkpoint, to adopt as it is.
    """

    size: int
    note: Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """The log's own key signed two histories: it cannot go on, only a successor can. Keep the evidence.

    Attributes:
        reason: One line.
        evidence: Signed checkpoints that contradict the log or each other.
    """

    reason: str
    evidence: tuple[Note, ...]


Verdict = Writable | Waiting | MissingTail | Succession


def judge(
    size: int,
    node: NodeReader,
    log_keys: Sequence[VerifierKey],
    reports: Iterable[Report],
    witnesses: WitnessSet,
) -> Verdict:
    """Decide what a log that was stopped may do.

    A report whose signatures do not verify counts for nothing: one dishonest witness cannot stop the log. One
    that carries the log's own signature counts, whoever sends it, for nobody else can have made it.

    Args:
        size: Entries that the log holds.
        node: Reads complete subtrees of them.
        log_keys: Every key that this log signs or signed with.
        reports: At most one of each witness counts: the one with the largest checkpoint.
        witnesses: The set in force in the newest state that the log holds.
    """
    known = {VerifierKey.from_text(text) for text in witnesses.witnesses}
    heard: set[VerifierKey] = set()
    seen: dict[str, tuple[Checkpoint, Note]] = {}  # by text
    refused = []
    for report in reports:
        name = report.witness.name
        if report.witness not in known:
            refused.append(f"{name} is not a witness of this log")
        elif report.note is None:
            heard.add(report.witness)
        else:
            try:
                seen[report.note.text] = verify_report(report.note, report.witness, log_keys), report.note
            except LedgerError as error:
                refused.append(f"{name}: {error}")
            else:
                heard.add(report.witness)
    return _weigh(size, node, list(seen.values())) or (
        Writable()
        if len(heard) >= witnesses.quorum
        else Waiting(more=witnesses.quorum - len(heard), refused=tuple(refused))
    )


def verify_report(note: Note, witness: VerifierKey, log_keys: Sequence[VerifierKey]) -> Checkpoint:
    """Return the checkpoint of a report.

    Raises:
        MalformedError: not a checkpoint.
        VerificationError: the log or the witness has not signed it.
    """
    opened = open_note(note, [*log_keys, witness])
    signers = {line.key for line in opened.verified}
    checkpoint = Checkpoint.from_text(opened.text)
    if witness not in signers or not any(k in signers and k.name == checkpoint.origin for k in log_keys):
        raise VerificationError("the reported checkpoint lacks the log's signature or the witness's own")
    return checkpoint


def _weigh(
    size: int, node: NodeReader, seen: Sequence[tuple[Checkpoint, Note]]
) -> MissingTail | Succession | None:
    """Return what the checkpoints that witnesses saw demand; None: nothing beyond what the log holds."""
    roots: dict[int, tuple[bytes, Note]] = {}
    for checkpoint, note in sorted(seen, key=lambda pair: pair[0].size):
        own = tree_root(checkpoint.size, node) if checkpoint.size <= size else checkpoint.root
        root, other = roots.setdefault(checkpoint.size, (own, note))
        if root != checkpoint.root:
            reason = f"this log's key signed another history of {checkpoint.size} entries"
            return Succession(reason=reason, evidence=tuple(dict.fromkeys((other, note))))
    largest = max(roots, default=0)
    return MissingTail(size=largest, note=roots[largest][1]) if largest > size else None
