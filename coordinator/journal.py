"""The service's journal: one JSON object a line, on standard error or in a file that is rotated.

    {"time": "2026-01-01T12:00:00.123Z", "level": "INFO", "logger": "coordinator.routing", "message": "change", ...}

Each change leaves one line with its endpoint, status, sender and seconds; polls leave none. What is logged is never a
key, a code or a body.
"""

from __future__ import annotations

import json
import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from coordinator.config import CoordinatorConfig
from coordinator.errors import ConfigError

MEBIBYTE = 1 << 20


class JsonLines(logging.Formatter):
    """Writes a log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        whole, part = divmod(record.created, 1)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        line: dict[str, object] = {
            "time": f"{moment}.{int(part * 1000):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)  # one line whatever a value holds


def begin(config: CoordinatorConfig) -> None:
    """Send what this process logs to the journal from now on.

    Raises:
        ConfigError: its file cannot be written.
    """
    handler: logging.Handler = logging.StreamHandler()
    if config.log_file:
        path = config.directory / Path(config.log_file)
        try:
            handler = RotatingFileHandler(
                path, maxBytes=config.log_max_mib * MEBIBYTE, backupCount=config.log_keep, encoding="utf-8"
            )
        except OSError as error:
            raise ConfigError(
                f"cannot write the journal {path}: {error.strerror}; correct log_file"
            ) from None
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("coordinator").setLevel(logging.INFO)
