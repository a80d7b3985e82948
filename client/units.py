"""Conversion between units that UCUM names, exact rational numbers throughout, the same text on every machine.

Within one dimension a conversion follows from the units alone; between a mass and an amount of substance it needs the
substance's molar mass. Neither table is all of UCUM: a pair that is not here is given as factor and offset by hand.
Source: UCUM 2.1; molar masses of PubChem, in g/mol.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction

_EXACT = Context(prec=400, Emin=-999_999, Emax=999_999, traps=[])
_ROUNDED = Context(prec=34, Emin=-999_999, Emax=999_999, traps=[])  # then text, then the nearest float
_PLAIN = 20  # powers of ten that are written out
_ANNOTATION = re.compile(r"\{[^}]*\}")

# unit: (dimension, how many base units one is, where its zero lies in base units)
_UNITS: dict[str, tuple[str, str, str]] = {
    "1": ("number", "1", "0"), "%": ("number", "1/100", "0"),
    "a": ("time", "31557600", "0"), "mo": ("time", "2629800", "0"), "wk": ("time", "604800", "0"),
    "d": ("time", "86400", "0"), "h": ("time", "3600", "0"), "min": ("time", "60", "0"), "s": ("time", "1", "0"),
    "ms": ("time", "1/1000", "0"),
    "/min": ("rate", "1/60", "0"), "/s": ("rate", "1", "0"), "Hz": ("rate", "1", "0"), "/h": ("rate", "1/3600", "0"),
    "m": ("length", "1", "0"), "cm": ("length", "1/100", "0"), "mm": ("length", "1/1000", "0"),
    "[in_i]": ("length", "254/10000", "0"), "[ft_i]": ("length", "3048/10000", "0"),
    "kg": ("mass", "1", "0"), "g": ("mass", "1/1000", "0"), "mg": ("mass", "1/1000000", "0"),
    "[lb_av]": ("mass", "45359237/100000000", "0"), "[oz_av]": ("mass", "45359237/1600000000", "0"),
    "kg/m2": ("mass per area", "1", "0"),
    "Pa": ("pressure", "1", "0"), "kPa": ("pressure", "1000", "0"), "mm[Hg]": ("pressure", "133322/1000", "0"),
    "K": ("temperature", "1", "0"), "Cel": ("temperature", "1", "27315/100"),
    "[degF]": ("temperature", "5/9", "45967/180"),
    "g/L": ("mass in volume", "1", "0"), "g/dL": ("mass in volume", "10", "0"),
    "mg/dL": ("mass in volume", "1/100", "0"), "mg/L": ("mass in volume", "1/1000", "0"),
    "ug/mL": ("mass in volume", "1/1000", "0"), "ug/dL": ("mass in volume", "1/100000", "0"),
    "ug/L": ("mass in volume", "1/1000000", "0"), "ng/mL": ("mass in volume", "1/1000000", "0"),
    "ng/dL": ("mass in volume", "1/100000000", "0"), "pg/mL": ("mass in volume", "1/1000000000", "0"),
    "mol/L": ("amount in volume", "1", "0"), "mmol/L": ("amount in volume", "1/1000", "0"),
    "umol/L": ("amount in volume", "1/1000000", "0"), "nmol/L": ("amount in volume", "1/1000000000", "0"),
    "pmol/L": ("amount in volume", "1/1000000000000", "0"),
    "/L": ("count in volume", "1", "0"), "10*9/L": ("count in volume", "1000000000", "0"),
    "10*12/L": ("count in volume", "1000000000000", "0"), "10*3/uL": ("count in volume", "1000000000", "0"),
    "10*6/uL": ("count in volume", "1000000000000", "0"), "/uL": ("count in volume", "1000000", "0"),
}  # fmt: skip
MOLAR_MASSES = {
    "bilirubin": "584.7", "calcium": "40.08", "cholesterol": "386.7", "cortisol": "362.5", "creatinine": "113.12",
    "glucose": "180.16", "iron": "55.84", "lactate": "90.08", "magnesium": "24.305", "phosphorus": "30.974",
    "triglycerides": "885.4", "urea": "60.056", "urea-nitrogen": "28.014", "uric-acid": "168.11",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """y = factor * x + offset."""

    factor: Fraction
    offset: Fraction

    def apply(self, number: str) -> str:
        """Return the converted number's text.

        Args:
            number: As `client.features.number` accepts it; what becomes too large is text that it refuses.
        """
        p, q = self.factor.as_integer_ratio()
        r, s = self.offset.as_integer_ratio()
        scaled = _EXACT.multiply(Decimal(number), Decimal(p * s))
        total = _EXACT.add(scaled, Decimal(r * q))
        value = _ROUNDED.divide(total, Decimal(q * s)).normalize(_ROUNDED)
        return f"{value:f}" if -_PLAIN <= value.adjusted() <= _PLAIN else str(value)


def plain_unit(unit: str) -> str:
    """Return a unit without its annotations, which mean nothing to UCUM: "{beats}/min" is "/min"."""
    return _ANNOTATION.sub("", unit.strip()) or "1"


def between(unit: str, other: str, substance: str = "") -> Linear | None:
    """Return how a number in one unit becomes one in another; None where that is not known.

    Args:
        unit: As UCUM spells it.
        other: Likewise.
        substance: One of MOLAR_MASSES, or "" where no molar mass is needed.
    """
    unit, other = plain_unit(unit), plain_unit(other)
    if unit == other:
        return Linear(factor=Fraction(1), offset=Fraction(0))
    if unit not in _UNITS or other not in _UNITS:
        return None
    (kind, size, zero), (other_kind, other_size, other_zero) = _UNITS[unit], _UNITS[other]
    factor = Fraction(size) / Fraction(other_size)
    if kind != other_kind:
        if substance not in MOLAR_MASSES or {kind, other_kind} != {"mass in volume", "amount in volume"}:
            return None
        mass = Fraction(MOLAR_MASSES[substance])
        factor = factor / mass if kind == "mass in volume" else factor * mass
    return Linear(factor=factor, offset=(Fraction(zero) - Fraction(other_zero)) / Fraction(other_size))
