"""Hundreds of simulated hospitals: one job, with the real training, noise, admission, averaging and accounting.

What a federation has beside that is not here: no TLS, no signatures, no log and no quorum, because a charter has at
most 64 members at its founding. So a crowd leaves no evidence; it is for finding out what a job costs and yields.
The hospitals are played by this process, or by several through Flower's simulation engine on Ray, from files that
every process maps (`wardround_crowd_players`); `wardround_crowd_rounds` is the coordinator's part.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client import job_initial, job_match, job_record, made_up_dataset
from client.accounting import round_up
from client.choosing import SECRET_SIZE
from client.data import Snapshot, size_class, take
from client.errors import DataError, JobFileError
from client.features import Fault
from client.job_folder import JobFolder
from client.job_match import Price
from client.notebook.figures import Figures
from client.notebook.in_memory import from_arrays, from_frame
from client.source import Place, Source, open_source, read_mapping
from ledger.consortium_records import Dataset
from ledger.errors import MalformedError
from ledger.job_records import Job
from wardround_crowd_players import Player, players_of, write
from wardround_crowd_rounds import CrowdRounds, Enlisted, Play

ENGINES = ("inline", "ray")
_ORIGIN = "simulated.crowd/log"
_KINDS = {".csv": "csv", ".npz": "npz", ".parquet": "parquet", ".tsv": "csv", ".txt": "csv"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """What a simulated crowd has shown.

    Attributes:
        figures: All that tables and plots are made from.
        parameters: The final model, packed float32, little-endian.
        declined: Why each hospital that took no part did not, by the rules of its own approval.
        seconds: From the first exchange to the last.
        job: The record that the job would be.
    """

    figures: Figures
    parameters: bytes
    declined: Mapping[str, str]
    seconds: float
    job: Job


def crowd(
    folder: JobFolder,
    datasets: Mapping[str, object],
    *,
    engine: str = "ray",
    processes: int | None = None,
    lifetime_epsilon: str | None = None,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[Figures], None] | None = None,
) -> Crowd:
    """Simulate a job at many hospitals.

    Args:
        folder: The job.
        datasets: By hospital: a DataFrame with the dictionary's columns, a pair of arrays (inputs, labels), a path
            of a CSV, Parquet or .npz file, or a `Place`.
        engine: "ray", or "inline" for this process alone.
        processes: Actors of Ray; as many as there are processors where none is given.
        lifetime_epsilon: Budget of each dataset, a decimal; twice the job's target where none is given.
        seed: Makes splits and noise repeatable, which protects nobody; None: fresh noise, as at a hospital.
        progress: Is told how many exchanges are done, of how many. With Ray it runs in another thread.
        watch: Is given the figures so far, after each exchange. The same holds.

    Raises:
        JobFileError: the job has a problem, or too few hospitals take part.
        DataError: a hospital's rows cannot be used; says whose, and why.
        EngineError: Ray is not installed or does not run.
    """
    if engine not in ENGINES:
        raise JobFileError(f"engine {engine!r} is not offered: use {' or '.join(ENGINES)}")
    folder.require_sound()
    rows = {name: rows_of(name, datasets[name], folder, seed) for name in sorted(datasets)}
    initial = job_initial.compute(folder.draft, folder.dictionary, folder.source)
    offers = {name: _offer(name, len(s.labels), folder, lifetime_epsilon) for name, s in rows.items()}
    job = job_record.build(
        folder,
        initial,
        origin=_ORIGIN,
        researcher="researcher",
        datasets=[d.ref for d in offers.values()],
        agreements=(),
        now=int(time.time()),
    )
    enlisted, declined = _enlist(job, offers)
    if len(enlisted) < job.min_participants:
        why = next(iter(declined.values()), "there are no more")
        raise JobFileError(
            f"{len(enlisted)} hospitals take part and min_participants is {job.min_participants}; the others: {why}"
        )
    rounds = CrowdRounds(job, enlisted, initial.parameters)
    with tempfile.TemporaryDirectory(prefix="wardround-crowd-") as place:
        players = [(_player(h), rows[h.hospital]) for h in enlisted]
        write(Path(place), players, graph=initial.graph, seed=seed)
        del rows, players
        began = time.monotonic()
        _play(
            engine,
            Path(place),
            len(enlisted),
            processes,
            lambda play: _conduct(rounds, play, progress, watch),
        )
        seconds = time.monotonic() - began
    return Crowd(
        figures=rounds.figures(),
        parameters=rounds.model,
        declined=declined,
        seconds=seconds,
        job=job,
    )


def _conduct(
    rounds: CrowdRounds,
    play: Play,
    progress: Callable[[int, int], None] | None,
    watch: Callable[[Figures], None] | None,
) -> None:
    def told(number: int, last: int) -> None:
        if progress is not None:
            progress(number, last)
        if watch is not None:
            watch(rounds.figures())

    rounds.run(play, told)


def _play(
    engine: str, place: Path, hospitals: int, processes: int | None, conduct: Callable[[Play], None]
) -> None:
    if engine == "inline":
        players = players_of(str(place))
        try:
            conduct(lambda call: players.answer(call, 0, hospitals))
        finally:
            players_of.cache_clear()
        return
    import wardround_crowd_ray

    wardround_crowd_ray.run(place, hospitals, processes or os.cpu_count() or 1, conduct)


def rows_of(name: str, given: object, folder: JobFolder, seed: int | None) -> Snapshot:
    """Return a hospital's rows, prepared.

    Args:
        name: The hospital's.
        given: What `crowd` takes.
        folder: The job.
        seed: Decides who is held out; None: chance.

    Raises:
        DataError: says whose rows cannot be used, and why.
    """
    secret = secrets.token_bytes(SECRET_SIZE)
    if seed is not None:
        secret = hashlib.sha256(f"wardround/crowd/v1/{seed}/{name}/split".encode()).digest()
    dictionary = folder.dictionary
    try:
        found, dropped = take(_source(given, folder), dictionary, secret)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    label = dictionary.label
    if wrong := dropped[label.name, Fault.NOT_ALLOWED.value]:
        raise DataError(
            f"{name}: {wrong} rows hold a value of the label column {label.name!r} that the data dictionary lists "
            f"neither as negative ({', '.join(label.negative)}) nor as positive ({', '.join(label.positive)})"
        )
    if not len(found.labels):
        most = dropped.most_common(1)
        why = f": {most[0][1]} rows dropped for column {most[0][0][0]!r}, {most[0][0][1]}" if most else ""
        raise DataError(f"{name}: no patient has a usable row{why}")
    return found


def _source(given: object, folder: JobFolder) -> Source:
    """Open what a notebook gave as a hospital's data."""
    dictionary = folder.dictionary
    if isinstance(given, str | Path):
        path = Path(given)
        given = Place(kind="images" if path.is_dir() else _KINDS.get(path.suffix.lower(), "csv"), file=path)
    if isinstance(given, Place):
        return open_source(given, dictionary, read_mapping(given, dictionary))
    if isinstance(given, tuple) and len(given) == 2:
        return from_arrays(given[0], given[1], dictionary)
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        frame: Any = given
        return from_frame(frame, dictionary)
    raise DataError(
        f"a {type(given).__name__} is no dataset: give a DataFrame, a pair of arrays (inputs, labels), or a path"
    )


