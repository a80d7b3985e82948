"""The agent's own log file: one line an event or a warning, rotated by size, or by logrotate and SIGHUP.

Never in it: a row, a key, a job's free text. Only known fields of events are written, and no traceback.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from client.errors import ConfigError
from client.settings import Journal

FIELDS = (  # of events; whatever else an event may hold stays on the screen
    "event", "job", "round", "kind", "code", "seconds", "dataset", "version", "reason", "part", "trouble", "since",
    "after",
)  # fmt: skip
MAX_TEXT = 500  # characters of one value
_MIB = 1 << 20
_EVENTS = "client.events"


class _Lines(logging.Formatter):
    """One line a record, whatever is in it."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback is left to standard error."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        event: dict[str, Any] = getattr(record, "event", {})
        fields = {name: _short(event[name]) for name in FIELDS if name in event}
        text = "" if fields else _short(record.getMessage())
        level = record.levelname.lower()
        if self._as_json:
            return json.dumps({"time": when, "level": level, **(fields or {"text": text})})
        words = text or " ".join(f"{name}={json.dumps(value)}" for name, value in fields.items())
        return f"{when} {level} {words}"


class JournalFile(RotatingFileHandler):
    """A rotating file that its owner alone can read; `reopen` follows a file that logrotate moved away."""

    _moved = False  # another program has renamed the file

    def _open(self) -> TextIOWrapper:
        def private(path: str, flags: int) -> int:
            return os.open(path, flags | os.O_CLOEXEC, 0o600)

        return open(self.baseFilename, "a", encoding="utf-8", opener=private)

    def reopen(self) -> None:
        """Go on in a new file of the same name, from the next line on; for signal handlers, which may not wait."""
        self._moved = True

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; called with the lock held."""
        if self._moved:
            self._moved = False
            if self.stream is not None:
                self.stream.close()
            self.stream = self._open()
        super().emit(record)

    def tell(self, event: dict[str, Any]) -> None:
        """Write an event."""
        logging.getLogger(_EVENTS).info("event", extra={"event": event})

    def close(self) -> None:
        """Take the file off the loggers and close it; safe to call twice."""
        for name in ("", _EVENTS):
            logging.getLogger(name).removeHandler(self)
        super().close()


def open_journal(folder: Path, settings: Journal, *, as_json: bool) -> JournalFile | None:
    """Have warnings, and what is told, written to the journal's file; None where the settings name none.

    Args:
        folder: The hospital's; `settings.file` is relative to it.
        settings: File, size and how many older files are kept.
        as_json: One JSON object a line.

    Raises:
        ConfigError: the file cannot be written.
    """
    if not settings.file:
        return None
    path = folder / settings.file
    try:
        file = JournalFile(
            path, maxBytes=settings.max_mib * _MIB, backupCount=settings.keep, encoding="utf-8"
        )
    except OSError as error:
        raise ConfigError(
            f"cannot write the journal {path}: {error.strerror}; correct [journal] file"
        ) from None
    file.setFormatter(_Lines(as_json=as_json))
    events = logging.getLogger(_EVENTS)
    events.setLevel(logging.INFO)
    events.propagate = False
    events.addHandler(file)
    logging.getLogger().addHandler(file)
    return file


def _short(value: object) -> Any:
    if type(value) in (int, float, bool):
        return value
    return "".join(c if c.isprintable() else "?" for c in str(value))[:MAX_TEXT]
