"""What one FHIR R4 resource says about one patient: pure functions on one parsed line of a bulk export.

A line may hold anything, so every step asks for the type it needs and takes what differs for absent. Numbers are
kept as the text that stands in the line: no float comes between a hospital's decimal and the dictionary.

Source: http://hl7.org/fhir/R4/, pages Patient, Observation, Condition, datatypes (dateTime, Quantity).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any

from client.cell_text import UNREADABLE, text_of
from client.features import MAX_CELL
from client.terminology import Coding

MAX_LINE = 1 << 20  # bytes; a longer line is no resource
UCUM = "http://unitsofmeasure.org"
_FINAL = ("amended", "corrected", "final")  # Observation.status that counts
_PRESENT = ("active", "recurrence", "relapse")  # Condition.clinicalStatus that counts
_ID = r"[A-Za-z0-9.\-]{1,64}"
_REFERENCE = re.compile(
    rf"(?:(?:[a-z]+://[^#?\s]*/)?Patient/|urn:uuid:)?({_ID})(?:/_history/{_ID})?", re.ASCII
)
_DATE = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?", re.ASCII)
Resource = dict[str, Any]


def parse(line: bytes) -> Resource | None:
    """Return a line's resource, or None for what is none."""
    if len(line) > MAX_LINE:
        return None
    try:
        value = json.loads(line.decode(), parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("resourceType"), str) else None


def patient_of(resource: Resource) -> str | None:
    """Return the id of the patient whom a resource is about; a group or a contained one is none."""
    reference = _table(resource.get("subject")).get("reference")
    match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    return match[1] if match else None


def own_id(resource: Resource) -> str | None:
    """Return a resource's id, or None for what is none."""
    found = resource.get("id")
    return found if isinstance(found, str) and re.fullmatch(_ID, found, re.ASCII) else None


def counts(resource: Resource) -> bool:
    """Whether an observation is final, or a condition confirmed and still present; where it says nothing, it is."""
    if resource["resourceType"] == "Observation":
        return resource.get("status") in _FINAL
    verified = _codes(resource.get("verificationStatus"))
    clinical = _codes(resource.get("clinicalStatus"))
    return (not verified or "confirmed" in verified) and (
        not clinical or any(c in _PRESENT for c in clinical)
    )


def has_code(concept: object, wanted: Sequence[Coding]) -> bool:
    """Whether a CodeableConcept holds one of the codes, or one below it where codes are a tree."""
    codings = _list(_table(concept).get("coding"))
    return any(
        coding.get("system") == w.uri and isinstance(code := coding.get("code"), str) and w.covers(code)
        for coding in codings
        for w in wanted
    )


def holders(observation: Resource, wanted: Sequence[Coding]) -> Iterator[Resource]:
    """Yield the observation, and each component of it, whose code is wanted: a blood pressure is two components."""
    for part in (observation, *_list(observation.get("component"))):
        if has_code(part.get("code"), wanted):
            yield part


def quantity(holder: Resource) -> tuple[str, str] | None:
    """Return number and unit of a value; None where there is none, or only a bound ("<5")."""
    value = _table(holder.get("valueQuantity"))
    if not value and isinstance(whole := holder.get("valueInteger"), str):
        return whole, ""
    number, unit = value.get("value"), value.get("code")
    if value.get("system", UCUM) != UCUM or not isinstance(unit, str):
        unit = value.get("unit", "")
    if not isinstance(number, str) or "comparator" in value or not isinstance(unit, str):
        return None
    return number, unit


def word(holder: Resource) -> str | None:
    """Return a value that is a code, a text or a truth; of a concept its first code, else its text."""
    concept = _table(holder.get("valueCodeableConcept"))
    for value in (
        next(iter(_codes(concept)), None),
        concept.get("text"),
        *(holder.get(name) for name in ("valueString", "valueBoolean", "valueInteger")),
    ):
        if isinstance(value, str | bool) and (text := text_of(value)) != UNREADABLE:
            return text[: MAX_CELL + 1]  # one that is longer fits no rule anyway
    return None


def effective(resource: Resource) -> str:
    """Return when an observation holds, as text that sorts by time, UTC; "" where that is not known."""
    period = _table(resource.get("effectivePeriod"))
    for value in (
        resource.get("effectiveDateTime"),
        resource.get("effectiveInstant"),
        period.get("end"),
        period.get("start"),
    ):
        if isinstance(value, str) and (found := instant(value)):
            return found
    return ""


def instant(text: str) -> str:
    """Return a dateTime as text that sorts by time, UTC, a day or a month as its beginning; "" for what is none."""
    try:
        if (day := first_day(text)) is not None:
            moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
        elif "T" in text and len(text) <= 40:
            moment = datetime.fromisoformat(text)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        else:
            return ""
    except (ValueError, OverflowError):
        return ""
    return moment.isoformat(timespec="microseconds")


def first_day(text: str) -> date | None:
    """Return the first day of a FHIR date, which may be a year or a month; None for what is no date."""
    match = _DATE.fullmatch(text)
    try:
        return date(int(match[1]), int(match[2] or 1), int(match[3] or 1)) if match else None
    except ValueError:
        return None


def completed_years(born: object, at: date) -> str:
    """Return a person's age in completed years, or "" where the date of birth is none, or later."""
    day = first_day(born) if isinstance(born, str) else None
    if day is None or day > at:
        return ""
    return str(at.year - day.year - ((at.month, at.day) < (day.month, day.day)))


def updated(resource: Resource, line: bytes) -> tuple[str, str]:
    """Return what orders several resources of one id: their last update, then their content."""
    when = _table(resource.get("meta")).get("lastUpdated")
    return instant(when) if isinstance(when, str) else "", hashlib.sha256(line).hexdigest()


def _codes(concept: object) -> list[str]:
    codes = (coding.get("code") for coding in _list(_table(concept).get("coding")))
    return [code for code in codes if isinstance(code, str)]


def _table(value: object) -> Resource:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Resource]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
