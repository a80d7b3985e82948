"""A hospital's mapping file: which of its columns, units and codes stand for which of the dictionary's.

    reference_date = "2024-12-31"        # FHIR only: the day at which ages are counted

    [columns.chol]                       # a column of the dictionary
    from = "CHOL_SI"                     # this hospital's column; left out: named alike
    unit = "mmol/L"                      # as UCUM spells it; converted to the dictionary's
    substance = "cholesterol"            # only between mass and amount of substance
    missing = ["-9"]                     # what else means that there is no value
    default = "200"                      # what a missing value stands for; left out: its row is dropped

    [columns.temperature]
    factor = "0.1"                       # by hand: factor * cell + offset
    offset = "0"

    [columns.sex]
    values = { f = "0", m = "1" }        # cell = level of the dictionary
    concept_map = "sex.json"             # and those of a FHIR R4 ConceptMap, beside this file

    [columns.diagnosis]
    prefixes = { E10 = "diabetes", E11 = "diabetes" }                            # the longest that fits
    spans = [{ at_least = "390", below = "460", level = "circulatory" }]         # the first that fits
    otherwise = "other"                  # left out: any other cell drops its row

Of the patient column only `from` and `missing` can be said: an id that was translated otherwise another day would put
its patient on another side. What the rules do to a cell is `mapping`.
"""

from __future__ import annotations

import tomllib
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from client import concept_map
from client.dictionary import Dictionary
from client.errors import DataError, LocalStateError
from client.features import Fault, number
from client.mapping import Mapping, Rule, Span
from client.private_file import read_private
from client.units import MOLAR_MASSES, Linear, between, plain_unit

MAX_SIZE = 1 << 24  # bytes of a mapping file or a concept map
_KEYS = ("concept_map", "default", "factor", "from", "missing", "offset", "otherwise", "prefixes", "spans",
         "substance", "unit", "values")  # fmt: skip
_CODED = ("concept_map", "prefixes", "spans", "values")


def read(path: Path, dictionary: Dictionary) -> Mapping:
    """Read a mapping to a dictionary.

    Raises:
        DataError: a file cannot be read, a line is not as written above, or does not fit the dictionary.
    """
    try:
        value = tomllib.loads(_file(path).decode("utf-8-sig"), parse_float=Decimal)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not TOML text: {str(error)[:200]}") from None
    columns = _table(value.pop("columns", {}), f"{path}: columns")
    date = value.pop("reference_date", "")
    if value:
        raise DataError(f"{path}: unknown field {sorted(value)[0]!r}")
    if unknown := sorted(set(columns) - set(dictionary.columns)):
        raise DataError(f"{path}: the dictionary has no column {unknown[0]!r}")
    unused: list[str] = []
    rules = tuple(
        _rule(path, dictionary, column, _table(columns.get(column, {}), f"{path}: columns.{column}"), unused)
        for column in dictionary.columns
    )
    return Mapping(rules=rules, reference_date=str(date), unused=tuple(unused))


