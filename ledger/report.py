"""An audit's result and a log's records in plain words, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from ledger import canonical
from ledger.audit import Audit
from ledger.envelope import Entry
from ledger.record import Record
from ledger.records import Receipt, Round, Tick
from ledger.rules_rounds import ADMISSION_CODES
from ledger.state import JobState

_SHORT = 12  # hex digits of a digest in a table
_BY = ("hospital", "researcher", "member")


def established(audit: Audit) -> Iterator[str]:
    """Yield one sentence for each thing that the audit has shown."""
    state, checkpoint = audit.view.state, audit.checkpoint
    newest = state.witness_sets[-1]
    yield (
        f"{checkpoint.size} entries of {checkpoint.origin} hash to the signed root {checkpoint.root.hex()}; "
        f"nothing was changed, dropped or reordered."
    )
    yield (
        f"{len(audit.times)} witnesses cosigned it ({', '.join(sorted(audit.times))}); "
        f"the charter's quorum is {newest.quorum} of {len(newest.witnesses)}, "
        f"of which {newest.max_dishonest} may be dishonest."
    )
    yield f"All {audit.signatures} signatures on the records are valid."
    yield (
        f"Every record follows the rules (version {state.rules}) from charter {audit.charter} "
        f"through {state.version - 1} amendments."
    )
    if audit.predecessor:
        yield f"The log follows {audit.predecessor} by the decision of those who could take it."
    if audit.policy_checked:
        yield "The trust file is satisfied."
    for job in state.jobs.values():
        yield _job(job)


def not_established(audit: Audit) -> Iterator[str]:
    """Yield one sentence for each thing that a reader might assume and the audit has not shown."""
    if not audit.charter_known:
        yield "That this is the consortium you mean: compare the charter's digest above by telephone (--charter)."
    last = max(audit.times.values(), default=0)
    yield f"That nothing came later: the newest cosignature is of {when(last)}."
    yield "That hospitals' data are good, or that a hospital added the noise that it signed for."
    yield "That each model is the average of its updates: that takes the updates themselves (evidence verify)."


def verdict(shown: Iterable[str], unknown: Iterable[str]) -> Iterator[str]:
    """Yield the lines that tell a person what was established and what was not."""
    yield "Established:"
    yield from (f"  + {line}" for line in shown)
    yield "Not established:"
    yield from (f"  - {line}" for line in unknown)


def table(entries: Iterator[tuple[int, Entry]]) -> Iterator[str]:
    """Yield a readable line for each entry, after a heading."""
    row = "{:>6}  {:<10}  {:<20}  {:<12}  {:>5}  {}".format
    yield row("entry", "record", "by", "job", "round", "what")
    for index, entry in entries:
        record = entry.record
        job = getattr(record, "job", "") or (entry.digest if record.TYPE == "job" else "")
        yield row(
            index, record.TYPE, by(record)[:20], job[:_SHORT], getattr(record, "round", ""), _what(record)
        ).rstrip()
    yield "Every epsilon is for add/remove one patient, at the delta of the job's or the dataset's record."


def as_json(index: int, entry: Entry) -> dict[str, Any]:
    """Return an entry as a program would read it."""
    return {
        "index": index,
        "type": entry.record.TYPE,
        "digest": entry.digest,
        "signers": sorted(entry.signers),
        "record": canonical.plain(entry.record),
    }


def by(record: Record) -> str:
    """Return who speaks in a record."""
    name = next((getattr(record, field) for field in _BY if hasattr(record, field)), None)
    if name is not None and record.TYPE != "access":
        return str(name)
    shared = {
        "charter": "all founders",
        "agreement": "all parties",
        "amendment": "quorum",
        "succession": "quorum",
    }
    return shared.get(record.TYPE, "coordinator")


def when(seconds: int) -> str:
    """Return a time as people read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else "no time"


def _job(job: JobState) -> str:
    terms = job.record
    done = job.next_round - 1
    rounds = f"{min(done, terms.rounds)} of {terms.rounds} rounds"
    return (
        f"Job {terms.name} ({terms.digest()[:_SHORT]}): {job.status}, {rounds}, model {job.model[:_SHORT]}, "
        f"epsilon {terms.epsilon} at delta {terms.delta} (add/remove one patient)."
    )


def _what(record: Record) -> str:
    if isinstance(record, Round):
        used = record.receipts - sum(1 for item in record.left_out if item.code in ADMISSION_CODES)
        left = ", ".join(f"{item.hospital} {item.code}" for item in record.left_out)
        text = f"model {record.model_after[:_SHORT]} from {used} updates"
        return f"{text}; left out: {left}" if left else text
    if isinstance(record, Receipt):
        sent = " and ".join(n for n, d in (("update", record.update), ("histogram", record.metrics)) if d)
        return f"{sent}; epsilon {record.epsilon_job} of the job, {record.epsilon_dataset} of the dataset"
    if isinstance(record, Tick):
        return when(record.time)
    return _SUMMARIES[record.TYPE].format(r=record, n=_SHORT)


_SUMMARIES = {
    "abort": "no model: {r.code}",
    "access": "{r.item} to {r.member} under {r.right}",
    "agreement": "until {r.expires_at}, text {r.text:.{n}}",
    "amendment": "follows version {r.replaces}, quorum {r.quorum}",
    "approval": "{r.dataset}, noise {r.training.noise_multiplier}, limit epsilon {r.epsilon}",
    "charter": "{r.name}, quorum {r.terms.quorum}",
    "dataset": "{r.name}, about {r.size_class} patients, lifetime epsilon {r.epsilon} at delta {r.delta}",
    "ended": "{r.reason}",
    "incident": "{r.code}, evidence {r.evidence:.{n}}",
    "job": "{r.name}: {r.training.model}, {r.rounds} rounds, epsilon {r.epsilon} at delta {r.delta}",
    "refusal": "{r.code}",
    "release": "model {r.model:.{n}}",
    "skip": "{r.code}",
    "start": "from model {r.model:.{n}}",
    "succession": "{r.name} follows {r.previous.origin} at size {r.previous.size}",
    "withdrawal": "approval {r.approval:.{n}}",
}
