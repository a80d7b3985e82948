"""A job's data dictionary: which columns a table has, what each means, and how each becomes features.

Every number in it is public: a plausible range, and a centre and spread from the literature with their source,
never a statistic of the patients at hand (PRIVACY.md: own mean and deviation cost privacy, and on heart disease
about 7 points of AUC as well). Authors write JSON and may leave out what has a default; the canonical bytes
spell every field, and their SHA-256 names the dictionary on the record. Turning cells into features is
`features`; reading a file is `data`. A field that came later, a label's code and an image's shape, is spelled only
where it says something, so that a dictionary's name outlives the version that wrote it.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, replace
from importlib import resources
from typing import Annotated, Any

from client.errors import DictionaryError
from client.terminology import Coding
from ledger import canonical
from ledger.canonical import Text, Within
from ledger.errors import MalformedError
from ledger.values import Name, Part

TYPE = "wardround-dictionary/1"
SHIPPED = ("breast-cancer", "heart-disease")  # dictionaries that come with the package
UNREVIEWED = "taken from rows at hand, not yet reviewed"  # as a variable's source: nothing to submit
MAX_SIZE = 1 << 20  # bytes of a dictionary's text
MAX_VARIABLES = 4096
MAX_LEVELS = 256
MAX_PIXELS = 1 << 22  # of one image

_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{0,17}[1-9])?", re.ASCII).fullmatch
_WORD = r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,98}[^\s\x00-\x1f\x7f])?"
Column = Annotated[str, Text(_WORD, "a column's name of 1 to 100 characters")]
MaybeColumn = Annotated[str, Text(f"(?:{_WORD})?", "empty or a column's name")]
Level = Annotated[str, Text(_WORD, "a value of 1 to 100 characters")]
Line = Annotated[str, Text(r"[^\x00-\x1f\x7f]{0,1000}", "one line of at most 1,000 characters")]

_VARIABLE_DEFAULTS: dict[str, Any] = {
    "unit": "", "lower": "", "upper": "", "centre": "", "spread": "", "levels": [], "source": "", "code": "",
    "shape": [],
}  # fmt: skip
_LABEL_DEFAULTS: dict[str, Any] = {"meaning": "", "code": ""}
_DICTIONARY_DEFAULTS: dict[str, Any] = {"patient": "", "split": "", "source": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable(Part):
    """One input column. Fields that its kind has no use for are empty."""

    name: Column
    kind: Line  # "numeric", "binary", "categorical", or "image", which is then the only variable
    unit: Line  # UCUM where one exists: "mm[Hg]"
    lower: (
        Line  # numeric: the plausible range; values outside are clipped to it. image: what black stands for
    )
    upper: Line  # image: what white stands for
    centre: Line  # numeric: public typical value, or empty for the middle of the range
    spread: Line  # numeric: public standard deviation, or empty for an eighth of the range
    levels: tuple[Level, ...]  # binary: (0, 1) in this order; categorical: the first is the reference
    source: Line  # where range, centre and spread come from; required for a numeric variable and for an image
    code: Line  # optional code in a terminology (`client.terminology`): "LOINC 8480-6"
    shape: tuple[Annotated[int, Within(1, 1 << 16)], ...]  # image: channels, height, width; else empty

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        _require_code(f"variable {self.name!r}", self.code)
        if self.kind == "image":
            self._check_image()
        elif self.shape:
            raise MalformedError(f"variable {self.name!r}: only an image has a shape")
        elif self.kind == "numeric":
            self._check_numeric()
        elif self.kind in ("binary", "categorical"):
            self._check_levels()
        else:
            raise MalformedError(
                f"variable {self.name!r}: kind must be numeric, binary, categorical or image"
            )

    def _check_image(self) -> None:
        self._check_numeric()
        if len(self.shape) != 3 or math.prod(self.shape) > MAX_PIXELS:
            raise MalformedError(
                f"variable {self.name!r}: give shape as [channels, height, width], at most {MAX_PIXELS} pixels"
            )

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
        """One name for each feature that this column becomes; an image has one name for the whole."""
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
    code: Line  # optional, as a variable's: where FHIR resources say it

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        _require_code(f"label {self.name!r}", self.code)
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
        if len(self.variables) > 1 and any(v.shape for v in self.variables):
            raise MalformedError("an image must be the only variable of its dictionary")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the model's inputs, in order."""
        return tuple(name for variable in self.variables for name in variable.feature_names)

    @property
    def image(self) -> Variable | None:
        """The image that is all of a patient's input, or None where the inputs are a table's columns."""
        return self.variables[0] if self.variables[0].shape else None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one patient's features: (features,), or an image's (channels, height, width)."""
        return self.variables[0].shape or (len(self.feature_names),)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns needed to score a patient."""
        return tuple(v.name for v in self.variables)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that training needs."""
        return (*self.inputs, self.label.name, *(n for n in (self.patient, self.split) if n))

    @property
    def unreviewed(self) -> tuple[str, ...]:
        """Variables whose range, or levels, are still those of the rows that a sketch was made from."""
        return tuple(v.name for v in self.variables if v.source == UNREVIEWED)

    def reviewed(self, *, source: str) -> Dictionary:
        """Return it with its author's word that every range is publicly known.

        Args:
            source: Where the ranges come from: a guideline, a paper, the literature's plausible values.

        Raises:
            DictionaryError: source is empty, or is not one line.
        """
        try:
            if not source.strip() or source == UNREVIEWED:
                raise MalformedError("say in source where the ranges come from")
            found = [replace(v, source=source) if v.source == UNREVIEWED else v for v in self.variables]
            return replace(self, variables=tuple(found))
        except MalformedError as error:
            raise DictionaryError(f"data dictionary: {error}") from None

    @classmethod
    def shipped(cls, name: str) -> Dictionary:
        """As the function `shipped`. Raises DictionaryError."""
        return shipped(name)

    def to_bytes(self) -> bytes:
        """Return the only encoding that is hashed, sent or stored."""
        value = canonical.plain(self)
        for part, later in ((value["label"], "code"), *((v, "shape") for v in value["variables"])):
            if not part[later]:
                del part[later]
        return canonical.dumps({"type": TYPE, **value})

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


def _require_code(where: str, code: str) -> None:
    try:
        if code:
            Coding.parse(code)
    except MalformedError as error:
        raise MalformedError(f"{where}: {error}") from None
