"""What follows for the coordinator from who is a member: whose Flower node is admitted, whose is not any more.

A hospital's node key comes with its deposit and is written to `nodes/` once the hospital is on the log; later ones
come by `NodeChange`. A member that was removed loses the file, and with it the registration (`nodes`).
"""

from __future__ import annotations

import threading
from pathlib import Path

from coordinator.config import CoordinatorConfig
from coordinator.errors import JoiningError, StorageError
from coordinator.roll import RollFile
from ledger import joining
from ledger.durable import write_private
from ledger.state import State


class NodeKeys:
    """The files in `nodes/`. Any thread may call."""

    def __init__(self, config: CoordinatorConfig) -> None:
        """Take over a coordinator's folder."""
        self._folder = config.nodes
        self._roll = RollFile(config.directory)
        self._lock = threading.Lock()

    def follow(self, state: State) -> None:
        """Make the files follow the log. A folder without a roll keeps the files that somebody put there.

        Raises:
            ConfigError, StorageError: the roll or the folder cannot be used.
        """
        if not self._roll.exists:
            return
        with self._lock:
            for invited in self._roll.read().invited:
                found, path = invited.keys, self._path(invited.name)
                if found is None or not found.node:
                    continue
                present = state.member(invited.name) is not None
                if present and not path.exists():
                    self._write(path, found.node)
                elif not present and invited.name in state.members and path.exists():
                    self._remove(path)

    def change(self, state: State, data: bytes) -> None:
        """Take a hospital's next node key; the same change again is found done.

        Raises:
            MalformedError, VerificationError: it is no signed change.
            JoiningError: the key that signed is not this hospital's of now, or the change is an old one.
        """
        found = joining.open_node_change(data)
        member = state.member(found.hospital)
        if (
            member is None
            or member.key != found.key
            or found.origin != state.origin
            or member.role != "hospital"
        ):
            raise JoiningError("this change is not signed by a hospital's identity key of now")
        path = self._path(found.hospital)
        with self._lock:
            known = path.read_text() if path.exists() else ""
            if known == found.node:
                return
            if joining.node_digest(known) != found.replaces:
                raise JoiningError(
                    "this change replaces another node key than the one in force: it is an old one"
                )
            others = [p.read_text() for p in self._folder.glob("*.pub") if p != path]
            if found.node in others:
                raise JoiningError("this node key is another hospital's")
            self._write(path, found.node)

    def _path(self, hospital: str) -> Path:
        return self._folder / f"{hospital}.pub"

    def _write(self, path: Path, pem: str) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
            write_private(path, pem.encode())
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}; see to the disk") from None

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot remove {path}: {error.strerror}; see to the disk") from None
