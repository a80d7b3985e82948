"""A hospital's door to a coordinator in the same process: what its public port would do, without requests.

The log and the hospital judge as they would over the network; left out are the requests themselves: their signatures,
their limits and their encoding. What a hospital would never ask for in a simulation is not answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from client.consortium import Consortium, Pending
from client.errors import PostRefusedError, UnreachableError
from coordinator.errors import CoordinatorError, ObjectedError
from coordinator.sequencer import Sequencer
from coordinator.voice import Voice
from ledger.errors import LedgerError
from ledger.signature import Signature

_FORBIDDEN = 409  # HTTP status of a record that a rule forbids


class Door(Consortium):
    """A hospital's door to a coordinator in the same process."""

    def __init__(self, sequencer: Sequencer, voice: Voice, authority: bytes) -> None:
        """Open it.

        Args:
            sequencer: Of the log.
            voice: Signs the coordinator's promises and objections.
            authority: The certificate that a deployment's door would check.
        """
        super().__init__("localhost:1", authority)
        self._sequencer = sequencer
        self._voice = voice

    def read(self, path: str) -> bytes:
        """Return a file of the log. Raises FileNotFoundError."""
        return self._sequencer.read(path)

    def wait_for_pending(self, above: int, seconds: float) -> Pending:
        """Return the pending checkpoint as it is."""
        return Pending(note=self._sequencer.pending(), report="")

    def post_record(self, entry: bytes) -> str:
        """Submit a signed record; see `Consortium.post_record`."""
        if self.ear is not None:
            self.ear.handing_in(entry)
        origin = self._sequencer.standing.state.origin
        try:
            submitted = self._sequencer.submit(entry)
        except ObjectedError as error:
            statement = self._voice.objection(origin, error)
            if self.ear is not None:
                self.ear.heard(entry, statement)
            raise PostRefusedError(_FORBIDDEN, error.rule, error.reason, statement) from None
        except (LedgerError, CoordinatorError) as error:
            raise UnreachableError(str(error)) from None
        if self.ear is not None:
            self.ear.heard(entry, self._voice.promise(origin, submitted))
        return submitted.digest

    def post_cosignature(self, size: int, line: Signature) -> bool:
        """Hand over a cosignature; see `Consortium.post_cosignature`."""
        try:
            return self._sequencer.cosign(size, line)
        except (LedgerError, CoordinatorError) as error:
            raise UnreachableError(str(error)) from None

    def get(self, path: str, limit: int = 0, seconds: float = 0.0) -> Mapping[str, Any]:
        """Answer what an agent asks for on its own account: a log that never stopped lacks nothing."""
        if path == "/api/wanted":
            return {"blobs": []}
        raise UnreachableError(f"{path} is not answered in a simulation")
