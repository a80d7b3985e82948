"""The durable account: charges, refusals, replies, restores, and every write failed before and after it persisted."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from client import account_file, accounting
from client.account_file import Connect
from client.accounting import Event
from client.budget import Account
from client.charges import WHOLE_PLAN, Charge, Reply
from client.errors import AttemptError, BudgetError, BudgetExceededError

DATASET = "st-ives/heart"
JOB = "a1" * 32
OTHER_JOB = "b2" * 32
MODEL = "c3" * 32


def step(noise: float = 6.0, rate: float = 1.0, times: int = 1) -> Event:
    return Event(noise_multiplier=noise, sample_rate=rate, count=times)


def ask(
    account: Account,
    round_number: int = 1,
    *,
    job: str = JOB,
    dataset: str = DATASET,
    model: str = MODEL,
    training: tuple[Event, ...] = (step(),),
    heldout: tuple[Event, ...] = (),
    production: bool = True,
) -> Charge:
    return account.charge(
        dataset=dataset,
        job=job,
        round_number=round_number,
        model_digest=model,
        training=training,
        heldout=heldout,
        delta=1e-3,
        production=production,
    )


def answer(account: Account, charge: Charge, update: bytes = b"update", *, production: bool = True) -> None:
    account.store_reply(charge, update=update, receipt=b"receipt", metrics=b"", production=production)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent" / "account.sqlite"


@pytest.fixture
def account(path: Path) -> Iterator[Account]:
    opened = Account.open(path)
    opened.register(DATASET, 3.0, 1e-3)
    yield opened
    opened.close()


def reopen(account: Account, path: Path) -> Account:
    account.close()
    return Account.open(path)


def test_a_charge_states_what_it_brings_the_epsilons_to(account: Account) -> None:
    for number in range(1, 6):
        made = ask(account, number, heldout=(step(3.0),) if number == 5 else ())
        training, heldout = [step(6.0, 1.0, number)], [step(3.0)] if number == 5 else []
        of_job = max(accounting.job_epsilon(side, 1e-3) for side in (training, heldout))
        of_dataset = max(accounting.filter_epsilon(side, 1e-3) for side in (training, heldout))
        assert (made.number, made.round, made.repeated, made.reply) == (number, number, False, None)
        assert made.epsilon_job == accounting.round_up(of_job)
        assert made.epsilon_dataset == accounting.round_up(of_dataset) == account.spent(DATASET)
    assert account.events(DATASET, "training") == (step(6.0, 1.0, 5),)
    assert account.events(DATASET, "heldout") == (step(3.0),)


def test_the_dataset_s_epsilon_is_the_larger_of_its_disjoint_sides(account: Account) -> None:
    ask(account, 1, training=(step(4.0),), heldout=(step(4.0),))
    assert account.spent(DATASET) == accounting.round_up(accounting.filter_epsilon([step(4.0)], 1e-3))


def test_the_round_that_would_exceed_the_lifetime_is_refused_before_anything_is_written(
    account: Account, path: Path
) -> None:
    for number in count(1):
        before = path.with_name(path.name + "-wal").read_bytes()
        try:
            ask(account, number)
        except BudgetExceededError as error:
            refused, reason = number, str(error)
            break
    assert path.with_name(path.name + "-wal").read_bytes() == before
    lifetime = account.lifetime(DATASET)
    assert accounting.fits([step(6.0, 1.0, refused - 1)], lifetime)
    assert not accounting.fits([step(6.0, 1.0, refused)], lifetime)
    assert float(account.spent(DATASET)) <= 3.0
    assert account.spent(DATASET) in reason
    assert "add/remove one patient" in reason
    assert "\n" not in reason
    assert ask(account, refused, training=(step(100.0),)).number == refused  # a smaller plan still fits


def test_an_exhausted_side_does_not_block_the_other(account: Account) -> None:
    with pytest.raises(BudgetExceededError, match="heldout side"):
        ask(account, 1, training=(), heldout=(step(0.5),))
    assert ask(account, 1).number == 1


def test_asked_again_the_same_charge_is_returned_with_the_same_bytes(account: Account, path: Path) -> None:
    made = ask(account)
    answer(account, made, b"\x00noised")
    for reopened in (False, True):
        opened = reopen(account, path) if reopened else account
        again = ask(opened)
        assert again == replace(
            made,
            repeated=True,
            answered=True,
            reply=Reply(update=b"\x00noised", receipt=b"receipt", metrics=b""),
        )
        assert opened.events(DATASET, "training") == (step(),)
        with pytest.raises(AttemptError):
            answer(opened, again, b"another")
    opened.close()


def test_a_crash_after_the_charge_is_never_retrained(account: Account, path: Path) -> None:
    made = ask(account)
    opened = reopen(account, path)
    again = ask(opened)
    assert (again.repeated, again.answered, again.reply, again.number) == (True, False, None, made.number)
    for stale in (made, again):
        with pytest.raises(AttemptError, match="send the stored reply or skip"):
            answer(opened, stale)
    assert ask(opened, 2).number == 2  # the next round goes on
    opened.close()


@pytest.mark.parametrize(
    "changed",
    [{"model": "d4" * 32}, {"training": (step(5.0),)}, {"heldout": (step(),)}, {"dataset": "st-ives/lung"}],
)
def test_a_second_attempt_at_one_round_is_refused(account: Account, changed: dict[str, Any]) -> None:
    account.register("st-ives/lung", 3.0, 1e-3)
    answer(account, ask(account))
    with pytest.raises(AttemptError, match="one attempt a round"):
        ask(account, **changed)
    assert [c.number for s in account.history() for c in s.charges] == [1]


def test_an_answer_is_given_once(account: Account) -> None:
    made = ask(account)
    answer(account, made)
    with pytest.raises(AttemptError):
        answer(account, made)


def test_a_forged_charge_cannot_be_answered(account: Account) -> None:
    made = ask(account)
    with pytest.raises(AttemptError):
        answer(account, replace(made, number=2))


def test_a_seeded_run_cannot_write_to_the_account(account: Account) -> None:
    made = ask(account)
    with pytest.raises(BudgetError, match="seeded"):
        ask(account, 2, production=False)
    with pytest.raises(BudgetError, match="seeded"):
        answer(account, made, production=False)
    with pytest.raises(BudgetError, match="seeded"):
        account.charge_whole_plan(
            dataset=DATASET, job=JOB, training=(), heldout=(), delta=1e-3, last_on_log=0, production=False
        )
    assert [c.answered for c in account.history()[0].charges] == [False]


@pytest.mark.parametrize(("round_number", "training"), [(0, (step(),)), (-1, (step(),)), (1, ())])
def test_what_is_no_charge_is_refused(
    account: Account, round_number: int, training: tuple[Event, ...]
) -> None:
    with pytest.raises(BudgetError, match="nothing that could be charged"):
        ask(account, round_number, training=training)


def test_an_unknown_dataset_is_refused(account: Account) -> None:
    with pytest.raises(BudgetError, match="knows no dataset st-ives/lung: register it"):
        ask(account, dataset="st-ives/lung")


def test_numbers_are_consecutive_in_each_dataset(account: Account) -> None:
    account.register("st-ives/lung", 3.0, 1e-3)
    made = [ask(account, 1), ask(account, 1, job=OTHER_JOB, dataset="st-ives/lung"), ask(account, 2)]
    assert [c.number for c in made] == [1, 1, 2]


def test_epsilons_never_fall_in_charge_order(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they would after an upgrade to a tighter accountant."""
    first = ask(account, 1)
    monkeypatch.setattr(accounting, "job_epsilon", lambda events, delta: 0.001)
    monkeypatch.setattr(accounting, "filter_epsilon", lambda events, delta, orders: 0.001)
    second = ask(account, 2)
    assert (second.epsilon_job, second.epsilon_dataset) == (first.epsilon_job, first.epsilon_dataset)
    other = ask(account, 1, job=OTHER_JOB)
    assert (other.epsilon_job, other.epsilon_dataset) == ("0.01", first.epsilon_dataset)


