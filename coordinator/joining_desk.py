"""Where those who are invited are received, before founding and after: takes deposits and signatures, begins the log.

Each step is on the disk (`roll`) before it is answered, so that a deposit or a signature that is sent again is found
again. Founding ends by creating the log; a crash just before is made good by the next start. What a step means is
`founding`; how it is asked for, `joining_api`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from coordinator import founding
from coordinator.config import CoordinatorConfig
from coordinator.errors import JoiningError, UninvitedError
from coordinator.roll import Invited, Roll, RollFile
from ledger import envelope
from ledger.database import DATABASE
from ledger.encoding import encode_base64
from ledger.errors import StorageError
from ledger.joining import Deposit, open_deposit
from ledger.log import Log
from ledger.records import Amendment
from ledger.signature import SigningKey
from ledger.state import State


class Assembly(Protocol):
    """The members after founding, as `coordinator.proposals` knows them."""

    def state(self) -> State:
        """Return the log's newest state."""

    def admit(self, entry: bytes, name: str) -> str:
        """Propose an amendment that an invited newcomer has signed; return its digest."""

    def votes(self, digest: str) -> tuple[tuple[str, ...], int] | None:
        """Return who has voted for an open proposal and how many must, or None where there is none."""


class JoiningDesk:
    """Receives whoever has an invitation. Any thread may call."""

    def __init__(
        self,
        config: CoordinatorConfig,
        clock: Callable[[], float],
        *,
        keys: tuple[SigningKey, SigningKey] | None = None,
        assembly: Assembly | None = None,
    ) -> None:
        """Receive for one folder.

        Args:
            config: Its settings.
            clock: Unix seconds.
            keys: The coordinator's key and the log's, to found with.
            assembly: Once there are members.
        """
        self._config = config
        self._roll = RollFile(config.directory)
        self._keys = keys
        self._clock = clock
        self._assembly = assembly
        self._lock = threading.Lock()
        self.log: Log | None = None  # begun just now: whoever waits for founding takes it over

    def resume(self) -> bool:
        """Do what a crash, or an operator meanwhile, left to do; tell whether the log has begun."""
        with self._lock:
            self._roll.change(self._freeze)
            return self._begin()

    def join(self, code: str, data: bytes) -> dict[str, Any]:
        """Take somebody's keys. Raises JoiningError, MalformedError, VerificationError; nothing has changed then."""
        now = int(self._clock())
        self._require_roll()
        if self._assembly is not None:
            self._require_fresh(self._assembly.state(), code, data, now)
        with self._lock:
            self._roll.change(lambda roll: self._freeze(founding.deposit(roll, code, data, now)))
        return self.standing(code)

    def sign(self, code: str, data: bytes) -> dict[str, Any]:
        """Take somebody's signature on what `standing` showed. Raises as `join` does."""
        now = int(self._clock())
        self._require_roll()
        if self._assembly is None:
            with self._lock:
                self._roll.change(lambda roll: founding.sign(roll, code, data, now))
                self._begin()
        else:
            known = founding.admitted(self._roll.read(), code, now)
            found = known.keys
            if found is None:
                raise JoiningError("deposit your keys first")
            if envelope.open_entry(data).payload != self._admission(found).to_bytes():
                raise JoiningError("the charter was amended meanwhile: ask again for what is to be signed")
            self._assembly.admit(data, known.name)
        return self.standing(code)

    def standing(self, code: str) -> dict[str, Any]:
        """Return how far somebody's joining is, and what is to be signed. Raises JoiningError."""
        self._require_roll()
        roll = self._roll.read()
        known = founding.admitted(roll, code, int(self._clock()))
        if self._assembly is not None:
            return self._later(self._assembly, known)
        if roll.frozen is None and not founding.missing(roll):  # the operator dropped who never came
            with self._lock:
                roll = self._roll.change(self._freeze)
        frozen = roll.frozen
        return {
            **_shown("signing" if frozen is not None else "joining", known),
            "joined": [i.name for i in roll.invited if i.deposit],
            "missing": list(founding.missing(roll)),
            "problem": founding.problem(roll),
            "record": encode_base64(frozen.to_bytes()) if frozen is not None else "",
            "signed": list(founding.signed_by(roll)),
        }

    def _freeze(self, roll: Roll) -> Roll:
        if self._keys is None:
            return roll
        return founding.freeze(roll, *self._keys, int(self._clock()))

    def _begin(self) -> bool:
        """Begin the log if every founder has signed; tell whether it has begun. Nobody changes the roll meanwhile."""

        def begin(roll: Roll) -> Roll:
            first = founding.complete(roll)
            if roll.founded or first is None or self._keys is None:
                return roll
            if self.log is None and not self._begun_before(first):
                self.log = Log.create(self._config.log, first, [self._keys[1]], int(self._clock()))
            # The log has begun: a crash on this line leads here again, where it is found begun.
            return founding.founded(roll, envelope.parse_entry(first).digest)

        return bool(self._roll.change(begin).founded)

    def _begun_before(self, first: bytes) -> bool:
        if not (self._config.log / DATABASE).is_file():
            return False
        try:
            with Log.open(self._config.log) as log:
                return log.store.entries(0, 1) == [first]
        except StorageError:  # a crash left it without its first entry
            return False

    def _require_roll(self) -> None:
        if not self._roll.exists:
            raise UninvitedError("nobody is invited here")

    def _require_fresh(self, state: State, code: str, data: bytes, now: int) -> None:
        """Refuse keys that no amendment could bring in: they would wait for ever."""
        if founding.admitted(self._roll.read(), code, now).deposit:
            return
        found = open_deposit(data)
        if found.name in state.members or found.key in state.keys:
            raise JoiningError(f"the name {found.name}, or its key, was used in this consortium before")

    def _admission(self, found: Deposit) -> Amendment:
        assert self._assembly is not None
        return founding.admission(self._assembly.state(), found)

    def _later(self, assembly: Assembly, known: Invited) -> dict[str, Any]:
        state, found = assembly.state(), known.keys
        shown = _shown("joining", known)
        if found is None:
            return shown
        if known.name in state.members:
            return {**shown, "phase": "removed" if state.member(known.name) is None else "member"}
        amendment = founding.admission(state, found)
        votes = assembly.votes(amendment.digest())
        if votes is None:
            return {**shown, "phase": "signing", "record": encode_base64(amendment.to_bytes())}
        return {**shown, "phase": "voting", "signed": list(votes[0]), "needed": votes[1]}


def _shown(phase: str, known: Invited) -> dict[str, Any]:
    return {
        "phase": phase, "name": known.name, "role": known.role, "joined": [], "missing": [], "problem": "",
        "record": "", "signed": [], "needed": 0,
    }  # fmt: skip
