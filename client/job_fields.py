"""The fields of `job.toml`: where each stands, what it may be, and the words that explain it to a newcomer.

One list serves reading, writing and explaining, so that no two of them can differ. What fields mean together is
`client.job_problems`; the value that they make up is `client.job_toml.JobDraft`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal as Number
from typing import Any, get_args

from client.accounting import spell
from client.errors import JobFileError
from ledger import values
from ledger.canonical import MAX_INTEGER, Text

UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}  # seconds
NEWEST, ALL = "newest", "all"  # said in place of agreements' digests and datasets' names
_DURATION = re.compile(r"([1-9][0-9]{0,5})([mhdw])", re.ASCII)
_LINE = re.compile(r"[^\x00-\x1f]{1,255}")
REQUIRED = object()
Read = Callable[[Any], Any]


def _pattern(annotation: Any) -> Read:
    """Return a reader of text that a record's field admits."""
    bound: Text = get_args(annotation)[1]
    match = re.compile(bound.pattern, re.ASCII).fullmatch

    def read(value: Any) -> str:
        if type(value) is not str or match(value) is None:
            raise JobFileError(bound.what)
        return value

    return read


def decimal(value: Any) -> str:
    """Read a number that is not negative; return it as records spell it. Raises JobFileError."""
    wrong = JobFileError("a decimal number of at least 0, such as 0.5")
    if type(value) is str:
        text = value
    elif type(value) in (int, Number) and Number(value).is_finite() and value >= 0:
        text = spell(Number(value))
    else:
        raise wrong
    try:
        return str(_DECIMAL(text))
    except JobFileError:
        raise wrong from None


def setting(value: Any) -> str:
    """Read a strategy's number, which may be negative; return it as records spell it. Raises JobFileError."""
    if type(value) in (int, Number) and Number(value).is_finite():
        value = ("-" if value < 0 else "") + spell(abs(Number(value)))
    try:
        return str(_SIGNED(value))
    except JobFileError:
        raise JobFileError("a number, such as 0.1") from None


def whole(least: int) -> Read:
    """Return a reader of whole numbers from `least` on."""

    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= MAX_INTEGER:
            raise JobFileError(f"a whole number of at least {least}")
        return value

    return read


def flag(value: Any) -> bool:
    """Read true or false. Raises JobFileError."""
    if type(value) is not bool:
        raise JobFileError("true or false")
    return value


def line(value: Any) -> str:
    """Read a line of text. Raises JobFileError."""
    if type(value) is not str or _LINE.fullmatch(value) is None:
        raise JobFileError("a line of text")
    return value


def several(each: Read, word: str = "") -> Read:
    """Return a reader of a list; `word`, where there is one, stands for "whatever fits" and becomes ()."""

    def read(value: Any) -> tuple[Any, ...]:
        if word and value == word:
            return ()
        if type(value) is not list or (word and not value):
            raise JobFileError(f'"{word}" or a list that is not empty' if word else "a list")
        return tuple(each(item) for item in value)

    return read


def distinct(each: Read, word: str) -> Read:
    """Return a reader as `several`, of things that are each named once; sorted."""
    read_all = several(each, word)

    def read(value: Any) -> tuple[Any, ...]:
        found = read_all(value)
        if len(set(found)) != len(found):
            raise JobFileError("a list that names each once")
        return tuple(sorted(found))

    return read


def duration(value: Any) -> int:
    """Read a time such as "12h" or "7d"; return seconds. Raises JobFileError."""
    match = _DURATION.fullmatch(value) if type(value) is str else None
    if match is None:
        raise JobFileError('a time such as "90m", "12h", "7d" or "2w"')
    return int(match[1]) * UNITS[match[2]]


def spell_duration(seconds: int) -> str:
    """Return what `duration` reads, in the largest unit that fits."""
    unit = next((u for u in ("w", "d", "h") if seconds % UNITS[u] == 0), "m")
    return f"{max(1, seconds // UNITS[unit])}{unit}"


