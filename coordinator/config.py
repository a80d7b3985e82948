"""The coordinator's folder and its settings, read once from `coordinator.toml`.

    coordinator.toml      what this module reads
    roll.json             who was invited and has joined (`coordinator.roll`)
    keys/                 log.key signs checkpoints, coordinator.key our records; metrics.token; all 0600
    tls/                  certificate authority and certificate of the public port (`coordinator.tls`)
    log/                  the log (`ledger.store`)
    blobs/                parameters, updates, histograms, server states, dictionaries (`coordinator.blobs`)
    nodes/<hospital>.pub  public key of each hospital's Flower node, PEM
    proposals/            what waits for signatures (`coordinator.proposals`)
    acknowledged/         replies of rounds that are not closed (`coordinator.acknowledgements`)
    previous.view         the dead log's view, where this log follows one (`coordinator.succession`)
    flower/               the SuperLink's own files
    requests.seen         what a restart must remember of members' signed requests (`coordinator.seen`)
    uploads/<member>/     marks of what researchers deposited and no job has named (`coordinator.uploads`)
    runs/<job digest>/    what a finished job leaves: model, card, evidence

Only `port` has to be stated. Who belongs to the consortium is on the log, never here.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from coordinator.errors import ConfigError
from ledger.errors import LedgerError
from ledger.signature import KeyType, SigningKey

FILE = "coordinator.toml"
MAX_SIZE = 1 << 16  # bytes
_RANGES = {  # field: (least, most), both allowed
    "port": (1, 65_535),
    "round_seconds": (1, 30 * 86_400),
    "approval_seconds": (0, 365 * 86_400),
    "patience_seconds": (0, 86_400),
    "tick_seconds": (1, 86_400),
    "model_mib": (1, 4096),
    "log_max_mib": (1, 1 << 20),
    "log_keep": (1, 1000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorConfig:
    """Everything that one coordinator can be told."""

    directory: Path
    port: int  # the public TLS port
    host: str = "127.0.0.1"  # address that it listens on
    public_name: str = "localhost"  # how hospitals call it: stands in the certificate
    round_seconds: int = 60  # how long a round waits for replies
    approval_seconds: int = 86_400  # how long a job waits for hospitals that have not answered
    patience_seconds: int = 10  # how long participants whose node is away are waited for
    tick_seconds: int = 3_600  # how old the log's time may become before a tick states it
    model_mib: int = 256  # the largest first model that a researcher may deposit
    log_file: str = ""  # the service's journal, relative to its folder; empty: standard error
    log_max_mib: int = 10  # of the journal, before it is rotated
    log_keep: int = 5  # rotated journals

    def __post_init__(self) -> None:
        """Raise ConfigError for a value of a wrong type or out of range."""
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ConfigError(f"{name} must be a whole number from {least} to {most}: correct {FILE}")
        for name in ("host", "public_name"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value or len(value) > 253:
                raise ConfigError(f"{name} must be a host name or an address: correct {FILE}")
        if not isinstance(self.log_file, str) or len(self.log_file) > 4096 or "\0" in self.log_file:
            raise ConfigError(f"log_file must be a path, or empty: correct {FILE}")

    @property
    def url(self) -> str:
        """Where this machine reaches the service."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"

    @property
    def log(self) -> Path:
        """The log's directory."""
        return self.directory / "log"

    @property
    def blobs(self) -> Path:
        """The content-addressed store."""
        return self.directory / "blobs"

    @property
    def nodes(self) -> Path:
        """Public keys of the hospitals' nodes."""
        return self.directory / "nodes"

    @property
    def seen(self) -> Path:
        """Signed requests that a restart must remember (`coordinator.seen`)."""
        return self.directory / "requests.seen"

    @property
    def uploads(self) -> Path:
        """What marks researchers' deposits (`coordinator.uploads`)."""
        return self.directory / "uploads"

    @property
    def runs(self) -> Path:
        """What finished jobs leave."""
        return self.directory / "runs"

    def run(self, job: str) -> Path:
        """The folder of one finished job."""
        return self.runs / job


def load(directory: Path) -> CoordinatorConfig:
    """Read the settings of a coordinator's folder.

    Raises:
        ConfigError: no such file, not TOML, an unknown setting, or a value out of range.
    """
    path = directory / FILE
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; name a coordinator's folder") from None
    if len(data) > MAX_SIZE:
        raise ConfigError(f"{path} is larger than {MAX_SIZE} bytes: it is not what it should be")
    try:
        settings = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    known = {f.name for f in fields(CoordinatorConfig)} - {"directory"}
    if unknown := sorted(set(settings) - known):
        raise ConfigError(f"{path}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}")
    if "port" not in settings:
        raise ConfigError(f"{path}: state the port, such as port = 8443")
    return CoordinatorConfig(directory=directory, **settings)


def read_key(path: Path) -> SigningKey:
    """Read a private key that signs records or checkpoints.

    Raises:
        ConfigError: it is missing, others may read it, or it is no such key; the message shows none of it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(
                f"{path}: others may read this key; `chmod 600` it, and replace it if anybody has"
            )
        text = path.read_text("ascii").strip()
        key = SigningKey.from_text(text)
    except OSError as error:
        raise ConfigError(f"cannot read the key {path}: {error.strerror}") from None
    except (UnicodeDecodeError, LedgerError):
        raise ConfigError(f"{path} is not a private key as `wardround ledger keygen` writes it") from None
    if key.type is not KeyType.ED25519:
        raise ConfigError(
            f"{path} is a witness's key: the coordinator and its log sign with plain Ed25519 keys"
        )
    return key
