"""What a witness says to a log that was stopped: its newest checkpoint, cosigned afresh. Whose report is it?"""

from __future__ import annotations

from collections.abc import Iterable

from ledger.errors import VerificationError
from ledger.note import Note, open_note
from ledger.restart import Report
from ledger.signature import VerifierKey
from ledger.witness import CLOCK_TOLERANCE


def read(note: Note, witnesses: Iterable[str], opened: int) -> Report:
    """Find out which witness reports. Its signature and the log's are checked by `restart.judge`.

    Args:
        note: The checkpoint with its signatures.
        witnesses: Keys of the present witnesses, as text.
        opened: When the log was opened, Unix seconds by this clock.

    Raises:
        VerificationError: no witness of now signed it, or not after the log was opened.
    """
    line = open_note(note, map(VerifierKey.from_text, witnesses)).verified[-1]
    if (line.time or 0) < opened - CLOCK_TOLERANCE:
        raise VerificationError(
            "the report's cosignature is older than this opening of the log: sign afresh; if it is fresh, the "
            "coordinator's clock is ahead of this witness's: set the one that is wrong, start the coordinator again"
        )
    return Report(witness=line.key, note=note)
