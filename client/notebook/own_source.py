"""The source of a class or function with all that it needs from around it, for a file that stands by itself.

What a notebook's cell or a module defines is taken along; what torch, NumPy or the standard library define is
imported; plain constants are written down. Anything else is named in a sentence. Works on cells too: their lines are
where Python keeps them for tracebacks.
"""

from __future__ import annotations
import __future__ as future

import ast
import builtins
import dis
import linecache
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import CodeType, FunctionType, ModuleType
from typing import Any

ALLOWED = (
    "__future__", "abc", "array", "base64", "bisect", "cmath", "collections", "contextlib", "copy", "dataclasses",
    "decimal", "enum", "fractions", "functools", "heapq", "inspect", "itertools", "json", "logging", "math",
    "numbers", "numpy", "operator", "random", "re", "statistics", "string", "textwrap", "torch", "types", "typing",
    "warnings",
)  # fmt: skip
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS", "LOAD_CLASSDEREF")
_PLAIN = (bool, int, float, str, bytes, type(None))
_CONSTANT = 2000  # characters


@dataclass(slots=True)
class Parts:
    """What a file is made of, each in the order in which it must stand."""

    imports: list[str] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def gather(given: Callable[..., Any], problems: list[str]) -> Parts:
    """Return a class or function with what it uses.

    Args:
        given: Of a notebook or a module.
        problems: Gets a sentence for each thing that cannot be taken along.
    """
    parts = Parts()
    _take(given.__name__, given, parts, problems, set())
    return parts


def _take(name: str, value: Any, parts: Parts, problems: list[str], seen: set[str]) -> None:
    """Add a class or function behind all that it uses."""
    seen.add(name)
    source = _source(value)
    if source is None:
        problems.append(
            f"the source of {name} cannot be found: write it in a cell or a file as class or def, or give model.py"
        )
        return
    around = _around(value)
    for used in _names(compile(source, name, "exec", future.annotations.compiler_flag)):
        if used in seen or (used not in around and hasattr(builtins, used)):
            continue
        if used not in around:
            problems.append(f"{name} uses {used}, which is defined nowhere: define it, or correct its name")
            seen.add(used)
            continue
        seen.add(used)
        _use(used, around[used], name, parts, problems, seen)
    parts.sources.append(source)


def _use(used: str, value: Any, name: str, parts: Parts, problems: list[str], seen: set[str]) -> None:
    if isinstance(value, ModuleType):
        parts.imports.append(_import(used, value.__name__, ""))
        origin = value.__name__
    elif isinstance(value, type | FunctionType) or (
        hasattr(value, "__module__") and hasattr(value, "__name__")
    ):
        origin = str(value.__module__ or "")
        if origin.split(".")[0] in ALLOWED:
            parts.imports.append(_import(used, origin, value.__name__))
        elif _source(value) is not None and "site-packages" not in str(_file(value)):
            _take(used, value, parts, problems, seen)
            if used != value.__name__:
                parts.sources.append(f"{used} = {value.__name__}")
            return
    elif _plain(value) and len(repr(value)) <= _CONSTANT:
        parts.constants.append(f"{used} = {value!r}")
        return
    else:
        problems.append(
            f"{name} uses {used}, a {type(value).__name__} that cannot be written down: make it inside {name}, or "
            "give weights as frozen={...}"
        )
        return
    if origin.split(".")[0] not in ALLOWED:
        problems.append(
            f"{name} uses {used} of {origin or 'an unknown package'}, which is not there when hospitals build the "
            "model: only torch, numpy and parts of the standard library are"
        )


def _import(used: str, module: str, name: str) -> str:
    if name:
        return f"from {module} import {name}" + (f" as {used}" if used != name else "")
    parent, _, last = module.rpartition(".")
    if parent and used == last:
        return f"from {parent} import {last}"
    return f"import {module}" + (f" as {used}" if used != module else "")


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that code takes from around it, in order; annotations are not looked up."""
    found = list(dis.get_instructions(code))
    own = {i.argval for i in found if i.opname == "STORE_NAME"}
    yield from dict.fromkeys(i.argval for i in found if i.opname in _LOADS and i.argval not in own)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from (n for n in _names(constant) if n not in ("__name__", "__class__"))


def _functions(value: Any) -> list[FunctionType]:
    if isinstance(value, FunctionType):
        return [value]
    members = (
        [getattr(m, "__func__", getattr(m, "fget", m)) for m in vars(value).values()]
        if isinstance(value, type)
        else []
    )
    return [m for m in members if isinstance(m, FunctionType) and m.__module__ == value.__module__]


def _around(value: Any) -> Mapping[str, Any]:
    """Return what names mean where a class or function was defined."""
    found: dict[str, Any] = {}
    module = sys.modules.get(value.__module__)
    found |= vars(module) if module is not None else {}
    for function in _functions(value):
        found |= function.__globals__
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        for name, cell in cells:
            try:
                found[name] = cell.cell_contents
            except ValueError:  # not yet bound
                continue
    return found


def _file(value: Any) -> str | None:
    functions = _functions(value)
    return functions[0].__code__.co_filename if functions else None


def _source(value: Any) -> str | None:
    """Return the text of a class or def, or None. `inspect` finds no class of a notebook's cell."""
    for function in _functions(value):
        lines, first = linecache.getlines(function.__code__.co_filename), function.__code__.co_firstlineno
        try:
            tree = ast.parse("".join(lines))
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            wanted = ast.ClassDef if isinstance(value, type) else ast.FunctionDef
            if isinstance(node, wanted) and node.name == value.__name__:
                start = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                if start <= first <= (node.end_lineno or 0):
                    return textwrap.dedent("".join(lines[start - 1 : node.end_lineno])).rstrip()
    return None


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(_plain(k) and _plain(v) for k, v in value.items())
    return type(value) in _PLAIN and value == value and value not in (float("inf"), float("-inf"))
