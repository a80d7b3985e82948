"""Whether this machine's clock agrees with its witnesses', judged before a time is signed that they would refuse.

A witness refuses a batch more than CLOCK_TOLERANCE off its own clock, and the log's time never goes back: a clock
three hours ahead would sign a time that nobody accepts for three hours. Every cosignature carries its witness's time.
Kept with it is this machine's time since its start, which no setting of the clock moves: so what a witness's clock
shows now is known without asking, a jump is seen before anything is signed, and that it was put right at once.

The median over the newest cosignature of each present witness decides, once there are as many as a quorum: of those,
fewer than half may be dishonest. With fewer, nothing is judged. After a start that is so until the witnesses report,
or cosign. A machine that slept without counting the time is taken for one whose clock jumped: started again, it asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ledger.checkpoint import Checkpoint
from ledger.note import Note, open_note
from ledger.signature import Signature, VerifierKey
from ledger.state import WitnessSet
from ledger.witness import CLOCK_TOLERANCE

Clock = Callable[[], float]  # seconds
_PAUSE = 60.0  # seconds between two cosignatures of one witness that are looked at


def since_boot() -> float:
    """Return the seconds since this machine was started, its sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A witness's cosignature, as it came."""

    size: int  # of the checkpoint
    time: int  # Unix seconds by the witness's clock
    arrived: float  # seconds, by a clock that nobody sets


def difference(sightings: Iterable[Sighting], quorum: int, now: float, elapsed: float) -> float | None:
    """Return by how many seconds this clock is ahead of its witnesses', or None: too few are known.

    Args:
        sightings: The newest of each witness.
        quorum: How many are needed, at least 1.
        now: This clock, Unix seconds.
        elapsed: The clock that nobody sets, seconds.
    """
    ahead = sorted(now - (s.time + elapsed - s.arrived) for s in sightings)
    return ahead[len(ahead) // 2] if len(ahead) >= quorum else None


def objection(ahead: float | None) -> str:
    """Return why nothing may be signed with this clock, in one line, or ""."""
    if ahead is None or abs(ahead) <= CLOCK_TOLERANCE:
        return ""
    way = "ahead of" if ahead > 0 else "behind"
    return (
        f"this machine's clock is {abs(ahead):.0f} s {way} its witnesses', and they accept {CLOCK_TOLERANCE} s: "
        "set it, nothing is appended until they agree; if it is right, start the coordinator again"
    )


class WitnessClocks:
    """The newest cosignature of each witness. One thread writes at a time."""

    def __init__(self, clock: Clock, elapsed: Clock) -> None:
        """Know none yet.

        Args:
            clock: This machine's, Unix seconds.
            elapsed: Seconds by a clock that nobody sets.
        """
        self._clock = clock
        self._elapsed = elapsed
        self._newest: dict[VerifierKey, Sighting] = {}

    def take(self, witnesses: WitnessSet, note: Note, line: Signature) -> None:
        """Remember a cosignature, unless one as new is known: an old one may be sent again. Strangers' are ignored.

        Args:
            witnesses: The present ones.
            note: The checkpoint.
            line: The cosignature; once a minute one of each witness is looked at.

        Raises:
            VerificationError: it is wrong.
        """
        keys, now = map(VerifierKey.from_text, witnesses.witnesses), self._elapsed()
        key = next((k for k in keys if (k.name, k.key_id) == (line.name, line.key_id)), None)
        known = self._newest.get(key) if key is not None else None
        if key is None or (known is not None and now - known.arrived < _PAUSE):
            return
        size = Checkpoint.from_text(note.text).size
        time_ = open_note(Note(text=note.text, signatures=(line,)), [key]).verified[0].time or 0
        if known is None or (known.size, known.time) < (size, time_):
            self._newest[key] = Sighting(size=size, time=time_, arrived=now)

    def objection(self, witnesses: WitnessSet) -> str:
        """Return why nothing may be signed with this clock, or ""."""
        keys = map(VerifierKey.from_text, witnesses.witnesses)
        found = [self._newest[key] for key in keys if key in self._newest]
        return objection(difference(found, witnesses.quorum, self._clock(), self._elapsed()))
