"""What a hospital's cells stand for in the dictionary's words: one rule a column, looking at one cell alone.

A cell is first found missing or not, then translated where its column is coded, else converted where its unit is
another. A coded cell that no line of the mapping names fits no rule of the dictionary, so its row is dropped; nothing
is guessed. What was met and not understood is tallied for the hospital's own screen. How the file is written is
`mapping_file`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field
from decimal import Decimal

from client.dictionary import Dictionary
from client.features import MISSING, number
from client.units import Linear

UNMAPPED = "\x00"  # fits no rule: no level of a dictionary holds a control character
MAX_TALLIED = 10_000  # different texts that are told apart
SHOWN = 20  # of them on the screen, most frequent first


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Numbers that stand for one level: at_least <= number < below. ICD-9 groups are such spans."""

    at_least: Decimal
    below: Decimal
    level: str


@dataclass(slots=True)
class Tally:
    """What the mapping met, for the hospital's own screen only."""

    unmapped: Counter[tuple[str, str]] = field(default_factory=Counter, repr=False)  # (column, cell)
    units: Counter[tuple[str, str]] = field(
        default_factory=Counter, repr=False
    )  # (column, unit that does not fit)
    used: set[tuple[str, str]] = field(default_factory=set, repr=False)  # (column, line of the mapping)

    def count(self, counts: Counter[tuple[str, str]], column: str, text: str) -> None:
        """Count a text, or one of "others" where too many differ."""
        key = (column, text[:40])
        counts[key if key in counts or len(counts) < MAX_TALLIED else (column, "others")] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How one column's cells are read. Empty fields change nothing."""

    column: str  # of the dictionary
    source: str = ""  # the hospital's column, or for FHIR the place in the resources; empty: named alike
    unit: str = ""  # the hospital's
    substance: str = ""
    linear: Linear | None = None
    missing: frozenset[str] = frozenset()
    default: str = ""  # what a missing cell stands for
    values: MappingOf[str, str] = field(default_factory=dict)
    prefixes: tuple[tuple[str, str], ...] = ()  # longest first
    spans: tuple[Span, ...] = ()
    otherwise: str = ""  # what every other cell stands for
    levels: frozenset[str] = frozenset()  # words of the dictionary, never read as missing

    @property
    def local(self) -> str:
        """The hospital's column."""
        return self.source or self.column

    @property
    def coded(self) -> bool:
        """Whether cells are translated, so that one not listed is none."""
        return bool(self.values or self.prefixes or self.spans)

    @property
    def changes(self) -> bool:
        """Whether the rule does anything to a cell."""
        return self.coded or bool(self.missing or self.default or self.otherwise) or self.linear is not None

    def apply(self, cell: str, tally: Tally) -> str:
        """Return the cell in the dictionary's words."""
        if cell in self.missing:
            tally.used.add((self.column, "missing"))
            return self.default
        if cell.lower() in MISSING and cell not in self.values and cell not in self.levels:
            return self.default
        if self.coded:
            return self._translated(cell, tally)
        if self.linear is not None and isinstance(number(cell), float):
            return self.linear.apply(cell)
        return cell

    def _translated(self, cell: str, tally: Tally) -> str:
        line = _found(self, cell)
        if line is not None:
            tally.used.add((self.column, line[0]))
            return line[1]
        if not self.otherwise:
            tally.count(tally.unmapped, self.column, cell)
        return self.otherwise or UNMAPPED

    def lines(self) -> Iterator[str]:
        """Yield each line of the mapping that translates, as the tally names it."""
        yield from self.values
        yield from (f"{prefix}..." for prefix, _ in self.prefixes)
        yield from (_name(span) for span in self.spans)


def _found(rule: Rule, cell: str) -> tuple[str, str] | None:
    """Return the line of a rule that names a cell and its level: exact, longest prefix, first span."""
    if (level := rule.values.get(cell)) is not None:
        return cell, level
    value = number(cell)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        spelled = str(int(value))  # 1.0 of a column of floats is 1
        if (level := rule.values.get(spelled)) is not None:
            return spelled, level
    for prefix, level in rule.prefixes:
        if cell.startswith(prefix):
            return f"{prefix}...", level
    if isinstance(value, float):
        exact = Decimal(cell)
        for span in rule.spans:
            if span.at_least <= exact < span.below:
                return _name(span), span.level
    return None


def _name(span: Span) -> str:
    return f"{span.at_least} to below {span.below}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """One rule for each of the dictionary's columns, in their order."""

    rules: tuple[Rule, ...]
    reference_date: str = ""  # fhir: the day at which ages are counted, "2024-12-31"
    unused: tuple[str, ...] = ()  # what was refused of concept maps, in words
    tally: Tally = field(default_factory=Tally, repr=False, compare=False)

    @classmethod
    def plain(cls, dictionary: Dictionary) -> Mapping:
        """Return the mapping of a hospital whose columns are the dictionary's."""
        return cls(rules=tuple(Rule(column=column) for column in dictionary.columns))

    @property
    def columns(self) -> tuple[str, ...]:
        """The hospital's columns, in the order of the dictionary's; one may serve several."""
        return tuple(rule.local for rule in self.rules)

    def rule(self, column: str) -> Rule:
        """Return the rule of a column of the dictionary."""
        return next(rule for rule in self.rules if rule.column == column)

    def apply(self, cells: Sequence[str]) -> list[str]:
        """Return a row's cells in the dictionary's words."""
        return [
            rule.apply(cell, self.tally) if rule.changes else cell
            for rule, cell in zip(self.rules, cells, strict=True)
        ]

    def notes(self) -> tuple[str, ...]:
        """Say what was met and not understood, one line each; they hold the hospital's own values."""
        unmapped, units = self.tally.unmapped, self.tally.units
        idle = [
            (r.column, line)
            for r in self.rules
            for line in r.lines()
            if (r.column, line) not in self.tally.used
        ]
        return (
            *(
                f"{column}: {n} cells hold {_shown(text)}, which the mapping does not list"
                for (column, text), n in unmapped.most_common(SHOWN)
            ),
            *((f"{len(unmapped) - SHOWN} further values are not listed",) if len(unmapped) > SHOWN else ()),
            *(
                f"{column}: {n} values are in {_shown(unit)}, which cannot be converted: name unit and substance, "
                "or factor and offset, in the mapping"
                for (column, unit), n in units.most_common(SHOWN)
            ),
            *(f"{column}: the mapping's line {_shown(line)} was never used" for column, line in idle),
            *self.unused,
        )


def _shown(text: str) -> str:
    """Return a text that a terminal shows as it is."""
    return ascii(text)