# The lifetime budget


def test_a_lifetime_can_be_lowered_and_never_raised(account: Account) -> None:
    order = account.lifetime(DATASET).order
    assert account.register(DATASET, 3.0, 1e-3) == account.lifetime(DATASET)
    for epsilon, delta in ((3.1, 1e-3), (3.0, 2e-3)):
        with pytest.raises(BudgetError, match="can only be lowered"):
            account.register(DATASET, epsilon, delta)
    ask(account)
    lowered = account.register(DATASET, 1.0, 1e-3)
    assert (lowered.epsilon, lowered.order) == (1.0, order)  # chosen before the first answer, so kept
    with pytest.raises(BudgetExceededError, match=r"of 1\.0"):
        ask(account, 2, training=(step(1.2),))


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 1e-3), (-1, 1e-3), (1, 0), (1, 1), (float("nan"), 1e-3)])
def test_what_is_no_budget_is_refused(account: Account, epsilon: float, delta: float) -> None:
    with pytest.raises(BudgetError, match="no privacy budget"):
        account.register("st-ives/lung", epsilon, delta)


# Restores


def restore(account: Account, steps: int) -> Charge:
    return account.charge_whole_plan(
        dataset=DATASET,
        job=JOB,
        training=(step(6.0, 1.0, steps),),
        heldout=(),
        delta=1e-3,
        last_on_log=4,
        production=True,
    )


