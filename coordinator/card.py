"""The model card: what was trained, on what, what it cost the patients, how good it is, and what nobody claims.

A pure function of the log and of the published evaluations, so that its digest on the release record is of
something that can be written again. Every epsilon stands beside its delta and what it is about.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from coordinator.evaluations import Evaluations
from coordinator.histories import Closed, History
from coordinator.metrics import Evaluation
from ledger.records import Abort, Receipt
from ledger.report import when
from ledger.values import Metric

_UNIT = "add/remove one patient"
_NAMES = {"auroc": "AUROC", "brier": "Brier score", "log-loss": "Log loss"}


def card(history: History, model: str, evaluations: Evaluations, dictionary: bytes, origin: str) -> bytes:
    """Return the card as Markdown, UTF-8.

    Args:
        history: The job's, with every exchange closed.
        model: Digest of the released parameters.
        evaluations: All of the job's.
        dictionary: The data dictionary's canonical bytes.
        origin: The log's.
    """
    facts = _facts(dictionary)
    sections = (
        _head(history, model, origin),
        _data(history, facts),
        _method(history),
        _privacy(history),
        _quality(history, evaluations),
        _claims(),
    )
    return ("\n".join(line for section in sections for line in section) + "\n").encode()


def _facts(dictionary: bytes) -> dict[str, Any]:
    """Return the dictionary as JSON; its digest was checked, and a job's own may have another layout."""
    try:
        value = json.loads(dictionary)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _head(history: History, model: str, origin: str) -> Iterator[str]:
    job = history.job
    yield f"# {job.name}"
    yield ""
    yield (
        f"A {job.training.model} model with {job.training.parameters} parameters, trained for the purpose "
        f"{job.purpose} by {len(history.parties)} hospitals. Records stayed where they are; noised updates travelled."
    )
    yield ""
    yield f"- Job: `{history.digest}` on the log `{origin}`, proposed by {job.researcher}"
    yield f"- Parameters: SHA-256 `{model}`"
    closed = history.closed
    if closed:
        yield f"- Trained from {when(closed[0].record.time)} to {when(closed[-1].record.time)}"
    yield ""


def _data(history: History, facts: dict[str, Any]) -> Iterator[str]:
    yield "## Data"
    yield ""
    yield f"Data dictionary `{history.job.dictionary}`: {facts.get('name', 'unnamed')}."
    label = facts.get("label")
    if isinstance(label, dict) and label.get("meaning"):
        yield f"Predicted: {label['meaning']}."
    if facts.get("source"):
        yield f"Source: {facts['source']}"
    yield ""
    yield "| hospital | dataset | patients, about | weight |"
    yield "| --- | --- | ---: | ---: |"
    for name, party in sorted(history.parties.items()):
        yield f"| {name} | {party.dataset.name} | {party.dataset.size_class} | {party.weight} |"
    yield ""
    yield "Patient counts are powers of two; the exact ones are known to the hospitals alone."
    yield ""


def _method(history: History) -> Iterator[str]:
    job, training = history.job, history.job.training
    aborted = [c.record.round for c in history.closed if isinstance(c.record, Abort)]
    yield "## Method"
    yield ""
    yield (
        f"{job.rounds} rounds, local steps in each: {training.local_steps}; {job.aggregation.strategy} weighted by "
        f"{job.aggregation.weighting}; loss {training.loss}, learning rate {training.learning_rate}, clip norm "
        f"{training.max_grad_norm}, sample rate {training.sample_rate}."
    )
    if aborted:
        yield f"Rounds without a model: {', '.join(map(str, aborted))}."
    missing = [line for closed in history.closed for line in _left_out(closed)]
    if missing:
        yield f"Left out: {'; '.join(missing)}."
    yield ""


def _left_out(closed: Closed) -> Iterator[str]:
    for item in closed.record.left_out:
        yield f"{item.hospital} in round {closed.record.round} ({item.code})"


def _privacy(history: History) -> Iterator[str]:
    job = history.job
    yield "## Privacy"
    yield ""
    yield (
        f"Differential privacy, {_UNIT}; the job's delta is {job.delta}. Targets: epsilon {job.epsilon} for "
        f"patients in training, {job.heldout_epsilon} for held-out patients."
    )
    yield ""
    yield "| hospital | epsilon of this job | delta | epsilon of all jobs | of its budget | delta | unit |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | --- |"
    receipts: dict[str, Receipt] = history.last_receipts
    for name, party in sorted(history.parties.items()):
        data, receipt = party.dataset, receipts.get(name)
        spent = (receipt.epsilon_job, receipt.epsilon_dataset) if receipt is not None else ("0", "0")
        yield (
            f"| {name} | {spent[0]} | {job.delta} | {spent[1]} | {data.epsilon} | {data.delta} | {_UNIT} |"
        )
    yield ""


def _quality(history: History, evaluations: Evaluations) -> Iterator[str]:
    yield "## Quality"
    yield ""
    if not evaluations.done:
        yield "Not evaluated."
        yield ""
        return
    yield (
        "From noised score histograms of patients who were never trained on, summed over the hospitals; each 95% "
        "interval includes the noise."
    )
    yield ""
    yield "| model | metric | value | 95% interval |"
    yield "| --- | --- | ---: | --- |"
    for measured in evaluations.done:
        final = measured.round > history.job.rounds
        what = "released" if final else f"after round {measured.round - 1}"
        for metric in _metrics(measured.evaluation):
            name = _NAMES.get(metric.name, metric.name)
            yield f"| {what} | {name} | {metric.value} | {metric.low} to {metric.high} |"
    yield ""


def _metrics(evaluation: Evaluation) -> tuple[Metric, ...]:
    return evaluation.to_metrics()


def _claims() -> Iterator[str]:
    yield "## What is claimed, and what is not"
    yield ""
    for line in (
        "Claimed: every round, its participants and its models stand on a log that a quorum of witnesses cosigned; "
        "each round's model can be computed again from the stored updates, to the last bit.",
        "Claimed: each hospital signed how much noise it added and what its patients have spent.",
        "Not claimed: that a hospital's data are good, or that it added the noise that it signed for.",
        "Not claimed: that the same patient is not in two hospitals' data; each hospital protects its own.",
        "Not claimed: that the model is fit for the care of patients. It is no medical device; whoever uses it "
        "has to validate it where it is used.",
    ):
        yield f"- {line}"
