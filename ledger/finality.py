"""When a checkpoint counts: the log's signature and a quorum of every witness set that its entries span.

PROTOCOL.md, "Members" and "Two checkpoints". The sets come from the log's own records (`State.sets_over`); a
policy file made from the newest of them is what an outsider's tools use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from ledger.checkpoint import Checkpoint
from ledger.errors import VerificationError
from ledger.note import Note, open_note
from ledger.policy import Group, Log, Policy, Witness, verify_checkpoint
from ledger.signature import Signature, VerifierKey
from ledger.state import WitnessSet

QUORUM = "witness-quorum"  # the group's name in the policy file


def keys_of(witnesses: WitnessSet) -> tuple[VerifierKey, ...]:
    """Return the keys whose signatures mean something to a witness set: its log's, then its witnesses'."""
    policy = trust_policy(witnesses)
    return (policy.logs[0].key, *(w.key for w in policy.witnesses))


@lru_cache(maxsize=64)
def trust_policy(witnesses: WitnessSet, url: str = "") -> Policy:
    """Return a witness set as a tlog-policy: its log key, its witnesses, its quorum."""
    keys = [VerifierKey.from_text(text) for text in witnesses.witnesses]
    names = tuple(key.name for key in keys)
    return Policy(
        logs=(Log(key=VerifierKey.from_text(witnesses.log), url=url),),
        witnesses=tuple(Witness(name=key.name, key=key) for key in keys),
        groups=(Group(name=QUORUM, threshold=witnesses.quorum, members=names),),
        quorum=QUORUM,
    )


def lasting(
    sets: Iterable[WitnessSet], stored: Mapping[tuple[str, bytes], Signature], room: int
) -> list[Signature]:
    """Return the cosignatures that a final checkpoint keeps, sorted: all, or as many as a note may carry.

    Args:
        sets: The witness sets that must agree, each with its quorum among `stored`.
        stored: Verified cosignatures by (name, key id).
        room: How many a note has room for; the quorums come first.
    """
    first: dict[tuple[str, bytes], None] = {}
    for witnesses in sets:
        own = sorted((key.name, key.key_id) for key in keys_of(witnesses)[1:])
        first.update(dict.fromkeys([name for name in own if name in stored][: witnesses.quorum]))
    kept = [*first, *(name for name in sorted(stored) if name not in first)][:room]
    return [stored[name] for name in sorted(kept)]


def verify_signed(note: Note | bytes, sets: Iterable[WitnessSet]) -> Checkpoint:
    """Check that the log key of every set signed a checkpoint: enough to be witnessed, not to be final.

    Raises:
        MalformedError: not a signed checkpoint.
        VerificationError: a log signature is missing or wrong.
    """
    checkpoint = None
    for text in dict.fromkeys(s.log for s in sets):
        key = VerifierKey.from_text(text)
        checkpoint = Checkpoint.from_text(open_note(note, [key]).text)
        if checkpoint.origin != key.name:
            raise VerificationError(f"the checkpoint is of {checkpoint.origin}, its key is of {key.name}")
    if checkpoint is None:
        raise VerificationError("no witness set covers this checkpoint")
    return checkpoint


def verify_final(note: Note | bytes, sets: Iterable[WitnessSet]) -> tuple[Checkpoint, dict[str, int]]:
    """Check that a checkpoint is final under every set that it spans.

    Returns:
        The checkpoint, and the newest time of each witness (name of its key) that cosigned it.

    Raises:
        MalformedError: not a signed checkpoint.
        VerificationError: a log signature or a quorum is missing, or a known signature is wrong.
    """
    checkpoint = verify_signed(note, sets := tuple(sets))
    times: dict[str, int] = {}
    for witnesses in sets:
        times.update(verify_checkpoint(trust_policy(witnesses), note)[1])
    return checkpoint, times