def _offer(name: str, patients: int, folder: JobFolder, lifetime: str | None) -> Dataset:
    """Return a hospital's dataset as its record would have it."""
    draft = folder.draft
    usual = round_up(2 * max(float(draft.epsilon), float(draft.heldout_epsilon)))
    try:
        return made_up_dataset.record(
            draft,
            folder.dictionary,
            origin=_ORIGIN,
            hospital=name,
            size_class=size_class(patients),
            epsilon=lifetime or usual,
        )
    except MalformedError as error:
        raise DataError(f"hospital {name[:80]!r}: {error}") from None


def _enlist(job: Job, offers: Mapping[str, Dataset]) -> tuple[list[Enlisted], dict[str, str]]:
    """Price the job for every hospital, once for all of one size: who takes part how, and why others do not."""
    known: dict[int, Price] = {}
    enlisted, declined = [], {}
    for name, dataset in offers.items():
        if (size := dataset.size_class) not in known:
            known[size] = job_match.price(job, dataset)
        terms = known[size].terms
        if terms is None:
            declined[name] = known[size].refusal
            continue
        weight = size if job.aggregation.weighting == "size-class" else 1
        enlisted.append(Enlisted(dataset=dataset, terms=terms, weight=weight))
    return enlisted, declined


def _player(hospital: Enlisted) -> Player:
    terms = hospital.terms
    return Player(
        hospital=hospital.hospital,
        spec=terms.spec,
        evaluation=tuple(m.noise_multiplier for m in terms.evaluation),
    )
