"""The log's state for a member who decides: the whole log read from the coordinator and checked, nothing kept.

A hospital's agent has its own copy, which another process may not open meanwhile; everybody else has none.
"""

from __future__ import annotations

from client.consortium import Consortium
from client.errors import UnreachableError, UnsoundLogError
from ledger import audit, envelope, finality
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError, VerificationError
from ledger.note import Note
from ledger.state import State
from ledger.store import PENDING
from ledger.view import NOTHING


def read_state(door: Consortium, charter: str) -> State:
    """Return the log's newest state, after every signature and rule since the charter was checked.

    Raises:
        UnreachableError: it cannot be read now.
        UnsoundLogError: it is not the log of this charter, or breaks a rule.
    """
    try:
        note = door.read(PENDING)
        head = Checkpoint.from_text(Note.from_bytes(note).text)
        view = NOTHING
        for data in audit.entries(door.read, head.size):
            entry = envelope.open_entry(data)
            if view.size == 0 and entry.digest != charter:
                raise VerificationError(
                    f"it begins with {entry.digest[:16]}, not with the charter {charter[:16]}"
                )
            view = view.extend([entry])
        finality.verify_signed(note, view.state.witness_sets[-1:])
        if (view.size, view.root) != (head.size, head.root):
            raise VerificationError("the entries do not lead to the root that it signed")
    except FileNotFoundError:
        raise UnreachableError("the log cannot be read yet") from None
    except LedgerError as error:
        raise UnsoundLogError(f"the log is not sound, decide nothing: {error}") from None
    return view.state
