"""Which hospital has which Flower node: keys in a folder, registered with the SuperLink as they come and go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from coordinator.errors import ConfigError, TransportError
from coordinator.superlink import NodeState

MAX_KEY = 4096  # bytes of a PEM file
_log = logging.getLogger(__name__)


class Registry(Protocol):
    """Flower's register of nodes, as `coordinator.superlink.SuperLink` offers it."""

    def register_node(self, name: str, public_key: bytes) -> int:
        """Return the node id of a key, registering it where it is new."""

    def unregister_node(self, node_id: int) -> None:
        """Remove a node: its key is refused from the next request on."""

    def nodes(self) -> tuple[NodeState, ...]:
        """Return the registered nodes."""


class DepositedNodes:
    """Node ids by hospital. Any thread may ask."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        """Know nobody yet: `scan` reads the folder."""
        self._folder = folder
        self._registry = registry
        self._lock = threading.Lock()
        self._ids: dict[str, int] = {}
        self._keys: dict[str, bytes] = {}

    def scan(self) -> None:
        """Register every deposited key that is new or changed, and no others: a key that is gone is refused.

        Raises:
            ConfigError: a key's file cannot be read.
            TransportError: the SuperLink cannot be reached. A key that it refuses is logged and left out.
        """
        deposited = {path.stem: _read(path) for path in sorted(self._folder.glob("*.pub"))}
        with self._lock:
            for name in [name for name, key in self._keys.items() if deposited.get(name) != key]:
                self._registry.unregister_node(self._ids[name])
                del self._keys[name], self._ids[name]
            for name, key in deposited.items():
                if name in self._keys:
                    continue
                try:
                    self._ids[name] = self._registry.register_node(name, key)
                except TransportError as error:
                    _log.warning("the node key of %s was not registered: %s", name, error)
                    continue
                self._keys[name] = key

    def ids(self) -> Mapping[str, int]:
        """Return hospital -> node id."""
        with self._lock:
            return dict(self._ids)

    def online(self) -> frozenset[str]:
        """Return the hospitals whose node is connected. Raises TransportError."""
        there = {node.node_id for node in self._registry.nodes() if node.online}
        with self._lock:
            return frozenset(name for name, node_id in self._ids.items() if node_id in there)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY)
    except OSError as error:
        raise ConfigError(f"cannot read the node key {path}: {error.strerror}") from None