def test_a_restored_backup_charges_the_whole_remaining_plan(account: Account, path: Path) -> None:
    ask(account, 1)
    account.close()
    backup = path.read_bytes()
    opened = Account.open(path)
    for number in (2, 3, 4):
        answer(opened, ask(opened, number))
    opened.close()
    path.write_bytes(backup)
    restored = Account.open(path)
    newest = restored.newest(DATASET)
    assert newest is not None
    assert newest.number == 1  # the log shows 4: this account under-counts
    charged = restore(restored, 400)
    assert (charged.number, charged.round) == (5, WHOLE_PLAN)
    assert restored.events(DATASET, "training") == (step(6.0, 1.0, 401),)
    assert float(restored.spent(DATASET)) > 3.0  # written down whatever it comes to
    assert restore(restored, 1) == replace(charged, repeated=True)
    with pytest.raises(AttemptError, match="withdraw"):
        ask(restored, 5)
    with pytest.raises(AttemptError):
        answer(restored, charged)
    with pytest.raises(BudgetExceededError):
        ask(restored, 1, job=OTHER_JOB)
    restored.close()


def test_replies_of_earlier_rounds_can_be_discarded_and_receipts_stay(account: Account, path: Path) -> None:
    for number in (1, 2):
        answer(account, ask(account, number))
    account.discard_replies(JOB, 2)
    first, second = ask(account, 1), ask(account, 2)
    assert (first.answered, first.reply) == (True, None)
    assert second.reply is not None
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT receipt FROM replies ORDER BY number").fetchall() == [(b"receipt",)] * 2
    raw.close()


# The file


def test_only_the_owner_can_read_the_account(account: Account, path: Path) -> None:
    ask(account)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert len(list(path.parent.iterdir())) == 4  # account, lock, and SQLite's two


def test_a_commit_waits_for_the_disk(path: Path) -> None:
    """Killing a process cannot show this: only a power failure would."""
    connections: list[sqlite3.Connection] = []

    def connect(path: Path) -> sqlite3.Connection:
        connections.append(account_file.connect(path))
        return connections[-1]

    account = Account.open(path, connect=connect)
    assert connections[0].execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: each commit is synced
    assert connections[0].execute("PRAGMA journal_mode").fetchone() == ("wal",)
    account.close()


def test_a_second_process_gets_one_clear_line(account: Account, path: Path) -> None:
    code = "import sys; from pathlib import Path; from client.budget import Account; Account.open(Path(sys.argv[1]))"
    out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert out.returncode == 1
    assert out.stderr.splitlines()[-1] == (
        f"client.errors.BudgetError: the privacy account {path} is open in another process: stop that agent first"
    )
    with pytest.raises(BudgetError, match="open in another process"):
        Account.open(path)
    assert ask(account).number == 1


def test_the_account_can_be_shown_while_the_agent_holds_it(account: Account, path: Path) -> None:
    made = ask(account)
    answer(account, made)
    shown = Account.open(path, read_only=True)
    [statement] = shown.history()
    assert statement.charges == (replace(made, answered=True),)
    assert (statement.dataset, statement.epsilon_spent) == (DATASET, made.epsilon_dataset)
    with pytest.raises(BudgetError):
        ask(shown, 2)
    shown.close()
    assert ask(account, 2).number == 2


def test_showing_an_account_does_not_create_one(path: Path) -> None:
    with pytest.raises(BudgetError, match="there is no privacy account at"):
        Account.open(path, read_only=True)
    assert not path.parent.exists()


@pytest.mark.parametrize("content", [b"patient,age\n1,50\n" * 400, b"SQLite format 3\x00" + bytes(5000)])
def test_a_file_that_is_no_account_is_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(BudgetError, match="account") as error:
        Account.open(path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content


def test_another_program_s_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE patients (id)")
    raw.close()
    with pytest.raises(BudgetError, match="is not a privacy account"):
        Account.open(path)


def test_an_account_of_a_newer_version_says_upgrade(account: Account, path: Path) -> None:
    account.close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version=2")
    raw.close()
    with pytest.raises(BudgetError, match="of version 2: upgrade"):
        Account.open(path)


def test_a_folder_in_the_way_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="cannot be opened: Is a directory"):
        Account.open(tmp_path)


def test_charges_cannot_be_edited_away(account: Account, path: Path) -> None:
    ask(account)
    with sqlite3.connect(path) as raw:
        for sql in ("DELETE FROM charges", "UPDATE events SET count=0", "DELETE FROM events"):
            with pytest.raises(sqlite3.IntegrityError, match="never taken back"):
                raw.execute(sql)
    raw.close()


def test_a_closed_account_says_so(account: Account) -> None:
    account.close()
    with pytest.raises(BudgetError, match="is closed"):
        ask(account)


# Every statement failed, before and after it took effect


