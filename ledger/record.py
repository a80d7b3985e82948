"""What every record is: a frozen dataclass of `values` with one encoding, which is hashed, signed and stored."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from ledger import canonical
from ledger.values import Origin, require_sorted


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Base: every record names the log it was signed for, so that it cannot move to another."""

    TYPE: ClassVar[str] = ""
    SORTED: ClassVar[tuple[str, ...]] = ()  # fields that are sets: sorted, each once

    origin: Origin

    def __post_init__(self) -> None:
        canonical.check(self)
        for name in self.SORTED:
            values = getattr(self, name)
            keys = [
                v if isinstance(v, str) else f"{v:020}" if isinstance(v, int) else _key(v) for v in values
            ]
            require_sorted(f"{self.TYPE}.{name}", keys)

    def to_bytes(self) -> bytes:
        """Return the only encoding that is hashed, signed or stored."""
        return canonical.dumps({"type": self.TYPE, **canonical.plain(self)})

    def digest(self) -> str:
        """Return the lowercase hex SHA-256 of `to_bytes`: how other records name this one."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def _key(part: object) -> str:
    for name in ("hospital", "name", "member"):
        if (value := getattr(part, name, None)) is not None:
            return str(value)
    raise AttributeError(f"{type(part).__name__} has no name to sort by")
