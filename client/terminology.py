"""Codes of terminologies as a data dictionary spells them, "LOINC 8480-6", checked as far as their form goes.

LOINC ends in a check digit of Luhn's algorithm (LOINC Users' Guide, "LOINC codes and check digits"), SNOMED CT
in one of Verhoeff's (SNOMED CT Technical Implementation Guide, "Check-digit"). ICD codes have a form alone: whether
such a code exists is for the person who wrote it to know; no terminology comes with the package.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ledger.errors import MalformedError

# name: (the URI by which FHIR knows it, form of its codes)
_SYSTEMS: dict[str, tuple[str, str]] = {
    "ICD-10": ("http://hl7.org/fhir/sid/icd-10", r"[A-Z][0-9]{2}(?:\.[0-9]{1,2})?"),
    "ICD-10-CM": ("http://hl7.org/fhir/sid/icd-10-cm", r"[A-Z][0-9][0-9A-Z](?:\.[0-9A-Z]{1,4})?"),
    "ICD-10-GM": ("http://fhir.de/CodeSystem/bfarm/icd-10-gm", r"[A-Z][0-9]{2}(?:\.[0-9]{1,2})?"),
    "ICD-9-CM": (
        "http://hl7.org/fhir/sid/icd-9-cm",
        r"(?:[0-9]{3}|V[0-9]{2})(?:\.[0-9]{1,2})?|E[0-9]{3}(?:\.[0-9])?",
    ),
    "LOINC": ("http://loinc.org", r"[1-9][0-9]{0,6}-[0-9]"),
    "SNOMED": ("http://snomed.info/sct", r"[1-9][0-9]{5,17}"),
}
SYSTEMS = tuple(_SYSTEMS)

# Verhoeff 1969: the dihedral group of order 10 and the permutation of a digit at each place from the right
_TURN = tuple(
    tuple((a + b) % 5 if b < 5 else 5 + (a + b - 5) % 5 for b in range(10))
    if a < 5
    else tuple(5 + (a - 5 - b) % 5 if b < 5 else (a - b) % 5 for b in range(10))
    for a in range(10)
)
_SWAP = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """One code of one system."""

    system: str  # one of SYSTEMS
    code: str

    @classmethod
    def parse(cls, text: str) -> Coding:
        """Read "SYSTEM code". Raises MalformedError: an unknown system, or not a code of it."""
        system, _, code = text.partition(" ")
        if system not in _SYSTEMS:
            raise MalformedError(
                f"a code is written as SYSTEM CODE, SYSTEM being one of {', '.join(SYSTEMS)}"
            )
        if re.fullmatch(_SYSTEMS[system][1], code, re.ASCII) is None:
            raise MalformedError(f"{code[:40]!r} does not have the form of a code of {system}")
        if (rule := _CHECKS.get(system)) is not None and not rule(code):
            raise MalformedError(
                f"{code!r} is no code of {system}: its check digit is wrong, look for a misprint"
            )
        return cls(system=system, code=code)

    @property
    def uri(self) -> str:
        """The system's URI in FHIR."""
        return _SYSTEMS[self.system][0]

    @property
    def is_diagnosis(self) -> bool:
        """Whether the system holds diagnoses, whose codes are trees: E11 is said of E11.9 as well."""
        return self.system.startswith("ICD")

    def covers(self, code: str) -> bool:
        """Whether a code of the same system is this one or, in a tree, below it."""
        if not self.is_diagnosis:
            return code == self.code
        return code.replace(".", "").startswith(self.code.replace(".", ""))


def verhoeff(digits: str) -> bool:
    """Whether a number's last digit is the check digit of the others (Verhoeff 1969)."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit)
        for _ in range(place % 8):
            value = _SWAP[value]
        check = _TURN[check][value]
    return check == 0


def luhn(digits: str) -> bool:
    """Whether a number's last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = (int(d) * (1 + place % 2) for place, d in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


_CHECKS: dict[str, Callable[[str], bool]] = {
    "LOINC": lambda code: luhn(code.replace("-", "")),
    "SNOMED": verhoeff,
}
