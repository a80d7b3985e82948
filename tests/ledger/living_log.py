"""A log for the tests: signs and appends what it is given, and changes who its consortium is.

Built on the example's keys. `consortium` adds the records of everyday life.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any, Self

from ledger import envelope, example, records
from ledger.envelope import Entry
from ledger.errors import RuleError
from ledger.policy import quorum_size
from ledger.record import Record
from ledger.signature import KeyType, SigningKey
from ledger.state import NEVER, JobState, State
from ledger.values import KeyChange, Member, Previous, Terms
from ledger.view import NOTHING, View

DAY = 86_400


def digest(words: str) -> str:
    """A digest that stands for content which no test carries."""
    return hashlib.sha256(words.encode()).hexdigest()


class LivingLog:
    """A log under way. `append` takes what the makers make; `fork` gives a copy to try things on."""

    def __init__(self) -> None:
        self.view: View = NOTHING
        self.entries: list[Entry] = []
        self.keys = {envelope.public_hex(key): key for key in example.KEYS.values()}
        self.recovery = [example.key(f"recovery {i}", "recovery") for i in range(3)]

    @classmethod
    def founded(cls) -> Self:
        """Return the example's consortium after its charter."""
        self = cls()
        self.append(example.charter())
        return self

    def fork(self) -> Self:
        """Return a copy that goes its own way."""
        other = copy.copy(self)
        other.entries, other.keys = list(self.entries), dict(self.keys)
        return other

    @property
    def state(self) -> State:
        """What the records amount to."""
        return self.view.state

    def job_state(self, job: str) -> JobState:
        """The state of one job."""
        return self.state.jobs[job]

    # --- signing and appending ---

    def entry(self, record: Record, *signers: str | SigningKey) -> Entry:
        """Sign a record with the named members' keys of now or with given keys; by default whoever must."""
        keys = [self.key_of(s) if isinstance(s, str) else s for s in signers] or self.signers(record)
        return envelope.parse_entry(envelope.sign(record, *keys))

    def append(self, record: Record | Entry, *signers: str | SigningKey) -> Entry:
        """Let an entry follow."""
        entry = record if isinstance(record, Entry) else self.entry(record, *signers)
        self.view = self.view.extend([entry])
        self.entries.append(entry)
        return entry

    def refuses(self, record: Record | Entry, *signers: str | SigningKey) -> str:
        """Return the rule that keeps an entry from following."""
        try:
            self.fork().append(record, *signers)
        except RuleError as error:
            return error.rule
        raise AssertionError("the entry may follow")

    def key_of(self, name: str) -> SigningKey:
        """The key that a member has now; of one that left, its last; of a stranger, a new one."""
        found = self.state.members.get(name)
        return self.keys[found.member.key] if found is not None else self.new_key(name)

    def new_key(self, name: str) -> SigningKey:
        """A key that nobody had before."""
        key = example.key(f"{name} {len(self.keys)}", name)
        self.keys[envelope.public_hex(key)] = key
        return key

    def new_witness(self, name: str) -> str:
        """A witness key that nobody had before, as a verifier key."""
        words = f"{name} witness {len(self.keys)} {self.state.version}"
        return example.key(words, f"{name}.example/witness", KeyType.COSIGNATURE).verifier.to_text()

    def voters(self) -> list[SigningKey]:
        """The keys of the members that are witnesses."""
        return [self.keys[m.key] for m in self.members() if m.witness]

    def signers(self, record: Record) -> list[SigningKey]:
        """Whoever must sign a record; of voters, all."""
        if isinstance(record, records.Charter):
            return [self.keys[m.key] for m in record.terms.members]
        if isinstance(record, records.Amendment):
            fresh = [m.key for m in record.add] + [c.key for c in record.rotate if c.key]
            votes = [k for k in self.voters() if envelope.public_hex(k) not in record.revoke]
            return votes + [self.keys[k] for k in fresh]
        if isinstance(record, records.Succession):
            now = {m.key for m in self.members()}
            return self.voters() + [self.keys[m.key] for m in record.terms.members if m.key not in now]
        if isinstance(record, records.Agreement):
            return [self.key_of(name) for name in record.parties]
        if isinstance(record, records.Access):
            return [self.key_of(self.state.coordinator().name)]
        named = (getattr(record, role, None) for role in ("hospital", "researcher", "member"))
        name = next((n for n in named if n is not None), self.state.coordinator().name)
        return [self.key_of(name)]

    # --- who the consortium is ---

    def members(self) -> list[Member]:
        """The members of now, by name."""
        return sorted(
            (m.member for m in self.state.members.values() if m.until == NEVER), key=lambda m: m.name
        )

    def member(self, name: str, role: str = "hospital", *, witness: bool = True) -> Member:
        """A member to be, with new keys."""
        key = envelope.public_hex(self.new_key(name))
        return Member(name=name, role=role, key=key, witness=self.new_witness(name) if witness else "")

    def rotation(self, name: str, *, witness: bool = False) -> KeyChange:
        """A new identity key of a member, and a new witness key if asked for."""
        key = envelope.public_hex(self.new_key(name))
        return KeyChange(member=name, key=key, witness=self.new_witness(name) if witness else "")

    def amendment(self, **changes: Any) -> records.Amendment:
        """An amendment of the charter in force; f and k are kept possible."""
        now = {m.name for m in self.members() if m.witness}
        added = {m.name for m in changes.get("add", ()) if m.witness}
        count = len((now - set(changes.get("remove", ()))) | added)
        f = changes.get("max_dishonest", min(self.state.witness_sets[-1].max_dishonest, (count - 1) // 3))
        standard = {
            "origin": self.state.origin, "replaces": self.state.version, "add": (), "remove": (), "rotate": (),
            "revoke": (), "max_dishonest": f, "quorum": quorum_size(count, f) if count > 3 * f else 1, "log": "",
            "rules": 1,
        }  # fmt: skip
        return records.Amendment(**{**standard, **changes})

    def terms(self, **changes: Any) -> Terms:
        """The charter's terms as they are now, for a succession to `origin`."""
        last, origin = self.state.witness_sets[-1], changes.pop("origin", "ledger.example/heart-2")
        standard = {
            "members": tuple(self.members()),
            "max_dishonest": last.max_dishonest,
            "quorum": last.quorum,
            "log": example.key(f"log of {origin}", origin).verifier.to_text(),
            "recovery_keys": self.state.recovery_keys,
            "recovery_quorum": self.state.recovery_quorum,
            "rules": 1,
        }
        return Terms(**{**standard, **changes})

    def succession(self, **changes: Any) -> records.Succession:
        """A log that follows this one."""
        previous = Previous(origin=self.state.origin, size=self.view.size, root=self.view.root.hex())
        origin = changes.pop("origin", "ledger.example/heart-2")
        standard = {"name": "heart-consortium", "founded_at": self.state.time, "previous": previous}
        return records.Succession(
            **{"origin": origin, "terms": self.terms(origin=origin), **standard, **changes}
        )

    def succeed(self, record: Record | Entry, *signers: str | SigningKey) -> Self:
        """Return the consortium on its new log."""
        entry = record if isinstance(record, Entry) else self.entry(record, *signers)
        after = self.fork()
        after.view, after.entries = self.view.succeeded_by(entry), [entry]
        return after
