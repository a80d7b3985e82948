"""What a fault has cost, read from the disks afterwards: the log, the hospitals' accounts and the evidence.

Nothing is taken from what a process says of itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from client import accounting, renyi
from client.budget import Account
from client.charges import SIDES, WHOLE_PLAN, Statement
from coordinator import evidence_check
from coordinator.errors import CoordinatorError
from ledger import audit, envelope
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError
from ledger.note import Note
from ledger.record import Record
from ledger.records import Abort, Approval, Incident, Receipt, Round
from ledger.source import open_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a run.

    Attributes:
        status: Of the job, as the log says.
        rounds: Closed with a model.
        aborted: Closed without one.
        without: Rounds with a model that lacks at least one hospital.
        reasons: Why hospitals are missing, "name: code", with how often.
        double: Rounds that one account charged twice; must be 0.
        uncharged: Receipts on the log whose charge the hospital's account does not hold; must be 0.
        below: Hospitals whose account states less than their last receipt on the log; must be none.
        in_vain: Charges of rounds for which the log shows no receipt: what a fault costs in privacy.
        approved_again: Approvals of the job beyond each hospital's first; must be 0.
        incidents: On the log.
        ended: How processes ended by themselves, "name: exit status", with how often; a signal is negative.
        typed: The commands of a person.
        verified: What an outsider's audit says.
        sound: Whether the audit passes, or refuses where it must.
    """

    status: str
    rounds: int
    aborted: int
    without: int
    reasons: Mapping[str, int]
    double: int
    uncharged: int
    below: tuple[str, ...]
    in_vain: int
    approved_again: int
    incidents: tuple[str, ...]
    ended: Mapping[str, int]
    typed: tuple[str, ...]
    verified: str

    @property
    def lost(self) -> int:
        """Rounds that gave no model, or a model without some hospital."""
        return self.aborted + self.without

    def broken(self) -> tuple[str, ...]:
        """Return which promises did not hold: none may be broken, whatever the fault."""
        promises = {
            "a round was charged twice": self.double,
            "a receipt on the log was not charged": self.uncharged,
            "an account states less than the log": self.below,
            "a hospital approved twice": self.approved_again,
            "the audit does not pass": not self.verified.startswith("passes"),
            "the job stands still": self.status.startswith("stands still"),
        }
        return tuple(promise for promise, wrong in promises.items() if wrong)


def records(log: Path) -> list[Record]:
    """Return what a log's folder holds, what is not final yet included. Raises LedgerError, OSError."""
    read = open_source(str(log))
    size = Checkpoint.from_text(Note.from_bytes(read("checkpoint.pending")).text).size
    return [envelope.parse_entry(data).record for data in audit.entries(read, size)]


def measure(
    found: Sequence[Record],
    accounts: Mapping[str, Sequence[Path]],
    *,
    status: str,
    ended: Mapping[str, int],
    typed: Iterable[str],
    verified: str,
) -> Outcome:
    """Compare the log with the accounts.

    Args:
        found: The log's records.
        accounts: By hospital: its account's file, then those of copies of its folder.
        status: Of the job.
        ended: How processes ended.
        typed: What a person did.
        verified: What the audit says.
    """
    closing = [r for r in found if isinstance(r, Round | Abort)]
    receipts = [r for r in found if isinstance(r, Receipt)]
    approvals = Counter(r.hospital for r in found if isinstance(r, Approval))
    present = Counter(r.round for r in receipts)
    held = [_compare(paths, [r for r in receipts if r.hospital == name]) for name, paths in accounts.items()]
    return Outcome(
        status=status,
        rounds=sum(isinstance(r, Round) for r in closing),
        aborted=sum(isinstance(r, Abort) for r in closing),
        without=sum(isinstance(r, Round) and present[r.round] < len(accounts) for r in closing),
        reasons=Counter(f"{item.hospital}: {item.code}" for r in closing for item in r.left_out),
        double=sum(c.double for c in held),
        uncharged=sum(c.uncharged for c in held),
        below=tuple(name for name, c in zip(accounts, held, strict=True) if c.below),
        in_vain=sum(c.in_vain for c in held),
        approved_again=sum(count - 1 for count in approvals.values()),
        incidents=tuple(sorted(f"{r.member}: {r.code}" for r in found if isinstance(r, Incident))),
        ended=dict(ended),
        typed=tuple(typed),
        verified=verified,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    double: int
    uncharged: int
    below: bool
    in_vain: int


def _compare(paths: Sequence[Path], receipts: Sequence[Receipt]) -> _Compared:
    """Compare one hospital's account, and those of copies of its folder, with its receipts on the log."""
    held = [statement for path in paths for statement in _statements(path)]
    charges = {(c.job, c.round): c.number for s in held for c in s.charges}
    whole = {c.job: c.number for s in held for c in s.charges if c.round == WHOLE_PLAN}
    counted = [Counter((c.job, c.round) for c in s.charges) for s in held]
    logged = {(r.job, r.round) for r in receipts}
    return _Compared(
        double=sum(count - 1 for one in counted for count in one.values()),
        # A charge of the whole plan, made after a restore, stands for whatever came before it.
        uncharged=sum(
            charges.get((r.job, r.round)) != r.charge and whole.get(r.job, 0) <= r.charge for r in receipts
        ),
        below=bool(receipts)
        and max(map(_epsilon, held), default=Decimal(0)) < Decimal(receipts[-1].epsilon_dataset),
        in_vain=sum(key not in logged for key in charges if key[1] != WHOLE_PLAN),
    )


def _statements(path: Path) -> tuple[Statement, ...]:
    account = Account.open(path, read_only=True)
    try:
        return account.history()
    finally:
        account.close()


def _epsilon(statement: Statement) -> Decimal:
    """Return what an account's events come to, computed anew; never less than it states is expected."""
    spent = (
        accounting.filter_epsilon(
            (event for charge in statement.charges for event in getattr(charge, side)),
            statement.lifetime.delta,
            (*renyi.ORDERS, statement.lifetime.order),
        )
        for side in SIDES
    )
    return Decimal(accounting.round_up(max(spent)))


def verify(run: Path, log: Path, charter: str) -> str:
    """Return what somebody outside finds: of the evidence where there is some, otherwise of the log alone."""
    try:
        if (run / "evidence").is_dir():
            evidence_check.verify(run / "evidence", charter=charter)
            return "passes, every round computed again"
        read = open_source(str(log))
        size = Checkpoint.from_text(Note.from_bytes(read("checkpoint")).text).size
        audit.replay(read, size)
        return f"passes up to {size} entries"
    except (LedgerError, CoordinatorError) as error:
        return f"refuses: {error}"