def concept_maps(path: Path) -> tuple[Path, ...]:
    """Return the concept maps that a mapping names, or none where it is not as written."""
    try:
        columns = tomllib.loads(_file(path).decode("utf-8-sig"), parse_float=Decimal).get("columns")
        tables = columns.values() if isinstance(columns, dict) else ()
        names = [table.get("concept_map") for table in tables if isinstance(table, dict)]
        return tuple(path.parent / name for name in names if isinstance(name, str))
    except (DataError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        return ()


def _rule(path: Path, dictionary: Dictionary, column: str, table: dict[str, Any], unused: list[str]) -> Rule:
    where = f"{path}: columns.{column}"
    if unknown := sorted(set(table) - set(_KEYS)):
        raise DataError(f"{where}: unknown field {unknown[0]!r}; there are {', '.join(_KEYS)}")
    if column == dictionary.patient and (translated := sorted(set(table) - {"from", "missing"})):
        raise DataError(
            f"{where}: a patient is known by the id as it lies, for ever: {translated[0]!r} cannot apply to it"
        )
    variable = next((v for v in dictionary.variables if v.name == column), None)
    levels = _levels(dictionary, column)
    values = _texts(table.get("values", {}), f"{where}.values")
    if "concept_map" in table:
        values = _with_concept_map(path, _text(table, "concept_map", where), values, unused)
    prefixes = _texts(table.get("prefixes", {}), f"{where}.prefixes")
    spans = tuple(_span(item, f"{where}.spans") for item in _list(table.get("spans", []), f"{where}.spans"))
    default, otherwise = _text(table, "default", where), _text(table, "otherwise", where)
    for level in (*values.values(), *prefixes.values(), *(s.level for s in spans), default, otherwise):
        _require_level(level, levels, where)
    if otherwise and not any(name in table for name in _CODED):
        raise DataError(f"{where}: otherwise needs values, prefixes, spans or a concept_map beside it")
    unit = _text(table, "unit", where)
    linear = _linear(table, unit, variable.unit if variable and variable.kind == "numeric" else None, where)
    if linear is not None and any(name in table for name in _CODED):
        raise DataError(f"{where}: a column is either translated or converted, not both")
    return Rule(
        column=column,
        source=_text(table, "from", where),
        unit=unit,
        substance=_text(table, "substance", where),
        linear=linear,
        missing=frozenset(_spelled(m, where) for m in _list(table.get("missing", []), f"{where}.missing")),
        default=default,
        values=values,
        prefixes=tuple(sorted(prefixes.items(), key=lambda item: (-len(item[0]), item[0]))),
        spans=spans,
        otherwise=otherwise,
        levels=frozenset(levels),
    )


def _linear(table: dict[str, Any], unit: str, wanted: str | None, where: str) -> Linear | None:
    by_hand = "factor" in table or "offset" in table
    if wanted is None:
        if by_hand or unit or "substance" in table:
            raise DataError(f"{where}: only a numeric variable has a unit, a factor or an offset")
        return None
    if by_hand:
        factor, offset = (
            _fraction(table.get(name, standard), f"{where}.{name}")
            for name, standard in (("factor", "1"), ("offset", "0"))
        )
        if not factor:
            raise DataError(f"{where}: factor must not be 0")
        return Linear(factor=factor, offset=offset)
    substance = table.get("substance", "")
    if substance and substance not in MOLAR_MASSES:
        raise DataError(f"{where}: substance must be one of {', '.join(MOLAR_MASSES)}")
    if not unit or plain_unit(unit) == plain_unit(wanted):
        return None
    if (found := between(unit, wanted, substance)) is None:
        raise DataError(
            f"{where}: cannot convert {unit!r} to the dictionary's {wanted!r}: "
            "name the substance, or factor and offset"
        )
    return found


def _levels(dictionary: Dictionary, column: str) -> tuple[str, ...]:
    """Return the words that a column may hold; none: any."""
    if column == dictionary.label.name:
        return dictionary.label.negative + dictionary.label.positive
    if column == dictionary.split:
        return ("train", "test")
    return next((v.levels for v in dictionary.variables if v.name == column), ())


def _require_level(level: str, levels: tuple[str, ...], where: str) -> None:
    if level and levels and level not in levels:
        raise DataError(f"{where}: {level[:40]!r} is not a value of the dictionary: {', '.join(levels[:10])}")


def _with_concept_map(path: Path, name: str, values: dict[str, str], unused: list[str]) -> dict[str, str]:
    found, refused = concept_map.read(_file(path.parent / name), str(path.parent / name))
    unused += refused
    return {**found, **values}  # what this file says itself counts


def _file(path: Path) -> bytes:
    try:
        data = read_private(path, MAX_SIZE)
    except LocalStateError as error:
        raise DataError(str(error)) from None
    if data is None:
        raise DataError(f"cannot read {path}: No such file or directory")
    return data


def _span(value: object, where: str) -> Span:
    table = _table(value, where)
    if set(table) != {"at_least", "below", "level"}:
        raise DataError(f"{where}: a span has at_least, below and level")
    low, high = (Decimal(_number(table[name], where)) for name in ("at_least", "below"))
    if not low < high:
        raise DataError(f"{where}: at_least must be less than below")
    return Span(at_least=low, below=high, level=_spelled(table["level"], where))


def _fraction(value: object, where: str) -> Fraction:
    text = _number(value, where)
    if len(text) > 40 or abs(Decimal(text).adjusted()) > 30:
        raise DataError(f"{where} must be a number of at most 30 digits")
    return Fraction(text)


def _number(value: object, where: str) -> str:
    text = _spelled(value, where)
    if isinstance(number(text), Fault):
        raise DataError(f'{where} must be a number such as "38.67"')
    return text


def _texts(value: object, where: str) -> dict[str, str]:
    return {key: _spelled(item, where) for key, item in _table(value, where).items()}


def _spelled(value: object, where: str) -> str:
    if isinstance(value, str):
        return value.strip()
    if type(value) in (int, Decimal):
        return str(value)
    raise DataError(f"{where} must be text")


def _text(table: dict[str, Any], name: str, where: str) -> str:
    return _spelled(table.get(name, ""), f"{where}.{name}")


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where} must be a table")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"{where} must be a list")
    return value
