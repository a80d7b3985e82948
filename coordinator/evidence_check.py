"""Verifying an evidence bundle: the log's audit, then every round computed again, to the last bit.

Nobody is believed: not the coordinator, not the bundle's own index. What was averaged is what the hospitals signed,
and what was released is what follows from it. Every byte of the bundle is covered: a changed one is found and named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from coordinator import evaluations, evidence, release, terms
from coordinator.admission import judge_numbers
from coordinator.aggregation import aggregate
from coordinator.errors import EvidenceError
from coordinator.evaluations import Evaluations
from coordinator.evidence import BLOBS, INDEX, LOG, POLICY, Index
from coordinator.histories import Closed, Histories, History
from coordinator.updates import Readable
from ledger import audit, envelope, finality, report
from ledger.audit import Audit
from ledger.envelope import Entry
from ledger.policy import MAX_POLICY_SIZE, Policy
from ledger.records import Release, Round
from ledger.source import MAX_FILE_SIZE, open_source, read_file

MAX_MODEL_FILE = 8 << 30

Progress = Callable[[int, int], None]  # rounds done, rounds in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a bundle has shown; whatever is wrong was raised instead."""

    audit: Audit
    history: History
    rounds: int  # computed again
    updates: int  # used for it
    evaluations: Evaluations
    recomputation: str  # what the strategy promises: "bit-exact" or "pinned-versions"

    def established(self) -> Iterator[str]:
        """Yield one sentence for each thing that is shown."""
        yield from report.established(self.audit)
        job = self.history.job
        yield (
            f"All {self.rounds} models of job {job.name} were computed again from the {self.updates} updates that "
            f"the hospitals signed for, by {job.aggregation.strategy}: each is the one on the record, bit for bit."
        )
        yield "Every update that was averaged is within the limits of its hospital's plan."
        if self.evaluations.done:
            yield f"The published metrics follow from the {len(self.evaluations.done)} evaluations' histograms."
        yield "The released file holds the last model and the job's data dictionary, and is the one on the record."

    def not_established(self) -> Iterator[str]:
        """Yield one sentence for each thing that a reader might assume and this has not shown."""
        for line in report.not_established(self.audit):
            if "evidence verify" not in line:
                yield line
        yield "That a reply left out as late or unreachable was: that is the coordinator's word."


def verify(
    folder: Path,
    *,
    policy: Policy | None = None,
    charter: str = "",
    progress: Progress = lambda done, total: None,
) -> Verified:
    """Verify a bundle.

    Args:
        folder: The bundle.
        policy: A trust file from elsewhere that the checkpoint must satisfy too.
        charter: Digest of the charter as compared by telephone, or "".
        progress: Told how many rounds are done.

    Raises:
        CoordinatorError, LedgerError: saying what is wrong and where.
    """
    if not folder.is_dir():
        raise EvidenceError(f"{folder} is no folder: name an evidence bundle")
    index = Index.from_bytes(_read(folder, INDEX, evidence.MAX_INDEX))
    found, entries = _audited(folder, policy, charter)
    history = Histories().follow(entries).jobs.get(index.job)
    if history is None or history.release is None or index.origin != found.checkpoint.origin:
        raise EvidenceError(f"{INDEX} names a job that this log has not released")
    _check_files(folder, found.checkpoint.size, history)
    measured = evaluations.of_history(history, lambda digest: _read(folder, f"{BLOBS}/{digest}"))
    _check_release(folder, history, history.release, measured)
    rounds, updates = _Recomputation(folder, history).run(progress)
    return Verified(
        audit=found,
        history=history,
        rounds=rounds,
        updates=updates,
        evaluations=measured,
        recomputation=terms.strategy(history.job).recomputation,
    )


def _audited(folder: Path, policy: Policy | None, charter: str) -> tuple[Audit, list[Entry]]:
    """Audit the bundle's log with all that stands beside it; return the audit and the log's entries."""
    read = open_source(str(folder / LOG))
    own = Policy.from_bytes(_read(folder, POLICY, MAX_POLICY_SIZE))
    found = audit.audit(read, policy=policy or own, charter=charter)
    if own.to_bytes() != finality.trust_policy(found.view.state.witness_sets[-1]).to_bytes():
        raise EvidenceError(f"{POLICY} is not what the charter says: use one that you were given")
    entries = [envelope.parse_entry(data) for data in audit.entries(read, found.checkpoint.size)]
    _check_kept(folder, found.kept)
    return found, entries


