"""A member's folder: who it is and where its consortium is. Hospitals keep more in it, researchers and auditors this.

member.toml           name, coordinator, authority, charter, proxy; a hospital's are the first lines of hospital.toml
ca.pem                certificate that the coordinator's TLS is checked against
keys/identity.key     signs this member's records and its requests
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from client import rotation
from client.config import FILE as HOSPITAL_FILE
from client.config import read_file, read_key, require_address
from client.consortium import Consortium
from client.errors import ConfigError
from client.settings import Line, MaybeLine
from ledger.canonical import build
from ledger.errors import MalformedError
from ledger.signature import KeyType, SigningKey
from ledger.values import Digest, Name, Part

FILE = "member.toml"
MAX_SIZE = 1 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership(Part):
    """Who a folder belongs to; nothing secret is in it."""

    directory: Line
    name: Name
    coordinator: Line  # host:port
    authority: Line
    charter: Digest
    proxy: MaybeLine

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        require_address(self.coordinator, self.proxy)

    @property
    def folder(self) -> Path:
        """Where this member keeps everything."""
        return Path(self.directory)

    def read_identity_key(self) -> SigningKey:
        """Return the key that signs this member's records. Raises ConfigError."""
        return read_key(self.folder / "keys" / "identity.key", KeyType.ED25519)

    def connect(self) -> Consortium:
        """Return this member's door to the coordinator, every request signed; close it. Raises ConfigError."""
        return Consortium(
            self.coordinator,
            read_file(self.folder / self.authority),
            key=self.read_identity_key(),
            proxy=self.proxy,
            spare=lambda: rotation.candidates(self.folder),
        )


def load(directory: Path) -> Membership:
    """Read who a folder belongs to, from `member.toml` or a hospital's `hospital.toml`.

    Raises:
        ConfigError: naming the file, the field and what it must be.
    """
    hospital = directory / HOSPITAL_FILE
    path = hospital if hospital.is_file() else directory / FILE
    data = read_file(path, MAX_SIZE)
    try:
        value = {"proxy": "", **tomllib.loads(data.decode())}
        if path == hospital:  # the rest of it is `client.config`'s
            value = {k: v for k, v in value.items() if k in {f.name for f in fields(Membership)}}
        return build(Membership, {**value, "directory": str(directory.resolve())})
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, MalformedError) as error:
        raise ConfigError(f"{path}: {error}") from None
