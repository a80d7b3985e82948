"""Who is invited, who has joined and signed, whose key is how old: what `wardround coordinator members` shows.

Read from the roll and from the log's published files, so that the service may run meanwhile; nothing is verified.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from coordinator import founding
from coordinator.config import CoordinatorConfig
from coordinator.errors import ConfigError
from coordinator.roll import Invited, Roll, RollFile
from ledger import audit, envelope
from ledger.checkpoint import Checkpoint
from ledger.joining import groups
from ledger.note import Note
from ledger.records import Abort, Amendment, Charter, Round, Start, Succession, Tick
from ledger.source import open_source
from ledger.store import PENDING

DAY = 86_400
AUTHORITY_WARNING = (
    180  # days before the authority's certificate ends: every hospital needs the next one by then
)


def revoke(directory: Path, name: str) -> None:
    """Take back an invitation. Raises JoiningError: there is none, or it takes an amendment."""
    RollFile(directory).change(lambda roll: founding.revoke(roll, name))


def read(config: CoordinatorConfig, now: int) -> dict[str, Any]:
    """Return everybody's standing. Raises CoordinatorError or LedgerError."""
    roll = RollFile(config.directory).read()
    frozen = roll.frozen
    signed = founding.signed_by(roll)
    history = _History(config.log) if roll.founded else None
    return {
        "directory": str(config.directory),
        "origin": roll.origin,
        "founded": bool(roll.founded),
        "charter": roll.founded or (frozen.digest() if frozen else ""),
        "problem": "" if roll.founded else founding.problem(roll),
        "invited": [_invited(i, signed, roll, now) for i in roll.invited],
        "members": history.members(now) if history is not None else [],
        "authority_days": authority_days(config.directory, now),
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the same in plain words."""
    if found["charter"]:
        state = "founded with" if found["founded"] else "waits for signatures on"
        yield f"{found['origin']} {state} the charter {' '.join(groups(found['charter']))}"
    else:
        yield f"{found['origin']} is not founded: the charter is drafted when everybody has joined"
    if found["problem"]:
        yield f"  it could not be founded: {found['problem']}"
    for one in found["invited"]:
        yield f"invited {one['name']} ({one['role']}): {one['standing']}"
    for one in found["members"]:
        ages = ", ".join(f"{what} key {days} days old" for what, days in one["key_days"].items())
        yield f"member {one['name']} ({one['role']}): {one['standing']}; {ages}"
    yield from precautions(Path(found["directory"]))
    if found["authority_days"] < AUTHORITY_WARNING:
        yield authority_warning(found["authority_days"])


def precautions(directory: Path) -> Iterator[str]:
    """Yield what an operator has to know about the coordinator's own keys."""
    keys = directory / "keys"
    yield f"Keep a copy of {keys} offline: without log.key the log cannot go on."
    yield (
        f"If {keys / 'log.key'} or {keys / 'coordinator.key'} is in other hands: stop the service, tell every member "
        "to trust no checkpoint after the last final one, and begin a successor log, which a quorum or the recovery "
        "keys sign."
    )


def authority_days(directory: Path, now: int) -> int:
    """Return how many days the certificate authority has left. Raises ConfigError."""
    path = directory / "tls" / "ca.pem"
    try:
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        raise ConfigError(f"{path} is missing or no certificate: restore it from a backup") from None
    return (ends - datetime.fromtimestamp(now, UTC)).days


def authority_warning(days: int) -> str:
    """Return what to say when the authority nears its end."""
    return (
        f"the certificate authority ends in {days} days: move tls/ away, start the service again for a new one, and "
        "hand its ca.pem to every member before then"
    )


def _invited(one: Invited, signed: tuple[str, ...], roll: Roll, now: int) -> dict[str, Any]:
    if one.deposit:
        standing = "joined"
        if not roll.founded and roll.charter:
            standing = "joined and signed" if one.name in signed else "joined, has not signed"
    else:
        standing = (
            "has not joined" if now < one.expires_at else "has not joined, and the invitation has expired"
        )
    return {
        "name": one.name,
        "role": one.role,
        "standing": standing,
        "made_at": one.made_at,
        "expires_at": one.expires_at,
        "joined_at": one.joined_at,
    }


class _History:
    """When each member came and each key, by the log's own time."""

    def __init__(self, log: Path) -> None:
        source = open_source(str(log))
        size = Checkpoint.from_text(Note.from_bytes(source(PENDING)).text).size
        self._state = audit.replay(source, size).state
        self._since: dict[tuple[str, str], int] = {}  # (member, key) -> Unix seconds
        time = 0
        for data in audit.entries(source, size):
            record = envelope.parse_entry(data).record
            if isinstance(record, Charter | Succession):
                time = record.founded_at
                self._note(time, *((m.name, k) for m in record.terms.members for k in (m.key, m.witness)))
            elif isinstance(record, Amendment):
                self._note(time, *((m.name, k) for m in record.add for k in (m.key, m.witness)))
                self._note(time, *((c.member, k) for c in record.rotate for k in (c.key, c.witness)))
            elif isinstance(record, Tick | Start | Round | Abort):
                time = record.time

    def members(self, now: int) -> list[dict[str, Any]]:
        """Return every member of now and of before."""
        found = []
        for name, span in sorted(self._state.members.items()):
            member = span.member
            keys = {"identity": member.key, "witness": member.witness}
            found.append(
                {
                    "name": name,
                    "role": member.role,
                    "standing": "member" if self._state.member(name) is not None else "has left",
                    "key_days": {
                        what: (now - self._since[name, key]) // DAY for what, key in keys.items() if key
                    },
                }
            )
        return found

    def _note(self, time: int, *keys: tuple[str, str]) -> None:
        for name, key in keys:
            if key:
                self._since.setdefault((name, key), time)
