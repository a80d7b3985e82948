"""A hospital's privacy account: what every dataset has spent, over all jobs, rounds and restarts.

Follows PROTOCOL.md, "One attempt a round, charges, crashes". The order at the hospital is: charge, on the disk;
train; reply, on the disk; send. So a crash counts as spent, and a round is never charged twice nor trained
twice: asked again, `charge` returns the first charge with the stored reply, or without one, and then the agent
sends `skip`. The account keeps events, never an epsilon to add to. Training and held-out patients are disjoint
for ever, so each release touches one side, and an epsilon is the larger of the two sides'.

The arithmetic is `client.accounting`, the file `client.account_file`; policy, approvals and the comparison with
the log after a restore are left to the agent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from client import account_file, accounting, charges, renyi
from client.account_file import AccountFile, Connect
from client.accounting import Event, Lifetime
from client.charges import SIDES, WHOLE_PLAN, Charge, Statement
from client.errors import AttemptError, BudgetError, BudgetExceededError

Sides = tuple[tuple[Event, ...], tuple[Event, ...]]  # merged, training first


class Account:
    """One hospital's account, held by one process. Every method raises `BudgetError` and nothing else."""

    def __init__(self, file: AccountFile) -> None:
        self._file = file
        self._mine: set[tuple[str, int]] = set()  # charged by this process and not yet answered

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False, connect: Connect = account_file.connect) -> Account:
        """Open the account, or create it; a crash at any earlier moment needs no repair beyond this.

        Args:
            path: The file; a missing folder is made, private to its owner.
            read_only: For showing it while the agent runs; every change is then refused.
            connect: Opens the database; tests pass one whose writes fail.
        """
        return cls(AccountFile(path, connect, read_only=read_only))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()

    def register(self, dataset: str, epsilon: float, delta: float) -> Lifetime:
        """Enter a dataset with the most it will ever spend; again with a smaller budget, lower it.

        The filter's order is fixed here, from the budget alone, and kept when the budget is lowered later.
        """
        with self._file.mutex:
            found = self._file.read("SELECT epsilon, delta, filter_order FROM datasets WHERE name=?", dataset)
            order = found[0][2] if found else accounting.filter_order(epsilon, delta)
            if found and (epsilon > found[0][0] or delta > found[0][1]):
                raise BudgetError(
                    f"the lifetime budget of {dataset} is epsilon {found[0][0]} at delta {found[0][1]} and can only "
                    "be lowered: offers once made to patients are kept"
                )
            lifetime = Lifetime(epsilon=epsilon, delta=delta, order=order)
            if not found or found[0] != (epsilon, delta, order):
                with self._file.writing() as write:
                    write(
                        "INSERT INTO datasets VALUES (?, ?, ?, ?) ON CONFLICT (name)"
                        " DO UPDATE SET epsilon=excluded.epsilon, delta=excluded.delta",
                        *(dataset, epsilon, delta, order),
                    )
            return lifetime

    def lifetime(self, dataset: str) -> Lifetime:
        """Return the dataset's budget and the order of its filter."""
        rows = self._file.read("SELECT epsilon, delta, filter_order FROM datasets WHERE name=?", dataset)
        if not rows:
            raise BudgetError(f"the privacy account knows no dataset {dataset}: register it first")
        epsilon, delta, order = rows[0]
        return Lifetime(epsilon=epsilon, delta=delta, order=order)

    def events(self, dataset: str, side: str) -> tuple[Event, ...]:
        """Return all that was charged to one side ("training" or "heldout") of a dataset, merged."""
        return charges.released(self._file, dataset, side)

    def charge(
        self,
        *,
        dataset: str,
        job: str,
        round_number: int,
        model_digest: str,
        training: Iterable[Event],
        heldout: Iterable[Event],
        delta: float,
        production: bool,
    ) -> Charge:
        """Charge one attempt at one round; on the disk before it returns, never taken back.

        An agent handles the messages of a job one after the other, so a repeated charge without a reply is one
        whose training failed, and not one that is still training.

        Args:
            dataset: Its name in records, hospital/dataset.
            job: The job's digest.
            round_number: From 1; the evaluation of the final model counts as one more round.
            model_digest: Of the model received; the same round with another model is refused.
            training: What the message will release about training patients.
            heldout: What it will release about held-out patients.
            delta: The job's delta.
            production: The randomness's own statement; a seeded run is refused.

        Raises:
            BudgetExceededError: the release would exceed the lifetime budget; nothing was written.
            AttemptError: the round was attempted with another model, dataset or noise.
            BudgetError: the account cannot be written, or something asked for is no charge.
        """
        _require_production(production)
        sides = (accounting.merge(training), accounting.merge(heldout))
        if round_number < 1 or not any(sides):
            raise BudgetError(
                f"round {round_number} of job {job[:12]} releases nothing that could be charged"
            )
        asked = (dataset, model_digest, *sides)
        with self._file.mutex:
            made = charges.of_round(self._file, job, round_number)
            if made is not None:
                return self._again(made, asked)
            if charges.of_round(self._file, job, WHOLE_PLAN) is not None:
                raise AttemptError(f"job {job[:12]} was charged whole after a restore: withdraw from it")
            self._require_room(dataset, sides)
            number = self._last(dataset) + 1
            charge = self._append(dataset, job, round_number, model_digest, sides, delta, number)
            self._mine.add((dataset, number))
            return charge

    def attempted(self, job: str, round_number: int) -> bool:
        """Whether a round was charged: it is answered from what is stored, or with a skip, and never anew."""
        return charges.of_round(self._file, job, round_number) is not None

    def _again(self, made: Charge, asked: tuple[object, ...]) -> Charge:
        """Return an attempt made earlier, with the reply stored for it."""
        if (made.dataset, made.model_digest, made.training, made.heldout) != asked:
            raise AttemptError(
                f"round {made.round} of job {made.job[:12]} was attempted with another model or noise: "
                "one attempt a round"
            )
        return replace(made, repeated=True, reply=charges.reply_to(self._file, made))

    def _require_room(self, dataset: str, sides: Sides) -> None:
        lifetime = self.lifetime(dataset)
        for side, events in zip(SIDES, sides, strict=True):
            if not accounting.fits([*self.events(dataset, side), *events], lifetime):
                raise BudgetExceededError(
                    f"this round would exceed the lifetime budget of {dataset} on its {side} side: epsilon "
                    f"{self.spent(dataset)} of {lifetime.epsilon} is spent at delta {lifetime.delta} (add/remove one "
                    "patient)"
                )

    def charge_whole_plan(
        self,
        *,
        dataset: str,
        job: str,
        training: Iterable[Event],
        heldout: Iterable[Event],
        delta: float,
        last_on_log: int,
        production: bool,
    ) -> Charge:
        """Charge all that a running job may have released since the backup that this account came from.

        Not stopped by the budget: it was perhaps released already, so it is written down whatever it comes to.
        No later round of the job can be charged. Asked again, the same charge is returned.

        Args:
            dataset: Its name in records.
            job: The job's digest.
            training: Everything in the job's plan after the last charge in this account, training side.
            heldout: The same for the held-out side.
            delta: The job's delta.
            last_on_log: The charge number of the hospital's newest receipt on the log for this dataset, or 0.
            production: The randomness's own statement; a seeded run is refused.
        """
        _require_production(production)
        with self._file.mutex:
            made = charges.of_round(self._file, job, WHOLE_PLAN)
            if made is not None:
                return replace(made, repeated=True)
            number = max(self._last(dataset), last_on_log) + 1
            sides = (accounting.merge(training), accounting.merge(heldout))
            return self._append(dataset, job, WHOLE_PLAN, "", sides, delta, number)

    def store_reply(
        self, charge: Charge, *, update: bytes, receipt: bytes, metrics: bytes, production: bool
    ) -> None:
        """Keep what will be sent for a charge; on the disk before it returns, so send only afterwards.

        Raises:
            AttemptError: the charge was made before a restart, or was answered already.
            BudgetError: a seeded run, or the account cannot be written.
        """
        _require_production(production)
        key = (charge.dataset, charge.number)
        with self._file.mutex:
            if key not in self._mine:  # what an earlier process released is unknown: never a second answer
                raise AttemptError(
                    f"charge {charge.number} of {charge.dataset} cannot be answered: send the stored reply or skip"
                )
            with self._file.writing() as write:
                write("INSERT INTO replies VALUES (?, ?, ?, ?, ?)", *key, receipt, update, metrics)
            self._mine.discard(key)

    def discard_replies(self, job: str, before_round: int) -> None:
        """Free the space of updates and metrics of earlier rounds, once the log shows them; receipts stay."""
        with self._file.writing() as write:
            write(
                'UPDATE replies SET "update"=NULL, metrics=NULL WHERE (dataset, number) IN'
                " (SELECT dataset, number FROM charges WHERE job=? AND round<?)",
                *(job, before_round),
            )

    def spent(self, dataset: str) -> str:
        """Return the dataset's epsilon at its lifetime delta, as last charged; "0" before the first charge."""
        newest = charges.newest(self._file, dataset)
        return newest.epsilon_dataset if newest else "0"

    def newest(self, dataset: str) -> Charge | None:
        """Return the last charge, to compare with the hospital's newest receipt on the log."""
        return charges.newest(self._file, dataset)

    def receipt(self, job: str, round_number: int) -> bytes | None:
        """Return the receipt that was sent for a round, or None; the log must do it justice."""
        return charges.receipt_of(self._file, job, round_number)

    def sent(self, job: str, round_number: int) -> charges.Reply | None:
        """Return what was sent for a round, while it is kept."""
        return charges.sent(self._file, job, round_number)

    def history(self) -> tuple[Statement, ...]:
        """Return every dataset's statement, by name."""
        with self._file.mutex:
            names = [str(name) for (name,) in self._file.read("SELECT name FROM datasets ORDER BY name")]
            return tuple(
                Statement(
                    dataset=name,
                    lifetime=self.lifetime(name),
                    epsilon_spent=self.spent(name),
                    charges=charges.all_of(self._file, name),
                )
                for name in names
            )

    def _append(
        self, dataset: str, job: str, round_number: int, model: str, sides: Sides, delta: float, number: int
    ) -> Charge:
        """Write one charge with what it brings the epsilons to."""
        lifetime = self.lifetime(dataset)
        orders = (*renyi.ORDERS, lifetime.order)
        of_job, of_dataset = 0.0, 0.0
        for side, new in zip(SIDES, sides, strict=True):
            plan = [*charges.released_by(self._file, job, side), *new]
            of_job = max(of_job, accounting.job_epsilon(plan, delta))
            everything = [*self.events(dataset, side), *new]
            of_dataset = max(of_dataset, accounting.filter_epsilon(everything, lifetime.delta, orders))
        before = charges.newest_of(self._file, job)
        charge = Charge(
            dataset=dataset,
            number=number,
            job=job,
            round=round_number,
            model_digest=model,
            delta=delta,
            training=sides[0],
            heldout=sides[1],
            epsilon_job=_risen(of_job, before.epsilon_job if before else "0"),
            epsilon_dataset=_risen(of_dataset, self.spent(dataset)),
        )
        with self._file.writing() as execute:
            charges.write(execute, charge)
        return charge

    def _last(self, dataset: str) -> int:
        newest = charges.newest(self._file, dataset)
        return newest.number if newest else 0


def _risen(epsilon: float, before: str) -> str:
    """Return `epsilon` rounded up, but never below what an earlier charge stated."""
    return max(accounting.round_up(epsilon), before, key=Decimal)


def _require_production(production: bool) -> None:
    """Refuse whatever a seeded stream helped to make: its noise can be computed again and taken off."""
    if production is not True:
        raise BudgetError("a seeded run, for tests only, cannot write to a privacy account")