class _Recomputation:
    """Computes a job's models again, one after the other; keeps the newest only."""

    def __init__(self, folder: Path, history: History) -> None:
        self._folder = folder
        self._history = history
        self._computed: dict[str, bytes] = {}  # the newest model and the strategy's memory, by digest

    def run(self, progress: Progress) -> tuple[int, int]:
        """Return how many rounds were computed again, from how many updates. Raises EvidenceError."""
        closed = self._history.closed
        model, state, rounds, updates = self._history.job.model, "", 0, 0
        for done, exchange in enumerate(closed, start=1):
            record = exchange.record
            if record.model_before != model:
                raise EvidenceError(
                    f"round {record.round} begins with another model than the one before ended with"
                )
            if isinstance(record, Round) and record.round <= self._history.job.rounds:
                self._compute(exchange, record, state)
                model, state = record.model_after, record.server_state_after
                rounds, updates = rounds + 1, updates + len(exchange.used)
            progress(done, len(closed))
        return rounds, updates

    def _compute(self, exchange: Closed, record: Round, state: str) -> None:
        inputs = terms.round_inputs(self._history, record.model_before, state, exchange.used)
        for update in inputs.updates:
            with closing(self._open(update.digest)) as stream:
                reason = judge_numbers(stream, update.digest, update.plan)
            if reason is not None:
                raise EvidenceError(
                    f"round {record.round}: the update of {update.hospital} should have been left out ({reason.code})"
                )
        result = aggregate(inputs, self._open)
        stated = (record.model_after, record.server_state_after, record.inputs)
        outcome = result.outcome
        if (outcome.model_after, outcome.server_state_after, outcome.inputs) != stated:
            promise = ""
            if inputs.strategy.recomputation != "bit-exact":
                promise = f" ({inputs.strategy.code} is recomputable with the pinned versions only)"
            raise EvidenceError(
                f"round {record.round}: its updates give model {outcome.model_after[:16]}, the record says "
                f"{record.model_after[:16]}{promise}"
            )
        self._computed = {outcome.model_after: result.model.tobytes()}
        if result.server_state:
            self._computed[outcome.server_state_after] = result.server_state

    def _open(self, digest: str) -> Readable:
        if digest in self._computed:
            return BytesIO(self._computed[digest])
        try:
            return (self._folder / BLOBS / digest).open("rb", buffering=0)
        except OSError as error:
            raise EvidenceError(f"cannot read {BLOBS}/{digest[:16]}...: {error.strerror}") from None


def _check_kept(folder: Path, kept: frozenset[int]) -> None:
    """Require that the audit has verified every kept checkpoint: it looks where a batch ends, and nowhere else."""
    names = {str(size) for size in kept}
    for path in sorted((folder / LOG / "checkpoints").glob("*")):
        if path.name not in names:
            raise EvidenceError(f"{path.relative_to(folder)} is no part of a bundle")


def _check_files(folder: Path, size: int, history: History) -> None:
    """Require every file that belongs to a bundle, with the bytes that its name promises, and no other."""
    fixed = {INDEX, POLICY, release.MODEL, release.CARD, f"{LOG}/checkpoint"}
    fixed |= {f"{LOG}/{path}" for path in evidence.log_paths(size)}
    needed = {f"{BLOBS}/{digest}" for digest in evidence.blob_digests(history)}
    extra = {f"{BLOBS}/{digest}" for digest in evidence.extra_digests(history)}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    there = {name for name in there if not name.startswith(f"{LOG}/checkpoints/")}
    if missing := sorted((fixed | needed) - there):
        raise EvidenceError(f"{missing[0]} is missing: get the bundle again")
    if strange := sorted(there - fixed - needed - extra):
        raise EvidenceError(f"{strange[0]} is no part of the bundle: nothing says what it is")
    for name in sorted(there & (needed | extra)):
        _require_digest(folder, name, name.removeprefix(f"{BLOBS}/"))


def _check_release(folder: Path, history: History, record: Release, measured: Evaluations) -> None:
    for name, digest in ((release.MODEL, record.artifact), (release.CARD, record.card)):
        _require_digest(folder, name, digest)
    parameters, dictionary = _content(_read(folder, release.MODEL, MAX_MODEL_FILE))
    if sha256(parameters).hexdigest() != record.model:
        raise EvidenceError(f"{release.MODEL} does not hold the released model {record.model[:16]}")
    if sha256(dictionary).hexdigest() != history.job.dictionary:
        raise EvidenceError(f"{release.MODEL} does not hold the job's data dictionary")
    if record.metrics != release.final_metrics(history, measured):
        raise EvidenceError("the released metrics do not follow from the hospitals' histograms")


def _content(data: bytes) -> tuple[bytes, bytes]:
    """Return the packed parameters and the data dictionary of a model file, as `model_file` lays them out."""
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        stated = json.loads(data[8:start])["__metadata__"]
        return data[start:], str(stated["dictionary"]).encode()
    except (ValueError, KeyError, TypeError):
        raise EvidenceError(f"{release.MODEL} is no model file of this version") from None


def _require_digest(folder: Path, name: str, digest: str) -> None:
    state = sha256()
    try:
        with (folder / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                state.update(chunk)
    except OSError as error:
        raise EvidenceError(f"cannot read {name}: {error.strerror}") from None
    if state.hexdigest() != digest:
        raise EvidenceError(
            f"{name} was changed: its bytes have digest {state.hexdigest()[:16]}, not {digest[:16]}"
        )


def _read(folder: Path, name: str, limit: int = MAX_FILE_SIZE) -> bytes:
    try:
        return read_file(folder / name, limit)
    except FileNotFoundError:
        raise EvidenceError(f"{name} is missing: get the bundle again") from None
