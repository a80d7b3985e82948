"""A run as a stream of events in a file, one JSON object a line, for any program to read as it grows.

Each object has `event` and `job`, the digest of the job's record. After `started` come, for each round, `round` (what
became of each hospital, what its patients have spent, where its update pulled) and `measured` (the model that the
round began with), then `ended`. A second `round` for the same number says more than the first and replaces it.

The file is only ever added to. Somebody who follows the same run again adds what is missing; a last line that a crash
has torn is taken away first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.errors import TrackingError
from client.job_story import ENDS
from client.notebook import scalars
from client.notebook.figures import Figures, Measured

Json = dict[str, Any]

_BEGINNING = b'{"event":"started","job":'  # of a stream
_LONGEST = 1 << 24  # bytes of a line, that one of ours never has


class JsonLinesTracker:
    """Adds a run's events to a file."""

    def __init__(self, path: str | Path) -> None:
        """Look at the file, if there is one, and write nothing yet.

        Args:
            path: Of the file; its folder must be there.

        Raises:
            TrackingError: it is not a stream of events, or cannot be read or written.
        """
        self._path = Path(path)
        self._there: set[str] = set()
        _past(self._path)
        try:
            self._path.open("ab").close()
        except OSError as error:
            raise _unusable(self._path, error) from None

    def start(self, figures: Figures) -> None:
        """Say that a run is followed, unless the file has it already. Raises TrackingError."""
        past = _past(self._path)
        begun = [place for place, event in enumerate(past) if event == _started(figures)]
        own = [e for e in past[begun[-1] :] if e["job"] == figures.digest] if begun else []
        self._there = {_line(event) for event in own}
        if not self._there <= {_line(event) for event in _all(figures)}:  # another run of the same job
            self._there = set()
        self._add(_started(figures))

    def round(self, figures: Figures, number: int) -> None:
        """Say what a round was. Raises TrackingError."""
        for event in _of_round(figures, number):
            self._add(event)

    def end(self, figures: Figures) -> None:
        """Say how the job ended, if it did. Raises TrackingError."""
        if figures.status in ENDS:
            self._add(_ended(figures))

    def _add(self, event: Json) -> None:
        line = _line(event)
        if line in self._there:
            return
        try:
            with self._path.open("ab") as file:
                file.write(f"{line}\n".encode())
        except OSError as error:
            raise _unusable(self._path, error) from None
        self._there.add(line)


def _started(figures: Figures) -> Json:
    return {"event": "started", "job": figures.digest, "name": figures.name, "rounds": figures.rounds}


def _ended(figures: Figures) -> Json:
    return {"event": "ended", "job": figures.digest, "status": figures.status}


def _of_round(figures: Figures, number: int) -> Iterator[Json]:
    for measured in figures.measured:
        if measured.round == number:
            yield _measured(figures, measured)
    hospitals: dict[str, Json] = {
        part.hospital: {"fate": part.fate} for part in figures.parts if part.round == number
    }
    for spent in figures.spent:
        if spent.round == number:
            told = hospitals.setdefault(spent.hospital, {})
            told.setdefault("epsilon", {})[spent.side] = spent.epsilon
    for pull in figures.pulls:
        if pull.round == number:
            hospitals.setdefault(pull.hospital, {}).update(norm=pull.norm, cosine=pull.cosine)
    if hospitals:
        yield {"event": "round", "job": figures.digest, "round": number, "hospitals": hospitals}


def _measured(figures: Figures, measured: Measured) -> Json:
    told = asdict(measured)
    return {"event": "measured", "job": figures.digest, "trained": measured.round - 1, **told}


def _all(figures: Figures) -> Iterator[Json]:
    yield _started(figures)
    for number in scalars.rounds(figures):
        yield from _of_round(figures, number)
    yield _ended(figures)


def _line(event: Json) -> str:
    return json.dumps(event, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _past(path: Path) -> list[Json]:
    """Return the events of a file, after taking away a torn last line; none where there is no file."""
    events: list[Json] = []
    try:
        with path.open("rb") as file:
            whole = 0  # bytes
            while line := file.readline(_LONGEST):
                if not line.endswith(b"\n") and len(line) < _LONGEST:
                    break
                events.append(_event(path, len(events) + 1, line))
                whole += len(line)
        if line:
            if not events and not line.startswith(_BEGINNING) and not _BEGINNING.startswith(line):
                raise _strange(path, 1)
            with path.open("r+b") as file:
                file.truncate(whole)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unusable(path, error) from None
    return events


def _event(path: Path, number: int, line: bytes) -> Json:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not (isinstance(found, dict) and {"event", "job"} <= found.keys()):
        raise _strange(path, number)
    return found


def _strange(path: Path, line: int) -> TrackingError:
    return TrackingError(f"{path} holds something else than events in line {line}: name another file")


def _unusable(path: Path, error: OSError) -> TrackingError:
    return TrackingError(f"cannot keep events in {path}: {error.strerror}; name another file")