def failing(at: int, *, after: bool) -> tuple[Connect, list[str]]:
    """Return a `connect` whose statement number `at` fails, and the list of what was run."""
    ran: list[str] = []

    class Failing(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
            ran.append(sql)
            if len(ran) == at and not after:
                raise sqlite3.OperationalError("disk I/O error")
            result = super().execute(sql, parameters)
            if len(ran) == at:
                result.close()
                raise sqlite3.OperationalError("disk I/O error")
            return result

    def connect(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, factory=Failing)

    return connect, ran


def live(path: Path, connect: Connect, released: dict[int, bytes]) -> None:
    """An agent's life: two rounds, from an empty folder; `released` is what left the hospital."""
    account = Account.open(path, connect=connect)
    try:
        account.register(DATASET, 3.0, 1e-3)
        for number in (1, 2):
            made = ask(account, number, heldout=(step(9.0),))
            update = b"update %d of life %d" % (number, id(connect))
            if not made.repeated:
                answer(account, made, update)
                released[number] = update
            elif made.reply is not None:
                assert released.setdefault(number, made.reply.update) == made.reply.update
    except BudgetError:
        with pytest.raises(BudgetError):  # whatever failed, nothing goes on before the file is opened anew
            ask(account, 99)
        raise
    finally:
        account.close()


def statements_of_a_life(tmp_path: Path) -> int:
    connect, ran = failing(-1, after=False)
    live(tmp_path / "count" / "account", connect, {})
    return len(ran)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_every_statement_failed(tmp_path: Path, after: bool) -> None:
    total = statements_of_a_life(tmp_path)
    assert total > 60
    for at in range(1, total + 1):
        path = tmp_path / str(at) / "account"
        released: dict[int, bytes] = {}
        connect, ran = failing(at, after=after)
        with pytest.raises(BudgetError, match="disk I/O error") as error:
            live(path, connect, released)
        assert "\n" not in str(error.value), ran[-1]
        live(path, account_file.connect, released)  # opened anew: goes on to the end
        account = Account.open(path)
        [statement] = account.history()
        assert [(c.number, c.round) for c in statement.charges] == [(1, 1), (2, 2)]
        assert all((c.training, c.heldout) == ((step(),), (step(9.0),)) for c in statement.charges)
        assert account.events(DATASET, "training") == (step(6.0, 1.0, 2),)
        assert {n for n in (1, 2) if statement.charges[n - 1].answered} >= set(released)
        account.close()


def test_a_full_disk_takes_the_charge_back_and_the_account_goes_on(path: Path) -> None:
    opened: list[sqlite3.Connection] = []

    def connect(path: Path) -> sqlite3.Connection:
        opened.append(account_file.connect(path))
        return opened[0]

    account = Account.open(path, connect=connect)
    account.register(DATASET, 3.0, 1e-3)
    made = ask(account, 1)
    [(pages,)] = opened[0].execute("PRAGMA page_count")
    opened[0].execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(BudgetError, match=r"could not be written .*full; see to the disk"):
        answer(account, made, bytes(100_000))
    opened[0].execute(f"PRAGMA max_page_count={pages + 1000}")
    answer(account, made, bytes(100_000))  # nothing was half written
    reply = ask(account, 1).reply
    assert reply is not None
    assert len(reply.update) == 100_000
    account.close()


LIMITED = """
import resource, sys
from pathlib import Path
from client.budget import Account
from client.errors import BudgetError
from client.accounting import Event
account = Account.open(Path(sys.argv[1]))
account.register("a/b", 50.0, 1e-3)
size = Path(sys.argv[1] + "-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30000, size + 30000))
event = [Event(noise_multiplier=9.0, sample_rate=1.0, count=1)]
try:
    for number in range(1, 100):
        account.charge(dataset="a/b", job="j", round_number=number, model_digest="m", training=event,
                       heldout=[], delta=1e-3, production=True)
        print(number, flush=True)
except BudgetError as error:
    print(error)
"""


def test_a_write_that_the_system_refuses_leaves_the_account_whole(path: Path) -> None:
    out = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True, check=True)
    *numbers, reason = out.stdout.splitlines()
    assert 0 < len(numbers) < 99
    assert reason.startswith(f"the privacy account {path} could not be written")
    account = Account.open(path)
    charged = [c.number for c in account.history()[0].charges]
    assert charged[: len(numbers)] == [int(n) for n in numbers]
    assert account.events("a/b", "training")[0].count == len(charged) <= len(numbers) + 1
    account.close()


def test_a_read_only_folder_is_one_line(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        blocked = Path("/proc/1/account/account.sqlite")  # root may write anywhere else
    else:
        tmp_path.chmod(0o500)
        blocked = tmp_path / "agent" / "account.sqlite"
    with pytest.raises(BudgetError, match="cannot be opened"):
        Account.open(blocked)
