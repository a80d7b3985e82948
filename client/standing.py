"""What keeps this hospital from training until a person has looked: one small file, durable before it takes effect.

Three reasons: the account came from a backup (everything stops, the hospital withdraws and cosigns nothing); the
coordinator did not keep its word (nothing is trained, cosigning goes on); and what concerns one job alone, such as a
receipt of this hospital that is missing on the log. Each stays until a person runs `wardround hospital resume`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from immutables import Map

from client.errors import LocalStateError
from client.private_file import read_private, write_private
from ledger import canonical
from ledger.errors import MalformedError
from ledger.values import Code

FILE = "standing.json"
RESTORED = "restored"
_MAX_SIZE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What the file says."""

    person: str  # why a person must decide, "" if none must
    stopped: Map[str, Code]  # job -> why it gets no more training here


class Standing:
    """The file, read once; may be used from several threads."""

    def __init__(self, folder: Path) -> None:
        """Read it. Raises LocalStateError: it is damaged."""
        self._path = folder / FILE
        self._lock = threading.Lock()
        data = read_private(self._path, _MAX_SIZE)
        try:
            self._notes = canonical.build(Notes, canonical.loads(data, _MAX_SIZE)) if data else NOTHING
        except MalformedError:
            raise LocalStateError(f"{self._path} is damaged: restore it, or ask for help") from None

    @property
    def person(self) -> str:
        """Why a person must decide before anything goes on, or ""."""
        return self._notes.person

    @property
    def restored(self) -> bool:
        """Whether the account came from a backup: nothing is cosigned either."""
        return self._notes.person == RESTORED

    @property
    def stops(self) -> Map[str, Code]:
        """The jobs that get no more training here, and why."""
        return self._notes.stopped

    def stopped(self, job: str) -> bool:
        """Whether a job gets no more training here."""
        return job in self._notes.stopped

    def stop(self, job: str, code: str) -> None:
        """Give a job no more training, also after a restart."""
        with self._lock:
            self._write(Notes(person=self._notes.person, stopped=self._notes.stopped.set(job, code)))

    def ask_person(self, reason: str) -> None:
        """Stop everything until `resume`; a restored account is the graver reason, and stays."""
        with self._lock:
            if not self.restored:
                self._write(Notes(person=reason, stopped=self._notes.stopped))

    def resume(self) -> None:
        """A person has looked: go on."""
        with self._lock:
            self._write(Notes(person="", stopped=self._notes.stopped))

    def allow(self, job: str) -> None:
        """A person has looked: a job that was stopped may train again. KeyError where it was not."""
        with self._lock:
            self._write(Notes(person=self._notes.person, stopped=self._notes.stopped.delete(job)))

    def _write(self, notes: Notes) -> None:
        write_private(self._path, canonical.dumps(canonical.plain(notes)))
        self._notes = notes


NOTHING = Notes(person="", stopped=Map())
