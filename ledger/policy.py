"""The trust file: which logs and witnesses count, and which witnesses together make a quorum.

Follows C2SP tlog-policy. A released policy file is never edited: a changed consortium gets a new file. The
names of witnesses and groups mean nothing outside the file.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from ledger.checkpoint import Checkpoint
from ledger.encoding import parse_decimal
from ledger.errors import MalformedError, VerificationError
from ledger.note import Note, OpenedNote, open_note
from ledger.signature import KeyType, VerifierKey

MAX_POLICY_SIZE = 4_000_000  # bytes; over 1,000 ML-DSA-44 keys
NO_QUORUM = "none"
_FORBIDDEN = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")
_NAME = re.compile("[^\x00-\x20\x7f\ud800-\udc7f\udd00-\udfff]+")  # an octet above 0x7f may be an escape


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A log whose signature is accepted; its key's name is its origin. `url` is "" where none is given."""

    key: VerifierKey
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A witness, with the name that groups use for it. `url` is "" where none is given."""

    name: str
    key: VerifierKey
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Counts as a witness when `threshold` of its members do; 1 <= threshold <= len(members)."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A valid policy: every name resolves, no member or public key counts twice.

    Attributes:
        logs: Any one of them must have signed; several may share one origin while keys change.
        witnesses: In the file's order.
        groups: Each refers to witnesses and to groups before it.
        quorum: Name of a witness or group, or NO_QUORUM.
    """

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    def __post_init__(self) -> None:
        _check_keys("log", [log.key for log in self.logs])
        _check_keys("witness", [witness.key for witness in self.witnesses])
        if any(witness.key.type is KeyType.ED25519 for witness in self.witnesses):
            raise MalformedError("policy has a witness key of type 0x01: witnesses need 0x04 or 0x06")
        urls = [*(log.url for log in self.logs), *(witness.url for witness in self.witnesses)]
        if not all(_NAME.fullmatch(url) for url in urls if url):
            raise MalformedError("policy has a URL with spaces or control characters")
        defined = _check_names([*self.witnesses, *self.groups])
        if self.quorum not in {NO_QUORUM, *defined}:
            raise MalformedError(f"policy: quorum {self.quorum} is not a witness or group of the file")

    def satisfied_by(self, names: Collection[str]) -> bool:
        """Whether these witnesses (policy names), all with valid cosignatures, make the quorum."""
        counted = {witness.name for witness in self.witnesses} & set(names)
        for group in self.groups:
            if len(counted.intersection(group.members)) >= group.threshold:
                counted.add(group.name)
        return self.quorum == NO_QUORUM or self.quorum in counted

    def to_bytes(self) -> bytes:
        """Return the file, without comments and with thresholds in digits."""
        lines = [["log", log.key.to_text(), log.url] for log in self.logs]
        lines += [["witness", w.name, w.key.to_text(), w.url] for w in self.witnesses]
        lines += [["group", g.name, str(g.threshold), *g.members] for g in self.groups]
        lines += [["quorum", self.quorum]]
        text = "".join(" ".join(filter(None, line)) + "\n" for line in lines)
        return text.encode("utf-8", "surrogateescape")

    @classmethod
    def from_bytes(cls, data: bytes) -> Policy:
        """Parse a policy file. A last line without a newline is accepted.

        Raises:
            MalformedError: naming the line, any file outside the spec.
        """
        if len(data) > MAX_POLICY_SIZE:
            raise MalformedError(f"policy is longer than {MAX_POLICY_SIZE} bytes")
        if _FORBIDDEN.search(data):
            raise MalformedError("policy holds a control character other than tab and newline")
        reader = _Reader()
        # Names are octets, whatever their encoding: surrogateescape keeps each octet apart.
        for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), 1):
            words = line.replace("\t", " ").split(" ")
            try:
                reader.add([word for word in words if word])
            except MalformedError as error:
                raise MalformedError(f"policy, line {number}: {error}") from None
        return reader.policy()


