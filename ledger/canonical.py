"""One encoding for one value: RFC 8785 JSON without floats, and exact types for the dataclasses it carries.

A value is a frozen dataclass whose fields are `str`, `int`, `bool`, tuples of those, other such dataclasses,
or a `Map` from text to one of them. `Annotated[str, Text(...)]` and `Annotated[int, Within(...)]` narrow a
field. Numbers are integers that every JSON reader keeps exactly (RFC 7493, 2**53 - 1); fractions are decimal
strings. What a record means is `records`; how it is signed is `envelope`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, NoReturn, TypeVar, cast, get_args, get_origin, get_type_hints

from immutables import Map

from ledger.errors import MalformedError

MAX_INTEGER = 2**53 - 1
_Value = TypeVar("_Value")
_Step = Callable[[Any], Any]  # turns one JSON value into a field, or one field into a JSON value
_Check = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Text:
    """Narrows a `str` field to a regular expression that must match all of it."""

    pattern: str
    what: str  # said in the error: "64 lowercase hex digits"


@dataclass(frozen=True, slots=True)
class Within:
    """Narrows an `int` field to low <= value <= high."""

    low: int
    high: int = MAX_INTEGER

    @property
    def what(self) -> str:
        """The range in words."""
        return f"an integer from {self.low} to {self.high}"


def dumps(value: object) -> bytes:
    """Encode plain JSON values (str, int, bool, list, dict with ASCII keys) as RFC 8785 does.

    Raises:
        MalformedError: the text holds a lone surrogate, which has no UTF-8 form.
    """
    try:
        return _ENCODER.encode(value).encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError("text is not valid Unicode") from None


def loads(data: bytes, max_size: int) -> object:
    """Parse JSON of at most `max_size` bytes; floats, NaN and infinities are refused.

    The result may still have been spelled in a second way: encode it again and compare.

    Raises:
        MalformedError: too large, not UTF-8, not JSON, or nested too deeply.
    """
    if len(data) > max_size:
        raise MalformedError(f"{len(data)} bytes where at most {max_size} are allowed")
    try:
        return _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise MalformedError("not JSON text with integers only") from None


def plain(value: object) -> dict[str, Any]:
    """Return a dataclass as JSON values: dicts, lists, text and integers."""
    kind: Any = type(value)
    return cast("dict[str, Any]", _unbuilder(kind)(value))


def build(cls: type[_Value], value: object) -> _Value:
    """Return the dataclass that `plain` would turn into `value`.

    Raises:
        MalformedError: a field is missing, unknown, of another type, or outside its bounds.
    """
    hint: Any = cls
    return cast(_Value, _builder(hint)(value))


def check(value: object) -> None:
    """Check every field of a dataclass instance against its annotation, exactly: True is not 1.

    Nested dataclasses have checked themselves when they were made.

    Raises:
        MalformedError: naming the field and what it must be, never its value.
    """
    kind: Any = type(value)
    for name, accepts, what in _checks(kind):
        if not accepts(getattr(value, name)):
            raise MalformedError(f"{type(value).__name__.lower()}.{name} must be {what}")


def _refuse(_: str) -> NoReturn:
    raise ValueError("only integers")


_ENCODER = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
)
_DECODER = json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse)


@cache
def _checks(cls: type) -> tuple[tuple[str, _Check, str], ...]:
    hints = get_type_hints(cls, include_extras=True)
    return tuple((f.name, *_checker(hints[f.name])) for f in fields(cls))


def _checker(hint: Any) -> tuple[_Check, str]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bound = arguments[1]
        if isinstance(bound, Text):
            match = re.compile(bound.pattern, re.ASCII).fullmatch
            return (lambda v: type(v) is str and match(v) is not None), bound.what
        low, high = bound.low, bound.high
        return (lambda v: type(v) is int and low <= v <= high), bound.what
    if origin is tuple:
        each, what = _checker(arguments[0])
        return (lambda v: type(v) is tuple and all(map(each, v))), f"a tuple, each {what}"
    if origin is Map:
        each, what = _checker(arguments[1])
        return (lambda v: type(v) is Map and all(map(each, v.values()))), f"a map, each {what}"
    if hint is int:
        return (lambda v: type(v) is int and -MAX_INTEGER <= v <= MAX_INTEGER), "an integer"
    return (lambda v: type(v) is hint), f"a {hint.__name__.lower()}"


@cache
def _builder(hint: Any) -> _Step:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        each = _builder(arguments[0])
        return lambda v: tuple(map(each, _expect(v, list)))
    if origin is Map:
        each = _builder(arguments[1])
        return lambda v: Map({k: each(x) for k, x in _expect(v, dict).items()})
    if not is_dataclass(hint):
        return lambda v: v  # checked with the dataclass that receives it
    hints = get_type_hints(hint, include_extras=True)
    names = {f.name for f in fields(hint)}
    steps = [(name, _builder(hints[name])) for name in names if not _is_scalar(hints[name])]
    cls: Any = hint
    checks_itself = hasattr(cls, "__post_init__")

    def make(value: object) -> object:
        given = _expect(value, dict)
        if given.keys() != names:
            _name_fields(cls.__name__.lower(), given.keys(), names)
        found = dict(given)
        for name, step in steps:
            found[name] = step(found[name])
        made = cls(**found)
        if not checks_itself:
            check(made)
        return made

    return make


def _name_fields(where: str, given: Any, wanted: set[str]) -> NoReturn:
    if missing := sorted(wanted - given):
        raise MalformedError(f"{where} lacks the field {missing[0]!r}")
    unknown = sorted(given - wanted)[0]
    raise MalformedError(f"{where} has an unknown field {unknown[:40]!r}")


def _expect(value: object, kind: type) -> Any:
    if type(value) is not kind:
        raise MalformedError(f"expected a JSON {'array' if kind is list else 'object'}")
    return value


@cache
def _unbuilder(hint: Any) -> _Step:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        each = _unbuilder(arguments[0])
        return lambda v: [each(x) for x in v]
    if origin is Map:
        each = _unbuilder(arguments[1])
        return lambda v: {k: each(x) for k, x in v.items()}
    if not is_dataclass(hint):
        return lambda v: v
    hints = get_type_hints(hint, include_extras=True)
    names = [f.name for f in fields(hint)]
    steps = [(name, _unbuilder(hints[name])) for name in names if not _is_scalar(hints[name])]

    def take_apart(value: object) -> dict[str, Any]:
        found = {name: getattr(value, name) for name in names}
        for name, step in steps:
            found[name] = step(found[name])
        return found

    return take_apart


def _is_scalar(hint: Any) -> bool:
    return get_origin(hint) not in (tuple, Map) and not is_dataclass(hint)
