"""The folders of a consortium whose members are all one person: the demonstration's and a simulation's.

The founding signatures are gathered in one go, and what a hospital's person would confirm is confirmed; nothing runs
yet. Everything else is as `wardround coordinator init` and `wardround hospital join` leave it.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from client import dictionary as dictionaries
from client.data import Report, check_file
from client.dictionary import Dictionary
from client.errors import DataError
from client.features import Fault
from client.flower_connection import new_node_key
from client.source import Place
from coordinator.tls import ensure_tls
from ledger import envelope
from ledger.durable import write_private
from ledger.log import Log
from ledger.policy import quorum_size
from ledger.records import Charter
from ledger.signature import KeyType, SigningKey
from ledger.values import Member, Terms

RESEARCHER = "researcher"
DAY = 86_400
FEWEST = 10  # patients of a hospital that one person tries alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Consortium:
    """A founded consortium: its folders, and everybody's keys."""

    directory: Path
    port: int
    keys: dict[str, SigningKey] = field(repr=False)  # by member, and "log"
    witnesses: dict[str, SigningKey] = field(repr=False)  # by hospital
    charter: Charter

    @property
    def coordinator(self) -> Path:
        """The coordinator's directory."""
        return self.directory / "coordinator"

    def hospital(self, name: str) -> Path:
        """A hospital's directory."""
        return self.directory / "hospitals" / name


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What a hospital brings: its rows, and what may be done with them."""

    name: str  # of the dataset
    kind: str  # of the data file
    file: Path
    dictionary: bytes
    purpose: str
    epsilon: str  # of the dataset's lifetime
    delta: str
    epsilon_per_job: str
    moved: bool  # whether the file becomes the hospital's own, or stays where it is


def found(
    directory: Path, hospitals: Collection[str], *, origin: str, name: str, dishonest: int, port: int
) -> Consortium:
    """Make everybody's keys, the charter and the coordinator's folder."""
    keys = {member: _key(member, KeyType.ED25519) for member in (*hospitals, "coordinator", RESEARCHER)}
    keys["log"] = _key(origin, KeyType.ED25519)
    witnesses = {h: _key(f"{h}.example/witness", KeyType.COSIGNATURE) for h in hospitals}
    charter = _charter(keys, witnesses, origin=origin, name=name, dishonest=dishonest)
    made = Consortium(directory=directory, port=port, keys=keys, witnesses=witnesses, charter=charter)
    _prepare_coordinator(made)
    return made


def _key(name: str, kind: KeyType) -> SigningKey:
    return SigningKey(name=name, type=kind, seed=secrets.token_bytes(32))


def _charter(
    keys: Mapping[str, SigningKey],
    witnesses: Mapping[str, SigningKey],
    *,
    origin: str,
    name: str,
    dishonest: int,
) -> Charter:
    members = tuple(
        Member(
            name=member,
            role="hospital" if member in witnesses else member,
            key=envelope.public_hex(keys[member]),
            witness=witnesses[member].verifier.to_text() if member in witnesses else "",
        )
        for member in sorted(keys)
        if member != "log"
    )
    terms = Terms(
        members=members,
        max_dishonest=dishonest,
        quorum=quorum_size(len(witnesses), dishonest),
        log=keys["log"].verifier.to_text(),
        recovery_keys=(),
        recovery_quorum=0,
        rules=1,
    )
    return Charter(origin=origin, name=name, founded_at=int(time.time()), terms=terms)


def _prepare_coordinator(made: Consortium) -> None:
    directory = made.coordinator
    directory.mkdir(parents=True)
    (directory / "keys").mkdir()
    (directory / "nodes").mkdir()
    for name in ("log", "coordinator"):
        write_private(directory / "keys" / f"{name}.key", made.keys[name].to_text().encode() + b"\n")
    config = f'host = "127.0.0.1"\nport = {made.port}\npublic_name = "localhost"\nround_seconds = 60\n'
    (directory / "coordinator.toml").write_text(config)
    ensure_tls(directory / "tls", ["localhost", "127.0.0.1"], datetime.now(UTC))


def begin_log(made: Consortium) -> Log:
    """Return the log with the charter as its first entry, open for writing."""
    founders = [made.keys[m.name] for m in made.charter.terms.members]
    entry = envelope.sign(made.charter, *founders)
    return Log.create(made.coordinator / "log", entry, [made.keys["log"]], int(time.time()))


def settle(made: Consortium, name: str, offered: Offered) -> None:
    """Write a hospital's folder. Raises DataError: its rows cannot be used."""
    directory = made.hospital(name)
    (directory / "keys").mkdir(parents=True)
    for folder in (directory, directory / "keys"):
        folder.chmod(0o700)
    private, public = new_node_key()
    secret = secrets.token_bytes(32)
    for key, content in {
        "identity.key": made.keys[name].to_text().encode() + b"\n",
        "witness.key": made.witnesses[name].to_text().encode() + b"\n",
        "node.pem": private,
        "dataset.secret": secret,
    }.items():
        write_private(directory / "keys" / key, content)
    (made.coordinator / "nodes" / f"{name}.pub").write_bytes(public)
    shutil.copyfile(made.coordinator / "tls" / "ca.pem", directory / "ca.pem")
    file = offered.file.absolute()
    if offered.moved:
        file = directory / f"patients{offered.file.suffix}"
        shutil.move(offered.file, file)
        file.chmod(0o600)
    (directory / "dictionary.json").write_bytes(offered.dictionary)
    (directory / "hospital.toml").write_text(_settings(made, name, offered, file, secret))


def _settings(made: Consortium, name: str, offered: Offered, file: Path, secret: bytes) -> str:
    place = Place(kind=offered.kind, file=file, mapping=None, database=None)
    dictionary = dictionaries.from_bytes(offered.dictionary)
    report = check_file(  # a person confirms it
        place, dictionary, secret=secret, one_row_per_patient=not dictionary.patient
    )
    _require_usable(name, report, dictionary)
    shown = file.name if offered.moved else str(file)
    return f"""\
name = "{name}"
coordinator = "localhost:{made.port}"
authority = "ca.pem"
charter = "{made.charter.digest()}"

[dataset]
name = "{offered.name}"
kind = "{offered.kind}"
file = "{shown}"
dictionary = "dictionary.json"
size_class = {report.size_class}
epsilon = "{offered.epsilon}"
delta = "{offered.delta}"
purposes = ["{offered.purpose}"]
one_row_per_patient = {str(not dictionary.patient).lower()}

[policy]
approve = "built-in"
purposes = ["{offered.purpose}"]
max_epsilon_per_job = "{offered.epsilon_per_job}"
"""


def _require_usable(name: str, report: Report, dictionary: Dictionary) -> None:
    """Refuse rows that a hospital could not offer, or that would train nothing. Raises DataError."""
    label = dictionary.label
    dropped = {column: rows for column, reason, rows in report.dropped if reason == Fault.NOT_ALLOWED.value}
    if label.name in dropped:
        raise DataError(
            f"{name}: {dropped[label.name]} of {report.rows} rows hold a value of the label {label.name!r} that "
            f"the data dictionary lists neither as negative ({', '.join(label.negative)}) nor as positive "
            f"({', '.join(label.positive)}): correct the rows, or the dictionary"
        )
    if report.patients < FEWEST:
        most = next((f"; {n} rows dropped, {column}: {why}" for column, why, n in report.dropped), "")
        raise DataError(
            f"{name}: {report.patients} patients with a usable row are too few, the noise would hide them: give at "
            f"least {FEWEST}{most}"
        )
    if report.refusals:
        raise DataError(f"{name}: {'; '.join(report.refusals)}")
