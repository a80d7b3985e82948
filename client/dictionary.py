"""A job's data dictionary: which columns a table has, what each means, and how each becomes features.

Every number in it is public: a plausible range, and a centre and spread from the literature with their source,
never a statistic of the patients at hand (PRIVACY.md: own mean and deviation cost privacy, and on heart disease
about 7 points of AUC as well). Authors write JSON and may leave out what has a default; the canonical bytes
spell every field, and their SHA-256 names the dictionary on the record. Turning cells into features is
`features`; reading a file is `data`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any

from client.errors import DictionaryError
from ledger import canonical
from ledger.canonical import Text
from ledger.errors import MalformedError
from ledger.values import Name, Part

TYPE = "wardround-dictionary/1"
SHIPPED = ("breast-cancer", "heart-disease")  # dictionaries that come with the package
MAX_SIZE = 1 << 20  # bytes of a dictionary's text
MAX_VARIABLES = 4096
MAX_LEVELS = 256

_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{0,17}[1-9])?", re.ASCII).fullmatch
_WORD = r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,98}[^\s\x00-\x1f\x7f])?"
Column = Annotated[str, Text(_WORD, "a column's name of 1 to 100 characters")]
MaybeColumn = Annotated[str, Text(f"(?:{_WORD})?", "empty or a column's name")]
Level = Annotated[str, Text(_WORD, "a value of 1 to 100 characters")]
Line = Annotated[str, Text(r"[^\x00-\x1f\x7f]{0,1000}", "one line of at most 1,000 characters")]

_VARIABLE_DEFAULTS: dict[str, Any] = {
    "unit": "", "lower": "", "upper": "", "centre": "", "spread": "", "levels": [], "source": "", "code": "",
}  # fmt: skip
_LABEL_DEFAULTS: dict[str, Any] = {"meaning": ""}
_DICTIONARY_DEFAULTS: dict[str, Any] = {"patient": "", "split": "", "source": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable(Part):
    """One input column. Fields that its kind has no use for are empty."""

    name: Column
    kind: Line  # "numeric", "binary" or "categorical"
    unit: Line  # UCUM where one exists: "mm[Hg]"
    lower: Line  # numeric: the plausible range; values outside are clipped to it
    upper: Line
    centre: Line  # numeric: public typical value, or empty for the middle of the range
    spread: Line  # numeric: public standard deviation, or empty for an eighth of the range
    levels: tuple[Level, ...]  # binary: (0, 1) in this order; categorical: the first is the reference
    source: Line  # where range, centre and spread come from; required for a numeric variable
    code: Line  # optional code in a terminology: "LOINC 8480-6"

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        if self.kind == "numeric":
            self._check_numeric()
        elif self.kind in ("binary", "categorical"):
            self._check_levels()
        else:
            raise MalformedError(f"variable {self.name!r}: kind must be numeric, binary or categorical")

    def _check_numeric(self) -> None:
        for field in ("lower", "upper", "centre", "spread"):
            text = getattr(self, field)
            if not _DECIMAL(text) and (text or field in ("lower", "upper")):
                raise MalformedError(
                    f'variable {self.name!r}: {field} must be a decimal string such as "1.5"'
                )
        if self.levels:
            raise MalformedError(f"variable {self.name!r}: a numeric variable has no levels")
        if bool(self.centre) != bool(self.spread):
            raise MalformedError(f"variable {self.name!r}: give centre and spread together, or neither")
        if not float(self.lower) < float(self.upper):
            raise MalformedError(f"variable {self.name!r}: lower must be below upper")
        if self.spread and not float(self.spread) > 0:
            raise MalformedError(f"variable {self.name!r}: spread must be above 0")
        if not self.source:
            raise MalformedError(f"variable {self.name!r}: say in source where its range and scale come from")

    def _check_levels(self) -> None:
        if self.lower or self.upper or self.centre or self.spread:
            raise MalformedError(
                f"variable {self.name!r}: only a numeric variable has a range, centre or spread"
            )
        if self.kind == "binary" and len(self.levels) != 2:
            raise MalformedError(f"variable {self.name!r}: a binary variable has exactly two levels")
        if not 2 <= len(self.levels) <= MAX_LEVELS:
            raise MalformedError(f"variable {self.name!r}: give 2 to {MAX_LEVELS} levels")
        _require_distinct(f"variable {self.name!r}: levels", self.levels)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name for each feature that this column becomes."""
        if self.kind == "categorical":
            return tuple(f"{self.name}={level}" for level in self.levels[1:])
        return (self.name,)

    @property
    def scale(self) -> tuple[float, float]:
        """Centre and spread of a numeric variable: the public ones, or those that its range implies."""
        if self.spread:
            return float(self.centre), float(self.spread)
        lower, upper = float(self.lower), float(self.upper)
        return (lower + upper) / 2, (upper - lower) / 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Part):
    """The column to predict, and which of its values count as which class. Any other value is an error."""

    name: Column
    negative: tuple[Level, ...]
    positive: tuple[Level, ...]
    meaning: Line  # of the positive class

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        if not self.negative or not self.positive:
            raise MalformedError(f"label {self.name!r}: name at least one negative and one positive value")
        _require_distinct(f"label {self.name!r}: values", self.negative + self.positive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dictionary(Part):
    """All that a job says about a table: its inputs in order, its label, its patient column."""

    name: Name
    variables: tuple[Variable, ...]  # the order of the model's features
    label: Label
    patient: MaybeColumn  # the column that tells patients apart; empty: none
    split: MaybeColumn  # a split published in advance, "train" or "test" in each row; empty: a keyed hash decides
    source: Line

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        if not 1 <= len(self.variables) <= MAX_VARIABLES:
            raise MalformedError(f"a dictionary has 1 to {MAX_VARIABLES} variables")
        names = [v.name for v in self.variables] + [self.label.name]
        _require_distinct("columns", tuple(names + [n for n in (self.patient, self.split) if n]))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the model's inputs, in order."""
        return tuple(name for variable in self.variables for name in variable.feature_names)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns needed to score a patient."""
        return tuple(v.name for v in self.variables)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that training needs."""
        return (*self.inputs, self.label.name, *(n for n in (self.patient, self.split) if n))

    def to_bytes(self) -> bytes:
        """Return the only encoding that is hashed, sent or stored."""
        return canonical.dumps({"type": TYPE, **canonical.plain(self)})

    @property
    def digest(self) -> str:
        """Lowercase hex SHA-256 of the canonical bytes; names the dictionary on the record."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def parse(text: bytes) -> Dictionary:
    """Read a dictionary that a person wrote: fields with a default may be left out, spaces are free.

    Raises:
        DictionaryError: naming the field that is wrong.
    """
    try:
        value = canonical.loads(text, MAX_SIZE)
        if not isinstance(value, dict) or value.pop("type", None) != TYPE:
            raise MalformedError(f'not a data dictionary: it must be a JSON object with "type": "{TYPE}"')
        if isinstance(value.get("variables"), list):
            value["variables"] = [_with_defaults(v, _VARIABLE_DEFAULTS) for v in value["variables"]]
        if "label" in value:
            value["label"] = _with_defaults(value["label"], _LABEL_DEFAULTS)
        return canonical.build(Dictionary, _with_defaults(value, _DICTIONARY_DEFAULTS))
    except MalformedError as error:
        raise DictionaryError(f"data dictionary: {error}") from None


def from_bytes(data: bytes) -> Dictionary:
    """Parse canonical bytes, as a job carries them.

    Raises:
        DictionaryError: anything but the one canonical spelling.
    """
    dictionary = parse(data)
    if dictionary.to_bytes() != data:  # one check rules out every second spelling
        raise DictionaryError("data dictionary: not in canonical form")
    return dictionary


def shipped(name: str) -> Dictionary:
    """Return a dictionary that comes with the package.

    Raises:
        DictionaryError: no such dictionary.
    """
    if name not in SHIPPED:
        raise DictionaryError(
            f"no data dictionary {name!r} comes with Wardround; there are {', '.join(SHIPPED)}"
        )
    return parse(resources.files("client").joinpath("dictionaries", f"{name}.json").read_bytes())


def _with_defaults(value: object, defaults: dict[str, Any]) -> object:
    return {**defaults, **value} if isinstance(value, dict) else value


def _require_distinct(where: str, values: tuple[str, ...]) -> None:
    if len(set(values)) != len(values):
        raise MalformedError(f"{where} must differ from each other")
