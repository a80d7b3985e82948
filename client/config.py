"""A hospital's settings: one frozen value, read once from `hospital.toml` and refused in one line when it is wrong.

    name = "northgate"
    coordinator = "consortium.example:8443"
    authority = "ca.pem"                     # paths are relative to the folder of this file
    charter = "<digest compared by telephone>"
    [dataset]
    name = "breast-cancer"
    file = "patients.csv"
    dictionary = "dictionary.json"
    epsilon = 8                              # all that these patients will ever spend, add/remove one patient
    delta = 0.0001
    size_class = 256                         # confirmed by the hospital: `wardround hospital check` says which
    purposes = ["cancer-research"]
    one_row_per_patient = false
    [policy]
    approve = "built-in"                     # "ask" a person about every job; "never" takes part in none

The tables are `client.settings`; `wardround hospital join` writes a file that explains every line. Where the agent
keeps what it writes is here too. Keys are read where they are used.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from decimal import Decimal as Number
from pathlib import Path
from typing import Any

from client import reviewed
from client.accounting import spell
from client.errors import ConfigError
from client.settings import Dataset, Journal, Limits, Line, MaybeLine, Policy
from client.source import Place
from ledger.canonical import build
from ledger.errors import LedgerError, MalformedError
from ledger.signature import KeyType, SigningKey
from ledger.values import Digest, Name, Part

FILE = "hospital.toml"
MAX_KEY_SIZE = 4096  # bytes
_ADDRESS = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")
_PROXY = re.compile(r"https?://[A-Za-z0-9.:@%_\[\]-]{1,512}/?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospital(Part):
    """Everything that a person decides about this hospital's agent; nothing secret is in it."""

    directory: Line
    name: Name
    coordinator: Line  # host:port
    authority: Line
    charter: Digest
    proxy: MaybeLine  # "http://proxy.example:3128", or empty: connect directly
    dataset: Dataset
    policy: Policy
    limits: Limits
    journal: Journal

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        require_address(self.coordinator, self.proxy)

    @property
    def folder(self) -> Path:
        """Where this hospital keeps everything."""
        return Path(self.directory)

    @property
    def ref(self) -> str:
        """The dataset's name in records."""
        return f"{self.name}/{self.dataset.name}"

    @property
    def data_file(self) -> Path:
        """The patients' rows; only the worker, and `wardround hospital check`, read it."""
        return self.folder / self.dataset.file

    @property
    def place(self) -> Place:
        """Where the dataset lies and how it is read."""
        mapping = self.folder / self.dataset.mapping if self.dataset.mapping else None
        database = self.folder / "keys" / "database.url"
        return Place(kind=self.dataset.kind, file=self.data_file, mapping=mapping, database=database)

    @property
    def models(self) -> Path:
        """Where a person puts the model files that may be run."""
        return self.folder / reviewed.FOLDER

    @property
    def dictionary_file(self) -> Path:
        """The data dictionary."""
        return self.folder / self.dataset.dictionary

    @property
    def secret_file(self) -> Path:
        """The dataset's secret, which puts each patient in training or held out, for ever."""
        return self.folder / "keys" / "dataset.secret"

    @property
    def mirror(self) -> Path:
        """The hospital's copy of the log."""
        return self.folder / "mirror"

    @property
    def account(self) -> Path:
        """The privacy account."""
        return self.folder / "account.sqlite"

    def read_authority(self) -> bytes:
        """Return the certificate that the coordinator's TLS is checked against. Raises ConfigError."""
        return read_file(self.folder / self.authority)

    def read_node_key(self) -> bytes:
        """Return the PEM key of the hospital's Flower node. Raises ConfigError."""
        return read_file(self.folder / "keys" / "node.pem")

    def read_identity_key(self) -> SigningKey:
        """Return the key that signs this hospital's records. Raises ConfigError."""
        return read_key(self.folder / "keys" / "identity.key", KeyType.ED25519)

    def read_witness_key(self) -> SigningKey:
        """Return the key that cosigns checkpoints. Raises ConfigError."""
        return read_key(self.folder / "keys" / "witness.key", KeyType.COSIGNATURE)


def load(directory: Path) -> Hospital:
    """Read a hospital's settings from its folder.

    Raises:
        ConfigError: naming the file, the field and what it must be.
    """
    path = directory / FILE
    data = read_file(path, 1 << 20)
    try:
        value = tomllib.loads(data.decode(), parse_float=Number)
        return build(Hospital, {"directory": str(directory.resolve()), **_with_defaults(value)})
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, MalformedError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _with_defaults(value: dict[str, Any]) -> dict[str, Any]:
    value = {"proxy": "", **_spelled(value)}
    dataset = value.get("dataset")
    if isinstance(dataset, dict):
        value["dataset"] = dataset = {"kind": "csv", "mapping": "", "one_row_per_patient": False, **dataset}
        standard: dict[str, Any] = {
            "approve": "built-in",
            "researchers": [],
            "purposes": dataset.get("purposes"),
            "max_epsilon_per_job": dataset.get("epsilon"),
            "min_participants": 2,
            "smallest_cohort": 1,
            "hours": [],
        }
        value["policy"] = _over(standard, value.get("policy", {}), "policy")
    limits = {"threads": 1, "memory_mib": 8192, "model_seconds": 60, "gpu": False}
    value["limits"] = _over(limits, value.get("limits", {}), "limits")
    value["journal"] = _over({"file": "", "max_mib": 10, "keep": 5}, value.get("journal", {}), "journal")
    return value


def _over(standard: dict[str, Any], given: object, table: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise MalformedError(f"{table} must be a table")
    return {**standard, **given}


def _spelled(value: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with their decimals as records spell them, whichever way TOML holds them."""
    spelled: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            spelled[name] = _spelled(item)
        elif type(item) in (int, Number) and name in ("epsilon", "delta", "max_epsilon_per_job"):
            spelled[name] = spell(Number(item)) if Number(item).is_finite() and item >= 0 else str(item)
        else:
            spelled[name] = item
    return spelled


def require_address(coordinator: str, proxy: str) -> None:
    """Refuse what is no address of a coordinator, or of a proxy. Raises MalformedError."""
    match = _ADDRESS.fullmatch(coordinator)
    if match is None or not 1 <= int(match[1]) <= 65_535:
        raise MalformedError('coordinator must be "host:port"')
    if proxy and _PROXY.fullmatch(proxy) is None:
        raise MalformedError('proxy must be "http://host:port", "https://host:port" or empty')


def read_file(path: Path, max_size: int = MAX_KEY_SIZE) -> bytes:
    """Return a small file that a person named. Raises ConfigError: unreadable, or far too large."""
    try:
        with path.open("rb") as file:
            data = file.read(max_size + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > max_size:
        raise ConfigError(f"{path} is larger than {max_size} bytes: it is not what it should be")
    return data


def read_key(path: Path, kind: KeyType) -> SigningKey:
    """Return a private key of one use. Raises ConfigError, which shows nothing of it."""
    try:
        key = SigningKey.from_text(read_file(path).decode("ascii", "replace").strip())
    except LedgerError as error:
        raise ConfigError(f"{path}: {error}") from None
    if key.type is not kind:
        raise ConfigError(f"{path} holds a key of another use: restore the right one from a backup")
    return key
