"""Whether the agent's two connections stand, for the hospital's screen: each change told once, never each retry."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LOG, ROUNDS = "log", "rounds"  # the log and records; Flower's messages
CLOCK = "clock"  # whether this machine's clock is the coordinator's


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    since: float  # Unix seconds
    trouble: str  # "" while connected


class Troubles:
    """May be used from several threads."""

    def __init__(self, tell: Callable[[dict[str, Any]], None], clock: Callable[[], float]) -> None:
        """Tell events to `tell`; `clock` gives Unix seconds."""
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        self._states: dict[str, _State] = {}

    def report(self, part: str, trouble: str) -> None:
        """Say how a connection stands now: why it does not, in one line, or "" if it does."""
        with self._lock:
            now, before = self._clock(), self._states.get(part)
            if before is not None and before.trouble == trouble:
                return
            broken_before = before is not None and before.trouble
            since = before.since if before is not None and broken_before and trouble else now
            self._states[part] = _State(since=since, trouble=trouble)
            event: dict[str, Any] = {"event": "trouble" if trouble else "connected", "part": part}
            if trouble:
                event |= {"trouble": trouble, "since": int(since)}
            elif before is not None and broken_before:
                event["after"] = round(now - before.since)  # seconds
            self._tell(event)
