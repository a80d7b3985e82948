"""An agent whose account came from a backup has under-counted: find out, charge the worst, ask a person.

PROTOCOL.md, the paragraph on backups. The log remembers the charge number of every receipt. Where it is ahead of
the account, everything that this hospital may have released since the backup is charged: of each job that it took
part in, all rounds after the last charged one, to the job's end, or to where the job ended.
"""

from __future__ import annotations

from collections.abc import Iterable

from client.approval import remaining
from client.budget import Account
from client.errors import BudgetError
from ledger.envelope import Entry
from ledger.records import Approval, Start
from ledger.state import State


def is_behind(account: Account, state: State, ref: str) -> bool:
    """Whether the log holds a receipt of this dataset with a higher charge number than the account knows."""
    logged = state.datasets.get(ref)
    newest = account.newest(ref)
    return logged is not None and logged.charge > (newest.number if newest else 0)


def charge_all(
    account: Account, state: State, hospital: str, ref: str, entries: Iterable[Entry]
) -> list[str]:
    """Charge what may have been released since the backup; return the jobs concerned.

    Args:
        account: The account that is behind.
        state: Of the log.
        hospital: This hospital's name.
        ref: The dataset's name in records.
        entries: The whole log.

    Raises:
        BudgetError: the account cannot be written.
    """
    dataset = state.datasets[ref]
    account.register(ref, float(dataset.record.epsilon), float(dataset.record.delta))
    charged = []
    for job, approval in _started(hospital, ref, entries).items():
        found = state.jobs[job]
        last = found.record.last_exchange if found.status == "running" else found.next_round
        training, heldout = remaining(found.record, approval, _last_charged(account, ref, job) + 1, last)
        if training or heldout:
            account.charge_whole_plan(
                dataset=ref,
                job=job,
                training=training,
                heldout=heldout,
                delta=float(found.record.delta),
                last_on_log=dataset.charge,
                production=True,
            )
            charged.append(job)
    if is_behind(account, state, ref):
        raise BudgetError(f"the log holds a receipt of {ref} that no plan explains: a person must look at it")
    return charged


def _started(hospital: str, ref: str, entries: Iterable[Entry]) -> dict[str, Approval]:
    """Return the jobs that ever ran on this dataset, with the approval that each ran under."""
    approvals: dict[str, Approval] = {}
    started: dict[str, Approval] = {}
    for entry in entries:
        if isinstance(entry.record, Approval) and entry.record.dataset == ref:
            approvals[entry.digest] = entry.record
        elif isinstance(entry.record, Start):
            mine = [p.approval for p in entry.record.participants if p.hospital == hospital]
            if mine and mine[0] in approvals:
                started[entry.record.job] = approvals[mine[0]]
    return started


def _last_charged(account: Account, ref: str, job: str) -> int:
    """Return the last round of a job in the account; 0 for none, and beyond the last after a whole charge."""
    statements = [s for s in account.history() if s.dataset == ref]
    rounds = [c.round for s in statements for c in s.charges if c.job == job]
    if 0 in rounds:
        return 1 << 30
    return max(rounds, default=0)
