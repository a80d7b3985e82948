"""Everything that a running agent has open: settings, keys, worker, account, mirror, and the door to the coordinator.

Opened in the order in which a mistake can be found without writing anything: settings and keys, then the data file
(by the worker, which alone reads it), and only then the files that the agent keeps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from client import dictionary as dictionaries
from client import rotation
from client.budget import Account
from client.config import Hospital
from client.consortium import Consortium
from client.custody import Custody
from client.decisions import Decisions
from client.dictionary import Dictionary
from client.errors import ConfigError, DictionaryError, LocalStateError, PostRefusedError
from client.follower import Follower
from client.live_settings import LiveSettings
from client.standing import Standing
from client.worker import Worker
from client.worker_questions import Questions
from ledger import envelope
from ledger.database import DATABASE
from ledger.mirror import Mirror
from ledger.record import Record
from ledger.signature import SigningKey

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Premises:
    """What an agent works with; `close` gives it all back."""

    settings: LiveSettings
    identity: SigningKey = field(repr=False)
    witness: SigningKey = field(repr=False)
    authority: bytes
    node_key: bytes = field(repr=False)
    consortium: Consortium
    worker: Questions
    standing: Standing
    custody: Custody
    decisions: Decisions
    account: Account
    follower: Follower
    clock: Callable[[], float]  # Unix seconds
    files: ExitStack = field(repr=False)

    @property
    def hospital(self) -> Hospital:
        """The settings of now."""
        return self.settings.hospital

    @property
    def dictionary(self) -> Dictionary:
        """The data dictionary of now."""
        return self.settings.dictionary

    def renewed(self) -> bool:
        """Put in force what keys the log names by now; tell whether they are others than those held here.

        Raises:
            ClientError: a key's file cannot be read or written.
        """
        sight, hospital = self.follower.sight(), self.hospital
        if sight is not None:
            rotation.settle(hospital.folder, sight.state, hospital.name)
        held = (self.identity, self.witness, self.node_key)
        return held != (
            hospital.read_identity_key(),
            hospital.read_witness_key(),
            hospital.read_node_key(),
        )

    def post(self, record: Record) -> bool:
        """Sign a record of this hospital's and post it; tell whether it was taken. Raises UnreachableError."""
        try:
            self.consortium.post_record(envelope.sign(record, self.identity))
        except PostRefusedError as error:
            _log.warning("a %s record was not taken: %s", record.TYPE, error)
            return False
        return True

    def close(self) -> None:
        """End the worker and close every file."""
        self.files.close()


def enter(
    hospital: Hospital,
    *,
    clock: Callable[[], float] = time.time,
    consortium: Consortium | None = None,
    worker: Sequence[str] | Callable[[Hospital], Questions] = (),
) -> Premises:
    """Check the hospital's files, then open what the agent keeps; the arguments are `Agent`'s.

    Raises:
        ClientError, LedgerError: one line: what is wrong, where, and what to do; everything is closed again.
    """
    identity, witness = hospital.read_identity_key(), hospital.read_witness_key()
    authority, node_key = hospital.read_authority(), hospital.read_node_key()
    settings = LiveSettings(hospital, read_dictionary)
    with ExitStack() as files:
        door = consortium or Consortium(
            hospital.coordinator,
            authority,
            key=identity,
            proxy=hospital.proxy,
            clock=clock,
            spare=lambda: rotation.candidates(hospital.folder),
        )
        files.enter_context(closing(door))
        made = worker(hospital) if callable(worker) else Worker(hospital, worker)
        process = files.enter_context(closing(made))
        process.survey(settings.dictionary.to_bytes())
        standing, custody = Standing(hospital.folder), Custody(hospital.folder)
        account = files.enter_context(closing(Account.open(hospital.account)))
        mirror = open_mirror(hospital.mirror, hospital.charter)
        follower = files.enter_context(
            closing(Follower(mirror, door, witness, clock, may_cosign=lambda: not standing.restored))
        )
        return Premises(
            settings=settings,
            identity=identity,
            witness=witness,
            authority=authority,
            node_key=node_key,
            consortium=door,
            worker=process,
            standing=standing,
            custody=custody,
            decisions=Decisions(hospital.folder),
            account=account,
            follower=follower,
            clock=clock,
            files=files.pop_all(),
        )


def read_dictionary(hospital: Hospital) -> Dictionary:
    """Return the hospital's data dictionary. Raises ConfigError, naming the file."""
    path = hospital.dictionary_file
    try:
        return dictionaries.parse(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except DictionaryError as error:
        raise ConfigError(f"{path}: {error}") from None


def open_mirror(folder: Path, charter: str) -> Mirror:
    """Open the hospital's copy of the log, or begin it.

    Raises:
        LocalStateError: it is of another consortium.
        StorageError: it cannot be read or written.
    """
    if not (folder / DATABASE).is_file():
        return Mirror.create(folder, charter)
    mirror = Mirror.open(folder)
    if mirror.size and envelope.parse_entry(mirror.entries(0, 1)[0]).digest != charter:
        mirror.close()
        raise LocalStateError(
            f"{folder} follows another charter than hospital.toml names: name that one, or another folder"
        )
    return mirror
