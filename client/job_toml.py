"""`job.toml`: a job as a researcher writes it, as one frozen value, and back again.

`parse` names everything that is wrong at once, a line each. Nothing here reads a file, asks the log or computes a
model: a draft becomes a `Job` record in `client.job_record`, once those have been asked.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal as Number
from typing import Any

from client import job_fields
from client.errors import JobFileError
from client.job_fields import FIELDS, OPEN_TABLE, REQUIRED, Field
from client.job_spec import GRID_BITS, HIDDEN
from client.settings import Line
from ledger.errors import MalformedError
from ledger.values import Code, Count, DatasetName, Decimal, Digest, Name, Part, Positive, Setting

FILE = "job.toml"
MAX_SIZE = 1 << 16  # bytes
_KINDS = {"datasets": job_fields.ALL, "agreements": job_fields.NEWEST}
_TABLES = tuple(dict.fromkeys(f.table for f in FIELDS))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDraft(Part):
    """A job before it is anybody's record: all that a researcher decides. Each field by itself is well-formed.

    Decimals are text, as on the record.
    """

    name: Name
    purpose: Code
    dictionary: Line  # a file of the job's folder, or the name of a shipped one
    datasets: tuple[DatasetName, ...] = ()  # sorted; empty: all that fit
    agreements: tuple[Digest, ...] = ()  # sorted; empty: the newest that fits
    min_participants: Positive = 2
    rounds: Positive
    expires_seconds: Positive = 604_800  # after the proposal
    model: Code
    hidden: tuple[Positive, ...] = ()  # widths of the mlp's hidden layers; empty: the standard ones
    outputs: Positive = 1
    seed: Count = 0
    prevalence: Decimal = "0.5"
    loss: Code = "bce-with-logits"
    local_steps: Positive = 1
    learning_rate: Decimal
    max_grad_norm: Decimal
    sample_rate: Decimal = "1"
    fedprox_mu: Decimal = "0"
    chunk_size: Count = 0
    grid_bits: Positive = GRID_BITS
    live_evaluations: Count = 4
    final_evaluation: bool = True
    epsilon: Decimal
    heldout_epsilon: Decimal
    delta: Decimal = "0.0001"
    strategy: Code = "fedavg"
    strategy_settings: tuple[Setting, ...] = ()  # sorted by name
    weighting: Code = "size-class"

    @property
    def evaluate(self) -> tuple[int, ...]:
        """The rounds whose received model is measured, spread evenly; rounds + 1 is the released model."""
        live = {
            1 + self.rounds * (i + 1) // (self.live_evaluations + 1) for i in range(self.live_evaluations)
        }
        found = sorted(r for r in live if r <= self.rounds)
        return (*found, self.rounds + 1) if self.final_evaluation else tuple(found)

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the hidden layers of an mlp."""
        return self.hidden or HIDDEN

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The settings of the record's `training`: those that differ from what a hospital assumes."""
        found = {
            "outputs": (self.outputs, 1),
            "seed": (self.seed, 0),
            "prevalence": (self.prevalence, "0.5"),
            "fedprox-mu": (self.fedprox_mu, "0"),
            "chunk-size": (self.chunk_size, 0),
            "grid-bits": (self.grid_bits, GRID_BITS),
        }
        chosen = {name: str(value) for name, (value, usual) in found.items() if value != usual}
        if self.model == "mlp":
            chosen |= {f"hidden-{i}": str(width) for i, width in enumerate(self.hidden, start=1)}
        return tuple(Setting(name=name, value=chosen[name]) for name in sorted(chosen))


def parse(data: bytes, where: str = FILE) -> JobDraft:
    """Read `job.toml`.

    Args:
        data: The file's bytes.
        where: How errors call it.

    Raises:
        JobFileError: naming every line that is wrong and what it must be.
    """
    try:
        if len(data) > MAX_SIZE:
            raise JobFileError(f"larger than {MAX_SIZE} bytes: it is not what it should be", where=where)
        value = tomllib.loads(data.decode(), parse_float=Number)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise JobFileError(f"not TOML: {error}", where=where) from None
    problems: list[str] = []
    tables = _tables(value, problems)
    found = {}
    for field in FIELDS:
        found[field.attribute] = _one(field, tables[field.table], problems)
    found["strategy_settings"] = _settings(tables[OPEN_TABLE], problems)
    if problems:
        raise JobFileError(*problems, where=where)
    try:
        return JobDraft(**found)
    except MalformedError as error:  # only where a reader admits more than the record does
        raise JobFileError(str(error), where=where) from None


def to_toml(draft: JobDraft, *, explained: bool = True, heading: str = "") -> str:
    """Write a draft as `job.toml`: `parse` of it is the same draft.

    Args:
        draft: The job.
        explained: Whether each line is preceded by what it means.
        heading: Comment lines that come first.
    """
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    for table in _TABLES:
        if table:
            lines += ["", f"[{table}]"]
        for field in (f for f in FIELDS if f.table == table):
            if explained:
                lines.append(f"# {field.says}")
            lines.append(f"{field.key} = {_literal(field, getattr(draft, field.attribute))}")
        if table == OPEN_TABLE:
            if explained:
                lines.append("# Further lines are the strategy's settings, such as eta = 0.1 for fedadam.")
            lines += [f"{s.name} = {s.value}" for s in draft.strategy_settings]
    return "\n".join(lines) + "\n"


def _tables(value: Mapping[str, Any], problems: list[str]) -> dict[str, dict[str, Any]]:
    """Split a file into its tables, and name what stands there that is none of them."""
    tables: dict[str, dict[str, Any]] = {"": {}}
    for key, item in value.items():
        if key in _TABLES and type(item) is dict:
            tables[key] = item
        elif key in _TABLES:
            problems.append(f"{key} must be a table: a line [{key}]")
        else:
            tables[""][key] = item
    for table in _TABLES:
        known = [f.key for f in FIELDS if f.table == table]
        given = tables.setdefault(table, {})
        for key in given:
            if key not in known and table != OPEN_TABLE:
                problems.append(_unknown(f"{table}.{key}" if table else key, key, known))
    return tables


def _unknown(where: str, key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    return f"{where[:60]!r} is unknown" + (f": did you mean {near[0]}?" if near else ": leave it out")


def _one(field: Field, table: Mapping[str, Any], problems: list[str]) -> Any:
    if field.key not in table:
        if field.default is REQUIRED:
            problems.append(f"{field.where} is missing: {_small(field.says)}")
        return field.default
    try:
        return field.read(table[field.key])
    except JobFileError as error:
        problems.append(f"{field.where} must be {error}")
        return field.default


def _settings(table: Mapping[str, Any], problems: list[str]) -> tuple[Setting, ...]:
    known = {f.key for f in FIELDS if f.table == OPEN_TABLE}
    found = []
    for key in sorted(set(table) - known):
        try:
            found.append(Setting(name=job_fields.code(key), value=job_fields.setting(table[key])))
        except JobFileError as error:
            problems.append(f"{OPEN_TABLE}.{key[:40]} must be {error}")
    return tuple(found)


def _literal(field: Field, value: Any) -> str:
    """Return a value as TOML writes it."""
    if field.attribute in _KINDS and not value:
        return json.dumps(_KINDS[field.attribute])
    if field.read is job_fields.duration:
        return json.dumps(job_fields.spell_duration(value))
    if field.read is job_fields.decimal:
        return str(value)
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _small(text: str) -> str:
    return text[0].lower() + text[1:].rstrip(".")
