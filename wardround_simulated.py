"""`wardround.simulate` as a notebook calls it: a bar while it runs, Ctrl-C at any moment, a `Run` at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from client.job_folder import JobFolder
from client.notebook import job_files
from client.notebook.figures import Figures
from client.notebook.job_files import Drafted
from client.notebook.run_bar import RunBar
from client.notebook.tracking import Callback, Callbacks, Tracker
from wardround_run import Run, require_tables

REAL = "consortium"
STOPPED = "stopped after round {done} of {rounds}: every thread has ended{where}"

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of a name of its own is made in it, for its owner alone
ROOM = 4 << 30  # bytes that must be free there


def simulate(
    job: Drafted,
    datasets: Mapping[str, object],
    *,
    engine: str = REAL,
    lifetime_epsilon: str | float | None = None,
    directory: str | Path | None = None,
    callbacks: Iterable[Tracker | Callback] = (),
    progress: bool = True,
) -> Run:
    """Run a job at hospitals that are all on this machine, with the real client and coordinator code.

    Noise is the operating system's, as at a hospital, so no two runs are alike; there is no seed.

    Args:
        job: The job; which datasets and agreements it names is of no account here.
        datasets: By hospital: a DataFrame with the dictionary's columns, two arrays (inputs, labels), or a path.
        engine: "consortium" keeps a real log, with every signature, for up to 62 hospitals. "inline" and "ray" train,
            price and average by the same code, keep no log, and simulate hundreds: in this process, or on as many as
            there are processors, through Flower's simulation engine.
        lifetime_epsilon: Budget of each dataset; twice the job's target where none is given.
        directory: Where the consortium's folders are left; must not exist, or be empty. Where none is given, all of
            it is removed but the model, its card and the evidence, and these with the run.
        callbacks: Trackers, or functions of `Figures`, told of every change. One that fails never stops the run.
        progress: Whether to show a bar.

    Returns:
        The run; after Ctrl-C, the run so far.

    Raises:
        JobFileError: the job has a problem, or too few hospitals take part; says who declined, and why.
        DataError: a hospital's rows cannot be used; says whose, and why.
        ClientError, CoordinatorError, LedgerError: one line says what is wrong.
    """
    import wardround_simulate

    require_tables()
    folder = job_files.unsaved(job)
    if engine != REAL:
        return _crowd(folder, datasets, engine, lifetime_epsilon, callbacks, progress)
    place = Path(directory) if directory is not None else _passing()
    passing = place if directory is None else None
    so_far: list[Figures] = []
    try:
        with _bar(folder, progress) as bar, Callbacks(callbacks) as told:

            def watch(figures: Figures) -> None:
                so_far[:] = [figures]
                bar.show(figures)
                told.update(figures)

            found = wardround_simulate.simulate(
                job,
                datasets,
                place / "consortium" if passing else place,
                lifetime_epsilon=None if lifetime_epsilon is None else f"{lifetime_epsilon}",
                watch=watch,
            )
    except KeyboardInterrupt:
        if passing is not None:
            shutil.rmtree(passing, ignore_errors=True)
        if not so_far or not so_far[0].parts:
            raise
        return _stopped(so_far[0], folder, place, passing)
    except BaseException:
        if passing is not None:
            shutil.rmtree(passing, ignore_errors=True)
        raise
    result = found.evidence.parent
    if passing is not None:
        result = result.replace(passing / "result")
        shutil.rmtree(passing / "consortium", ignore_errors=True)  # with the rows
    return Run(
        found.figures,
        job=folder,
        charter=found.charter,
        result=result,
        directory=place if passing is None else None,
        passing=passing,
    )


def _crowd(
    folder: JobFolder,
    datasets: Mapping[str, object],
    engine: str,
    lifetime_epsilon: str | float | None,
    callbacks: Iterable[Tracker | Callback],
    progress: bool,
) -> Run:
    import wardround_crowd

    with _bar(folder, progress) as bar, Callbacks(callbacks) as told:

        def watch(figures: Figures) -> None:
            bar.show(figures)
            told.update(figures)

        found = wardround_crowd.crowd(
            folder,
            datasets,
            engine=engine,
            lifetime_epsilon=None if lifetime_epsilon is None else f"{lifetime_epsilon}",
            watch=watch,
        )
    return Run(found.figures, job=folder, charter="", result=None, directory=None, crowd=found.parameters)


def _bar(folder: JobFolder, shown: bool) -> RunBar:
    return RunBar(folder.draft.name, _exchanges(folder.draft.evaluate, folder.draft.rounds), shown=shown)


def _passing() -> Path:
    """Make a folder for what is removed again: in memory where there is room: rounds wait for the disk."""
    try:
        roomy = shutil.disk_usage(MEMORY).free > ROOM and os.access(MEMORY, os.W_OK)
    except OSError:
        roomy = False
    return Path(tempfile.mkdtemp(prefix="wardround-simulate-", dir=MEMORY if roomy else None))


def _stopped(figures: Figures, folder: JobFolder, place: Path, passing: Path | None) -> Run:
    where = ", nothing is left on the disk" if passing else f", what there is stays in {place}"
    done = max(part.round for part in figures.parts)
    print(STOPPED.format(done=done, rounds=figures.rounds, where=where))  # noqa: T201 - who interrupts reads it
    return Run(figures, job=folder, charter="", result=None, directory=None if passing else place)


def _exchanges(evaluate: tuple[int, ...], rounds: int) -> int:
    return max((rounds, *evaluate))
