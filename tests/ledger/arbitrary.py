"""Arbitrary well-formed records: hypothesis strategies derived from the dataclasses' own annotations.

With a `Pool` of values that live on a log, an arbitrary record names things that exist, so that it gets past the
first rule that would refuse it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

from hypothesis import reject
from hypothesis import strategies as st

from ledger import canonical
from ledger.canonical import MAX_INTEGER, Text
from ledger.errors import MalformedError
from ledger.record import Record
from ledger.records import RECORDS
from ledger.values import ROLES


@dataclass(frozen=True)
class Pool:
    """Strings and integers worth trying."""

    strings: tuple[str, ...] = ()
    integers: tuple[int, ...] = ()

    @classmethod
    def of(cls, records: Iterable[Record]) -> Pool:
        """What some records say, and their digests."""
        strings, integers = set(ROLES) | {"uniform", "size-class"}, {0, 1, 2, MAX_INTEGER}
        for record in records:
            strings.add(record.digest())
            for value in _scalars(canonical.plain(record)):
                if isinstance(value, str):
                    strings.add(value)
                else:
                    integers |= {value - 1, value, value + 1}
        return cls(tuple(sorted(strings)), tuple(sorted(integers)))


NO_POOL = Pool()


@st.composite
def any_record(draw: st.DrawFn, pool: Pool = NO_POOL) -> Record:
    """Any record of any type."""
    record: Record = draw(instances(draw(st.sampled_from(RECORDS)), pool))
    return record


@st.composite
def instances(draw: st.DrawFn, cls: Any, pool: Pool = NO_POOL) -> Any:
    """Any instance of a record or part."""
    found = {name: draw(each) for name, each in _fields(cls, pool).items()}
    for name, value in found.items():
        if isinstance(value, tuple):  # sets are in order; an order that means something is as good as any
            found[name] = tuple(sorted(value, key=_key))
    try:
        return cls(**found)
    except MalformedError:  # a set that names something twice
        return reject()


@cache
def _fields(cls: Any, pool: Pool) -> dict[str, st.SearchStrategy[Any]]:
    hints = get_type_hints(cls, include_extras=True)
    given = {f.name: values(hints[f.name], pool) for f in fields(cls)}
    if "role" in given:
        given["role"] = st.sampled_from(ROLES)
    if "weighting" in given:
        given["weighting"] = st.sampled_from(["uniform", "size-class"])
    return given


@cache
def values(hint: Any, pool: Pool = NO_POOL) -> st.SearchStrategy[Any]:
    """Any value of one annotation."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return st.lists(values(arguments[0], pool), max_size=3).map(tuple)
    if origin is Annotated and isinstance(arguments[1], Text):
        pattern = re.compile(arguments[1].pattern, re.ASCII)
        known = [s for s in pool.strings if pattern.fullmatch(s)]
        fresh = st.from_regex(pattern, fullmatch=True)
        return st.one_of(st.sampled_from(known), st.sampled_from(known), fresh) if known else fresh
    if origin is Annotated:
        low, high = arguments[1].low, arguments[1].high
        near = [i for i in pool.integers if low <= i <= high]
        return st.sampled_from(near) | st.integers(low, high) if near else st.integers(low, high)
    if is_dataclass(hint):
        return instances(cast(Any, hint), pool)
    return {str: st.text(max_size=20), int: st.integers(-MAX_INTEGER, MAX_INTEGER)}[hint]


def _key(value: Any) -> Any:
    if not is_dataclass(value):
        return value
    return next((getattr(value, n) for n in ("hospital", "name", "member") if hasattr(value, n)), "")


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _scalars(each)
    else:
        yield value
