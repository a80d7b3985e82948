"""What `wardround hospital check` finds in the data: exact numbers, for the hospital's own screen only."""

from __future__ import annotations

from collections.abc import Iterator

from client.config import FILE, Hospital
from client.data import Report, check_file
from client.dictionary import Dictionary
from client.errors import ClientError, ConfigError
from client.preflight_codes import Finding
from client.premises import read_dictionary
from client.private_file import read_private


def observe_dictionary(hospital: Hospital) -> Dictionary | ConfigError:
    """Read the data dictionary, or say why it cannot be used."""
    try:
        return read_dictionary(hospital)
    except ConfigError as error:
        return error


def judge_dictionary(found: Dictionary | ConfigError) -> Finding:
    """Decide on the data dictionary."""
    if isinstance(found, ConfigError):
        return Finding(code="dictionary.wrong", sentence=str(found))
    return Finding(
        code="dictionary", sentence=f"{found.name}, {len(found.inputs)} variables, digest {found.digest[:16]}"
    )


def observe_data(hospital: Hospital, dictionary: Dictionary) -> Report | ClientError:
    """Examine the whole source, as the worker will, or say why it cannot be used."""
    try:
        secret = read_private(hospital.secret_file, 4096) or b""
        return check_file(
            hospital.place,
            dictionary,
            secret=secret,
            one_row_per_patient=hospital.dataset.one_row_per_patient,
        )
    except ClientError as error:
        return error


def observe_data_mode(hospital: Hospital) -> int:
    """Return the permission bits of the data file; those of a private one where there is no such file."""
    try:
        return hospital.data_file.stat().st_mode & 0o777
    except OSError:
        return 0o600


def judge_data(found: Report | ClientError, hospital: Hospital, mode: int) -> Iterator[Finding]:
    """Decide whether the agent could work with this data; all counts stay on this screen."""
    if mode & 0o007:
        yield Finding(
            code="data.open",
            sentence=f"everybody on this machine may use {hospital.data_file} (mode {mode:04o})",
        )
    if isinstance(found, ClientError):
        yield Finding(code="data.unusable", sentence=str(found))
        return
    for line in found.refusals:
        yield Finding(code="data.unusable", sentence=line)
    if found.dropped:
        lines = (f"{column} {reason} in {count} rows" for column, reason, count in found.dropped)
        yield Finding(code="data.dropped", sentence=f"rows are dropped: {', '.join(lines)}")
    if found.clipped:
        lines = (f"{column} in {count} rows" for column, count in found.clipped)
        yield Finding(code="data.clipped", sentence=f"outside the plausible range: {', '.join(lines)}")
    for line in found.notes:
        yield Finding(code="data.mapping", sentence=line)
    if found.refusals:
        return
    published = hospital.dataset.size_class
    if found.size_class != published:
        yield Finding(
            code="data.size-class",
            sentence=f"dataset.size_class in {hospital.folder / FILE} is {published}: the power of two nearest to "
            f"the number of patients is {found.size_class}",
        )
    yield Finding(
        code="data",
        sentence=f"{found.lines()[0]}; size class to publish: {found.size_class}",
    )
