"""Code maps of a FHIR R4 ConceptMap: which local code is equal or equivalent to which target, and nothing looser.

A "wider", "narrower" or "relatedto" target would let a hospital's code stand for something else than it says, so such
entries are not used and are named on the hospital's own screen; so are entries that depend on another element.
Source: http://hl7.org/fhir/R4/conceptmap.html.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from client.errors import DataError

SAME = ("equal", "equivalent")


def read(data: bytes, where: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return local code -> target code, and what is not used, in words.

    Args:
        data: The resource as JSON.
        where: The file's name, for the errors.

    Raises:
        DataError: not a ConceptMap, or one code has two equal targets.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not JSON text") from None
    if not isinstance(value, dict) or value.get("resourceType") != "ConceptMap":
        raise DataError(f"{where}: not a FHIR ConceptMap")
    found: dict[str, str] = {}
    unused: list[str] = []
    for code, target, equivalence in _entries(value):
        if equivalence not in SAME:
            unused.append(f"{where}: {ascii(code)[:60]} is not used: its target is {ascii(equivalence)[:40]}")
        elif found.setdefault(code, target) != target:
            raise DataError(
                f"{where}: the code {code[:40]!r} has two targets that are equal or equivalent: keep one"
            )
    if not found:
        raise DataError(f"{where}: no entry is equal or equivalent, so it maps nothing")
    return found, tuple(unused)


def _entries(value: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (code, target code, equivalence), whatever else the resource holds."""
    for group in _items(value, "group"):
        for element in _items(group, "element"):
            code = element.get("code")
            for target in _items(element, "target"):
                to, equivalence = target.get("code"), target.get("equivalence", "none stated")
                if target.get("dependsOn") or target.get("product"):
                    equivalence = "dependent on another element"
                if isinstance(code, str) and isinstance(equivalence, str):
                    yield (
                        code,
                        to if isinstance(to, str) else "",
                        equivalence if isinstance(to, str) else "no code",
                    )


def _items(value: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = value.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
