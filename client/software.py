"""What runs at this hospital, as a job's record names it: versions, and a digest of our own source.

A result depends on the code that made it. So a job names its software, and a hospital takes part only with
exactly that. Nothing heavy is imported: versions are read from the installed packages' metadata.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

from client.errors import ConfigError
from ledger.values import Software

PACKAGES = ("numpy", "opacus", "torch")
_OWN = ("client", "ledger")
_FROM_SOURCE = "0.1.0"  # where the package is run without having been installed


@cache
def installed() -> tuple[Software, ...]:
    """Return what training depends on, sorted by name: the value of a job's `software`.

    Raises:
        ConfigError: a package is not installed.
    """
    parts = [Software(name=name, version=_version(name), digest="") for name in PACKAGES]
    try:
        own = metadata.version("wardround")
    except metadata.PackageNotFoundError:
        own = _FROM_SOURCE
    return (*parts, Software(name="wardround", version=own, digest=source_digest()))


@cache
def source_digest() -> str:
    """Return the SHA-256, lowercase hex, over every source file of the hospital's side, by path."""
    root = Path(__file__).resolve().parent.parent
    total = hashlib.sha256()
    for path in sorted(p for package in _OWN for p in (root / package).rglob("*.py")):
        total.update(f"{path.relative_to(root).as_posix()}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def models_digest() -> str:
    """Return the SHA-256, lowercase hex, of `client/models.py`: it names the built-in models on the record."""
    return hashlib.sha256(Path(__file__).with_name("models.py").read_bytes()).hexdigest()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        raise ConfigError(f"{name} is not installed: install wardround[hospital]") from None
