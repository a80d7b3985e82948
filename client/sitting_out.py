"""Why a hospital sits a round out, and when it would take part again: by policy and persons, never by rows. Pure.

The second rides unsigned on the skip as `retry_after`, whole seconds from now: a help for whoever asks, and no
promise. What it depends on is in `hospital.toml` or was decided by a person; where the reason is another one, the
worker's own business included, it is a constant, so that nothing that was computed from rows can show in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime

from client import hours
from client.decisions import FOR_GOOD

LONGEST = 7 * 86_400  # seconds: a week's hours come again after a week
UNTIL_A_PERSON = 86_400  # seconds: when to ask again where a pause has no end
BUSY = 60  # seconds


def code(now: float, paused_until: int, spans: Sequence[str]) -> str:
    """Return the code of the skip that a hospital wants, or "".

    Args:
        now: Unix seconds.
        paused_until: When the pause ends, Unix seconds; 0 where there is none.
        spans: The policy's hours.
    """
    if now < paused_until:
        return "paused"
    return "" if hours.is_open(spans, hours.local(now)) else "hours"


def retry_after(
    skip: str,
    now: float,
    paused_until: int,
    spans: Sequence[str],
    to_local: Callable[[float], datetime] = hours.local,
) -> int:
    """Return after how many seconds to ask again, 0 to LONGEST; 0 where nothing but the round was lost.

    Args:
        skip: The skip's code.
        now: Unix seconds.
        paused_until: When the pause ends, Unix seconds; 0 where there is none.
        spans: The policy's hours.
        to_local: Returns Unix seconds as the hospital's local time.
    """
    if skip == "busy":
        return BUSY
    if skip not in ("paused", "hours"):
        return 0
    if paused_until >= FOR_GOOD:
        return UNTIL_A_PERSON
    opens = hours.next_open(spans, max(now, paused_until), to_local)
    return LONGEST if opens is None else min(max(0, math.ceil(opens - now)), LONGEST)
