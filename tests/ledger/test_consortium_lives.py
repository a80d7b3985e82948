"""Whole lives of consortia: whatever honest members do is accepted, and nothing else makes `apply` stumble.

The machine keeps a memory of its own of what the protocol says (who held which key when, who withdrew, skipped or
spent what) and predicts every reason code and every receipt from that, never from the rules' state.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger.envelope import Entry
from ledger.errors import RuleError
from ledger.records import Abort, Round, Start
from ledger.values import decimal
from ledger.view import NOTHING, View
from tests.ledger.consortium import DAY, Consortium, digest
from tests.ledger.job_memory import Memory, text

HOSPITALS = ("alpha", "bravo", "charlie", "delta", "echo", "fox", "golf")
picks = st.randoms(use_true_random=False)


class Lives(RuleBasedStateMachine):
    @initialize()
    def found(self) -> None:
        self.c = Consortium.founded()
        self.begin: tuple[View, list[Entry]] = (NOTHING, self.c.entries)  # what a replay starts from
        self.running: dict[str, Memory] = {}
        self.revoked: set[str] = set()
        self.spent: dict[str, int] = {}  # dataset -> hundredths
        self.charges: dict[str, int] = {}
        self.away: tuple[bytes, int] | None = None
        self.before = self.c.view
        self.offer()
        self.offer()
        for job in (("alpha", "bravo", "charlie"), ("delta", "echo")):
            self.begin_job(list(job))

    def present(self) -> list[str]:
        return [m.name for m in self.c.members() if m.role == "hospital"]

    def remember(self, job: str) -> None:
        memory = self.running[job]
        memory.last_time, memory.skipped = self.c.state.time, set()
        memory.keys = {m.name: m.key for m in self.c.members()}

    # --- membership ---

    @rule(
        random=picks,
        what=st.sampled_from(["join", "leave", "rotate", "rotate", "steal", "steal"]),
        then=st.booleans(),
    )
    def amend(self, random: Any, what: str, then: bool) -> None:
        """Somebody joins, leaves or changes keys: most often a hospital in the middle of a job."""
        free = [h for h in HOSPITALS if h not in self.c.state.members]
        busy = [m for m in self.c.members() if any(m.name in job.hospitals for job in self.running.values())]
        member = random.choice(busy if busy and random.random() < 0.8 else self.c.members())
        if what == "join" and free:
            self.c.append(self.c.amendment(add=(self.c.member(free[0]),)))
        elif what == "leave" and len(self.present()) > 3 and member.role == "hospital":
            self.c.append(self.c.amendment(remove=(member.name,)))
        else:
            stolen = (member.key,) if what == "steal" else ()
            self.c.append(self.c.amendment(rotate=(self.c.rotation(member.name),), revoke=stolen))
            self.revoked.update(stolen)
        self.go_on(random, then)

    # --- jobs ---

    def has_something_to_offer(self) -> bool:
        """Whether a hospital has no dataset yet, or every agreement has expired."""
        known, now = self.c.state.datasets, self.c.state.time
        fresh = any(f"{h}/heart" not in known for h in self.present())
        return fresh or all(a.expires_at <= now for a in self.c.state.agreements.values())

    @precondition(lambda self: self.has_something_to_offer())
    @rule()
    def offer(self) -> None:
        fresh = [h for h in self.present() if f"{h}/heart" not in self.c.state.datasets]
        for hospital in fresh[:3]:
            self.c.append(self.c.dataset(hospital))
            self.spent[f"{hospital}/heart"], self.charges[f"{hospital}/heart"] = 0, 0
        offering = [h for h in self.present() if f"{h}/heart" in self.c.state.datasets]
        self.c.append(self.c.agreement(*offering, text=digest(f"agreement {self.c.view.size}")))

    def valid_until(self, hospital: str) -> int:
        """When the last agreement that lets a hospital take part expires; 0 where there is none."""
        now = self.c.state.time
        agreed = (a.expires_at for a in self.c.state.agreements.values() if hospital in a.parties)
        return max((t for t in agreed if t > now), default=0)

    @rule(random=picks, held_out=st.booleans(), hesitate=st.booleans())
    def propose_and_start(self, random: Any, held_out: bool, hesitate: bool) -> None:
        busy = {h for m in self.running.values() for h in m.hospitals}
        free = [h for h in self.present() if self.valid_until(h) and h not in busy]
        if len(free) > 1:
            chosen = sorted(random.sample(free, random.randint(2, min(3, len(free)))))
            self.begin_job(chosen, held_out=held_out, hesitate=hesitate)

    def begin_job(self, hospitals: list[str], *, held_out: bool = True, hesitate: bool = False) -> None:
        more: dict[str, Any] = {} if held_out else {"evaluate": (), "heldout_epsilon": "0"}
        job = self.c.append(self.c.job(*hospitals, rounds=6, **more)).digest
        if hesitate:
            self.c.append(self.c.refusal(hospitals[0], job))
            self.c.append(self.c.approval(hospitals[0], job))
            self.c.append(self.c.withdrawal(hospitals[0], job))
        for hospital in hospitals:
            self.c.append(self.c.approval(hospital, job))
        self.c.append(self.c.start(job))
        ends = self.c.job_state(job).record.expires_at
        self.running[job] = Memory(hospitals, {h: min(ends, self.valid_until(h)) for h in hospitals})
        self.remember(job)

    def receive(self, job: str, hospital: str) -> None:
        memory, ref = self.running[job], f"{hospital}/heart"
        memory.spent[hospital] += 7
        self.spent[ref] += 7
        self.charges[ref] += 1
        receipt = self.c.receipt(
            hospital,
            job,
            charge=self.charges[ref],
            epsilon_job=text(memory.spent[hospital]),
            epsilon_dataset=text(self.spent[ref]),
        )
        self.c.append(receipt, self.c.keys[memory.keys[hospital]])

    @precondition(lambda self: self.running)
    @rule(random=picks, rounds=st.integers(1, 3), lose=st.booleans(), bad=st.booleans())
    def play(self, random: Any, rounds: int, lose: bool, bad: bool) -> None:
        job = random.choice(sorted(self.running))
        for _ in range(rounds):
            self.exchange(job, lose, bad)

    def go_on(self, random: Any, then: bool) -> None:
        if then and self.running:
            self.exchange(random.choice(sorted(self.running)), lose=False, bad=False)

    def exchange(self, job: str, lose: bool, bad: bool) -> None:
        memory = self.running[job]
        found = self.c.job_state(job)
        if memory.round > found.record.last_exchange:
            return
        codes = {h: code for h in memory.hospitals if (code := memory.code(h, self.revoked))}
        able = [h for h in memory.hospitals if h not in codes and self.spent[f"{h}/heart"] < 750]
        if lose and len(able) > 1:
            able.pop()
        for hospital in able:
            self.receive(job, hospital)
        codes.update({h: "late" for h in memory.hospitals if h not in codes and h not in able})
        if bad and len(able) > 2:
            codes[able[0]] = "norm"
        aggregated = len([h for h in able if h not in codes])
        close = (
            self.c.round_
            if aggregated >= found.record.min_participants and not (lose and bad)
            else self.c.abort
        )
        self.c.append(close(job, codes))
        memory.round += 1
        self.remember(job)

    @precondition(lambda self: self.running)
    @rule(random=picks, withdraw=st.sampled_from([False, False, True]), then=st.booleans())
    def step_back(self, random: Any, withdraw: bool, then: bool) -> None:
        """A participant skips the next round, or withdraws from the job."""
        job = random.choice(sorted(self.running))
        memory = self.running[job]
        done = memory.withdrawn if withdraw else memory.skipped
        could = [h for h in memory.hospitals if h in self.present() and h not in done]
        if could:
            hospital = random.choice(could)
            self.c.append(self.c.withdrawal(hospital, job) if withdraw else self.c.skip(hospital, job))
            done.add(hospital)
        self.go_on(random, then)

    @precondition(lambda self: self.running)
    @rule(random=picks, cancel=st.sampled_from([False, False, False, True]))
    def end(self, random: Any, cancel: bool) -> None:
        job = random.choice(sorted(self.running))
        if self.running[job].round > self.c.job_state(job).record.last_exchange:
            self.c.append(self.c.release(job))
            self.c.append(self.c.access(job))
            self.c.append(self.c.ended(job))
        elif cancel:
            self.c.append(self.c.ended(job, "cancelled"))
        else:
            return
        del self.running[job]

    @rule(random=picks, days=st.sampled_from([0, 0, 1, 20, 40]), seconds=st.integers(1, 7_200))
    def time_passes(self, random: Any, days: int, seconds: int) -> None:
        self.c.append(self.c.tick(days * DAY + seconds))
        self.c.append(self.c.incident(random.choice(self.c.members()).name, str(self.c.view.size)))

    # --- a hospital that is away, and a log that dies ---

    @rule()
    def go_away(self) -> None:
        if self.away is None:
            self.away = (self.c.view.to_bytes(), len(self.c.entries))

    @precondition(lambda self: self.away is not None)
    @rule()
    def come_back(self) -> None:
        assert self.away is not None
        snapshot, at = self.away
        assert View.from_bytes(snapshot).extend(self.c.entries[at:]) == self.c.view
        self.away = None

    @rule(recovery=st.booleans(), number=st.integers(2, 10**6))
    def succeed(self, recovery: bool, number: int) -> None:
        if number % 10:  # seldom
            return
        origin = f"ledger.example/heart-{len(self.c.state.dead_logs) + 2}"
        record = self.c.succession(origin=origin)
        dead = self.c.view
        self.c = self.c.succeed(record, *(self.c.recovery[:2] if recovery else self.c.voters()))
        self.begin, self.away, self.running = (dead, self.c.entries), None, {}
        self.spent, self.charges, self.before = {}, {}, self.c.view

    # --- what must not follow ---

    @rule(random=picks)
    def something_out_of_place(self, random: Any) -> None:
        """An old record with one field of another record, signed by whoever must or by anybody."""
        record = random.choice(self.c.entries).record
        donor = random.choice([e.record for e in self.c.entries if type(e.record) is type(record)])
        changed = [f.name for f in fields(record) if random.random() < 0.2]
        try:
            mixed = replace(record, **{name: getattr(donor, name) for name in changed})
            signers = self.c.signers(mixed) if random.random() < 0.7 else [self.c.key_of("alpha")]
        except KeyError:  # it names a job or a key that is not there
            return
        entry = self.c.entry(mixed, *signers)
        before = self.c.view
        with suppress(RuleError):  # nothing else may leave
            self.c.view.extend([entry])
        assert self.c.view is before

    # --- what always holds ---

    @invariant()
    def a_snapshot_restarts_without_replay(self) -> None:
        if hasattr(self, "c"):
            assert View.from_bytes(self.c.view.to_bytes()) == self.c.view

    @invariant()
    def nothing_spent_comes_back(self) -> None:
        if not hasattr(self, "c"):
            return
        for ref, old in self.before.state.datasets.items():
            new = self.c.state.datasets[ref]
            assert new.charge >= old.charge
            assert decimal(new.epsilon) >= decimal(old.epsilon)
            assert new.charge == self.charges[ref]
            assert new.epsilon == text(self.spent[ref])
        assert self.c.state.time >= self.before.state.time
        self.before = self.c.view

    @invariant()
    def a_dataset_serves_one_job(self) -> None:
        if not hasattr(self, "c"):
            return
        in_use = {f"{h}/heart": job for job, m in self.running.items() for h in m.hospitals}
        assert len(in_use) == sum(len(m.hospitals) for m in self.running.values())
        assert {ref: d.job for ref, d in self.c.state.datasets.items() if d.job} == in_use

    def teardown(self) -> None:
        if not hasattr(self, "c"):
            return
        dead, entries = self.begin
        replayed = dead.succeeded_by(entries[0]).extend(entries[1:]) if dead.size else dead.extend(entries)
        assert replayed == self.c.view
        models: dict[str, str] = {}
        for record in (e.record for e in entries):
            if isinstance(record, Start):
                models[record.job] = record.model
            if isinstance(record, Round | Abort):
                assert record.model_before == models[record.job]
            if isinstance(record, Round):
                models[record.job] = record.model_after
        assert all(self.c.job_state(job).model == model for job, model in models.items())


Lives.TestCase.settings = settings(
    max_examples=20, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLives = Lives.TestCase
