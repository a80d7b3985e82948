"""The settings of a running agent, which a person may change: `hospital.toml` is read again when told so.

What decides about jobs, when it may train and how much of the machine it may take holds from then on. Who the
hospital is, its coordinator, its keys and where its rows are need a restart: a file that changes one of these, or is
damaged, changes nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable

from client import config
from client.config import Hospital
from client.dictionary import Dictionary
from client.errors import ConfigError

_AGENT = ("name", "coordinator", "authority", "charter", "proxy", "journal")
_ROWS = ("name", "kind", "file", "mapping", "one_row_per_patient")


class LiveSettings:
    """The settings and the data dictionary of now; may be read from any thread."""

    def __init__(self, hospital: Hospital, read_dictionary: Callable[[Hospital], Dictionary]) -> None:
        """Take the settings that the agent starts with. Raises ConfigError: the dictionary cannot be read."""
        self._read_dictionary = read_dictionary
        self._now = (hospital, read_dictionary(hospital))

    @property
    def hospital(self) -> Hospital:
        """The settings."""
        return self._now[0]

    @property
    def dictionary(self) -> Dictionary:
        """The data dictionary that they name."""
        return self._now[1]

    def reload(self) -> bool:
        """Read the files again; tell whether anything changed.

        Raises:
            ConfigError: one is damaged, or a change needs a restart; what held before holds on.
        """
        new, old = config.load(self.hospital.folder), self.hospital
        if fixed := _fixed(old, new):
            raise ConfigError(f"{config.FILE} changes {', '.join(fixed)}: restart the agent for that")
        before, self._now = self._now, (new, self._read_dictionary(new))
        return self._now != before


def _fixed(old: Hospital, new: Hospital) -> list[str]:
    """Return the names of what differs and cannot be changed while the agent runs."""
    agent = [n for n in _AGENT if getattr(old, n) != getattr(new, n)]
    return agent + [f"dataset.{n}" for n in _ROWS if getattr(old.dataset, n) != getattr(new.dataset, n)]