name, code = _pattern(values.Name), _pattern(values.Code)
digest, dataset = _pattern(values.Digest), _pattern(values.DatasetName)
_DECIMAL, _SIGNED = _pattern(values.Decimal), _pattern(values.SignedDecimal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One line of `job.toml`."""

    table: str  # "" for the top of the file
    key: str
    attribute: str  # of `JobDraft`
    read: Read
    says: str
    default: Any = REQUIRED

    @property
    def where(self) -> str:
        """How errors name it: "training.clip"."""
        return f"{self.table}.{self.key}" if self.table else self.key


def _fields(table: str, *rows: tuple[Any, ...]) -> Sequence[Field]:
    return [
        Field(
            table=table,
            key=row[0],
            attribute=row[1] or row[0],
            read=row[2],
            says=row[3],
            default=row[4] if len(row) > 4 else REQUIRED,
        )
        for row in rows
    ]


FIELDS: tuple[Field, ...] = (
    *_fields(
        "",
        ("name", "", name, "What this job is called: lowercase letters, digits, dots, hyphens."),
        ("purpose", "", code, "Why the patients' data are used. A hospital takes part only if it permits this."),
        ("dictionary", "", line, "The data dictionary: a file of this folder, or one that comes with Wardround."),
        ("datasets", "", distinct(dataset, ALL), '"all" that fit dictionary and purpose, or ["site/dataset"].', ()),
        ("agreements", "", distinct(digest, NEWEST), 'Data use agreements: the "newest" that fits, or digests.', ()),
        ("min_participants", "", whole(1), "The job starts, and goes on, only with so many hospitals.", 2),
        ("rounds", "", whole(1), "How many rounds of training. Each costs privacy."),
        ("expires", "expires_seconds", duration, "The job ends after this time, whatever was reached.", 604_800),
    ),
    *_fields(
        "model",
        ("name", "model", code, "logistic-regression, mlp, small-cnn, or custom: your own model.py."),
        ("hidden", "", several(whole(1)), "Widths of an mlp's hidden layers.", ()),
        ("outputs", "", whole(1), "1 for a yes or no, else the number of classes.", 1),
        ("seed", "", whole(0), "Public number that the first weights are made from.", 0),
        ("prevalence", "", decimal, "Public guess of the share of positives: where the model begins.", "0.5"),
    ),
    *_fields(
        "training",
        ("loss", "", code, "bce-with-logits, cross-entropy or mse.", "bce-with-logits"),
        ("local_steps", "", whole(1), "Steps that a hospital takes in one round.", 1),
        ("learning_rate", "", decimal, "How far one step goes."),
        ("clip", "max_grad_norm", decimal, "Each patient's gradient is clipped to this length; noise grows with it."),
        ("sample_rate", "", decimal, "Share of patients in a step: 1 takes all, less draws each by chance.", "1"),
        ("fedprox_mu", "", decimal, "How strongly local steps are held to the common model; 0 for not at all.", "0"),
        ("chunk_size", "", whole(0), "Patients computed at once, a power of two; 0 leaves it to the hospital.", 0),
        ("grid_bits", "", whole(1), "How finely gradients are rounded.", 20),
    ),
    *_fields(
        "evaluation",
        ("live", "live_evaluations", whole(0), "How many times the model is measured while it trains.", 4),
        ("final", "final_evaluation", flag, "Whether the released model is measured.", True),
    ),
    *_fields(
        "privacy",
        ("epsilon", "", decimal, "The most that training may cost each patient, at delta (add/remove one patient)."),
        ("heldout_epsilon", "", decimal, "The same for patients the model is measured on; 0 without evaluations."),
        ("delta", "", decimal, "At most a tenth of one over the largest hospital's number of patients.", "0.0001"),
    ),
    *_fields(
        "aggregation",
        ("strategy", "", code, "fedavg, fedavgm, fedadam, fedyogi, fedmedian, fedtrimmedavg or krum.", "fedavg"),
        ("weighting", "", code, "size-class weighs hospitals by their public size, uniform all alike.", "size-class"),
    ),
)  # fmt: skip
OPEN_TABLE = "aggregation"  # its further lines are the strategy's settings