class _Reader:
    """Collects the lines of one policy file; `Policy` judges the whole."""

    def __init__(self) -> None:
        self.logs: list[Log] = []
        self.witnesses: list[Witness] = []
        self.groups: list[Group] = []
        self.defined: set[str] = set()  # names on the lines so far
        self.quorum: str | None = None

    def add(self, words: list[str]) -> None:
        match words:
            case []:
                return
            case [first, *_] if first.startswith("#"):
                return
            case ["log", key, *url] if len(url) <= 1:
                self.logs.append(Log(key=VerifierKey.from_text(key), url="".join(url)))
            case ["witness", name, key, *url] if len(url) <= 1:
                self._define(name)
                self.witnesses.append(Witness(name=name, key=VerifierKey.from_text(key), url="".join(url)))
            case ["group", name, threshold, *members] if members:
                self._require(*members)
                self._define(name)
                size = {"any": 1, "all": len(members)}.get(threshold) or parse_decimal(threshold, "threshold")
                self.groups.append(Group(name=name, threshold=size, members=tuple(members)))
            case ["quorum", name]:
                if self.quorum is not None:
                    raise MalformedError("a second quorum line")
                if name != NO_QUORUM:
                    self._require(name)
                self.quorum = name
            case [first, *_]:
                raise MalformedError(
                    "not one of: log <vkey> [url], witness <name> <vkey> [url], "
                    "group <name> all|any|<k> <member>..., quorum <name>|none"
                )

    def policy(self) -> Policy:
        if self.quorum is None:
            raise MalformedError("policy has no quorum line")
        return Policy(
            logs=tuple(self.logs),
            witnesses=tuple(self.witnesses),
            groups=tuple(self.groups),
            quorum=self.quorum,
        )

    def _define(self, name: str) -> None:
        if name in self.defined:
            raise MalformedError("a name that an earlier line has taken")
        self.defined.add(name)

    def _require(self, *names: str) -> None:
        if not self.defined.issuperset(names):
            raise MalformedError("a name that no earlier line defines")


def verify_checkpoint(policy: Policy, note: Note | bytes) -> tuple[Checkpoint, dict[str, int]]:
    """Check a signed checkpoint against the policy.

    Returns:
        The checkpoint, and for each witness (policy name) that cosigned its newest time in POSIX seconds.

    Raises:
        MalformedError: not a signed checkpoint.
        VerificationError: no log of its origin signed it, a known signature fails, or the quorum is missing.
    """
    log_keys = {log.key for log in policy.logs}
    opened = open_note(note, [*log_keys, *(witness.key for witness in policy.witnesses)])
    checkpoint = Checkpoint.from_text(opened.text)
    if not any(line.key in log_keys and line.key.name == checkpoint.origin for line in opened.verified):
        raise VerificationError("checkpoint is not signed by a log of its origin that the policy lists")
    times = witness_times(policy, opened)
    if not policy.satisfied_by(times):
        raise VerificationError(
            f"checkpoint of size {checkpoint.size} has valid cosignatures of {len(times)} of "
            f"{len(policy.witnesses)} witnesses: quorum {policy.quorum} is not reached"
        )
    return checkpoint, times


def witness_times(policy: Policy, opened: OpenedNote) -> dict[str, int]:
    """Return, for each witness of the policy that cosigned, its newest time in POSIX seconds."""
    names = {witness.key: witness.name for witness in policy.witnesses}
    times: dict[str, int] = {}
    for line in opened.verified:
        if line.key in names and line.time is not None:
            times[names[line.key]] = max(line.time, times.get(names[line.key], 0))
    return times


def quorum_size(witnesses: int, dishonest: int) -> int:
    """Return k = floor((n + f) / 2) + 1: any two quorums then share an honest witness, of n with f dishonest.

    Raises:
        MalformedError: no such k exists (2k - n < f + 1), or the honest alone do not reach it (k > n - f).
    """
    if not 0 <= dishonest < witnesses:
        raise MalformedError(f"{dishonest} dishonest witnesses of {witnesses} leave no honest one")
    quorum = (witnesses + dishonest) // 2 + 1
    if 2 * quorum - witnesses < dishonest + 1 or quorum > witnesses - dishonest:
        raise MalformedError(
            f"no quorum of {witnesses} witnesses withstands {dishonest} dishonest ones: "
            f"it takes at least {3 * dishonest + 1}"
        )
    return quorum


def _check_keys(what: str, keys: list[VerifierKey]) -> None:
    if len({key.public for key in keys}) != len(keys):  # whatever their names and types
        raise MalformedError(f"policy lists one public key for two {what} lines")


def _check_names(items: list[Witness | Group]) -> set[str]:
    defined: set[str] = set()
    members: set[str] = set()
    for item in items:
        if isinstance(item, Group):
            own = set(item.members)
            if len(own) != len(item.members) or own & members:
                raise MalformedError("policy lists a name as a member twice")
            if not own <= defined:
                raise MalformedError("policy has a group with a member that is not defined before it")
            if not 1 <= item.threshold <= len(own):
                raise MalformedError(f"policy: threshold {item.threshold} of {len(own)} members")
            members |= own
        if item.name == NO_QUORUM or item.name in defined or not _NAME.fullmatch(item.name):
            raise MalformedError("policy has a name that is taken, reserved or holds spaces")
        defined.add(item.name)
    return defined
