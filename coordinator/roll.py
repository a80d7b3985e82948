"""The roll: who was invited, who has joined, and the charter that waits for signatures. One small file, `roll.json`.

The service and the commands change it, so every change is read, made and written whole under a lock; a crash leaves
the roll before or after it. Of an invitation's code only a digest is kept. What changes mean is `founding`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from immutables import Map

from coordinator.errors import ConfigError, StorageError
from coordinator.tls import write_private
from ledger import canonical, joining
from ledger.encoding import decode_base64
from ledger.errors import MalformedError
from ledger.joining import Deposit
from ledger.records import Charter
from ledger.values import Code, Count, Key, MaybeDigest, Name, Origin, Part, Seconds

FILE = "roll.json"
MAX_SIZE = 8 << 20  # bytes
MAX_INVITED = 1_024  # over a consortium's life
COORDINATOR = "coordinator"  # the coordinator's name as a member


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited(Part):
    """One invitation and what came of it."""

    name: Name
    role: Code
    code: MaybeDigest  # `joining.code_digest`; empty once revoked
    made_at: Seconds
    expires_at: Seconds
    joined_at: Seconds  # 0: nobody has used it
    deposit: str  # base64 of the signed deposit, or empty

    @property
    def keys(self) -> Deposit | None:
        """What was deposited."""
        return joining.open_deposit(self.data) if self.deposit else None

    @property
    def data(self) -> bytes:
        """The deposit's bytes."""
        return decode_base64(self.deposit, "deposit")

    @property
    def open(self) -> bool:
        """Whether it still waits for somebody."""
        return bool(self.code) and not self.deposit


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll(Part):
    """Everything that the file holds."""

    origin: Origin
    name: Name  # the consortium's
    max_dishonest: Count
    recovery_keys: tuple[Key, ...]
    recovery_quorum: Count
    invited: tuple[Invited, ...]  # sorted by name
    charter: str  # base64 of the frozen draft, or empty
    signatures: Map[str, str]  # identity key -> base64 of its signature on the draft
    founded: MaybeDigest  # digest of the charter that the log began with

    @property
    def frozen(self) -> Charter | None:
        """The draft that waits for signatures, or that was signed."""
        if not self.charter:
            return None
        value = canonical.loads(decode_base64(self.charter, "charter"), MAX_SIZE)
        assert isinstance(value, dict)
        return canonical.build(Charter, {k: v for k, v in value.items() if k != "type"})

    def by_name(self, name: str) -> Invited | None:
        """Return somebody's invitation."""
        return next((i for i in self.invited if i.name == name), None)

    def by_code(self, digest: str) -> Invited | None:
        """Return the invitation of a code's digest."""
        return next((i for i in self.invited if digest and i.code == digest), None)

    def with_invited(self, *changed: Invited) -> Roll:
        """Return the roll with invitations added or replaced."""
        invited = {i.name: i for i in (*self.invited, *changed)}
        return replace(self, invited=tuple(invited[name] for name in sorted(invited)))

    def thawed(self) -> Roll:
        """Return the roll without a frozen draft: every signature on it is void."""
        return replace(self, charter="", signatures=Map())


class RollFile:
    """The file; may be used from any thread and any process."""

    def __init__(self, directory: Path) -> None:
        """Name a coordinator's folder."""
        self._path = directory / FILE
        self._lock = directory / ".roll.lock"

    @property
    def exists(self) -> bool:
        """Whether this folder was made by `init`: the demonstration's is not."""
        return self._path.is_file()

    def read(self) -> Roll:
        """Return the roll. Raises ConfigError: there is none, or it is damaged."""
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_SIZE + 1)
            return canonical.build(Roll, canonical.loads(data, MAX_SIZE))
        except OSError as error:
            raise ConfigError(
                f"cannot read {self._path}: {error.strerror}; `wardround coordinator init` makes it"
            ) from None
        except MalformedError:
            raise ConfigError(f"{self._path} is damaged: restore it from a backup") from None

    def create(self, roll: Roll) -> None:
        """Write the first roll. Raises StorageError."""
        self._write(roll)

    def change(self, change: Callable[[Roll], Roll]) -> Roll:
        """Read, change, write; nobody else does meanwhile. Returns the new roll, which is on the disk.

        Raises:
            CoordinatorError, LedgerError: whatever `change` raises; the file is as it was.
            StorageError: the disk refuses.
        """
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"cannot lock {self._path}: {error.strerror}; see to the disk") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = self.read()
            after = change(before)
            if after != before:
                self._write(after)
            return after
        finally:
            os.close(descriptor)

    def _write(self, roll: Roll) -> None:
        try:
            write_private(self._path, canonical.dumps(canonical.plain(roll)))
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror}; see to the disk") from None
