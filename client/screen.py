"""What `wardround hospital run` shows: one line an event, with what to do where a person can do something."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from client.standing import RESTORED
from client.troubles import CLOCK, ROUNDS

MAX_VALUE = 200  # characters of one field


def words(event: dict[str, Any], folder: str) -> str:
    """Return an event in one line.

    Args:
        event: What the agent told.
        folder: The hospital's folder, for the commands that are named.
    """
    name = event["event"]
    what = "Flower's messages" if event.get("part") == ROUNDS else "the log"
    if name == "round":
        kind = f"{event['kind']} ({event['code']})" if event["code"] else event["kind"]
        return f"round {event['round']} of job {event['job'][:12]}: {kind}, {event['seconds']:.2f} s"
    if event.get("part") == CLOCK:
        return _clean(event.get("trouble", "this machine's clock and the coordinator's agree"))
    if name == "connected":
        after = f" again, after {event['after']} s" if "after" in event else ""
        return f"connected to the coordinator for {what}{after}"
    if name == "trouble":
        since = f"{datetime.fromtimestamp(event['since'], UTC):%Y-%m-%d %H:%M:%S} UTC"
        trouble = _clean(event["trouble"]).rstrip(". ")
        return (
            f"no connection for {what} since {since}: {trouble}. It is tried again; if it lasts: "
            f"wardround hospital check {folder}"
        )
    if name == "keys":
        return "the log names new keys of this hospital: going on with them"
    if name == "person":
        first = f"wardround member rotate {folder} --witness, " if event["reason"] == RESTORED else ""
        return (
            f"waiting for a person ({_clean(event['reason'])}): wardround hospital standing {folder} says why; "
            f"then {first}wardround hospital resume {folder}"
        )
    if name == "waiting":
        return (
            f"job {event['job'][:12]} waits for a person ({_clean(event['code'])}): wardround hospital show {folder} "
            f"{event['job'][:12]}, then approve or refuse"
        )
    if name == "reloaded":
        return f"hospital.toml was read again: {'the new settings hold' if event['changed'] else 'nothing changed'}"
    if name == "ended":
        return f"ended: {_clean(event['reason'])}"
    if name == "following":
        return "started: following the log, answering rounds; stop with Ctrl-C or SIGTERM"
    rest = ", ".join(f"{key} {_clean(value)[:40]}" for key, value in event.items() if key != "event")
    return f"{name}: {rest}" if rest else str(name)


def _clean(value: object) -> str:
    """Return a value without what could move a terminal's cursor; others' words may be in it."""
    return "".join(c if c.isprintable() else "?" for c in str(value))[:MAX_VALUE]
